"""What this node remembers of peers while it runs: where they are and what they speak."""

from __future__ import annotations

import time
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from ..transports.core.multiaddr import Multiaddr
    from ..transports.core.peer_id import PeerId

MAX_PEERS = 10_000
"""Peers remembered, the least recently met forgotten first: some ten MiB."""

MAX_ADDRESSES = 16
"""Addresses kept of one peer: as many as one dial would ever try."""

MAX_ADDRESS_BYTES = 512
"""The longest address kept; a relayed one with two certificate hashes takes 250."""

MAX_PROTOCOLS = 1024
"""Protocols kept of one peer, only while it is connected; what go keeps."""


@dataclass(slots=True)
class PeerInfo:
    """What is known of one peer; `protocols` is None unless it is connected and has said so."""

    addresses: tuple[Multiaddr, ...] = ()
    protocols: frozenset[str] | None = None
    agent: str = ""
    record_seq: int = 0
    last_seen: float = field(default_factory=time.time)


_NOTHING = PeerInfo(last_seen=0.0)


class PeerStore:
    """A bounded table of peers, in memory."""

    def __init__(self, *, max_peers: int = MAX_PEERS) -> None:
        self._max_peers = max_peers
        self._peers: OrderedDict[PeerId, PeerInfo] = OrderedDict()

    def __iter__(self) -> Iterator[PeerId]:
        return iter(tuple(self._peers))

    def __len__(self) -> int:
        return len(self._peers)

    def info(self, peer: PeerId) -> PeerInfo:
        """Return what is known of a peer; an empty value for a stranger."""
        return self._peers.get(peer, _NOTHING)

    def addresses(self, peer: PeerId) -> tuple[Multiaddr, ...]:
        """Return the addresses known of a peer, best known first."""
        return self.info(peer).addresses

    def protocols(self, peer: PeerId) -> frozenset[str] | None:
        """Return what a connected peer speaks; None if it has not said so."""
        info = self._peers.get(peer)
        return None if info is None else info.protocols

    def add_addresses(self, peer: PeerId, addresses: Iterable[Multiaddr]) -> None:
        """Put addresses before those already known, dropping the last beyond the bound."""
        info = self._touch(peer)
        info.addresses = _bounded([*addresses, *info.addresses])

    def set_addresses(
        self, peer: PeerId, addresses: Iterable[Multiaddr], *, seq: int | None = None
    ) -> bool:
        """Replace a peer's addresses; with a record's `seq` only if it is newer than the last.

        Returns False if the record was not newer and nothing was changed.
        """
        info = self._touch(peer)
        if seq is not None:
            if seq <= info.record_seq:
                return False
            info.record_seq = seq
        info.addresses = _bounded(addresses)
        return True

    def set_protocols(self, peer: PeerId, protocols: Iterable[str], *, agent: str = "") -> None:
        """Remember what a connected peer speaks; an empty `agent` leaves the known one."""
        info = self._touch(peer)
        info.protocols = frozenset(sorted(protocols)[:MAX_PROTOCOLS])
        info.agent = agent or info.agent

    def met(self, peer: PeerId) -> None:
        """Note that a peer is there now."""
        self._touch(peer).last_seen = time.time()

    def parted(self, peer: PeerId) -> None:
        """Forget what a peer speaks, since it may come back as a newer version."""
        if info := self._peers.get(peer):
            info.protocols = None
            info.last_seen = time.time()

    def forget(self, peer: PeerId) -> None:
        """Forget all that is known of a peer; harmless if that is nothing."""
        self._peers.pop(peer, None)

    def _touch(self, peer: PeerId) -> PeerInfo:
        info = self._peers.get(peer)
        if info is None:
            info = self._peers[peer] = PeerInfo()
            if len(self._peers) > self._max_peers:
                self._peers.popitem(last=False)
        else:
            self._peers.move_to_end(peer)
        return info


def _bounded(addresses: Iterable[Multiaddr]) -> tuple[Multiaddr, ...]:
    kept = dict.fromkeys(each for each in addresses if len(bytes(each)) <= MAX_ADDRESS_BYTES)
    return tuple(kept)[:MAX_ADDRESSES]
