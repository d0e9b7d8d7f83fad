"""When a better path to a connected peer is looked for.

Sans-IO: say what is `lost` and `learnt`; dial what `take` returns, and say `ended` for each.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Hashable

Peer = TypeVar("Peer", bound="Hashable")

EAGER_TIME = 60.0
"""Seconds after a better path was lost for which it is looked for without a pause: most come back
within it, as peers do after a loss (see `reconnect`)."""

EAGER_DELAY = 0.5
"""Seconds from the end of one look to the next in that time."""

SETTLE_TIME = 0.5
"""Seconds for which news is gathered before it is acted upon."""

MIN_DELAY = 60.0
"""Seconds to the next look after one that failed, at first; it doubles."""

MAX_DELAY = 3600.0
"""The longest that becomes."""

AT_ONCE = 8
"""Looks under way at one time: nobody has asked for them."""

PER_SECOND = 8
"""Looks that begin within a second, for the same reason."""

MAX_PEERS = 1024
"""Peers for which one is planned; beyond it the one planned longest is left as it is."""


@dataclass(slots=True)
class _Plan:
    due: float
    eager_until: float = -inf
    delay: float = MIN_DELAY
    is_running: bool = False


class Upgrades(Generic[Peer]):
    """The peers for which a better path than the one in use is looked for."""

    def __init__(self) -> None:
        self._plans: dict[Peer, _Plan] = {}
        self._begun: deque[float] = deque(maxlen=PER_SECOND)
        self._running: set[Peer] = set()

    def __contains__(self, peer: Peer) -> bool:
        return peer in self._plans

    def __len__(self) -> int:
        return len(self._plans)

    def lost(self, peer: Peer, now: float) -> None:
        """Note that a better path was lost, or does not answer: look at once, and again soon."""
        plan = self._plan(peer, now)
        plan.due = now
        plan.eager_until = now + EAGER_TIME
        plan.delay = MIN_DELAY

    def learnt(self, peer: Peer, now: float) -> None:
        """Note that there is news of where a peer is: look soon."""
        plan = self._plan(peer, now + SETTLE_TIME)
        plan.due = min(plan.due, now + SETTLE_TIME)
        plan.delay = MIN_DELAY

    def news(self, now: float) -> None:
        """Note that the network has changed: what is planned is due."""
        for plan in self._plans.values():
            plan.due = min(plan.due, now + SETTLE_TIME)
            plan.delay = MIN_DELAY

    def forget(self, peer: Peer) -> None:
        """Plan no more: the peer has the best there is, or has gone; harmless twice."""
        self._plans.pop(peer, None)

    def take(self, now: float) -> list[Peer]:
        """Return the peers to look for now; `ended` follows for each, also if it is forgotten."""
        taken = []
        for peer, plan in self._plans.items():
            if peer in self._running or plan.due > now or now < self._free_at:
                continue
            plan.is_running = True
            self._running.add(peer)
            self._begun.append(now)
            taken.append(peer)
        return taken

    def ended(self, peer: Peer, now: float) -> None:
        """Note that a look has ended; unless the peer is forgotten there is still better."""
        self._running.discard(peer)
        plan = self._plans.get(peer)
        if plan is None or not plan.is_running:
            return
        plan.is_running = False
        if now < plan.eager_until:
            plan.due = now + EAGER_DELAY
        else:
            plan.due = now + plan.delay
            plan.delay = min(2 * plan.delay, MAX_DELAY)

    def next_timeout(self) -> float:
        """When `take` has something to return; infinite if that depends on what ends."""
        plans = self._plans.items()
        due = min((plan.due for peer, plan in plans if peer not in self._running), default=inf)
        return max(due, self._free_at)

    @property
    def _free_at(self) -> float:
        """When another look may begin."""
        if len(self._running) >= AT_ONCE:
            return inf
        return self._begun[0] + 1.0 if len(self._begun) == PER_SECOND else -inf

    def _plan(self, peer: Peer, due: float) -> _Plan:
        plan = self._plans.get(peer)
        if plan is None:
            if len(self._plans) >= MAX_PEERS:
                self.forget(next(iter(self._plans)))
            plan = self._plans[peer] = _Plan(due)
        return plan
