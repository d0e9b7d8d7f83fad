package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/libp2p/go-libp2p/p2p/protocol/ping"
	"golang.org/x/sync/errgroup"
)

const (
	mib           = 1 << 20
	streamPayload = 1024
	// Streams of one "streams" command that are opened at a time: more would only wait for each other.
	openingAtOnce = 100
)

// arguments are those of all commands together; a command has defaults for the ones it knows.
type arguments struct {
	Address   string
	Addresses []string
	Bulk      string
	Bytes     int64
	Count     int
	Direction string
	Download  uint64
	Interval  float64
	Seconds   float64
	Seed      int64
	Service   string
	Size      int
	Streams   int
	Upload    uint64
}

type result map[string]any

type command struct {
	run      func(host.Host, arguments) (result, error)
	defaults arguments
}

var commands = map[string]command{
	"connect":      {run: connect},
	"disconnect":   {run: disconnect},
	"identify":     {run: identifyCommand},
	"ping":         {pingCommand, arguments{Count: 1}},
	"echo":         {echo, arguments{Bytes: mib, Seed: 1}},
	"half_close":   {uploadTo(sinkID), arguments{Bytes: mib, Seed: 1}},
	"slow":         {uploadTo(slowID), arguments{Bytes: mib, Seed: 1}},
	"reset_remote": {run: resetRemote},
	"reset_local":  {run: resetLocal},
	"streams":      {streams, arguments{Count: 500}},
	// A dial that has to fail: the address names a peer that does not live there.
	"wrong_peer":       {run: connect},
	"perf":             {perf, arguments{Upload: mib, Download: mib}},
	"bench_throughput": {throughput, arguments{Direction: "up", Bytes: 256e6, Streams: 1}},
	"bench_echo":       {echoLatency, arguments{Count: 2000, Size: 32}},
	"bench_streams":    {streamRate, arguments{Count: 500}},
	"bench_dials":      {dialRate, arguments{Count: 50}},
	"bench_beside":     {beside, arguments{Seconds: 3, Bulk: "perf", Size: 32}},
}

func connect(h host.Host, given arguments) (result, error) {
	start := time.Now()
	conn, err := connectionTo(h, given.Address)
	if err != nil {
		return nil, err
	}
	ms := time.Since(start).Seconds() * 1e3
	return result{"peer_id": conn.RemotePeer().String(), "ms": round(ms)}, nil
}

func disconnect(h host.Host, given arguments) (result, error) {
	info, err := peer.AddrInfoFromString(given.Address)
	if err != nil {
		return nil, err
	}
	count := len(h.Network().ConnsToPeer(info.ID))
	return result{"closed": count}, h.Network().ClosePeer(info.ID)
}

// pingCommand uses go-libp2p's own client: all pings on one stream.
func pingCommand(h host.Host, given arguments) (result, error) {
	conn, err := connectionTo(h, given.Address)
	if err != nil {
		return nil, err
	}
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	pings := ping.Ping(ctx, h, conn.RemotePeer())
	rtts := make([]float64, 0, given.Count)
	for len(rtts) < given.Count {
		told := <-pings
		if told.Error != nil {
			return nil, told.Error
		}
		rtts = append(rtts, round(told.RTT.Seconds()*1e3))
	}
	return result{"rtt_ms": rtts}, nil
}

func echo(h host.Host, given arguments) (result, error) {
	conn, err := connectionTo(h, given.Address)
	if err != nil {
		return nil, err
	}
	return echoOn(h, conn, given.Bytes, given.Seed)
}

// echoOn sends while receiving, half-closes, compares.
func echoOn(h host.Host, conn network.Conn, total, seed int64) (result, error) {
	stream, err := open(h, conn, echoID)
	if err != nil {
		return nil, err
	}
	sent, received, count := sha256.New(), sha256.New(), int64(0)
	err = together(stream,
		func() error { return sendChunks(stream, sent, total, seed) },
		func() (err error) {
			count, err = io.Copy(received, stream)
			return err
		})
	if err != nil {
		return nil, err
	}
	sum := received.Sum(nil)
	if count != total || !bytes.Equal(sum, sent.Sum(nil)) {
		text := fmt.Sprintf("sent %d bytes, received %d, digest %x", total, count, sum)
		return nil, &peerError{"Mismatch", text}
	}
	return result{"bytes": count, "sha256": hex.EncodeToString(sum)}, nil
}

// uploadTo sends to a protocol that answers, after the end, what it has read.
func uploadTo(id protocol.ID) func(host.Host, arguments) (result, error) {
	return func(h host.Host, given arguments) (result, error) {
		stream, err := opened(h, given.Address, id)
		if err != nil {
			return nil, err
		}
		sent, reply := sha256.New(), []byte(nil)
		err = together(stream, func() (err error) {
			if err = sendChunks(stream, sent, given.Bytes, given.Seed); err == nil {
				reply, err = everything(stream, 8+sha256.Size)
			}
			return err
		})
		if err != nil {
			return nil, err
		}
		sum := sent.Sum(nil)
		if !bytes.Equal(reply, append(binary.BigEndian.AppendUint64(nil, uint64(given.Bytes)), sum...)) {
			text := fmt.Sprintf("sent %d bytes (%x), the peer answered %x", given.Bytes, sum, reply)
			return nil, &peerError{"Mismatch", text}
		}
		return result{"bytes": given.Bytes, "sha256": hex.EncodeToString(sum), "matches": true}, nil
	}
}

func resetRemote(h host.Host, given arguments) (result, error) {
	stream, err := opened(h, given.Address, resetID)
	if err != nil {
		return nil, err
	}
	err = together(stream, func() error {
		if _, err := stream.Write([]byte{0}); err != nil {
			return err
		}
		_, err := everything(stream, 1<<16)
		return err
	})
	// The end of the connection looks like a reset of its streams.
	if errors.Is(err, network.ErrReset) && !stream.Conn().IsClosed() {
		return result{"reset": true, "kind": kindOf(err)}, nil
	}
	if err == nil {
		err = &peerError{"NoReset", "the stream ended, but was not reset"}
	}
	return nil, err
}

// resetLocal resets a stream in use; the connection has to survive it.
func resetLocal(h host.Host, given arguments) (result, error) {
	conn, err := connectionTo(h, given.Address)
	if err != nil {
		return nil, err
	}
	stream, err := open(h, conn, echoID)
	if err != nil {
		return nil, err
	}
	if _, err := stream.Write(make([]byte, streamPayload)); err != nil {
		return nil, err
	}
	if err := stream.Reset(); err != nil {
		return nil, err
	}
	after, err := echoOn(h, conn, streamPayload, 2)
	if err != nil {
		return nil, err
	}
	if conn.IsClosed() {
		return nil, &peerError{"Reconnected", "the connection did not survive the reset of a stream"}
	}
	return result{"ok": true, "bytes": after["bytes"]}, nil
}

// streams has many streams open at once, then uses each.
func streams(h host.Host, given arguments) (result, error) {
	conn, err := connectionTo(h, given.Address)
	if err != nil {
		return nil, err
	}
	all := make([]network.Stream, given.Count)
	var opening, using errgroup.Group
	opening.SetLimit(openingAtOnce)
	for index := range all {
		opening.Go(func() (err error) {
			if all[index], err = open(h, conn, echoID); err == nil {
				// The name of the protocol goes out with the first write, so write nothing.
				_, err = all[index].Write(nil)
			}
			return err
		})
	}
	if err := opening.Wait(); err != nil {
		for _, stream := range all {
			if stream != nil {
				_ = stream.Reset()
			}
		}
		return nil, err
	}
	var echoed atomic.Int64
	for index, stream := range all {
		using.Go(func() error {
			payload := bytes.Repeat([]byte{byte(index)}, streamPayload)
			back := make([]byte, streamPayload)
			err := together(stream, func() error {
				if _, err := stream.Write(payload); err != nil {
					return err
				}
				_, err := io.ReadFull(stream, back)
				return err
			})
			if bytes.Equal(back, payload) {
				echoed.Add(1)
			}
			return err
		})
	}
	if err := using.Wait(); err != nil {
		return nil, err
	}
	return result{"opened": len(all), "echoed": echoed.Load()}, nil
}

func perf(h host.Host, given arguments) (result, error) {
	stream, err := opened(h, given.Address, perfID)
	if err != nil {
		return nil, err
	}
	uploaded, downloaded, err := perfClient(stream, given.Upload, given.Download)
	if err != nil {
		return nil, err
	}
	rate := 0.0
	if given.Download > 0 {
		rate = float64(given.Download) / 1e6 / downloaded
	}
	return result{
		"upload_mb_s":      round(float64(given.Upload) / 1e6 / uploaded),
		"download_mb_s":    round(rate),
		"upload_seconds":   round(uploaded),
		"download_seconds": round(downloaded),
		"seconds":          round(uploaded + downloaded),
	}, nil
}

// perfClient is the client of perf; it returns the seconds of both halves.
func perfClient(stream network.Stream, up, down uint64) (uploaded, downloaded float64, err error) {
	start := time.Now()
	// The server answers once it has all of the upload, so the first byte back ends it.
	first := func() { uploaded = time.Since(start).Seconds() }
	err = together(stream, func() error {
		if _, err := stream.Write(binary.BigEndian.AppendUint64(nil, down)); err != nil {
			return err
		}
		if err := writeZeros(stream, up); err != nil {
			return err
		}
		if err := stream.CloseWrite(); err != nil {
			return err
		}
		received, err := countToEnd(stream, first)
		if err == nil && received != down {
			text := fmt.Sprintf("asked for %d bytes, received %d", down, received)
			err = &peerError{"Mismatch", text}
		}
		return err
	})
	seconds := time.Since(start).Seconds()
	if uploaded == 0 {
		uploaded = seconds
	}
	return uploaded, max(seconds-uploaded, 1e-9), err
}
