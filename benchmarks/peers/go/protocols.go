package main

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"io"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/protocol"
)

const (
	echoID  protocol.ID = "/echo/1.0.0"
	perfID  protocol.ID = "/perf/1.0.0"
	sinkID  protocol.ID = "/isthmus-test/sink/1.0.0"
	slowID  protocol.ID = "/isthmus-test/slow/1.0.0"
	resetID protocol.ID = "/isthmus-test/reset/1.0.0"
	oneID   protocol.ID = "/isthmus-test/one/1.0.0"
)

// The slow reader: how long it reads nothing, then how long it takes over a block.
const (
	slowStart = 300 * time.Millisecond
	slowTick  = 5 * time.Millisecond
)

// serve registers every handler; identify and ping are go-libp2p's own.
func serve(h host.Host) {
	handlers := map[protocol.ID]func(network.Stream) error{
		echoID:  serveEcho,
		perfID:  servePerf,
		sinkID:  serveSink,
		slowID:  serveSlow,
		resetID: serveReset,
		oneID:   serveOne,
	}
	for id, handle := range handlers {
		h.SetStreamHandler(id, func(stream network.Stream) {
			// The other side must never wait for an answer, so whoever fails resets.
			_ = together(stream, func() error { return handle(stream) })
		})
	}
}

func serveEcho(stream network.Stream) error {
	_, err := io.CopyBuffer(stream, stream, make([]byte, block))
	return err
}

// https://github.com/libp2p/specs/blob/master/perf/perf.md; go-libp2p has it no more.
func servePerf(stream network.Stream) error {
	var wanted [8]byte
	if _, err := io.ReadFull(stream, wanted[:]); err != nil {
		return err
	}
	if _, err := countToEnd(stream, nil); err != nil {
		return err
	}
	return writeZeros(stream, binary.BigEndian.Uint64(wanted[:]))
}

func serveSink(stream network.Stream) error {
	return digest(stream, 0)
}

func serveSlow(stream network.Stream) error {
	time.Sleep(slowStart)
	return digest(stream, slowTick)
}

// digest reads to the end, pauses after each block, and answers the count and the SHA-256.
func digest(stream network.Stream, tick time.Duration) error {
	hash, count, buffer := sha256.New(), uint64(0), make([]byte, block)
	for {
		size, err := stream.Read(buffer)
		hash.Write(buffer[:size])
		count += uint64(size)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		time.Sleep(tick)
	}
	_, err := stream.Write(hash.Sum(binary.BigEndian.AppendUint64(nil, count)))
	return err
}

func serveReset(stream network.Stream) error {
	if _, err := io.ReadFull(stream, make([]byte, 1)); err != nil {
		return err
	}
	return &peerError{"Requested", "this protocol resets"}
}

func serveOne(stream network.Stream) error {
	_, err := io.CopyN(stream, stream, 1)
	return err
}
