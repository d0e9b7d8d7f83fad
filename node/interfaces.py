"""The addresses of this machine, for listeners that are bound to all of them."""

from __future__ import annotations

import ctypes
import ipaddress
import socket
import sys

from ..transports.core.multiaddr import Multiaddr

WILDCARDS = {"/ip4/0.0.0.0/": 4, "/ip6/::/": 6}

IFF_UP = 1


def expand_wildcard(address: Multiaddr) -> tuple[Multiaddr, ...]:
    """Return the addresses that a bound one stands for: itself, unless it is a wildcard.

    Loopback comes last; IPv6 link-local ones are left out, since they mean nothing elsewhere.
    """
    text = str(address)
    for prefix, version in WILDCARDS.items():
        if text.startswith(prefix):
            rest = text[len(prefix) :]
            return tuple(
                Multiaddr.parse(f"/ip{version}/{ip}/{rest}") for ip in interface_addresses(version)
            )
    return (address,)


def interface_addresses(version: int) -> tuple[str, ...]:
    """Return the IPv4 or IPv6 addresses of the interfaces that are up, loopback last."""
    found = _by_interface(version) if hasattr(_libc(), "getifaddrs") else _by_name(version)
    ips = {ipaddress.ip_address(text): None for text in found}
    usable = [ip for ip in ips if not (version == 6 and ip.is_link_local)]
    return tuple(str(ip) for ip in sorted(usable, key=lambda ip: ip.is_loopback))


class _Interface(ctypes.Structure):
    """The head of getifaddrs(3)'s entries, alike on Linux, macOS and the BSDs."""


_Interface._fields_ = [  # how ctypes declares a structure that points to its kind
    ("next", ctypes.POINTER(_Interface)),
    ("name", ctypes.c_char_p),
    ("flags", ctypes.c_uint),
    ("address", ctypes.c_void_p),
]


def _libc() -> ctypes.CDLL | None:
    return None if sys.platform == "win32" else ctypes.CDLL(None, use_errno=True)


def _by_interface(version: int) -> list[str]:
    libc = _libc()
    head = ctypes.POINTER(_Interface)()
    if libc is None or libc.getifaddrs(ctypes.byref(head)) != 0:
        return []
    family, offset, size = {
        4: (socket.AF_INET, 4, 4),
        6: (socket.AF_INET6, 8, 16),
    }[version]
    found = []
    try:
        entry = head
        while entry:
            item = entry.contents
            if item.address and item.flags & IFF_UP and _family(item.address) == family:
                packed = ctypes.string_at(item.address + offset, size)
                found.append(socket.inet_ntop(family, packed))
            entry = item.next
    finally:
        libc.freeifaddrs(head)
    return found


def _family(address: int) -> int:
    # The BSDs, macOS among them, put the structure's length before the family.
    if sys.platform == "linux":
        return int.from_bytes(ctypes.string_at(address, 2), sys.byteorder)
    return ctypes.string_at(address + 1, 1)[0]


def _by_name(version: int) -> list[str]:
    family = socket.AF_INET if version == 4 else socket.AF_INET6
    try:
        infos = socket.getaddrinfo(socket.gethostname(), None, family)
    except socket.gaierror:
        infos = []
    return [str(info[4][0]) for info in infos] + ["127.0.0.1" if version == 4 else "::1"]
