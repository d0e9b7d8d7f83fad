"""What this node remembers of peers: where they are and, while it runs, what they speak."""

from __future__ import annotations

import time
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from .store.records import StoredPeer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

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


def _tell_nobody(_peer: PeerId) -> None:
    """Take note of nothing."""


class PeerStore:
    """A bounded table of peers, in memory.

    `changed` is told of each peer of which there is news, also that it is to be forgotten;
    `dropped` of each that had to make room.
    """

    def __init__(
        self,
        *,
        max_peers: int = MAX_PEERS,
        changed: Callable[[PeerId], object] = _tell_nobody,
        dropped: Callable[[PeerId], object] = _tell_nobody,
    ) -> None:
        self._max_peers = max_peers
        self._changed = changed
        self._dropped = dropped
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
        info.addresses = bounded_addresses([*addresses, *info.addresses])

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
        info.addresses = bounded_addresses(addresses)
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
            self._changed(peer)

    def stored(self, peer: PeerId) -> StoredPeer | None:
        """Return what outlives a run of what is known of a peer; None for a stranger."""
        info = self._peers.get(peer)
        if info is None:
            return None
        return StoredPeer(peer, info.addresses, info.agent, info.record_seq, info.last_seen)

    def restore(self, stored: Iterable[StoredPeer]) -> None:
        """Take in what an earlier run knew, of the peer that was met most recently first.

        What is known already stays in front of it, and is told as changed.
        """
        for peer in self._peers:
            self._changed(peer)
        for each in stored:
            info = self._peers.get(each.peer)
            if info is None and len(self._peers) < self._max_peers:
                info = self._peers[each.peer] = PeerInfo(last_seen=each.last_seen)
                self._peers.move_to_end(each.peer, last=False)
            if info is not None:
                info.addresses = bounded_addresses([*info.addresses, *each.addresses])
                info.agent = info.agent or each.agent
                info.record_seq = max(info.record_seq, each.record_seq)

    def forget(self, peer: PeerId) -> None:
        """Forget where a peer is and what it is; harmless if nothing is known."""
        self._peers.pop(peer, None)
        # Told in any case: a file that could not be read yet may know it.
        self._changed(peer)

    def _touch(self, peer: PeerId) -> PeerInfo:
        info = self._peers.get(peer)
        if info is None:
            info = self._peers[peer] = PeerInfo()
            if len(self._peers) > self._max_peers:
                self._dropped(self._peers.popitem(last=False)[0])
        else:
            self._peers.move_to_end(peer)
        self._changed(peer)
        return info


def bounded_addresses(addresses: Iterable[Multiaddr]) -> tuple[Multiaddr, ...]:
    """Return the first addresses, each once, as many and as long as are kept of one peer."""
    kept = dict.fromkeys(each for each in addresses if len(bytes(each)) <= MAX_ADDRESS_BYTES)
    return tuple(kept)[:MAX_ADDRESSES]
