"""The peers that the user keeps: few, named by hand, and never forgotten by themselves."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...transports.core.errors import ConfigError
from ..peerstore import bounded_addresses
from .records import KeptPeer
from .rows import MAX_TEXT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from ...transports.core.multiaddr import Multiaddr
    from ...transports.core.peer_id import PeerId

MAX_KEPT = 1024
"""Peers kept: each is connected to at any time, and a node has 512 connections by default."""


class KeptPeers:
    """A bounded table of kept peers; `changed` is told of each peer whose entry is another."""

    def __init__(self, *, changed: Callable[[PeerId], object], max_kept: int = MAX_KEPT) -> None:
        self._changed = changed
        self._max_kept = max_kept
        self._kept: dict[PeerId, KeptPeer] = {}

    def __contains__(self, peer: PeerId) -> bool:
        return peer in self._kept

    def __iter__(self) -> Iterator[KeptPeer]:
        return iter(tuple(self._kept.values()))

    def __len__(self) -> int:
        return len(self._kept)

    def info(self, peer: PeerId) -> KeptPeer | None:
        """Return what is kept of a peer; None if it is not kept."""
        return self._kept.get(peer)

    def named(self, alias: str) -> KeptPeer | None:
        """Return the peer that is kept under an alias, if there is one."""
        return next((each for each in self._kept.values() if alias and each.alias == alias), None)

    def keep(
        self, peer: PeerId, *, now: float, addresses: Iterable[Multiaddr] = (), alias: str = ""
    ) -> KeptPeer:
        """Keep a peer, since `now` in seconds since 1970, or since it has been kept.

        Addresses come before those that are kept already; an empty alias leaves the known one.
        Raises ConfigError for an alias that is taken or too long, or for one peer too many.
        """
        known = self._kept.get(peer)
        holder = self.named(alias)
        if holder is not None and holder.peer != peer:
            raise ConfigError(f"the alias {alias!r} is {holder.peer}'s; choose another")
        if len(alias) > MAX_TEXT:
            raise ConfigError(f"an alias has {MAX_TEXT} characters at most")
        if known is None and len(self._kept) >= self._max_kept:
            raise ConfigError(f"{self._max_kept} peers are kept, which is all; forget one first")
        kept = self._kept[peer] = KeptPeer(
            peer,
            bounded_addresses([*addresses, *(known.addresses if known else ())]),
            alias or (known.alias if known else ""),
            known.since if known else now,
        )
        self._changed(peer)
        return kept

    def forget(self, peer: PeerId) -> bool:
        """Keep a peer no more; return whether it was kept."""
        found = self._kept.pop(peer, None)
        # Told in any case: a file that could not be read yet may hold it.
        self._changed(peer)
        return found is not None

    def restore(self, stored: Iterable[KeptPeer]) -> None:
        """Take in what a file held; what is known already stays, and is to be written again."""
        for peer in self._kept:
            self._changed(peer)
        for each in stored:
            if len(self._kept) < self._max_kept:
                self._kept.setdefault(each.peer, each)
