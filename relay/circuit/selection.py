"""Which relays a node holds reservations at.

Sans-IO: relays are opaque but for their place, a network that several of them may share. Say what
is known of them, and call `choose` whenever something has changed or `next_timeout` has come; it
returns the relays to be wanted, those to let go of left out.

Relays that were configured come first; discovered ones fill the places that are left, each in
another network. Of several the cheaper of two drawn at random is taken, since all peers that take
the cheapest would meet there. What stands stays, unless another is clearly better for minutes.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from enum import Enum
from math import inf
from statistics import median
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping

    from ...transports.core.multiaddr import Multiaddr
    from ...transports.core.peer_id import PeerId

PROBES = 3
"""Round trips whose median counts: one that was late by chance does not."""

MAX_DISCOVERED = 64
"""Discovered relays that are remembered; two of them are used."""

MAX_TRYING = 4
"""Discovered relays that are tried at one time: each is a dial to a stranger."""

NEXT_STAGE = 0.5
"""Seconds after which the other configured relays are tried, too, beside the ones chosen."""

HEAD_START = 2.0
"""Seconds that configured relays have before discovered ones are tried."""

SWITCH_TIME = 300.0
"""Seconds for which another relay must have been better, before one that stands is left for it."""

SWITCH_GAIN = 0.3
"""The part of its cost by which it must be better, and the least number of seconds beside."""

SWITCH_SECONDS = 0.02

AVOID_TIME = 60.0
"""Seconds for which a discovered relay that failed is left alone, if there are others; doubles."""

MAX_AVOID_TIME = 3600.0
"""The longest; go waits as long."""


class Health(Enum):
    """What is known of a relay now."""

    RESTING = "resting"
    TRYING = "trying"
    FAILING = "failing"
    STANDING = "standing"
    """A reservation stands."""


@dataclass(slots=True)
class _Candidate:
    place: str | None
    is_configured: bool
    times: deque[float] = field(default_factory=lambda: deque(maxlen=PROBES))
    load: float = 0.0
    failures: int = 0
    avoided_until: float = -inf
    better_since: float | None = None

    @property
    def cost(self) -> float:
        """Seconds: the round trip, up to twice as much for a relay that is full."""
        return median(self.times) * (1 + self.load) if self.times else inf


class RelaySelection:
    """Chooses `wanted` of the relays it knows; `draw` returns a number from 0 to 1, below 1."""

    def __init__(self, *, wanted: int, draw: Callable[[], float]) -> None:
        self._wanted = wanted
        self._draw = draw
        self._known: dict[PeerId, _Candidate] = {}
        self._chosen: set[PeerId] = set()
        self._short_since: float | None = None
        self._looked_at = -inf

    def __contains__(self, relay: object) -> bool:
        return relay in self._known

    def __iter__(self) -> Iterator[PeerId]:
        return iter(tuple(self._known))

    def __len__(self) -> int:
        return len(self._known)

    def add(self, relay: PeerId, place: str | None, *, is_configured: bool) -> PeerId | None:
        """Take note of a relay; return one that is forgotten for it, itself if there is no room.

        A configured one is never forgotten, and a discovered one may become configured.
        """
        known = self._known.get(relay)
        if known is not None:
            known.is_configured = known.is_configured or is_configured
            known.place = place if place is not None else known.place
            return None
        dropped = None
        if not is_configured and self._count_discovered() >= MAX_DISCOVERED:
            dropped = self._worst()
            if dropped is None:
                return relay
            self.remove(dropped)
        self._known[relay] = _Candidate(place, is_configured)
        return dropped

    def remove(self, relay: PeerId) -> None:
        """Forget a relay; harmless if it is not known."""
        self._known.pop(relay, None)
        self._chosen.discard(relay)

    def is_configured(self, relay: PeerId) -> bool:
        """Say whether a relay was named by the user."""
        known = self._known.get(relay)
        return known is not None and known.is_configured

    def measured(self, relay: PeerId, times: Iterable[float], *, load: float | None = None) -> None:
        """Take note of round trips in seconds, and of the used part of what a relay gives."""
        if (known := self._known.get(relay)) is not None:
            known.times.extend(times)
            if load is not None:
                known.load = min(max(load, 0.0), 1.0)

    def cost(self, relay: PeerId) -> float:
        """Return what a relay costs, in seconds; infinite if it was not measured."""
        known = self._known.get(relay)
        return inf if known is None else known.cost

    def choose(self, health: Mapping[PeerId, Health], now: float) -> frozenset[PeerId]:
        """Return the relays to be wanted from now on."""
        self._note_failures(health, now)
        standing = [relay for relay in self._known if health.get(relay) is Health.STANDING]
        own = self._cheapest(standing, is_configured=True)[: self._wanted]
        held = own + self._apart(
            self._cheapest(standing, is_configured=False), own, self._wanted - len(own)
        )
        lacking = self._wanted - len(held)
        if lacking <= 0:
            self._short_since = None
        elif self._short_since is None:
            self._short_since = now
        chosen = [*held, *self._configured_to_try(own, now)]
        if lacking > 0:
            chosen += self._discovered_to_try(chosen, held, lacking, now)
        elif (better := self._challenger(held, now)) is not None:
            chosen.append(better)
        self._chosen = set(chosen)
        return frozenset(chosen)

    def next_timeout(self) -> float:
        """When `choose` may decide otherwise although nothing has happened."""
        times = [
            each.better_since + SWITCH_TIME
            for each in self._known.values()
            if each.better_since is not None
        ]
        if self._short_since is not None:
            times += [self._short_since + NEXT_STAGE, self._short_since + HEAD_START]
            times += [each.avoided_until for each in self._known.values()]
        return min((each for each in times if each > self._looked_at), default=inf)

    # What is tried

    def _configured_to_try(self, own: Collection[PeerId], now: float) -> list[PeerId]:
        """Return the configured relays to try: for every place that none of them holds."""
        lacking = self._wanted - len(own)
        others = [r for r, each in self._known.items() if each.is_configured and r not in own]
        if lacking <= 0:
            return []
        if self._is_short_for(NEXT_STAGE, now):
            return others
        trying = [relay for relay in others if relay in self._chosen][:lacking]
        return self._draw_more(trying, others, lacking)

    def _discovered_to_try(
        self, chosen: Collection[PeerId], held: Collection[PeerId], lacking: int, now: float
    ) -> list[PeerId]:
        has_configured = any(each.is_configured for each in self._known.values())
        if has_configured and not self._is_short_for(HEAD_START, now):
            return []
        count = MAX_TRYING if self._is_short_for(HEAD_START, now) else lacking
        found = {r: each for r, each in self._known.items() if not each.is_configured}
        fresh = [r for r, each in found.items() if each.avoided_until <= now and r not in held]
        # Where all have failed, those that may be tried again first are tried on.
        late = sorted(
            (r for r in found if r not in fresh and r not in held),
            key=lambda relay: found[relay].avoided_until,
        )
        trying = [relay for relay in fresh if relay in self._chosen]
        order = self._draw_more(trying, fresh, len(fresh)) + late
        return self._apart(order, chosen, count)

    def _challenger(self, held: Collection[PeerId], now: float) -> PeerId | None:
        """Return a relay that has been clearly better than one that is held for long enough."""
        worst: dict[bool, PeerId] = {}
        for relay in held:
            kind = self._known[relay].is_configured
            if kind not in worst or self.cost(relay) > self.cost(worst[kind]):
                worst[kind] = relay
        best: PeerId | None = None
        for relay, each in self._known.items():
            rival = worst.get(each.is_configured)
            if rival is None or relay in held or not self._beats(relay, rival, held, now):
                each.better_since = None
                continue
            if each.better_since is None:
                each.better_since = now
            is_ripe = now - each.better_since >= SWITCH_TIME
            if is_ripe and (best is None or each.cost < self.cost(best)):
                best = relay
        return best

    def _beats(self, relay: PeerId, rival: PeerId, held: Collection[PeerId], now: float) -> bool:
        each, cost = self._known[relay], self.cost(rival)
        if each.avoided_until > now or cost == inf:
            return False
        gain = max(SWITCH_GAIN * cost, SWITCH_SECONDS)
        rest = [other for other in held if other != rival]
        return each.cost < cost - gain and bool(self._apart([relay], rest, 1))

    # Helpers

    def _note_failures(self, health: Mapping[PeerId, Health], now: float) -> None:
        self._looked_at = now
        for relay, each in self._known.items():
            what = health.get(relay)
            if what is Health.STANDING:
                each.failures, each.avoided_until = 0, -inf
            elif what is Health.FAILING and each.avoided_until <= now:
                time = min(AVOID_TIME * 2**each.failures, MAX_AVOID_TIME)
                each.failures = min(each.failures + 1, _MAX_DOUBLINGS)
                each.avoided_until = now + time

    def _is_short_for(self, seconds: float, now: float) -> bool:
        return self._short_since is not None and now >= self._short_since + seconds

    def _cheapest(self, relays: Iterable[PeerId], *, is_configured: bool) -> list[PeerId]:
        found = [r for r in relays if self._known[r].is_configured is is_configured]
        return sorted(found, key=self.cost)

    def _apart(
        self, relays: Iterable[PeerId], others: Collection[PeerId], count: int
    ) -> list[PeerId]:
        """Return the first `count` relays whose places are neither each other's nor the others'."""
        places = {self._known[relay].place for relay in others} - {None}
        found: list[PeerId] = []
        for relay in relays:
            place = self._known[relay].place
            if len(found) < count and place not in places and relay not in others:
                found.append(relay)
                places |= {place} - {None}
        return found

    def _draw_more(
        self, chosen: list[PeerId], relays: Iterable[PeerId], count: int
    ) -> list[PeerId]:
        """Add relays up to `count`, each the cheaper of two drawn at random."""
        left = [relay for relay in relays if relay not in chosen]
        found = list(chosen)
        while left and len(found) < count:
            first = left[int(self._draw() * len(left))]
            second = left[int(self._draw() * len(left))]
            better = min(first, second, key=self.cost)
            left.remove(better)
            found.append(better)
        return found

    def _count_discovered(self) -> int:
        return sum(not each.is_configured for each in self._known.values())

    def _worst(self) -> PeerId | None:
        """Return the discovered relay that has failed most, and is not chosen now; none if none."""
        found = [
            relay
            for relay, each in self._known.items()
            if not each.is_configured and each.failures and relay not in self._chosen
        ]
        return max(found, key=lambda relay: self._known[relay].failures, default=None)


_MAX_DOUBLINGS = 16
"""Failures counted; the time for which a relay is avoided is at its bound long before."""


def place_of(addresses: Iterable[Multiaddr]) -> str | None:
    """Return the network of a relay: its first IP's IPv4 /16 or IPv6 /32; None without an IP."""
    for address in addresses:
        if (ip := address.ip) is not None:
            return f"{ip.version}:{ip.packed[: 2 if ip.version == 4 else 4].hex()}"
    return None
