"""The strings of mDNS that carry addresses: TXT records to multiaddrs and back.

A TXT record is a row of strings, each behind a byte with its length (RFC 6763, 6.1). go puts all
addresses into one record, js and rust one into each of several; strings that mean nothing here,
or to nobody, are left out, and the others still count.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..core.errors import AddressError, LocalProtocolError
from ..core.multiaddr import Multiaddr

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

SERVICE = "_p2p._udp.local."
"""The service that every libp2p node belongs to."""

PREFIX = b"dnsaddr="

MAX_STRING = 255
"""Bytes of one string, by its length in one byte."""

MAX_STRINGS = 64
"""Strings read of one record; four times the addresses that anybody is known to announce."""

NAME_LENGTH = 32
"""Characters of a peer's name; the specification wants at least 32, a label has at most 63."""

_ALPHABET = "abcdefghijklmnopqrstuvwxyz234567"


def encode_text(addresses: Iterable[Multiaddr]) -> bytes:
    """Return the data of one TXT record; raises LocalProtocolError if an address is too long."""
    parts = bytearray()
    for address in addresses:
        string = PREFIX + str(address).encode()
        if len(string) > MAX_STRING:
            raise LocalProtocolError(f"{address} is too long for a string of a TXT record")
        parts += bytes([len(string)]) + string
    return bytes(parts)


def decode_text(data: bytes) -> list[Multiaddr]:
    """Return the addresses in the data of one TXT record, in order; raises nothing."""
    found = []
    for string in _strings(data):
        if not string.startswith(PREFIX):
            continue
        try:
            found.append(Multiaddr.parse(string.removeprefix(PREFIX).decode()))
        except (AddressError, UnicodeDecodeError):
            continue
    return found


def is_announceable(address: Multiaddr) -> bool:
    """Say whether every implementation understands the address: IP, TCP, a peer, nothing else.

    One address that js cannot parse has it discard the packet.
    """
    return address.names in (("ip4", "tcp", "p2p"), ("ip6", "tcp", "p2p"))


def random_name(random: bytes) -> str:
    """Return the name that NAME_LENGTH random bytes stand for."""
    return "".join(_ALPHABET[byte % len(_ALPHABET)] for byte in random[:NAME_LENGTH])


def _strings(data: bytes) -> Iterator[bytes]:
    offset = 0
    for _ in range(MAX_STRINGS):
        if offset >= len(data):
            return
        end = offset + 1 + data[offset]
        if end > len(data):
            return  # it is cut off
        yield data[offset + 1 : end]
        offset = end
