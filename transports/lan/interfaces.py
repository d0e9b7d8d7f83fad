"""The interfaces of this machine that reach a LAN, with their addresses and networks."""

from __future__ import annotations

import ctypes
import socket
import sys
from dataclasses import dataclass
from ipaddress import IPv4Interface, IPv6Interface, ip_address, ip_interface

Ip = IPv4Interface | IPv6Interface

IFF_UP, IFF_BROADCAST, IFF_LOOPBACK, IFF_RUNNING = 0x1, 0x2, 0x8, 0x40
IFF_MULTICAST = 0x1000 if sys.platform == "linux" else 0x8000


@dataclass(frozen=True, slots=True)
class Interface:
    """A broadcast interface that is up: its addresses, each with its network."""

    name: str
    addresses: tuple[Ip, ...]
    has_multicast: bool = True


def lan_interfaces() -> tuple[Interface, ...]:
    """Return the broadcast interfaces that are up and have a carrier, by name."""
    found: dict[str, tuple[bool, dict[Ip, None]]] = {}
    for name, flags, address in _addresses():
        wanted = IFF_UP | IFF_BROADCAST | IFF_RUNNING
        if flags & wanted == wanted and not flags & IFF_LOOPBACK:
            _, addresses = found.setdefault(name, (bool(flags & IFF_MULTICAST), {}))
            addresses[address] = None
    return tuple(
        Interface(name, tuple(addresses), has_multicast)
        for name, (has_multicast, addresses) in sorted(found.items())
    )


class _Entry(ctypes.Structure):
    """The head of getifaddrs(3)'s entries, alike on Linux, macOS and the BSDs."""


_Entry._fields_ = [  # how ctypes declares a structure that points to its kind
    ("next", ctypes.POINTER(_Entry)),
    ("name", ctypes.c_char_p),
    ("flags", ctypes.c_uint),
    ("address", ctypes.c_void_p),
    ("netmask", ctypes.c_void_p),
]


def _addresses() -> list[tuple[str, int, Ip]]:
    libc = None if sys.platform == "win32" else ctypes.CDLL(None, use_errno=True)
    head = ctypes.POINTER(_Entry)()
    if libc is None or libc.getifaddrs(ctypes.byref(head)) != 0:
        return []
    found = []
    try:
        entry = head
        while entry:
            item = entry.contents
            if item.address and item.netmask and (ip := _ip(item.address, item.netmask)):
                found.append((item.name.decode(errors="replace"), int(item.flags), ip))
            entry = item.next
    finally:
        libc.freeifaddrs(head)
    return found


def _ip(address: int, netmask: int) -> Ip | None:
    family = _family(address)
    if family not in (socket.AF_INET, socket.AF_INET6):
        return None
    offset, size = (4, 4) if family == socket.AF_INET else (8, 16)
    mask = int.from_bytes(ctypes.string_at(netmask + offset, size))
    ip = ip_address(ctypes.string_at(address + offset, size))
    return ip_interface((ip, mask.bit_count()))


def _family(address: int) -> int:
    # The BSDs, macOS among them, put the structure's length before the family.
    if sys.platform == "linux":
        return int.from_bytes(ctypes.string_at(address, 2), sys.byteorder)
    return ctypes.string_at(address + 1, 1)[0]
