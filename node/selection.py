"""Which of several connections to one peer carries what this side opens, and which may go.

Sans-IO: connections are opaque keys. Call `add` and `remove` as they come and go, `measured`,
`suspect` and `answered` as they are probed, `best` to choose, `take_move` to hear what changed, and
`handle_timeout` at `next_timeout`; it returns the connections to close.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from math import inf
from typing import TYPE_CHECKING, Generic, TypeVar

from .path import BETTER_FOR, Path, Rank, Score, Silences, is_less

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterator

    from ..transports.core.multiaddr import Multiaddr

Key = TypeVar("Key")

CLOSE_AFTER = 30.0
"""Seconds for which a connection must not have been the best: a better path may be a blip."""

RECHECK_AFTER = 5.0
"""Seconds until a connection that was to be closed but carried a stream is looked at again."""

MAX_PLACES = 16
"""Places whose silences are remembered: as many as a peer has addresses."""


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


@dataclass(frozen=True, slots=True)
class Move(Generic[Key]):
    """What this side opens goes over another connection from now on; `old` may have ended."""

    old: Key
    new: Key
    reason: str


@dataclass(slots=True)
class _Choice(Generic[Key]):
    """The connection in use for some purpose, and since when others of its worth are nearer."""

    key: Key | None = None
    nearer_since: dict[Key, float] = field(default_factory=dict)


class Selection(Generic[Key]):
    """The connections to one peer.

    The better `Path.score` wins; of equal ones that which the lower peer id dialled, so that both
    sides of crossed dials agree; then the older. Once chosen, one stays until another has had a
    much shorter round trip for long. Only what this side dialled is ever closed here.
    """

    def __init__(self, *, is_local_lower: bool) -> None:
        self._is_local_lower = is_local_lower
        self._paths: dict[Key, Path] = {}
        self._leaving: set[Key] = set()
        self._silences: OrderedDict[Hashable, Silences] = OrderedDict()
        self._added = 0
        self._chosen_at = -inf
        self._best: _Choice[Key] = _Choice()
        self._best_unlimited: _Choice[Key] = _Choice()
        self._move: Move[Key] | None = None

    def __len__(self) -> int:
        return len(self._paths)

    def __iter__(self) -> Iterator[Key]:
        return iter(tuple(self._paths))

    @property
    def is_empty(self) -> bool:
        """Whether no connection is left, not even one that was told to close."""
        return not self._paths and not self._leaving

    def path(self, key: Key) -> Path | None:
        """Return how a connection does, unless it was removed."""
        return self._paths.get(key)

    def add(
        self,
        key: Key,
        rank: Rank,
        *,
        dialled: bool,
        limited: bool,
        now: float,
        place: Hashable = None,
    ) -> None:
        """Add a connection; `place` is where it leads, as far as its silences are concerned."""
        self._added += 1
        self._paths[key] = Path(
            rank,
            self._silences_of(key if place is None else place),
            limited=limited,
            dialled=dialled,
            is_preferred=dialled is self._is_local_lower,
            number=self._added,
            now=now,
        )
        self._choose(now, added=key)

    def remove(self, key: Key, now: float) -> None:
        """Remove a connection that has ended; harmless twice."""
        self._leaving.discard(key)
        if self._paths.pop(key, None) is not None:
            self._choose(now)

    def suspect(self, key: Key, now: float) -> None:
        """Note that a connection does not answer."""
        if path := self._paths.get(key):
            path.suspect(now)
            self._choose(now)

    def answered(self, key: Key, now: float) -> None:
        """Note that a connection answers again."""
        if path := self._paths.get(key):
            path.answered(now)
            self._choose(now)

    def measured(self, key: Key, now: float, rtt: float, loss: float | None = None) -> None:
        """Take a round trip, in seconds, and the share of packets lost if it can be told."""
        if path := self._paths.get(key):
            path.measured(now, rtt, loss, self._next_rtt(path, now))
            self._choose(now)

    def best(self, *, allow_limited: bool = True) -> Key | None:
        """Return the connection for what this side opens, or None."""
        return (self._best if allow_limited else self._best_unlimited).key

    def would_gain(self, rank: Rank, place: Hashable, now: float) -> bool:
        """Say whether a new path of that kind to that place would be better than the best one."""
        best = None if self._best.key is None else self._paths.get(self._best.key)
        if best is None:
            return True
        silences = self._silences.get(place)
        comes_and_goes = silences is not None and now < silences.last_until
        is_demoted = silences is not None and silences.is_demoted(now)
        new = Score(
            is_suspect=False, comes_and_goes=comes_and_goes, is_demoted=is_demoted, rank=rank
        )
        return new < best.score(now)

    def take_move(self) -> Move[Key] | None:
        """Return the move since the last call, if there was one."""
        move, self._move = self._move, None
        return move

    def next_timeout(self) -> float | None:
        """Return when `handle_timeout` has something to decide."""
        if len(self._paths) < 2:
            return None
        times = [path.changes_at(self._chosen_at) for path in self._paths.values()]
        times += [path.close_at for path in self._paths.values() if path.close_at is not None]
        return None if (due := min(times)) == inf else due

    def handle_timeout(self, now: float, is_busy: Callable[[Key], bool]) -> list[Key]:
        """Return, once each, the connections to close; a busy one is looked at again later."""
        self._choose(now)
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
            self._leaving.add(key)
        return done

    def _silences_of(self, place: Hashable) -> Silences:
        found = self._silences.get(place)
        if found is None:
            found = self._silences[place] = Silences()
            if len(self._silences) > MAX_PLACES:
                self._silences.popitem(last=False)
        self._silences.move_to_end(place)
        return found

    def _next_rtt(self, path: Path, now: float) -> float | None:
        """Return the round trip of the path that would be used if there were not this one."""
        others = [
            each
            for each in self._paths.values()
            if each is not path and not each.is_suspect and each.rank >= path.rank
        ]
        if not others:
            return None
        return min(others, key=lambda each: (each.score(now), each.number)).rtt

    def _choose(self, now: float, *, added: Key | None = None) -> None:
        self._chosen_at = now
        before = self._best.key
        if len(self._paths) < 2:
            # Most peers, most of the time.
            self._take_only()
        else:
            self._pick(self._best, self._paths, added, now)
            unlimited = {key: path for key, path in self._paths.items() if not path.limited}
            self._pick(self._best_unlimited, unlimited, added, now)
        best = self._best.key
        if before is not None and best is not None and best is not before:
            self._note_move(before, best, now)
        for key, path in self._paths.items():
            if key is best or key is self._best_unlimited.key or not path.dialled:
                path.close_at = None
            elif path.close_at is None:
                path.close_at = now + CLOSE_AFTER

    def _take_only(self) -> None:
        self._best, self._best_unlimited = _Choice(), _Choice()
        for key, path in self._paths.items():
            self._best = _Choice(key)
            self._best_unlimited = _Choice(None if path.limited else key)

    def _note_move(self, before: Key, after: Key, now: float) -> None:
        first = before if self._move is None else self._move.old
        reason = _reason(self._paths.get(before), self._paths[after], now)
        self._move = None if first is after else Move(first, after, reason)

    def _pick(
        self, choice: _Choice[Key], paths: dict[Key, Path], added: Key | None, now: float
    ) -> None:
        # What is of another worth now, or not nearer, begins anew when that changes.
        known, choice.nearer_since = choice.nearer_since, {}
        if not paths:
            choice.key = None
            return
        top = min(path.score(now) for path in paths.values())
        equal = {key: path for key, path in paths.items() if path.score(now) == top}
        path = None if choice.key is None else equal.get(choice.key)
        if path is None:
            choice.key = _first(equal)
        elif added in equal and equal[added].is_preferred and not path.is_preferred:
            # Crossed dials: the other side moves to it, too.
            choice.key = added
        else:
            since = {key: known.get(key, now) for key in equal if equal[key].is_nearer(path.rtt)}
            long = {key: equal[key] for key, begun in since.items() if now - begun >= BETTER_FOR}
            if long:
                choice.key = _first(long)
            else:
                choice.nearer_since = since


def _first(paths: dict[Key, Path]) -> Key:
    """Return the connection with the shortest round trip, or, of those as short, the preferred."""
    known = [path.rtt for path in paths.values() if path.rtt is not None]
    shortest = min(known, default=inf)
    near = {
        key: path
        for key, path in paths.items()
        if path.rtt is None or not is_less(shortest, path.rtt)
    }
    return min(near, key=lambda key: (not near[key].is_preferred, near[key].number))


def _reason(old: Path | None, new: Path, now: float) -> str:
    """Return why this side moves from one path to the other."""
    if old is None:
        return "the path before has ended"
    was, then = old.score(now), new.score(now)
    if was.is_suspect:
        return "the path before does not answer"
    if was.comes_and_goes and not then.comes_and_goes:
        return "the path before comes and goes"
    if was.is_demoted and not then.is_demoted:
        return "the path before is lossy or far"
    if was == then:
        return "its round trip is shorter" if new.rtt is not None else "the peer prefers it"
    return "it is a better kind of path"
