"""The messages of the DHT, and the keys that they are about. Sans-IO.

https://github.com/libp2p/specs/blob/master/kad-dht/README.md
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING

from ...transports.core.errors import AddressError, RemoteProtocolError
from ...transports.core.multiaddr import Multiaddr
from ...transports.core.multibase import multibase_encode
from ...transports.core.peer_id import PeerId
from ...transports.core.protobuf import Field, Kind, Schema

if TYPE_CHECKING:
    from collections.abc import Iterable

MAX_MESSAGE_BYTES = 256 * 1024
"""The longest answer read: go sends 4 MiB at most, rust 16 KiB; twenty peers with all of their
addresses, and as many providers, take some 60."""

MAX_CLOSER = 20
"""Peers read of those that an answer calls closer: Kademlia's k, which is what is sent."""

MAX_PROVIDERS = 128
"""Providers read of one answer: more than are ever asked for."""

MAX_ADDRESSES = 16
"""Addresses read of one peer: as many as one dial would ever try."""

MAX_PEER_BYTES = 8 * 1024
"""The longest entry of a peer; it has that many addresses with two certificate hashes each."""

MAX_SENT_BYTES = 16 * 1024
"""What rust reads at most."""

_SHA256 = b"\x12\x20"
_CID_RAW = b"\x01\x55"  # CIDv1, codec raw


class MessageType(IntEnum):
    """What is asked for; an answer bears the same."""

    PUT_VALUE = 0
    GET_VALUE = 1
    ADD_PROVIDER = 2
    GET_PROVIDERS = 3
    FIND_NODE = 4
    PING = 5


@dataclass(frozen=True, slots=True)
class FoundPeer:
    """A peer, and where it is said to be; only a dial that proves its key shows that it is so."""

    peer: PeerId
    addresses: tuple[Multiaddr, ...] = ()


@dataclass(frozen=True, slots=True)
class KadMessage:
    """A request or its answer; `key` is a multihash: of a content's CID, or a peer id."""

    type: MessageType
    key: bytes = b""
    closer: tuple[FoundPeer, ...] = ()
    providers: tuple[FoundPeer, ...] = ()


# Peers are read as bytes, so that what is beyond the bounds costs nothing.
_MESSAGE = Schema(
    Field(1, "type", Kind.UINT),
    Field(2, "key", Kind.BYTES),
    Field(8, "closerPeers", Kind.BYTES, repeated=True),
    Field(9, "providerPeers", Kind.BYTES, repeated=True),
)

_PEER = Schema(
    Field(1, "id", Kind.BYTES),
    Field(2, "addrs", Kind.BYTES, repeated=True),
)


def encode(message: KadMessage) -> bytes:
    """Write a message, without its length."""
    return _MESSAGE.encode(
        {
            "type": int(message.type),
            "key": message.key or None,
            "closerPeers": [_encode_peer(each) for each in message.closer],
            "providerPeers": [_encode_peer(each) for each in message.providers],
        }
    )


def decode(data: bytes) -> KadMessage:
    """Read a message; peers and addresses in it that cannot be read are left out.

    Raises RemoteProtocolError if it is not a message of a known type.
    """
    values = _MESSAGE.decode(data)
    try:
        kind = MessageType(values.get("type", 0))
    except ValueError as error:
        raise RemoteProtocolError(f"a message of the DHT with {error}") from error
    return KadMessage(
        kind,
        values.get("key", b""),
        _read_peers(values["closerPeers"][:MAX_CLOSER]),
        _read_peers(values["providerPeers"][:MAX_PROVIDERS]),
    )


def announcement(key: bytes, own: FoundPeer) -> bytes:
    """Return the message that makes a server remember this node as a provider of `key`.

    Addresses that would make it longer than rust reads are left out.
    """
    room = MAX_SENT_BYTES // 2
    told = []
    for address in own.addresses[:MAX_ADDRESSES]:
        room -= len(bytes(address))
        if room >= 0:
            told.append(address)
    provider = FoundPeer(own.peer, tuple(told))
    return encode(KadMessage(MessageType.ADD_PROVIDER, key, providers=(provider,)))


def service_key(service: str) -> bytes:
    """Return the key of a service: the SHA-256 multihash of its name, as go's discovery has it."""
    return _SHA256 + hashlib.sha256(service.encode()).digest()


def service_cid(service: str) -> str:
    """Return the same as a CIDv1 of the codec raw, the form that tools of IPFS take."""
    return multibase_encode(_CID_RAW + service_key(service), "b")


def distance_hash(key: bytes) -> int:
    """Return the place of a key, or of a peer id's bytes, in the space that XOR measures."""
    return int.from_bytes(hashlib.sha256(key).digest(), "big")


def _encode_peer(found: FoundPeer) -> bytes:
    addresses = [bytes(each) for each in found.addresses]
    return _PEER.encode({"id": bytes(found.peer), "addrs": addresses})


def _read_peers(encoded: Iterable[bytes]) -> tuple[FoundPeer, ...]:
    found: dict[PeerId, FoundPeer] = {}
    for data in encoded:
        each = _read_peer(data) if len(data) <= MAX_PEER_BYTES else None
        if each is not None:
            found.setdefault(each.peer, each)
    return tuple(found.values())


def _read_peer(data: bytes) -> FoundPeer | None:
    values = _PEER.decode(data)
    try:
        peer = PeerId.from_bytes(values.get("id", b""))
    except AddressError:
        return None
    parsed = Multiaddr.parse_many(values["addrs"][:MAX_ADDRESSES])
    own = [each.without_peer() for each in parsed if _leads_to(each, peer)]
    return FoundPeer(peer, tuple(dict.fromkeys(own)))


def _leads_to(address: Multiaddr, peer: PeerId) -> bool:
    """Say whether an address may be this peer's: it is not another's, and not a peer id alone."""
    return address.last_transport != "p2p" and address.peer_id in (None, peer)
