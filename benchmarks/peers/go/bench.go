package main

// What the benchmarks ask for. Times are taken in this process, on the monotonic clock.

import (
	"bytes"
	"errors"
	"io"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"golang.org/x/sync/errgroup"
)

const (
	warmUpEchoes = 50
	// How long the saturating stream runs before echoes count.
	ramp = 200 * time.Millisecond
)

// throughput uses one or several streams of perf; "up" ends when the answer to the last byte has come.
func throughput(h host.Host, given arguments) (result, error) {
	conn, err := connectionTo(h, given.Address)
	if err != nil {
		return nil, err
	}
	each := uint64(given.Bytes) / uint64(given.Streams)
	up, down := each, uint64(0)
	if given.Direction != "up" {
		up, down = 0, each
	}
	all := make([]network.Stream, given.Streams)
	for index := range all {
		if all[index], err = open(h, conn, perfID); err != nil {
			return nil, err
		}
	}
	var work errgroup.Group
	start := time.Now()
	for _, stream := range all {
		work.Go(func() error {
			_, _, err := perfClient(stream, up, down)
			return err
		})
	}
	err = work.Wait()
	seconds := time.Since(start).Seconds()
	rate := float64(each) * float64(given.Streams) / 1e6 / seconds
	return result{"mb_s": round(rate), "seconds": round(seconds)}, err
}

// echoes takes samples on an open echo stream, in microseconds.
type echoes struct {
	stream        network.Stream
	payload, back []byte
}

func newEchoes(stream network.Stream, size int) *echoes {
	return &echoes{stream, bytes.Repeat([]byte{7}, size), make([]byte, size)}
}

// once sends a payload and waits for all of it.
func (e *echoes) once() (float64, error) {
	start := time.Now()
	if _, err := e.stream.Write(e.payload); err != nil {
		return 0, err
	}
	_, err := io.ReadFull(e.stream, e.back)
	return float64(time.Since(start).Nanoseconds()) / 1e3, err
}

func (e *echoes) many(count int) ([]float64, error) {
	samples := make([]float64, 0, count)
	for len(samples) < count {
		sample, err := e.once()
		if err != nil {
			return nil, err
		}
		samples = append(samples, sample)
	}
	return samples, nil
}

// until takes samples up to the deadline, interval apart or at once.
func (e *echoes) until(deadline time.Time, interval time.Duration) ([]float64, error) {
	var samples []float64
	due := time.Now()
	for time.Now().Before(deadline) {
		sample, err := e.once()
		if err != nil {
			return nil, err
		}
		samples = append(samples, sample)
		due = due.Add(interval)
		time.Sleep(time.Until(due))
	}
	return samples, nil
}

func echoLatency(h host.Host, given arguments) (result, error) {
	stream, err := opened(h, given.Address, echoID)
	if err != nil {
		return nil, err
	}
	var samples []float64
	err = together(stream, func() (err error) {
		echo := newEchoes(stream, given.Size)
		if _, err = echo.many(min(warmUpEchoes, given.Count)); err == nil {
			samples, err = echo.many(given.Count)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	figures, err := summary(samples)
	return result{
		"p50_us":     figures["p50"],
		"p99_us":     figures["p99"],
		"samples_us": figures,
		"count":      given.Count,
	}, err
}

// streamRate opens a stream, sends a byte, receives a byte, closes it; one after the other.
func streamRate(h host.Host, given arguments) (result, error) {
	conn, err := connectionTo(h, given.Address)
	if err != nil {
		return nil, err
	}
	there, back := []byte{1}, make([]byte, 1)
	start := time.Now()
	for range given.Count {
		stream, err := open(h, conn, oneID)
		if err != nil {
			return nil, err
		}
		if _, err := stream.Write(there); err != nil {
			return nil, err
		}
		if _, err := io.ReadFull(stream, back); err != nil {
			return nil, err
		}
		if err := stream.Close(); err != nil {
			return nil, err
		}
	}
	return rateOf(given.Count, start), nil
}

// dialRate makes fresh connections, one after the other; identify starts on each by itself and is
// not waited for, as with the other peers.
func dialRate(h host.Host, given arguments) (result, error) {
	info, err := peer.AddrInfoFromString(given.Address)
	if err != nil {
		return nil, err
	}
	// Whatever stands would be returned instead of dialled.
	if err := h.Network().ClosePeer(info.ID); err != nil {
		return nil, err
	}
	start := time.Now()
	for range given.Count {
		asked := time.Now()
		conn, err := dial(h, *info)
		if err != nil {
			return nil, err
		}
		if conn.Stat().Opened.Before(asked) {
			return nil, &peerError{"NotFresh", "there was a connection already"}
		}
		if err := conn.Close(); err != nil {
			return nil, err
		}
	}
	return rateOf(given.Count, start), nil
}

func duration(seconds float64) time.Duration {
	return time.Duration(seconds * float64(time.Second))
}

func rateOf(count int, start time.Time) result {
	seconds := time.Since(start).Seconds()
	return result{"per_second": round(float64(count) / seconds), "seconds": round(seconds)}
}

// saturate uploads as fast as the stream takes it until the deadline; the MB/s count to the peer's
// answer.
func saturate(h host.Host, conn network.Conn, id protocol.ID, deadline time.Time) (float64, error) {
	stream, err := open(h, conn, id)
	if err != nil {
		return 0, err
	}
	zeros, sent, start := make([]byte, block), 0, time.Now()
	err = together(stream, func() error {
		// The first eight zero bytes are perf's "send nothing back".
		for time.Now().Before(deadline) {
			if _, err := stream.Write(zeros); err != nil {
				return err
			}
			sent += block
		}
		if err := stream.CloseWrite(); err != nil {
			return err
		}
		_, err := countToEnd(stream, nil)
		return err
	})
	return float64(sent) / 1e6 / time.Since(start).Seconds(), err
}

// beside takes echoes on an idle connection, then beside a saturating upload.
func beside(h host.Host, given arguments) (result, error) {
	conn, err := connectionTo(h, given.Address)
	if err != nil {
		return nil, err
	}
	stream, err := open(h, conn, echoID)
	if err != nil {
		return nil, err
	}
	bulk := perfID
	if given.Bulk == "slow" {
		bulk = slowID
	}
	span, interval := duration(given.Seconds), duration(given.Interval)
	var idle, busy []float64
	var alone, loaded float64
	err = together(stream, func() (err error) {
		echo := newEchoes(stream, given.Size)
		if _, err = echo.many(warmUpEchoes); err != nil {
			return err
		}
		if idle, err = echo.until(time.Now().Add(span), interval); err != nil {
			return err
		}
		if alone, err = saturate(h, conn, bulk, time.Now().Add(span)); err != nil {
			return err
		}
		var upload errgroup.Group
		deadline := time.Now().Add(ramp + span)
		upload.Go(func() (err error) {
			loaded, err = saturate(h, conn, bulk, deadline)
			return err
		})
		time.Sleep(ramp)
		busy, err = echo.until(deadline, interval)
		return errors.Join(err, upload.Wait())
	})
	if err != nil {
		return nil, err
	}
	quiet, err := summary(idle)
	if err != nil {
		return nil, err
	}
	noisy, err := summary(busy)
	return result{
		"idle_p50_us":     quiet["p50"],
		"idle_p99_us":     quiet["p99"],
		"p50_us":          noisy["p50"],
		"p99_us":          noisy["p99"],
		"bulk_mb_s":       round(loaded),
		"bulk_alone_mb_s": round(alone),
		"samples":         len(busy),
	}, err
}
