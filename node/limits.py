"""Who may be connected: places of the table, who makes room for whom, and dials that wait.

Sans-IO: connections and dials are opaque keys, peers and addresses are only compared, the time is
an argument. Call order: `admit` when a connection stands (a LimitExceeded turns it away), `leave`
when it takes no more streams, `ended` when nothing of it runs any more; `request_dial` before a
dial and `dial_ended` after it; `handle_timeout` at `next_timeout`. What follows is returned as
events.

Worth, most first: the standing of the peer; dialled by this side; a stream open that is not mere
upkeep; used lately; long there. When the table is full, the least worthy connection makes room for
one that is worth more, or, among strangers, for one worth as much while it is idle. A peer whose
connection was in use when it broke comes back as one in use.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from dataclasses import dataclass, field
from enum import Enum, IntEnum, auto
from math import inf
from typing import TYPE_CHECKING, Generic, NamedTuple, TypeAlias, TypeVar

from ..transports.core.addresses import prefix_of
from .prefixes import count_down, exceeded

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from ..transports.core.addresses import Prefix
    from ..transports.core.errors import LimitExceeded
    from ..transports.core.interfaces import Priority
    from ..transports.core.multiaddr import Multiaddr
    from ..transports.core.peer_id import PeerId
    from .config import LimitsConfig

Key = TypeVar("Key", bound="Hashable")
Ticket = TypeVar("Ticket", bound="Hashable")

LEAVING_PART = 8
"""One connection in so many may be leaving to make room: handlers that do not end in time do not
make the table grow without bound."""

RETRY = 1.0
"""Seconds after which waiting dials are looked at again: a connection may have become idle, or old
enough, which nothing tells."""

SEARCH_PAUSE = 0.1
"""Seconds for which strangers are refused without a search, after one in vain: each looks at all
connections, which is as much work as a handshake."""

LOOKS = 4
"""Looks at all connections in one idle timeout; a use is noticed so much of it late at most."""

DRAIN_TIME = 30.0
"""Seconds for the upkeep streams of an idle connection to end before it is closed over them."""

MAX_PAUSED = 1024
"""Peers that made room and are remembered for it: twice the default table."""

RETURN_TIME = 600.0
"""Seconds for which a peer is remembered whose connection was in use when it ended: most restarts
and changes of the network are over by then."""

MAX_RETURNING = 1024
"""Such peers that are remembered: twice the default table."""


class Standing(IntEnum):
    """What the user has said of a peer; an address alone gives none."""

    UNKNOWN = 0
    KNOWN = 1
    KEPT = 2


class Usage(NamedTuple):
    """How a connection is used: whether now, and by how many streams since it stands."""

    is_busy: bool
    streams: int


@dataclass(frozen=True, slots=True)
class Fullness:
    """How full a limit is, and the setting that moves it."""

    name: str
    used: int
    bound: int
    setting: str


@dataclass(frozen=True, slots=True)
class Evicted(Generic[Key]):
    """A connection makes room: close it, and tell its peer that it was not wanted any longer."""

    key: Key
    reason: str


@dataclass(frozen=True, slots=True)
class BecameIdle(Generic[Key]):
    """A connection is of no use any longer: let it drain."""

    key: Key
    reason: str


@dataclass(frozen=True, slots=True)
class DrainExpired(Generic[Key]):
    """An idle connection has not ended by itself: close it."""

    key: Key


@dataclass(frozen=True, slots=True)
class DialAllowed(Generic[Ticket]):
    """A dial has a place."""

    dial: Ticket


@dataclass(frozen=True, slots=True)
class DialRefused(Generic[Ticket]):
    """A dial has waited in vain, or had to give way to more urgent ones."""

    dial: Ticket
    error: LimitExceeded


TableEvent: TypeAlias = (
    Evicted[Key] | BecameIdle[Key] | DrainExpired[Key] | DialAllowed[Ticket] | DialRefused[Ticket]
)


class _State(Enum):
    STANDING = auto()
    LEAVING = auto()
    """It takes no more streams, but what ran on it still does, and counts."""
    EVICTED = auto()
    """The same, but another has its place; there may be only so many of them."""


class _Class(NamedTuple):
    """Whom a connection can make room for is decided by these alone."""

    standing: Standing
    is_dialled: bool
    is_busy: bool


_LEAST = _Class(Standing.UNKNOWN, is_dialled=False, is_busy=False)
"""A stranger of whom nothing is known."""


@dataclass(slots=True)
class _Place:
    peer: PeerId
    prefix: Prefix | None
    is_inbound: bool
    since: float
    state: _State = _State.STANDING
    used_at: float = -inf
    is_busy: bool = False
    streams: int = 0
    drained_by: float = inf
    holders: set[str] = field(default_factory=set)


@dataclass(slots=True)
class _Waiting:
    peer: PeerId | None
    priority: Priority
    number: int
    until: float

    @property
    def turn(self) -> tuple[int, int]:
        """The least is served first."""
        return (-self.priority, self.number)


def _remember(peers: OrderedDict[PeerId, float], peer: PeerId, until: float, bound: int) -> None:
    peers[peer] = until
    peers.move_to_end(peer)
    if len(peers) > bound:
        peers.popitem(last=False)


class ConnectionTable(Generic[Key, Ticket]):
    """The connections of a node, and the dials that are to add to them.

    `standing` says what the user thinks of a peer, `is_wanted` whose connection stays however
    little it is used (a kept peer's does anyway), `usage` how a connection is used.
    """

    def __init__(
        self,
        limits: LimitsConfig,
        *,
        standing: Callable[[PeerId], Standing],
        usage: Callable[[Key], Usage],
        is_wanted: Callable[[PeerId], bool],
    ) -> None:
        self._limits = limits
        self._standing = standing
        self._usage = usage
        self._is_wanted = is_wanted
        self._places: dict[Key, _Place] = {}
        self._evicted = 0
        self._inbound = 0
        self._of_peer: Counter[PeerId] = Counter()
        self._of_prefix: Counter[Prefix] = Counter()
        self._paused: OrderedDict[PeerId, float] = OrderedDict()
        self._returning: OrderedDict[PeerId, float] = OrderedDict()
        self._dialling: set[Ticket] = set()
        self._waiting: dict[Ticket, _Waiting] = {}
        self._asked = 0
        self._retry_at = inf
        self._in_vain_until = -inf
        self._expected_until = -inf
        self._look_at = inf

    def __len__(self) -> int:
        return len(self._places) - self._evicted

    def __contains__(self, key: Key) -> bool:
        return key in self._places

    @property
    def waiting(self) -> int:
        """Dials that wait for a place."""
        return len(self._waiting)

    def fullness(self) -> tuple[Fullness, ...]:
        """Return how full each limit is; of that for one peer, for the peer that uses it most.

        Dials under way are bounded by the places that the connections leave.
        """
        limits, left = self._limits, max(0, self._limits.connections - len(self))
        most = max(self._of_peer.values(), default=0)
        return tuple(
            Fullness(name, used, bound, f"limits.{setting}")
            for name, used, bound, setting in (
                ("connections", len(self), limits.connections, "connections"),
                (
                    "inbound connections of strangers",
                    self._count_strangers(),
                    limits.inbound_connections,
                    "outbound_share",
                ),
                (
                    "connections of one peer",
                    most,
                    limits.connections_per_peer,
                    "connections_per_peer",
                ),
                ("dials under way", len(self._dialling), left, "connections"),
                ("dials that wait", len(self._waiting), limits.waiting_dials, "waiting_dials"),
            )
        )

    # Connections

    def admit(
        self, key: Key, peer: PeerId, address: Multiaddr, *, is_inbound: bool, now: float
    ) -> list[TableEvent[Key, Ticket]]:
        """Take in a connection; what this side dialled has its place already.

        Raises LimitExceeded where an inbound one is not to come in.
        """
        events: list[TableEvent[Key, Ticket]] = []
        prefix = None
        if is_inbound:
            prefix = prefix_of(address)
            events = self._make_way(peer, prefix, now)
            self._inbound += 1
            if prefix is not None:
                self._of_prefix[prefix] += 1
        self._paused.pop(peer, None)
        self._returning.pop(peer, None)
        self._of_peer[peer] += 1
        self._places[key] = _Place(peer, prefix, is_inbound, now)
        self._look_at = min(self._look_at, now + self._limits.idle_timeout / LOOKS)
        return events

    def leave(self, key: Key, now: float) -> None:
        """Note that a connection has ended, while handlers may still run; harmless twice."""
        place = self._places[key]
        if place.state is _State.STANDING:
            if self._was_used(key, place):
                _remember(self._returning, place.peer, now + RETURN_TIME, MAX_RETURNING)
            self._part(place, _State.LEAVING)

    def ended(self, key: Key, now: float) -> list[TableEvent[Key, Ticket]]:
        """Free a connection's place; harmless twice."""
        if key not in self._places:
            return []
        self.leave(key, now)
        place = self._places.pop(key)
        self._evicted -= place.state is _State.EVICTED
        self._inbound -= place.is_inbound
        return self._serve_dials(now)

    def hold(self, key: Key, holder: str) -> None:
        """Have a connection never evicted nor ended as idle until `holder` releases it."""
        self._places[key].holders.add(holder)

    def release(self, key: Key, holder: str) -> None:
        """Take back a `hold`; harmless without one."""
        if place := self._places.get(key):
            place.holders.discard(holder)

    def is_held(self, key: Key) -> bool:
        """Say whether anybody holds a connection."""
        place = self._places.get(key)
        return place is not None and bool(place.holders)

    # Dials

    def request_dial(
        self, dial: Ticket, peer: PeerId | None, priority: Priority, now: float
    ) -> list[TableEvent[Key, Ticket]]:
        """Ask for a place; the events say if the dial has it or is refused, or neither yet."""
        limits = self._limits
        self._asked += 1
        self._waiting[dial] = _Waiting(peer, priority, self._asked, now + limits.dial_wait)
        events = self._serve_dials(now)
        if len(self._waiting) > limits.waiting_dials:
            last = max(self._waiting, key=lambda each: self._waiting[each].turn)
            count, bound = len(self._waiting), limits.waiting_dials
            del self._waiting[last]
            error = exceeded("dials that wait for a place", count, bound, "waiting_dials")
            events.append(DialRefused(last, error))
        if not limits.dial_wait:
            events += self._expire_dials(now)
        return events

    def hurry_dial(self, dial: Ticket, priority: Priority) -> None:
        """Raise a waiting dial's priority, if this one is higher."""
        if waiting := self._waiting.get(dial):
            waiting.priority = max(waiting.priority, priority)

    def dial_ended(self, dial: Ticket, now: float) -> list[TableEvent[Key, Ticket]]:
        """Free a dial's place, or let it wait no longer; harmless twice."""
        self._waiting.pop(dial, None)
        self._dialling.discard(dial)
        return self._serve_dials(now)

    # Time

    def next_timeout(self) -> float:
        """Return when `handle_timeout` has something to do; infinite if never."""
        due = self._look_at
        if self._waiting:
            due = min(due, self._retry_at, *(each.until for each in self._waiting.values()))
        return due

    def handle_timeout(self, now: float) -> list[TableEvent[Key, Ticket]]:
        """End what is idle, and serve or refuse the dials that wait."""
        events = self._end_idle(now) if now >= self._look_at else []
        if self._waiting:
            events += self._serve_dials(now)
            events += self._expire_dials(now)
        return events

    # Making room

    @property
    def _taken(self) -> int:
        return len(self) + len(self._dialling)

    def _make_way(
        self, peer: PeerId, prefix: Prefix | None, now: float
    ) -> list[TableEvent[Key, Ticket]]:
        """Check every limit that a peer can meet by connecting; return who makes room for it."""
        limits = self._limits
        standing = self._standing(peer)
        own = self._of_peer[peer] + 1
        if own > limits.connections_per_peer:
            bound = limits.connections_per_peer
            raise exceeded("connections of one peer", own, bound, "connections_per_peer")
        refusal = self._full() if self._taken >= limits.connections else None
        if standing is Standing.UNKNOWN:
            self._check_stranger(peer, prefix, now)
            if (strangers := self._strangers()) >= (bound := limits.inbound_connections):
                count = strangers + 1
                refusal = exceeded("connections of strangers", count, bound, "connections")
        if refusal is None:
            return []
        is_returning = self._returning.get(peer, -inf) > now
        newcomer = _Class(standing, is_dialled=False, is_busy=is_returning)
        victim = self._victim_for_inbound(newcomer, now)
        if victim is None:
            if newcomer > _LEAST:
                self._expect_again(now)
            raise refusal
        return [victim]

    def _victim_for_inbound(self, newcomer: _Class, now: float) -> Evicted[Key] | None:
        if newcomer.standing is not Standing.UNKNOWN:
            return self._victim(newcomer, now)
        if self._waiting or now < self._in_vain_until:
            return None  # behind the dials that wait for a place
        if newcomer == _LEAST and now < self._expected_until:
            return None
        victim = self._victim(newcomer, now)
        if victim is None:
            self._in_vain_until = now + SEARCH_PAUSE
        return victim

    def _expect_again(self, now: float) -> None:
        """Leave the next place to somebody turned away who is worth more than a stranger.

        Else strangers would hand it on among themselves, each to the next as soon as it is old
        enough, whenever one of them asks first. After the minimum age there is one old enough.
        """
        self._expected_until = now + self._limits.minimum_age

    def _check_stranger(self, peer: PeerId, prefix: Prefix | None, now: float) -> None:
        limits = self._limits
        if prefix is not None:
            count, bound = self._of_prefix[prefix] + 1, limits.connections_per_prefix
            if count > bound:
                which = f"connections from {prefix}"
                raise exceeded(which, count, bound, "connections_per_prefix")
        if (until := self._paused.get(peer)) is not None:
            if now < until:
                which = f"returns within {limits.eviction_pause:g} s of making room"
                raise exceeded(which, 1, 0, "eviction_pause")
            del self._paused[peer]

    def _strangers(self) -> int:
        """Count inbound connections of strangers; exactly once they may be too many."""
        if self._inbound < self._limits.inbound_connections:
            return self._inbound
        return self._count_strangers()

    def _count_strangers(self) -> int:
        return sum(
            place.is_inbound
            and place.state is not _State.EVICTED
            and self._standing(place.peer) is Standing.UNKNOWN
            for place in self._places.values()
        )

    def _victim(self, newcomer: _Class, now: float) -> Evicted[Key] | None:
        """Evict the least worthy connection for a newcomer; None if nobody has to go for it.

        The class decides whether somebody of less worth is there at all. If these are all too
        young, nobody better goes in their stead: they grow older soon.
        """
        limits = self._limits
        if self._evicted >= max(1, limits.connections // LEAVING_PART):
            return None
        ranked: dict[_Class, list[Key]] = {}
        for key, place in self._places.items():
            if place.state is _State.STANDING and not place.holders:
                self._note_use(key, place, now)
                rank = _Class(self._standing(place.peer), not place.is_inbound, place.is_busy)
                ranked.setdefault(rank, []).append(key)
        lowest = min(ranked, default=newcomer)
        if lowest > newcomer:
            return None
        if lowest == newcomer and (newcomer.is_busy or newcomer.standing is not Standing.UNKNOWN):
            return None
        places, latest = self._places, now - limits.minimum_age
        old = [key for key in ranked.get(lowest, ()) if places[key].since <= latest]
        if not old:
            return None
        victim = min(old, key=lambda key: (places[key].used_at, -places[key].since))
        return self._evict(victim, now)

    def _evict(self, key: Key, now: float) -> Evicted[Key]:
        place, limits = self._places[key], self._limits
        self._part(place, _State.EVICTED)
        self._evicted += 1
        _remember(self._paused, place.peer, now + limits.eviction_pause, MAX_PAUSED)
        bound, setting = limits.connections, "limits.connections"
        return Evicted(key, f"it made room for another of {bound} connections (setting: {setting})")

    def _part(self, place: _Place, state: _State) -> None:
        """Count a connection no longer for its peer and prefix, who may come again."""
        place.state = state
        self._of_peer[place.peer] -= 1
        if not self._of_peer[place.peer]:
            del self._of_peer[place.peer]
        if place.prefix is not None:
            count_down(self._of_prefix, place.prefix)

    def _was_used(self, key: Key, place: _Place) -> bool:
        """Say whether it was in use when it was last looked at, or has been since then."""
        usage = self._usage(key)
        return place.is_busy or usage.is_busy or usage.streams != place.streams

    def _note_use(self, key: Key, place: _Place, now: float) -> None:
        place.is_busy, streams = self._usage(key)
        if place.is_busy or streams != place.streams:
            place.used_at, place.streams = now, streams

    def _full(self) -> LimitExceeded:
        count, bound = self._taken + 1, self._limits.connections
        return exceeded("connections", count, bound, "connections")

    # Dials that wait

    def _serve_dials(self, now: float) -> list[TableEvent[Key, Ticket]]:
        events: list[TableEvent[Key, Ticket]] = []
        in_vain: Standing | None = None
        for dial in sorted(self._waiting, key=lambda each: self._waiting[each].turn):
            if self._taken >= self._limits.connections:
                peer = self._waiting[dial].peer
                standing = Standing.UNKNOWN if peer is None else self._standing(peer)
                if in_vain is not None and standing <= in_vain:
                    continue
                newcomer = _Class(standing, is_dialled=True, is_busy=False)
                victim = self._victim(newcomer, now)
                if victim is None:
                    in_vain = standing
                    continue
                events.append(victim)
            del self._waiting[dial]
            self._dialling.add(dial)
            events.append(DialAllowed(dial))
        self._retry_at = now + RETRY
        return events

    def _expire_dials(self, now: float) -> list[TableEvent[Key, Ticket]]:
        late = [dial for dial, waiting in self._waiting.items() if waiting.until <= now]
        for dial in late:
            del self._waiting[dial]
            self._expect_again(now)
        return [DialRefused(dial, self._full()) for dial in late]

    # Idle connections

    def _end_idle(self, now: float) -> list[TableEvent[Key, Ticket]]:
        timeout = self._limits.idle_timeout
        events: list[TableEvent[Key, Ticket]] = []
        due = [now + timeout / LOOKS] if self._places else []
        for key, place in self._places.items():
            if place.state is _State.STANDING:
                self._note_use(key, place, now)
                end = max(place.since, place.used_at) + timeout
                if place.holders or self._is_spared(place.peer):
                    continue
                if end <= now:
                    self._part(place, _State.LEAVING)
                    place.drained_by = end = now + DRAIN_TIME
                    reason = f"it was idle for {timeout:g} s (setting: limits.idle_timeout)"
                    events.append(BecameIdle(key, reason))
                due.append(end)
            elif place.drained_by <= now:
                place.drained_by = inf
                events.append(DrainExpired(key))
            else:
                due.append(place.drained_by)
        self._look_at = min(due, default=inf)
        return events

    def _is_spared(self, peer: PeerId) -> bool:
        return self._standing(peer) is Standing.KEPT or self._is_wanted(peer)
