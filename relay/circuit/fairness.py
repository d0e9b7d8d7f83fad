"""Shares a relay among the peers that use it: whose circuits may move bytes now. Sans-IO.

Peers are opaque sources, and so are the tickets of those who wait. Call order: `join` when a
circuit of a source begins, `leave` when it has ended; `spend` for what it has moved, and where that
says no, `wait`, and move nothing before `release` has named the ticket. `release` is due at
`next_release`, which is at once where no bandwidth is set: the caller's loop then sets the pace.

Deficit round robin with debts: a source may move while its balance is above zero. Each release
gives the sources that wait equal parts and lets tickets go on that these cover, so that a source
with many circuits gets no more than one with one, and one that moves little hardly ever waits.
"""

from __future__ import annotations

from collections import Counter, deque
from math import inf
from typing import Generic, TypeVar

Source = TypeVar("Source")
Ticket = TypeVar("Ticket")

QUANTUM = 131_072
"""Bytes that a source gets in one round of the loop: two records; more gained nothing, and what
others wait for grows with it."""

ROUND = 0.002
"""Seconds of the bandwidth that are given out at a time: what one source may be ahead of another
is a small part of what a person notices."""

MAX_LATE = 0.02
"""Seconds of lateness of the caller's timer that are made up for, by releases one after another."""

LEAST_CHUNK = 4096
"""Bytes that are moved at once at the least, however slow the line."""

LARGEST_CHUNK = 65_536
"""Bytes that are moved at once at the most: one record of a stream that is alone."""

SPAN = 0.1
"""Seconds over which what a source moves is counted: some round trips."""

ACTIVE = 0.05
"""Of the bandwidth, divided by the sources that move anything: who moves more wants its part."""


class FairShare(Generic[Source, Ticket]):
    """Balances of the sources; see the module for the call order."""

    def __init__(self, bandwidth: float | None, now: float) -> None:
        self._bandwidth = bandwidth
        self._round = QUANTUM if bandwidth is None else max(bandwidth * ROUND, LEAST_CHUNK)
        self.chunk = int(min(self._round, LARGEST_CHUNK))
        """Bytes that a source may move before it asks again."""
        self._circuits: Counter[Source] = Counter()
        self._balance: dict[Source, float] = {}
        self._waiting: dict[Source, deque[Ticket]] = {}
        self._spent: Counter[Source] = Counter()
        self._rates: dict[Source, float] = {}
        self._all_rates = 0.0
        self._active: set[Source] = set()
        self._counted_since = now
        # Until when the line is busy with what was given out.
        self._busy_until = now

    def join(self, source: Source) -> None:
        """Count a circuit of a source."""
        self._circuits[source] += 1
        self._balance.setdefault(source, 0.0)

    def leave(self, source: Source) -> None:
        """Count a circuit of a source no longer; none of its tickets waits any more."""
        self._circuits[source] -= 1
        if not self._circuits[source]:
            del self._circuits[source], self._balance[source], self._spent[source]

    def spend(self, source: Source, size: int) -> bool:
        """Count bytes that a source has moved; return whether it may go on at once."""
        if self._bandwidth is None and len(self._circuits) == 1:
            return True
        self._balance[source] -= size
        if self._bandwidth is not None:
            self._spent[source] += size
        return self._balance[source] > 0 and source not in self._waiting

    def rate(self, source: Source, now: float) -> float:
        """Return the bytes a second that a source may hope for: an even part, and what is left.

        Infinite where no bandwidth is set.
        """
        if self._bandwidth is None:
            return inf
        if now - self._counted_since >= SPAN:
            self._count(self._bandwidth, now)
        even = self._bandwidth / (1 + len(self._active) - (source in self._active))
        return max(even, self._bandwidth - self._all_rates + self._rates.get(source, 0.0))

    def _count(self, bandwidth: float, now: float) -> None:
        span = now - self._counted_since
        self._rates = {source: size / span for source, size in self._spent.items()}
        self._all_rates = sum(self._rates.values())
        least = ACTIVE * bandwidth / max(len(self._rates), 1)
        self._active = {source for source, rate in self._rates.items() if rate >= least}
        self._spent.clear()
        self._counted_since = now

    def wait(self, source: Source, ticket: Ticket) -> None:
        """Have a ticket of a source wait to be released, behind its others."""
        self._waiting.setdefault(source, deque()).append(ticket)

    def forget(self, source: Source, ticket: Ticket) -> None:
        """Have a ticket wait no more; harmless if it does not."""
        tickets = self._waiting.get(source)
        if tickets is not None and ticket in tickets:
            tickets.remove(ticket)
            if not tickets:
                del self._waiting[source]

    def next_release(self, now: float) -> float:
        """Return when `release` is due; infinite while nobody waits."""
        if not self._waiting:
            return inf
        return now if self._bandwidth is None else max(now, self._busy_until)

    def release(self, now: float) -> list[Ticket]:
        """Give those who wait their parts; return who may go on."""
        if not self._waiting or (self._bandwidth is not None and now < self._busy_until):
            return []
        part = self._round
        if self._bandwidth is not None:
            # What a timer came late is made up for, a few rounds at the most.
            begin = max(self._busy_until, now - MAX_LATE)
            self._busy_until = begin + self._round / self._bandwidth
            part = self._round / len(self._waiting)
        free = []
        for source, tickets in list(self._waiting.items()):
            balance = self._balance[source] = min(self._balance[source] + part, self._round)
            # As many as have a chunk to move each; while others wait, none moves more.
            while balance > 0 and tickets:
                balance -= self.chunk
                free.append(tickets.popleft())
            if not tickets:
                del self._waiting[source]
        return free
