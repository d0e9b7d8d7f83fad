"""DCUtR's messages: values to bytes and back; each is preceded by its length.

https://github.com/libp2p/specs/blob/master/relay/DCUtR.md
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING

from ...transports.core.errors import RemoteProtocolError
from ...transports.core.multiaddr import Multiaddr
from ...transports.core.protobuf import Field, Kind, Schema
from ...transports.core.varint import length_prefixed

if TYPE_CHECKING:
    from collections.abc import Iterable

DCUTR_PROTOCOL = "/libp2p/dcutr"

MAX_MESSAGE_BYTES = 4096
"""A message, its length not counted, by the specification."""

MAX_ADDRESSES = 16
"""Addresses that are told and that are looked at: each is dialled."""


class HolePunchType(IntEnum):
    """What a message is for."""

    CONNECT = 100
    SYNC = 300


@dataclass(frozen=True, slots=True)
class HolePunch:
    """One message; only CONNECT has addresses."""

    type: HolePunchType
    addresses: tuple[Multiaddr, ...] = ()


def encode(message: HolePunch) -> bytes:
    """Return a message with its length."""
    addresses = [bytes(each) for each in message.addresses]
    return length_prefixed(_HOLE_PUNCH.encode({"type": message.type, "addresses": addresses}))


def decode(data: bytes) -> HolePunch:
    """Return a message without its length; addresses that do not parse are left out.

    Raises RemoteProtocolError.
    """
    values = _HOLE_PUNCH.decode(data)
    try:
        kind = HolePunchType(values.get("type", 0))
    except ValueError:
        raise RemoteProtocolError(f"{values.get('type', 0)} is no message of DCUtR") from None
    return HolePunch(kind, tuple(Multiaddr.parse_many(values["addresses"][:MAX_ADDRESSES])))


def fitting(addresses: Iterable[Multiaddr]) -> tuple[Multiaddr, ...]:
    """Return the first addresses, as many as fit into a message."""
    kept: list[Multiaddr] = []
    for address in [*addresses][:MAX_ADDRESSES]:
        kept.append(address)
        if len(encode(HolePunch(HolePunchType.CONNECT, tuple(kept)))) > MAX_MESSAGE_BYTES:
            kept.pop()
    return tuple(kept)


_HOLE_PUNCH = Schema(Field(1, "type", Kind.UINT), Field(2, "addresses", Kind.BYTES, repeated=True))
