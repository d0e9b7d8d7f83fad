"""What kind of address this is: the one pure classifier, for ranking, privacy and limits.

The tables are IANA's special-purpose registries (RFC 6890 and what updates it); Python's own flags
differ between its versions, and count some ranges that nobody can reach as global.
"""

from __future__ import annotations

import ipaddress
from enum import Enum
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from .multiaddr import Multiaddr

__all__ = ["AddressClass", "Prefix", "classify", "classify_ip", "prefix_of"]

Prefix: TypeAlias = "ipaddress.IPv4Address | ipaddress.IPv6Network"

IPV6_BITS = 56
"""The least that a provider gives one household or one rented machine."""


class AddressClass(Enum):
    """From where an address can be reached."""

    PROCESS_LOCAL = "process-local"
    """Memory and Unix sockets: never told to a peer."""
    LOOPBACK = "loopback"
    """This machine, also by the name localhost."""
    LINK_LOCAL = "link-local"
    PRIVATE = "private"
    """RFC 1918, RFC 4193, and NAT64 prefixes of one's own."""
    SHARED = "shared"
    """Behind a carrier's NAT (RFC 6598)."""
    PUBLIC = "public"
    UNSPECIFIED = "unspecified"
    """Every address of this machine: to listen on, not to dial."""
    MULTICAST = "multicast"
    RESERVED = "reserved"
    """Documentation, benchmarks, and whatever else is routed nowhere."""
    DNS = "dns"
    """A name: what it stands for is known after it was resolved."""
    RELAYED = "relayed"
    UNKNOWN = "unknown"
    """No place at all, such as a peer id alone."""


def classify(addr: Multiaddr) -> AddressClass:
    """Return the class of an address by its text alone: nothing is looked up."""
    if "p2p-circuit" in addr.names:
        return AddressClass.RELAYED
    if addr.is_process_local:
        return AddressClass.PROCESS_LOCAL
    if addr.ip is not None:
        return classify_ip(addr.ip)
    if not addr.host:
        return AddressClass.UNKNOWN
    # RFC 6761: this name, and all below it, are the machine itself.
    name = f".{addr.host.lower().rstrip('.')}"
    return AddressClass.LOOPBACK if name.endswith(".localhost") else AddressClass.DNS


def classify_ip(ip: ipaddress.IPv4Address | ipaddress.IPv6Address) -> AddressClass:
    """Return the class of an IP address; one that stands for an IPv4 address has that one's."""
    if isinstance(ip, ipaddress.IPv6Address):
        inner = _embedded(int(ip))
        if inner is None:
            return _find(_IPV6, int(ip), 128, AddressClass.RESERVED)
        ip = inner
    return _find(_IPV4, int(ip), 32, AddressClass.PUBLIC)


def prefix_of(address: Multiaddr) -> Prefix | None:
    """Return what a connection's remote address counts against: its IPv4 address or IPv6 /56.

    None where there is no IP of the peer's: in memory, over a Unix socket, and on a circuit, whose
    address has the relay's.
    """
    ip = address.ip
    if ip is None or "p2p-circuit" in address.names:
        return None
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.ipv4_mapped is None:
            return ipaddress.IPv6Network((int(ip) >> 128 - IPV6_BITS << 128 - IPV6_BITS, IPV6_BITS))
        return ip.ipv4_mapped
    return ip


def _embedded(ip: int) -> ipaddress.IPv4Address | None:
    for prefix, length in _MAPPINGS:
        if ip >> 128 - length == prefix:
            return ipaddress.IPv4Address(ip >> 96 - length & 0xFFFF_FFFF)
    return None


_Row = tuple[int, int, AddressClass]


def _find(rows: tuple[_Row, ...], ip: int, bits: int, otherwise: AddressClass) -> AddressClass:
    for prefix, length, kind in rows:
        if ip >> bits - length == prefix:
            return kind
    return otherwise


def _table(**networks: str) -> tuple[_Row, ...]:
    rows = [
        (*_prefix(network), AddressClass[kind])
        for kind, text in networks.items()
        for network in text.split()
    ]
    # The longest prefix is looked at first.
    return tuple(sorted(rows, key=lambda row: -row[1]))


def _prefix(text: str) -> tuple[int, int]:
    network = ipaddress.ip_network(text)
    bits = network.max_prefixlen - network.prefixlen
    return int(network.network_address) >> bits, network.prefixlen


_IPV4 = _table(
    UNSPECIFIED="0.0.0.0/32",
    LOOPBACK="127.0.0.0/8",
    LINK_LOCAL="169.254.0.0/16",
    PRIVATE="10.0.0.0/8 172.16.0.0/12 192.168.0.0/16",
    SHARED="100.64.0.0/10",
    MULTICAST="224.0.0.0/4",
    RESERVED="0.0.0.0/8 192.0.0.0/24 192.0.2.0/24 192.88.99.0/24 198.18.0.0/15 198.51.100.0/24 "
    "203.0.113.0/24 240.0.0.0/4",
)

_IPV6 = _table(
    UNSPECIFIED="::/128",
    LOOPBACK="::1/128",
    LINK_LOCAL="fe80::/10",
    PRIVATE="fc00::/7 64:ff9b:1::/48",
    MULTICAST="ff00::/8",
    PUBLIC="2000::/3",
    RESERVED="2001::/23 2001:db8::/32 3fff::/20",
)
"""Whatever is not here is RESERVED: only 2000::/3 is given out (RFC 4291)."""

_MAPPINGS = tuple(map(_prefix, ("::ffff:0:0/96", "64:ff9b::/96", "2002::/16")))
"""IPv4 inside IPv6, right behind the prefix: mapped (RFC 4291), NAT64 (RFC 6052), 6to4."""
