package main

// Reaching a peer by the help of a third: circuit relay v2, AutoNAT v2, DCUtR.

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/protocol/autonatv2"
	"github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/client"
	"github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/pb"
	relayv2 "github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/relay"
	"github.com/libp2p/go-libp2p/p2p/protocol/holepunch"
	"github.com/libp2p/go-libp2p/p2p/protocol/identify"
	ma "github.com/multiformats/go-multiaddr"
)

const (
	look = 20 * time.Millisecond
	// How long after a connection it may be told that it was punched.
	settling = 500 * time.Millisecond
	// A minute: the tests ask often, from one address.
	autonatRequests = 1 << 20
)

// reach is what the command line asked for, and what has come of it.
type reach struct {
	relay   *relayLimits
	autonat bool
	dcutr   bool
	private bool
	counts  relayCounts
	punches punches
	// Of the dials back, which go-libp2p makes under another identity.
	dialer host.Host
}

// relayLimits are those of the command line; what is not there is go-libp2p's default, and seconds
// or bytes of 0 mean no limit.
type relayLimits struct {
	Reservations, Circuits *int
	TTL, Seconds           *float64
	Bytes                  *int64
}

func (r *reach) limits(text string) error {
	reader := json.NewDecoder(bytes.NewBufferString(text))
	reader.DisallowUnknownFields()
	r.relay = &relayLimits{}
	return reader.Decode(r.relay)
}

func (r *reach) options() []libp2p.Option {
	if r.dcutr && !r.private {
		return []libp2p.Option{libp2p.EnableHolePunching(holepunch.WithTracer(&r.punches))}
	}
	return nil
}

// start runs what go-libp2p can only be told with a host in hand.
func (r *reach) start(h host.Host) error {
	var failed [3]error
	if r.relay != nil {
		_, failed[0] = relayv2.New(h, r.relayOptions()...)
	}
	if r.dcutr && r.private {
		failed[1] = r.punchAnywhere(h)
	}
	if r.autonat {
		if r.dialer, failed[2] = newHost(nil, tlsFiles{}, libp2p.NoListenAddrs); failed[2] == nil {
			_, failed[2] = r.newAutonat(h)
		}
	}
	return errors.Join(failed[:]...)
}

func (r *reach) relayOptions() []relayv2.Option {
	resources, limit := relayv2.DefaultResources(), relayv2.DefaultLimit()
	// All peers of a test have one address.
	resources.MaxReservationsPerIP = math.MaxInt32
	resources.MaxReservationsPerASN = math.MaxInt32
	given := r.relay
	if given.Reservations != nil {
		resources.MaxReservations = *given.Reservations
	}
	if given.Circuits != nil {
		resources.MaxCircuits = *given.Circuits
	}
	if given.TTL != nil {
		resources.ReservationTTL = duration(*given.TTL)
	}
	if given.Seconds != nil {
		limit.Duration = duration(*given.Seconds)
	}
	if given.Bytes != nil {
		limit.Data = *given.Bytes
	}
	resources.Limit = limit
	switch {
	case limit.Duration == 0 && limit.Data == 0:
		resources.Limit = nil
	case limit.Duration == 0:
		limit.Duration = math.MaxUint32 * time.Second
	case limit.Data == 0:
		limit.Data = math.MaxInt64
	}
	options := []relayv2.Option{relayv2.WithResources(resources), relayv2.WithMetricsTracer(&r.counts)}
	if r.private {
		all := func(ma.Multiaddr) bool { return true }
		options = append(options, relayv2.WithReservationAddressFilter(all))
	}
	return options
}

// punchAnywhere is EnableHolePunching for addresses that are not public.
func (r *reach) punchAnywhere(h host.Host) error {
	about, can := h.(interface{ IDService() identify.IDService })
	if !can {
		return errors.New("this host does not show its identify service")
	}
	addresses := func() []ma.Multiaddr { return ma.FilterAddrs(h.Addrs(), isDirect) }
	_, err := holepunch.NewService(h, about.IDService(), addresses, holepunch.WithTracer(&r.punches))
	return err
}

func (r *reach) newAutonat(h host.Host) (*autonatv2.AutoNAT, error) {
	rate := autonatv2.WithServerRateLimit(autonatRequests, autonatRequests, autonatRequests, autonatRequests)
	options := []autonatv2.AutoNATOption{rate}
	if r.private {
		options = append(options, autonatv2.AllowPrivateAddrs)
	}
	service, err := autonatv2.New(r.dialer, options...)
	if err != nil {
		return nil, err
	}
	return service, service.Start(h)
}

func (r *reach) commands() map[string]command {
	return map[string]command{
		"reserve":      {run: reserve},
		"reservations": {run: r.reservations},
		"connections":  {run: connections},
		"can_punch":    {run: r.canPunch},
		"upgraded":     {run: r.upgraded},
		"autonat":      {r.askAutonat, arguments{Seconds: 5}},
		"census":       {run: census},
	}
}

// reserve holds a reservation for as long as the connection stands; it is not renewed.
func reserve(h host.Host, given arguments) (result, error) {
	relay, err := peer.AddrInfoFromString(given.Address)
	if err != nil {
		return nil, err
	}
	if _, err := dial(h, *relay); err != nil {
		return nil, err
	}
	held, err := client.Reserve(context.Background(), h, *relay)
	if err != nil {
		return nil, err
	}
	told := held.Addrs
	if len(told) == 0 {
		if told, err = peer.AddrInfoToP2pAddrs(relay); err != nil {
			return nil, err
		}
	}
	circuit := ma.StringCast("/p2p-circuit/p2p/" + h.ID().String())
	through := make([]ma.Multiaddr, len(told))
	for index, address := range told {
		through[index] = address.Encapsulate(circuit)
	}
	var limit any
	if held.LimitDuration != 0 || held.LimitData != 0 {
		limit = result{"seconds": held.LimitDuration.Seconds(), "bytes": held.LimitData}
	}
	return result{
		"addresses": texts(through),
		"expires":   held.Expiration.Unix(),
		"limit":     limit,
	}, nil
}

// reservations counts them, as a relay; go-libp2p does not tell whose they are.
func (r *reach) reservations(host.Host, arguments) (result, error) {
	if r.relay == nil {
		return nil, &peerError{"NoRelay", "the program needs --relay"}
	}
	return result{
		"reservations": r.counts.reservations.Load(),
		"circuits":     r.counts.circuits.Load(),
		"peers":        nil,
	}, nil
}

func connections(h host.Host, given arguments) (result, error) {
	info, err := peer.AddrInfoFromString(given.Address)
	if err != nil {
		return nil, err
	}
	all := []result{}
	for _, conn := range h.Network().ConnsToPeer(info.ID) {
		all = append(all, described(conn))
	}
	return result{"connections": all}, nil
}

func described(conn network.Conn) result {
	return result{
		"address": conn.RemoteMultiaddr().String(),
		"dialled": conn.Stat().Direction == network.DirOutbound,
		"relayed": !isDirect(conn.RemoteMultiaddr()),
		"limited": conn.Stat().Limited,
	}
}

func isDirect(address ma.Multiaddr) bool {
	_, err := address.ValueForProtocol(ma.P_CIRCUIT)
	return err != nil
}

// canPunch waits until go-libp2p knows a public address of its own: only then it takes part, and only
// in circuits that come later.
func (r *reach) canPunch(h host.Host, _ arguments) (result, error) {
	if !r.dcutr {
		return nil, &peerError{"NoDcutr", "the program needs --dcutr"}
	}
	for !slices.Contains(h.Mux().Protocols(), holepunch.Protocol) {
		time.Sleep(look)
	}
	return result{"ready": true}, nil
}

// upgraded waits until there is a direct connection to the peer.
func (r *reach) upgraded(h host.Host, given arguments) (result, error) {
	info, err := peer.AddrInfoFromString(given.Address)
	if err != nil {
		return nil, err
	}
	for {
		for _, conn := range h.Network().ConnsToPeer(info.ID) {
			if isDirect(conn.RemoteMultiaddr()) {
				told := described(conn)
				told["how"] = orNull(r.how(info.ID, told))
				return told, nil
			}
		}
		time.Sleep(look)
	}
}

// how waits a moment for what is traced after a connection is there.
func (r *reach) how(remote peer.ID, told result) string {
	deadline := time.Now().Add(settling)
	for r.dcutr && told["dialled"] == true && time.Now().Before(deadline) {
		if how := r.punches.how(remote); how != "" {
			return how
		}
		time.Sleep(look)
	}
	return r.punches.how(remote)
}

// askAutonat makes one request, with all addresses; the server answers for the first that it dials.
func (r *reach) askAutonat(h host.Host, given arguments) (result, error) {
	if !r.autonat {
		return nil, &peerError{"NoAutonat", "the program needs --autonat"}
	}
	server, err := peer.AddrInfoFromString(given.Address)
	if err != nil {
		return nil, err
	}
	asked, err := given.addressesOr(h.Network().ListenAddresses())
	if err != nil {
		return nil, err
	}
	// A service asks one server every two minutes, and knows those that have connected since it is there.
	if err := h.Network().ClosePeer(server.ID); err != nil {
		return nil, err
	}
	service, err := r.newAutonat(h)
	if err != nil {
		return nil, err
	}
	if _, err := dial(h, *server); err != nil {
		return nil, err
	}
	ctx, stop := context.WithTimeout(context.Background(), duration(given.Seconds))
	defer stop()
	told, err := reachability(ctx, service, asked)
	verdicts := make([]result, len(asked))
	for index, address := range asked {
		verdicts[index] = result{"address": address.String(), "reachable": nil, "why": why(told, err)}
		if err == nil && !told.AllAddrsRefused && told.Idx == index {
			verdicts[index]["reachable"] = told.Reachability == network.ReachabilityPublic
			verdicts[index]["why"] = told.Reachability.String()
		}
	}
	return result{"verdicts": verdicts}, nil
}

// reachability waits for identify to tell that the server is one.
func reachability(
	ctx context.Context, service *autonatv2.AutoNAT, asked []ma.Multiaddr,
) (autonatv2.Result, error) {
	var requests []autonatv2.Request
	for _, address := range asked {
		requests = append(requests, autonatv2.Request{Addr: address, SendDialData: true})
	}
	for {
		told, err := service.GetReachability(ctx, requests)
		if !errors.Is(err, autonatv2.ErrNoPeers) || ctx.Err() != nil {
			return told, err
		}
		time.Sleep(look)
	}
}

func why(told autonatv2.Result, err error) string {
	switch {
	case err != nil:
		return err.Error()
	case told.AllAddrsRefused:
		return "refused"
	default:
		return "not dialled"
	}
}

// addressesOr parses those given, if any are.
func (given arguments) addressesOr(otherwise []ma.Multiaddr) ([]ma.Multiaddr, error) {
	if given.Addresses == nil {
		return ma.FilterAddrs(otherwise, isDirect), nil
	}
	var all []ma.Multiaddr
	for _, text := range given.Addresses {
		address, err := ma.NewMultiaddr(text)
		if err != nil {
			return nil, err
		}
		all = append(all, address)
	}
	return all, nil
}

// census tells what this process holds; Linux only.
func census(host.Host, arguments) (result, error) {
	text, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return nil, err
	}
	var size, resident int
	if _, err := fmt.Sscan(string(text), &size, &resident); err != nil {
		return nil, err
	}
	return result{"rss": resident * os.Getpagesize()}, nil
}

// relayCounts is told by go-libp2p's relay.
type relayCounts struct{ reservations, circuits atomic.Int64 }

func (*relayCounts) RelayStatus(bool)                    {}
func (c *relayCounts) ConnectionOpened()                 { c.circuits.Add(1) }
func (c *relayCounts) ConnectionClosed(time.Duration)    { c.circuits.Add(-1) }
func (*relayCounts) ConnectionRequestHandled(pb.Status)  {}
func (*relayCounts) ReservationRequestHandled(pb.Status) {}
func (*relayCounts) BytesTransferred(int)                {}
func (c *relayCounts) ReservationClosed(count int)       { c.reservations.Add(-int64(count)) }

func (c *relayCounts) ReservationAllowed(isRenewal bool) {
	if !isRenewal {
		c.reservations.Add(1)
	}
}

// punches remembers how a direct connection was made: by a dial, which is a reversal, or a punch.
type punches struct {
	lock sync.Mutex
	made map[peer.ID]string
}

// Trace is told by go-libp2p's hole punching.
func (p *punches) Trace(event *holepunch.Event) {
	how := ""
	switch what := event.Evt.(type) {
	case *holepunch.DirectDialEvt:
		if what.Success {
			how = "reversal"
		}
	case *holepunch.EndHolePunchEvt:
		if what.Success {
			how = "punch"
		}
	}
	if how == "" {
		return
	}
	p.lock.Lock()
	defer p.lock.Unlock()
	if p.made == nil {
		p.made = make(map[peer.ID]string)
	}
	p.made[event.Remote] = how
}

func (p *punches) how(remote peer.ID) string {
	p.lock.Lock()
	defer p.lock.Unlock()
	return p.made[remote]
}
