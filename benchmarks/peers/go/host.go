package main

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"os"
	"runtime/debug"
	"strings"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/connmgr"
	"github.com/libp2p/go-libp2p/core/host"
	rcmgr "github.com/libp2p/go-libp2p/p2p/host/resource-manager"
	"github.com/libp2p/go-libp2p/p2p/muxer/yamux"
	"github.com/libp2p/go-libp2p/p2p/security/noise"
	"github.com/libp2p/go-libp2p/p2p/transport/tcp"
	"github.com/libp2p/go-libp2p/p2p/transport/websocket"
	"github.com/libp2p/go-libp2p/x/rate"
)

const module = "github.com/libp2p/go-libp2p"

// tlsFiles are PEM files; empty where there is none.
type tlsFiles struct{ cert, key, ca string }

// options make the certificate and the trust of WebSocket's TLS.
func (files tlsFiles) options() ([]any, error) {
	var options []any
	if files.cert != "" {
		pair, err := tls.LoadX509KeyPair(files.cert, files.key)
		if err != nil {
			return nil, err
		}
		shown := &tls.Config{Certificates: []tls.Certificate{pair}}
		options = append(options, websocket.WithTLSConfig(shown))
	}
	if files.ca != "" {
		pem, err := os.ReadFile(files.ca)
		if err != nil {
			return nil, err
		}
		roots := x509.NewCertPool()
		if !roots.AppendCertsFromPEM(pem) {
			return nil, errors.New(files.ca + " holds no certificate")
		}
		options = append(options, websocket.WithTLSClientConfig(&tls.Config{RootCAs: roots}))
	}
	return options, nil
}

// newHost speaks TCP, WebSocket, Noise, Yamux and circuits as go-libp2p has them by default, and what
// the extra options bring.
func newHost(listen []string, files tlsFiles, extra ...libp2p.Option) (host.Host, error) {
	secure, err := files.options()
	if err != nil {
		return nil, err
	}
	// The accounting of a usual node without its limits: the tests open 500 streams at once, the
	// dial bench makes hundreds of connections from one address.
	resources, err := rcmgr.NewResourceManager(
		rcmgr.NewFixedLimiter(rcmgr.InfiniteLimits),
		rcmgr.WithLimitPerSubnet([]rcmgr.ConnLimitPerSubnet{}, []rcmgr.ConnLimitPerSubnet{}),
		rcmgr.WithConnRateLimiters(&rate.Limiter{}),
		rcmgr.WithMetricsDisabled(),
	)
	if err != nil {
		return nil, err
	}
	return libp2p.New(
		libp2p.ChainOptions(extra...),
		libp2p.ListenAddrStrings(listen...),
		libp2p.Transport(tcp.NewTCPTransport),
		libp2p.Transport(websocket.New, secure...),
		libp2p.Security(noise.ID, noise.New),
		libp2p.Muxer(yamux.ID, yamux.DefaultTransport),
		libp2p.ResourceManager(resources),
		libp2p.ConnectionManager(connmgr.NullConnMgr{}),
		libp2p.UserAgent("go-libp2p/"+strings.TrimPrefix(version(), "v")),
		libp2p.EnableRelay(),
		libp2p.DisableMetrics(),
		// Said rather than found out: otherwise every node asks AutoNAT.
		libp2p.ForceReachabilityPublic(),
	)
}

// version is that of go-libp2p, such as "v0.51.0".
func version() string {
	if build, ok := debug.ReadBuildInfo(); ok {
		for _, dependency := range build.Deps {
			if dependency.Path == module {
				return dependency.Version
			}
		}
	}
	return "unknown"
}
