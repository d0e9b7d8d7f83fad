"""When holes are punched, for whom, and what came of it; sans-IO, the time is an argument.

Say who is `relayed`, who may `rest`, and when there is `news`; punch for whom `take` returns, and
say `succeeded`, `failed` or `skipped` for each. `served` is for what a peer has begun; `attempt`
tells what is known of one.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from enum import Enum
from math import inf
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ...transports.core.peer_id import PeerId

MIN_DELAY = 60.0
"""Seconds to the next try after the first that failed; it doubles. Each is three meetings."""

MAX_DELAY = 3600.0
"""The longest that becomes: what has failed so often has another reason than bad luck."""

SETTLE_TIME = 0.5
"""Seconds for which news is gathered: a change of network is many, and peers have to say first
where they see this node now."""

NEWS_PAUSE = 5.0
"""Seconds between two tries for one peer whatever the news: others can make some up."""

STABLE_TIME = 10.0
"""Seconds that a direct connection must have stood not to count as one that failed."""

AT_ONCE = 32
"""Peers that are punched for at one time: as many bursts of up to sixteen dials."""

MAX_PEERS = 1024
"""Peers that are remembered, twice as many as have a connection by default; beyond it the one that
was heard of longest ago goes, of those that wait for nothing if there are any."""


class Outcome(Enum):
    """What came of punching, so far."""

    WAITING = "waiting"
    RUNNING = "running"
    FAILED = "failed"
    SUCCEEDED = "succeeded"


@dataclass(frozen=True, slots=True)
class Attempt:
    """The last try for a peer, and the next.

    `by_peer`: the peer has begun it, and decides when it is tried again. `tries` counts those since
    it last worked: each is up to three meetings, or, where the peer has begun it, one. `ended_at`
    and `next_at` are None where there is none.
    """

    outcome: Outcome
    reason: str
    by_peer: bool
    tries: int
    ended_at: float | None
    next_at: float | None


@dataclass(slots=True)
class _Plan:
    due: float = inf
    """Infinite while nothing is to be done."""
    delay: float = MIN_DELAY
    outcome: Outcome = Outcome.WAITING
    reason: str = ""
    by_peer: bool = False
    tries: int = 0
    ended_at: float = -inf
    is_running: bool = False
    has_news: bool = False


class Schedule:
    """The peers that are, or were, reached only through a relay."""

    def __init__(self) -> None:
        self._plans: OrderedDict[PeerId, _Plan] = OrderedDict()
        self._running = 0

    def __len__(self) -> int:
        return len(self._plans)

    def relayed(self, peer: PeerId, now: float) -> None:
        """Note that a peer is reached only through a circuit that it has dialled.

        The first try is at once; what has failed before is not tried again within a minute for
        coming anew.
        """
        plan = self._plan(peer)
        if plan.is_running or plan.due < inf:
            return
        if plan.outcome is Outcome.SUCCEEDED and now - plan.ended_at >= STABLE_TIME:
            plan.due = now
        else:
            plan.due = max(now, plan.ended_at + MIN_DELAY)

    def rest(self, peer: PeerId) -> None:
        """Note that there is nothing to do for a peer: it is reached directly, or it has gone."""
        if (plan := self._plans.get(peer)) is not None:
            plan.due = inf

    def news(self, now: float) -> None:
        """Note that the network, or where others see this node, has changed: try again."""
        for plan in self._plans.values():
            if plan.is_running:
                plan.has_news = True
            elif plan.due < inf:
                self._hurry(plan, now)

    def take(self, now: float) -> list[PeerId]:
        """Return for whom to punch now; what came of it follows for each."""
        taken = []
        for peer, plan in self._plans.items():
            if plan.due > now or self._running >= AT_ONCE:
                continue
            plan.due = inf
            plan.is_running, plan.has_news, plan.by_peer = True, False, False
            self._running += 1
            taken.append(peer)
        return taken

    def succeeded(self, peer: PeerId, now: float) -> None:
        """Note that there is a direct connection."""
        plan = self._end(peer, now, Outcome.SUCCEEDED, "")
        plan.tries, plan.delay = 0, MIN_DELAY

    def failed(self, peer: PeerId, now: float, reason: str) -> float:
        """Note that there is none; return when it is tried again, if the peer is still there."""
        plan = self._end(peer, now, Outcome.FAILED, reason)
        plan.tries += 1
        plan.due = now + plan.delay
        plan.delay = min(2 * plan.delay, MAX_DELAY)
        if plan.has_news:
            self._hurry(plan, now)
        return plan.due

    def skipped(self, peer: PeerId) -> None:
        """Note that there was nothing to punch for: the peer has gone, or is reached directly."""
        plan = self._plans[peer]
        if plan.is_running:
            plan.is_running = False
            self._running -= 1

    def served(self, peer: PeerId, now: float, reason: str) -> None:
        """Note what came of a meeting that a peer has begun; it worked if there is no reason."""
        plan = self._plan(peer)
        plan.by_peer, plan.ended_at, plan.reason = True, now, reason
        plan.outcome = Outcome.FAILED if reason else Outcome.SUCCEEDED
        plan.tries = plan.tries + 1 if reason else 0

    def attempt(self, peer: PeerId) -> Attempt | None:
        """Return what is known of punching for a peer; None if it was never an issue."""
        plan = self._plans.get(peer)
        if plan is None:
            return None
        return Attempt(
            Outcome.RUNNING if plan.is_running else plan.outcome,
            plan.reason,
            plan.by_peer,
            plan.tries,
            None if plan.ended_at == -inf else plan.ended_at,
            None if plan.due == inf else plan.due,
        )

    def next_timeout(self) -> float:
        """When `take` has something to return; infinite if that depends on what happens."""
        if self._running >= AT_ONCE:
            return inf
        return min((plan.due for plan in self._plans.values()), default=inf)

    def _end(self, peer: PeerId, now: float, outcome: Outcome, reason: str) -> _Plan:
        self.skipped(peer)
        plan = self._plans[peer]
        plan.outcome, plan.reason, plan.ended_at = outcome, reason, now
        return plan

    def _hurry(self, plan: _Plan, now: float) -> None:
        plan.due = min(plan.due, max(now + SETTLE_TIME, plan.ended_at + NEWS_PAUSE))
        plan.delay = MIN_DELAY

    def _plan(self, peer: PeerId) -> _Plan:
        plan = self._plans.get(peer)
        if plan is None:
            if len(self._plans) >= MAX_PEERS:
                self._make_room()
            plan = self._plans[peer] = _Plan()
        self._plans.move_to_end(peer)
        return plan

    def _make_room(self) -> None:
        """Forget one; never one that runs, of which there are far fewer."""
        idle = [(peer, plan) for peer, plan in self._plans.items() if not plan.is_running]
        resting = (peer for peer, plan in idle if plan.due == inf)
        del self._plans[next(resting, idle[0][0])]
