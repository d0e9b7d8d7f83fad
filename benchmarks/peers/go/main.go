// A go-libp2p peer that takes commands: one JSON object a line on stdin, one answer a line on stdout.
//
//	peer [--listen MULTIADDR]... [--tls-cert FILE --tls-key FILE] [--tls-ca FILE]
//	  [--relay LIMITS] [--autonat] [--dcutr] [--private] [--kad PROTOCOL]
package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
)

const (
	defaultListen = "/ip4/127.0.0.1/tcp/0"
	// A longer line is no command of ours.
	maxLine = 1 << 20
	// How long the host may take to close its connections once stdin has ended.
	stopGrace = time.Second
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run() error {
	var listen []string
	flag.Func("listen", "`multiaddr` to listen on; may be given several times", func(text string) error {
		listen = append(listen, text)
		return nil
	})
	var files tlsFiles
	flag.StringVar(&files.cert, "tls-cert", "", "`file` of the certificate shown at /tls/ws")
	flag.StringVar(&files.key, "tls-key", "", "`file` of its key")
	flag.StringVar(&files.ca, "tls-ca", "", "`file` of an authority to trust when dialling /tls/ws")
	var help reach
	flag.Func("relay", "serve as a relay with these `limits`, JSON", help.limits)
	flag.BoolVar(&help.autonat, "autonat", false, "serve and ask AutoNAT v2")
	flag.BoolVar(&help.dcutr, "dcutr", false, "punch holes")
	flag.BoolVar(&help.private, "private", false, "take private addresses for public ones, where these three ask")
	var book directory
	flag.StringVar(&book.protocol, "kad", "", "serve the Kademlia DHT that speaks this `protocol`")
	flag.Parse()
	if len(listen) == 0 {
		listen = []string{defaultListen}
	}
	h, err := newHost(listen, files, help.options()...)
	if err != nil {
		return err
	}
	serve(h)
	if err := help.start(h); err != nil {
		return err
	}
	if err := book.start(h); err != nil {
		return err
	}
	maps.Copy(commands, help.commands())
	maps.Copy(commands, book.commands())
	if err := announce(h); err != nil {
		return err
	}
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, maxLine)
	for lines.Scan() {
		go answer(h, []byte(lines.Text()))
	}
	time.AfterFunc(stopGrace, func() { os.Exit(0) })
	return errors.Join(lines.Err(), h.Close())
}

func announce(h host.Host) error {
	addresses, err := peer.AddrInfoToP2pAddrs(host.InfoFromHost(h))
	if err != nil {
		return err
	}
	return say(map[string]any{
		"event":     "listening",
		"peer_id":   h.ID().String(),
		"addresses": texts(addresses),
		"version":   "go-libp2p " + version(),
	})
}

func answer(h host.Host, line []byte) {
	var request struct {
		ID json.RawMessage
		Do string
	}
	result, err := result(nil), json.Unmarshal(line, &request)
	if err == nil {
		result, err = perform(h, request.Do, line)
	}
	if err == nil {
		err = say(map[string]any{"id": request.ID, "ok": true, "result": result})
	}
	if err != nil {
		say(map[string]any{"id": request.ID, "ok": false, "error": err.Error(), "kind": kindOf(err)})
	}
}

func perform(h host.Host, name string, line []byte) (result, error) {
	wanted, known := commands[name]
	if !known {
		return nil, &peerError{"UnknownCommand", "no command " + name}
	}
	given := wanted.defaults
	if err := json.Unmarshal(line, &given); err != nil {
		return nil, err
	}
	return wanted.run(h, given)
}

var stdout sync.Mutex

func say(message map[string]any) error {
	line, err := json.Marshal(message)
	if err != nil {
		return err
	}
	stdout.Lock()
	defer stdout.Unlock()
	_, err = os.Stdout.Write(append(line, '\n'))
	return err
}

// peerError is a check that failed on this side; kind says which.
type peerError struct{ kind, text string }

func (e *peerError) Error() string { return e.text }

// kindOf names the innermost error that has a name of its own, as other languages do.
func kindOf(err error) string {
	kind := "Error"
	for err != nil {
		if own, ok := err.(*peerError); ok {
			return own.kind
		}
		switch name := fmt.Sprintf("%T", err); name {
		case "*errors.errorString", "*errors.joinError", "*fmt.wrapError", "*fmt.wrapErrors":
		default:
			kind = name[strings.LastIndexByte(name, '.')+1:]
		}
		switch wrapper := err.(type) {
		case interface{ Unwrap() error }:
			err = wrapper.Unwrap()
		case interface{ Unwrap() []error }:
			// go-libp2p puts the summary first and what happened last.
			all := wrapper.Unwrap()
			if len(all) == 0 {
				return kind
			}
			err = all[len(all)-1]
		default:
			return kind
		}
	}
	return kind
}
