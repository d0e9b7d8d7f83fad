package main

import (
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/record"
	"github.com/libp2p/go-libp2p/p2p/protocol/identify"
	"github.com/libp2p/go-libp2p/p2p/protocol/identify/pb"
	"github.com/libp2p/go-msgio/pbio"
	ma "github.com/multiformats/go-multiaddr"
	"google.golang.org/protobuf/proto"
)

// What go-libp2p itself accepts: parts of one answer, and bytes of a part.
const (
	maxIdentifyParts = 10
	maxIdentifyPart  = 8 << 10
)

// identifyCommand asks anew, since go-libp2p asks once a connection and does not keep all of it; and
// checks that go-libp2p, which asked first, understood the peer too.
func identifyCommand(h host.Host, given arguments) (result, error) {
	conn, err := connectionTo(h, given.Address)
	if err != nil {
		return nil, err
	}
	stream, err := open(h, conn, identify.ID)
	if err != nil {
		return nil, err
	}
	var told *pb.Identify
	err = together(stream, func() (err error) {
		told, err = readIdentify(stream)
		return err
	})
	if err != nil {
		return nil, err
	}
	id, err := verified(told)
	if err != nil {
		return nil, err
	}
	if _, err := h.Peerstore().Get(id, "AgentVersion"); err != nil {
		text := fmt.Sprintf("go-libp2p itself could not identify %s: %v", id, err)
		return nil, &peerError{"NotIdentified", text}
	}
	return result{
		"agent":            orNull(told.GetAgentVersion()),
		"protocol_version": orNull(told.GetProtocolVersion()),
		"protocols":        append([]string{}, told.Protocols...),
		"listen_addresses": texts(parsed(told.ListenAddrs...)),
		"observed_address": orNull(texts(parsed(told.ObservedAddr))...),
		"peer_id":          id.String(),
	}, nil
}

// readIdentify merges the parts of the answer, which its end completes.
func readIdentify(stream network.Stream) (*pb.Identify, error) {
	if err := stream.SetDeadline(time.Now().Add(identify.DefaultTimeout)); err != nil {
		return nil, err
	}
	reader, whole := pbio.NewDelimitedReader(stream, maxIdentifyPart), &pb.Identify{}
	for range maxIdentifyParts {
		part := &pb.Identify{}
		if err := reader.ReadMsg(part); errors.Is(err, io.EOF) {
			return whole, nil
		} else if err != nil {
			return nil, err
		}
		proto.Merge(whole, part)
	}
	return nil, &peerError{"TooLong", "too many parts"}
}

// verified returns the peer of the public key; a signed record, if there is one, has to be its own.
func verified(told *pb.Identify) (peer.ID, error) {
	key, err := crypto.UnmarshalPublicKey(told.PublicKey)
	if err != nil {
		return "", err
	}
	id, err := peer.IDFromPublicKey(key)
	if err != nil || told.SignedPeerRecord == nil {
		return id, err
	}
	signed := &peer.PeerRecord{}
	envelope, err := record.ConsumeTypedEnvelope(told.SignedPeerRecord, signed)
	if err != nil {
		return "", fmt.Errorf("the signed peer record: %w", err)
	}
	if signed.PeerID != id || !envelope.PublicKey.Equals(key) {
		return "", &peerError{"WrongRecord", "the signed peer record is of another peer"}
	}
	return id, nil
}

// parsed leaves out what go-libp2p cannot read, as it does itself.
func parsed(addresses ...[]byte) []ma.Multiaddr {
	all := []ma.Multiaddr{}
	for _, data := range addresses {
		if address, err := ma.NewMultiaddrBytes(data); err == nil {
			all = append(all, address)
		}
	}
	return all
}

// orNull is the first text that is not empty, or null in JSON.
func orNull(choices ...string) *string {
	for _, text := range choices {
		if text != "" {
			return &text
		}
	}
	return nil
}
