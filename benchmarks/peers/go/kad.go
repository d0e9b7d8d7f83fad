package main

// A server of the Kademlia DHT, and what it does as a client.

import (
	"context"
	"time"

	dht "github.com/libp2p/go-libp2p-kad-dht"
	"github.com/libp2p/go-libp2p/core/discovery"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/libp2p/go-libp2p/p2p/discovery/routing"
)

// directory is the DHT of the command line; protocol is empty if it asked for none.
type directory struct {
	protocol string
	dht      *dht.IpfsDHT
}

// start serves; nobody is dialled before a command says so.
func (d *directory) start(h host.Host) error {
	if d.protocol == "" {
		return nil
	}
	var err error
	d.dht, err = dht.New(h,
		dht.Mode(dht.ModeServer),
		dht.V1ProtocolOverride(protocol.ID(d.protocol)),
		dht.DisableAutoRefresh(),
	)
	return err
}

func (d *directory) commands() map[string]command {
	if d.dht == nil {
		return nil
	}
	return map[string]command{
		"join":    {run: d.join},
		"known":   {run: d.known},
		"provide": {run: d.provide},
		"find":    {run: d.find, defaults: arguments{Count: 20}},
	}
}

// join connects to a server and waits until the routing table has it.
func (d *directory) join(h host.Host, given arguments) (result, error) {
	conn, err := connectionTo(h, given.Address)
	if err != nil {
		return nil, err
	}
	for d.dht.RoutingTable().Find(conn.RemotePeer()) == "" {
		time.Sleep(look)
	}
	return result{"peer_id": conn.RemotePeer().String()}, nil
}

// known tells who is in the routing table.
func (d *directory) known(host.Host, arguments) (result, error) {
	peers := []string{}
	for _, each := range d.dht.RoutingTable().ListPeers() {
		peers = append(peers, each.String())
	}
	return result{"peers": peers}, nil
}

func (d *directory) provide(_ host.Host, given arguments) (result, error) {
	ttl, err := routing.NewRoutingDiscovery(d.dht).Advertise(context.Background(), given.Service)
	return result{"seconds": ttl.Seconds()}, err
}

func (d *directory) find(_ host.Host, given arguments) (result, error) {
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	found, err := routing.NewRoutingDiscovery(d.dht).FindPeers(
		ctx, given.Service, discovery.Limit(given.Count))
	if err != nil {
		return nil, err
	}
	peers := []any{}
	for each := range found {
		peers = append(peers, result{"peer_id": each.ID.String(), "addresses": texts(each.Addrs)})
	}
	return result{"peers": peers}, nil
}
