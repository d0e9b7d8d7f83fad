"""Which of several connections to one peer carries what this side opens, and which may go.

Sans-IO: connections are opaque keys. Call `add` and `remove` as they come and go, `best` to
choose, and `handle_timeout` at `next_timeout`; it returns the connections to close.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..transports.core.multiaddr import Multiaddr

Key = TypeVar("Key")

CLOSE_AFTER = 30.0
"""Seconds for which a connection must not have been the best: a better path may be a blip."""

RECHECK_AFTER = 5.0
"""Seconds until a connection that was to be closed but carried a stream is looked at again."""


class Rank(IntEnum):
    """The kind of a path, best first."""

    LAN = 0
    DIRECT = 1
    WEBSOCKET = 2
    WEBRTC = 3
    TURN = 4
    RELAY = 5


def rank_of(address: Multiaddr, is_on_link: Callable[[Multiaddr], bool]) -> Rank:
    """Return the kind of path that an address shows; `is_on_link` knows this machine's networks."""
    names = address.names
    if "webrtc" in names or "webrtc-direct" in names:
        # In .../p2p-circuit/webrtc the relay only carried the signalling.
        return Rank.WEBRTC
    if "p2p-circuit" in names:
        return Rank.RELAY
    if is_on_link(address):
        return Rank.LAN
    return Rank.WEBSOCKET if "ws" in names or "wss" in names else Rank.DIRECT


@dataclass(slots=True)
class _Path:
    score: tuple[int, bool, int]
    limited: bool
    dialled: bool
    close_at: float | None = None


class Selection(Generic[Key]):
    """The connections to one peer.

    The lower rank wins; of equal ones that which the lower peer id dialled, so that both sides
    of crossed dials agree; then the older. Only what this side dialled is ever closed here.
    """

    def __init__(self, *, is_local_lower: bool) -> None:
        self._is_local_lower = is_local_lower
        self._paths: dict[Key, _Path] = {}
        self._added = 0
        self._best: Key | None = None
        self._best_unlimited: Key | None = None

    def __len__(self) -> int:
        return len(self._paths)

    def add(self, key: Key, rank: Rank, *, dialled: bool, limited: bool, now: float) -> None:
        """Add a connection."""
        self._added += 1
        score = (int(rank), dialled is not self._is_local_lower, self._added)
        self._paths[key] = _Path(score, limited, dialled)
        self._choose(now)

    def remove(self, key: Key, now: float) -> None:
        """Remove a connection that has ended; harmless twice."""
        if self._paths.pop(key, None) is not None:
            self._choose(now)

    def best(self, *, allow_limited: bool = True) -> Key | None:
        """Return the connection for what this side opens, or None."""
        return self._best if allow_limited else self._best_unlimited

    def next_timeout(self) -> float | None:
        """Return when `handle_timeout` has something to decide."""
        times = [path.close_at for path in self._paths.values() if path.close_at is not None]
        return min(times, default=None)

    def handle_timeout(self, now: float, is_busy: Callable[[Key], bool]) -> list[Key]:
        """Return, once each, the connections to close; a busy one is looked at again later."""
        done = []
        for key, path in self._paths.items():
            if path.close_at is None or path.close_at > now:
                continue
            if is_busy(key):
                path.close_at = now + RECHECK_AFTER
            else:
                path.close_at = None
                done.append(key)
        for key in done:
            del self._paths[key]
        return done

    def _choose(self, now: float) -> None:
        ranked = sorted(self._paths, key=lambda key: self._paths[key].score)
        self._best = ranked[0] if ranked else None
        unlimited = (key for key in ranked if not self._paths[key].limited)
        self._best_unlimited = next(unlimited, None)
        for key, path in self._paths.items():
            if key is self._best or not path.dialled:
                path.close_at = None
            elif path.close_at is None:
                path.close_at = now + CLOSE_AFTER
