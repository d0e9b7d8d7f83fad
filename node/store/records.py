"""What goes into the file and comes out of it, as values, and the error when it does not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ...transports.core.errors import StoreError

if TYPE_CHECKING:
    from pathlib import Path

    from ...transports.core.multiaddr import Multiaddr
    from ...transports.core.peer_id import PeerId


@dataclass(frozen=True, slots=True)
class StoredPeer:
    """What outlives a run of what is known of one peer; `last_seen` in seconds since 1970."""

    peer: PeerId
    addresses: tuple[Multiaddr, ...]
    agent: str
    record_seq: int
    last_seen: float


@dataclass(frozen=True, slots=True)
class KeptPeer:
    """A peer that the user keeps, since a time in seconds since 1970."""

    peer: PeerId
    addresses: tuple[Multiaddr, ...]
    alias: str
    since: float


@dataclass(frozen=True, slots=True)
class StoredChange:
    """A change of a link as a file has it: another version may have known other states.

    `time` is in seconds since 1970.
    """

    state: str
    reason: str
    time: float


@dataclass(frozen=True, slots=True)
class StoredLink:
    """Changes of one peer's link, oldest first; the oldest has the number `first`."""

    peer: PeerId
    first: int
    changes: tuple[StoredChange, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Contents:
    """All that a file holds; peers and links with the most recent one first."""

    peers: tuple[StoredPeer, ...] = ()
    kept: tuple[KeptPeer, ...] = ()
    links: tuple[StoredLink, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """What one transaction writes; what has changed most recently comes last."""

    peers: tuple[StoredPeer, ...] = ()
    forgotten: tuple[PeerId, ...] = ()
    kept: tuple[KeptPeer, ...] = ()
    not_kept: tuple[PeerId, ...] = ()
    links: tuple[StoredLink, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.peers or self.forgotten or self.kept or self.not_kept or self.links)


class StoreUnavailable(StoreError):
    """The file cannot be used now, because of `reason`; a node goes on without it."""

    def __init__(self, path: Path, reason: str) -> None:
        self.reason = reason
        super().__init__(f"{path}: {reason}")
