"""WebSocket addresses: which there are, and what they say about TLS and the HTTP request."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import quote

from ..core.multiaddr import Component, Multiaddr

PROTOCOLS = ("ws", "wss")
"""The protocols that end such an address; /wss is an older way to write /tls/ws."""

_HOSTS = {"ip4", "ip6", "dns", "dns4", "dns6"}
_SECURE = {
    ("ws",): False,
    ("tls", "ws"): True,
    ("tls", "sni", "ws"): True,
    ("wss",): True,
}
# What a path may hold as it is (RFC 3986, section 3.3).
_PATH_SAFE = "/:@!$&'()*+,;=~"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A WebSocket address taken apart."""

    tcp: Multiaddr
    """The TCP address below."""

    suffix: tuple[Component, ...]
    """What stands above it, without /p2p, and with /tls/ws for /wss."""

    is_secure: bool
    """Whether TLS goes between."""

    host: str
    """What the Host header, the certificate and SNI name: sni, else the name, else the IP."""

    path: str
    """What the HTTP request asks for."""

    @classmethod
    def of(cls, addr: Multiaddr) -> Endpoint | None:
        """Take an address apart; None if it is not a WebSocket address."""
        bare = addr.without_peer()
        start = bare.names[0] == "ip6zone"
        names, above = bare.names[start:], start + 2
        suffix, path = bare.components[above:], "/"
        if suffix and suffix[-1].name == "http-path":
            path += quote(suffix[-1].data, safe=_PATH_SAFE).lstrip("/")
            names = names[:-1]
        is_secure = _SECURE.get(names[2:])
        if is_secure is None or names[0] not in _HOSTS or names[1] != "tcp":
            return None
        if suffix[0].name == "wss":
            suffix = (Component("tls"), Component("ws"), *suffix[1:])
        tcp = Multiaddr(bare.components[:above])
        return cls(tcp, suffix, is_secure, bare.value_of("sni") or bare.host, path)

    def above(self, tcp: Multiaddr) -> Multiaddr:
        """Return the same address above another TCP address."""
        return Multiaddr((*tcp.components, *self.suffix))

    def of_peer(self, tcp: Multiaddr) -> Multiaddr:
        """Return the address of a peer that has connected here from a TCP address."""
        tls = [Component("tls")] if self.is_secure else []
        return Multiaddr((*tcp.components, *tls, Component("ws")))
