"""What a client of the DHT remembers: servers to begin a walk at, and what to announce when.

Sans-IO.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ...transports.core.errors import LimitExceeded
from .config import MAX_SERVICES
from .machine import K, merged
from .wire import FoundPeer, distance_hash

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ...transports.core.multiaddr import Multiaddr
    from ...transports.core.peer_id import PeerId

MAX_SEEDS = 256
"""Servers remembered: a walk begins at twenty, and some of those are a step nearer to any key."""

FIRST_RETRY = 60.0
"""Seconds after which an announcement that nobody took is tried again; then twice as long."""

LAST_RETRY = 3600.0
"""Seconds between two such attempts at most."""

HURRY_AFTER = 60.0
"""Seconds after an announcement in which a change of addresses does not cause another one."""


class SeedTable:
    """Servers that have answered, the least recently met forgotten first, and the given ones."""

    def __init__(self, bootstrap: Iterable[Multiaddr], *, max_seeds: int = MAX_SEEDS) -> None:
        self._max = max_seeds
        self._bootstrap: dict[PeerId, FoundPeer] = {}
        self._met: OrderedDict[PeerId, tuple[FoundPeer, int]] = OrderedDict()
        for address in bootstrap:
            assert address.peer_id is not None
            found = FoundPeer(address.peer_id, (address.without_peer(),))
            known = self._bootstrap.get(found.peer, FoundPeer(found.peer))
            self._bootstrap[found.peer] = merged(known, found)

    def __len__(self) -> int:
        return len(self._met)

    def met(self, found: FoundPeer) -> None:
        """Note that a server has answered."""
        self._met[found.peer] = found, distance_hash(bytes(found.peer))
        self._met.move_to_end(found.peer)
        if len(self._met) > self._max:
            self._met.popitem(last=False)

    def lost(self, peer: PeerId) -> None:
        """Note that a server does not answer; harmless if it is not known."""
        self._met.pop(peer, None)

    def seeds(self, target: int) -> list[FoundPeer]:
        """Return where to begin: the closest servers met, and all given ones, for if they fail."""
        closest = sorted(self._met.values(), key=lambda each: each[1] ^ target)[:K]
        return [*(found for found, _ in closest), *self._bootstrap.values()]


@dataclass(slots=True)
class _Plan:
    due: float
    last: float | None = None
    pause: float = FIRST_RETRY


class Schedule:
    """When each service is to be announced, again and again; times are in seconds.

    Announce what `due` returns and tell `announced` of each; look again at `next_timeout`.
    """

    def __init__(self, *, interval: float) -> None:
        self._interval = interval
        self._plans: dict[str, _Plan] = {}

    def add(self, service: str, now: float) -> None:
        """Announce a service from now on; raises LimitExceeded for one too many."""
        if service in self._plans:
            return
        if len(self._plans) >= MAX_SERVICES:
            raise LimitExceeded(
                "services that this node provides",
                value=len(self._plans) + 1,
                limit=MAX_SERVICES,
                setting="dht.provide",
            )
        self._plans[service] = _Plan(now)

    def due(self, now: float) -> list[str]:
        """Return the services whose time has come."""
        return [service for service, plan in self._plans.items() if plan.due <= now]

    def announced(self, service: str, now: float, *, taken: int) -> None:
        """Note that `taken` servers have taken an announcement."""
        plan = self._plans[service]
        if taken:
            plan.last = now
            plan.due, plan.pause = now + self._interval, FIRST_RETRY
            return
        plan.due = now + plan.pause
        plan.pause = min(2 * plan.pause, LAST_RETRY)

    def hurry(self, now: float) -> None:
        """Announce everything anew, soon: where this node is has changed."""
        for plan in self._plans.values():
            soon = now if plan.last is None else max(now, plan.last + HURRY_AFTER)
            plan.due = min(plan.due, soon)

    def next_timeout(self) -> float | None:
        """Return when the next service is due; None: never."""
        return min((plan.due for plan in self._plans.values()), default=None)
