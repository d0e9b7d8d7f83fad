package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"iter"
	"math"
	"math/rand/v2"
	"slices"
	"strconv"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/peerstore"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"
	ma "github.com/multiformats/go-multiaddr"
	"golang.org/x/sync/errgroup"
)

const (
	// Bytes per read and write, as with the other peers.
	block    = 64 << 10
	maxChunk = 96 << 10
)

// connectionTo returns the connection that stands, or dials the address.
func connectionTo(h host.Host, address string) (network.Conn, error) {
	info, err := peer.AddrInfoFromString(address)
	if err != nil {
		return nil, err
	}
	return dial(h, *info)
}

// dial tries the addresses given, now: by itself go-libp2p dials every address that it has heard of,
// and for seconds after a failure none.
func dial(h host.Host, info peer.AddrInfo) (network.Conn, error) {
	book := h.Peerstore()
	book.AddAddrs(info.ID, info.Addrs, peerstore.TempAddrTTL)
	for _, known := range book.Addrs(info.ID) {
		if !ma.Contains(info.Addrs, known) {
			book.SetAddr(info.ID, known, 0)
		}
	}
	if dialer, ok := h.Network().(*swarm.Swarm); ok {
		dialer.Backoff().Clear(info.ID)
	}
	return h.Network().DialPeer(context.Background(), info.ID)
}

// open takes a connection with limits, too, which go-libp2p does only if asked.
func open(h host.Host, conn network.Conn, id protocol.ID) (network.Stream, error) {
	ctx := network.WithAllowLimitedConn(context.Background(), "asked for")
	return h.NewStream(ctx, conn.RemotePeer(), id)
}

// opened is connectionTo and open.
func opened(h host.Host, address string, id protocol.ID) (network.Stream, error) {
	conn, err := connectionTo(h, address)
	if err != nil {
		return nil, err
	}
	return open(h, conn, id)
}

// together does all that a stream is for, then closes it; the first failure resets it, which ends
// the rest.
func together(stream network.Stream, halves ...func() error) error {
	var work errgroup.Group
	for _, half := range halves {
		work.Go(func() error {
			err := half()
			if err != nil {
				_ = stream.Reset()
			}
			return err
		})
	}
	if err := work.Wait(); err != nil {
		return err
	}
	return stream.Close()
}

// chunks yields deterministic bytes in chunks of random size; a chunk is valid until the next.
func chunks(total, seed int64) iter.Seq[[]byte] {
	source := rand.NewChaCha8(sha256.Sum256(strconv.AppendInt(nil, seed, 10)))
	draw := rand.New(source)
	buffer := make([]byte, maxChunk)
	return func(yield func([]byte) bool) {
		for left := total; left > 0; {
			// Half of the chunks are small: frames of a few bytes are a case of their own.
			most := int64(1500)
			if draw.IntN(2) == 0 {
				most = maxChunk
			}
			chunk := buffer[:min(left, 1+draw.Int64N(most))]
			source.Read(chunk)
			left -= int64(len(chunk))
			if !yield(chunk) {
				return
			}
		}
	}
}

// sendChunks writes and hashes, then half-closes.
func sendChunks(stream network.Stream, sum hash.Hash, total, seed int64) error {
	for chunk := range chunks(total, seed) {
		sum.Write(chunk)
		if _, err := stream.Write(chunk); err != nil {
			return err
		}
	}
	return stream.CloseWrite()
}

// writeZeros sends count zero bytes in blocks.
func writeZeros(stream io.Writer, count uint64) error {
	zeros := make([]byte, block)
	for count > 0 {
		size := min(count, block)
		if _, err := stream.Write(zeros[:size]); err != nil {
			return err
		}
		count -= size
	}
	return nil
}

// countToEnd counts without keeping; first, if there is one, is called when the first bytes come.
func countToEnd(stream io.Reader, first func()) (uint64, error) {
	count, buffer := uint64(0), make([]byte, block)
	for {
		size, err := stream.Read(buffer)
		if count == 0 && size > 0 && first != nil {
			first()
		}
		count += uint64(size)
		if errors.Is(err, io.EOF) {
			return count, nil
		}
		if err != nil {
			return count, err
		}
	}
}

// everything reads to the end of the stream, at most limit bytes.
func everything(stream io.Reader, limit int64) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(stream, limit+1))
	if err == nil && int64(len(data)) > limit {
		err = &peerError{"TooLong", fmt.Sprintf("more than %d bytes", limit)}
	}
	return data, err
}

// summary has the percentiles of microseconds.
func summary(samples []float64) (map[string]float64, error) {
	if len(samples) == 0 {
		return nil, &peerError{"NoSamples", "not one echo came back in time"}
	}
	ordered := slices.Sorted(slices.Values(samples))
	at := func(share float64) float64 {
		return round(ordered[min(len(ordered)-1, int(float64(len(ordered))*share))])
	}
	return map[string]float64{
		"min": at(0), "p50": at(0.5), "p90": at(0.9), "p99": at(0.99), "max": at(1),
	}, nil
}

func round(value float64) float64 {
	return math.Round(value*1000) / 1000
}

func texts(addresses []ma.Multiaddr) []string {
	all := make([]string, len(addresses))
	for index, address := range addresses {
		all[index] = address.String()
	}
	return all
}
