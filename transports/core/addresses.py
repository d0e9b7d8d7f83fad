"""What kind of address this is: one pure classifier, for ranking, privacy and limits."""

from __future__ import annotations

import ipaddress
from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .multiaddr import Multiaddr

__all__ = ["AddressClass", "classify", "classify_ip"]

_SHARED = ipaddress.ip_network("100.64.0.0/10")  # RFC 6598, carrier-grade NAT
_NAT64 = ipaddress.ip_network("64:ff9b::/96")  # RFC 6052
_NAMES = {"dns", "dns4", "dns6", "dnsaddr"}


class AddressClass(Enum):
    """From where an address can be reached."""

    PROCESS_LOCAL = "process-local"
    LOOPBACK = "loopback"
    LINK_LOCAL = "link-local"
    PRIVATE = "private"
    SHARED = "shared"
    PUBLIC = "public"
    UNSPECIFIED = "unspecified"
    MULTICAST = "multicast"
    RESERVED = "reserved"
    NAME = "name"
    RELAYED = "relayed"
    UNKNOWN = "unknown"


def classify(addr: Multiaddr) -> AddressClass:
    """Return the class of an address by its text alone: nothing is looked up."""
    if "p2p-circuit" in addr.names:
        return AddressClass.RELAYED
    if addr.is_process_local:
        return AddressClass.PROCESS_LOCAL
    if addr.ip is not None:
        return classify_ip(addr.ip)
    if addr.names[0] in _NAMES:
        name = f".{addr.host.lower().rstrip('.')}"
        return AddressClass.LOOPBACK if name.endswith(".localhost") else AddressClass.NAME
    return AddressClass.UNKNOWN


def classify_ip(ip: ipaddress.IPv4Address | ipaddress.IPv6Address) -> AddressClass:
    """Return the class of an IP address; an IPv4 one inside IPv6 counts as itself."""
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.ipv4_mapped is not None:
            return classify_ip(ip.ipv4_mapped)
        if ip in _NAT64:
            return classify_ip(ipaddress.IPv4Address(int(ip) & 0xFFFF_FFFF))
    elif ip in _SHARED:
        return AddressClass.SHARED
    for is_member, kind in (
        (ip.is_unspecified, AddressClass.UNSPECIFIED),
        (ip.is_loopback, AddressClass.LOOPBACK),
        (ip.is_link_local, AddressClass.LINK_LOCAL),
        (ip.is_multicast, AddressClass.MULTICAST),
        (ip.is_global, AddressClass.PUBLIC),
        (_is_private(ip), AddressClass.PRIVATE),
    ):
        if is_member:
            return kind
    return AddressClass.RESERVED


_PRIVATE = tuple(
    map(ipaddress.ip_network, ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7"))
)


def _is_private(ip: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    """RFC 1918 and RFC 4193; Python's own `is_private` counts documentation ranges too."""
    return any(ip.version == network.version and ip in network for network in _PRIVATE)
