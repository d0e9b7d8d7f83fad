"""Which addresses are WebSocket ones, and what they say."""

from __future__ import annotations

import pytest
from isthmus.transports.core.multiaddr import Multiaddr
from isthmus.transports.websocket.addresses import Endpoint
from isthmus.transports.websocket.transport import WebSocketTransport

PEER = "/p2p/12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN"

KNOWN = {
    "/ip4/192.0.2.1/tcp/80/ws": ("192.0.2.1", False, "/", "/ws"),
    "/ip6/2001:db8::1/tcp/80/ws": ("2001:db8::1", False, "/", "/ws"),
    "/ip6zone/lo/ip6/fe80::1/tcp/80/ws": ("fe80::1", False, "/", "/ws"),
    "/dns/a.example/tcp/443/tls/ws": ("a.example", True, "/", "/tls/ws"),
    "/dns4/a.example/tcp/443/wss": ("a.example", True, "/", "/tls/ws"),
    "/dns6/a.example/tcp/443/tls/sni/b.example/ws": (
        "b.example",
        True,
        "/",
        "/tls/sni/b.example/ws",
    ),
    "/ip4/192.0.2.1/tcp/443/tls/sni/b.example/ws": (
        "b.example",
        True,
        "/",
        "/tls/sni/b.example/ws",
    ),
    "/dns/a.example/tcp/80/ws/http-path/p2p%2Fnode%20one": (
        "a.example",
        False,
        "/p2p/node%20one",
        "/ws/http-path/p2p%2Fnode%20one",
    ),
    "/dns/a.example/tcp/443/wss/http-path/%2Fp2p": (
        "a.example",
        True,
        "/p2p",
        "/tls/ws/http-path/%2Fp2p",
    ),
}

FOREIGN = [
    "/ip4/192.0.2.1/tcp/80",
    "/ip4/192.0.2.1/udp/80/ws",
    "/ip4/192.0.2.1/tcp/80/tls",
    "/ip4/192.0.2.1/tcp/80/tls/wss",
    "/ip4/192.0.2.1/tcp/80/sni/a.example/ws",
    "/ip4/192.0.2.1/tcp/80/tls/sni/a.example/wss",
    "/ip4/192.0.2.1/tcp/80/ws/ws",
    "/ip4/192.0.2.1/tcp/80/http-path/a",
    "/ip4/192.0.2.1/tcp/80/http/http-path/a",
    "/dnsaddr/a.example/tcp/80/ws",
    "/memory/1/tcp/80/ws",
    "/ws",
    "/tcp/80/ws",
    "/http-path/a",
    "/ip6zone/lo",
    "/ip6zone/lo/ws",
    f"/ip4/192.0.2.1/tcp/80/ws{PEER}/p2p-circuit",
]


@pytest.mark.parametrize("text", KNOWN)
@pytest.mark.parametrize("end", ["", PEER])
def test_known(text, end):
    addr = Multiaddr.parse(text + end)
    endpoint = Endpoint.of(addr)
    host, is_secure, path, suffix = KNOWN[text]
    assert (endpoint.host, endpoint.is_secure, endpoint.path) == (host, is_secure, path)
    assert endpoint.tcp.names[-1] == "tcp"
    assert str(endpoint.above(endpoint.tcp)) == f"{endpoint.tcp}{suffix}"
    transport = WebSocketTransport()
    assert transport.can_dial(addr)
    assert addr.last_transport in transport.protocols


@pytest.mark.parametrize("text", FOREIGN)
def test_foreign(text):
    addr = Multiaddr.parse(text)
    assert Endpoint.of(addr) is None
    assert not WebSocketTransport().can_dial(addr)


@pytest.mark.parametrize(("text", "carrier"), [("/ws", "/ws"), ("/wss", "/tls/ws")])
def test_peers_have_the_carrier_alone(text, carrier):
    endpoint = Endpoint.of(Multiaddr.parse(f"/ip4/192.0.2.1/tcp/80{text}/http-path/a"))
    remote = Multiaddr.parse("/ip4/192.0.2.9/tcp/99")
    assert str(endpoint.of_peer(remote)) == f"{remote}{carrier}"
