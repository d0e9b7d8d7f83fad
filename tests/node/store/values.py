"""Peers, addresses and what is stored of them."""

from __future__ import annotations

from isthmus.node.store.records import Batch, KeptPeer, StoredChange, StoredLink, StoredPeer
from isthmus.transports.core.multiaddr import Multiaddr
from isthmus.transports.core.peer_id import PeerId


def peer(number: int) -> PeerId:
    """A peer id of a number: well formed, and of no key that anybody has."""
    return PeerId(b"\x12\x20" + number.to_bytes(32, "big"))


def address(port: int) -> Multiaddr:
    return Multiaddr.parse(f"/ip4/127.0.0.1/tcp/{port}")


def stored(number: int, *, seq: int = 1) -> StoredPeer:
    return StoredPeer(peer(number), (address(number % 65_536),), f"x/{number}", seq, number + 0.5)


def kept(number: int, *, alias: str = "") -> KeptPeer:
    return KeptPeer(peer(number), (address(number), address(9999)), alias, number + 0.25)


def change(number: int, *, state: str = "connected") -> StoredChange:
    return StoredChange(state, f"reason {number}", float(number))


def link(number: int, *, first: int = 0, count: int = 3) -> StoredLink:
    return StoredLink(peer(number), first, tuple(map(change, range(first, first + count))))


BATCH = Batch(
    peers=(stored(1), stored(2), stored(3)),
    kept=(kept(1, alias="one"), kept(7)),
    links=(link(1), link(2, count=5)),
)
