"""How much is dialled for others; sans-IO, the time is an argument.

Call `begin` when a request comes, `end` when it has ended, and `charge` before a client pays for a
dial elsewhere.
"""

from __future__ import annotations

from collections import Counter, deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Hashable

WINDOW = 60.0
"""Seconds over which requests are counted."""

REQUESTS = 60
"""Requests a minute of all peers together; this one and those below are go's."""

REQUESTS_PER_SOURCE = 12
"""The same of one peer, and of one IP prefix, which may have many peers."""

PAID_REQUESTS = 12
"""Dials a minute to addresses that are not the client's own."""

AT_ONCE_PER_SOURCE = 2
"""Requests under way of one peer, and of one prefix."""

AT_ONCE = 8
"""Requests under way in all: each may hold a socket for ten seconds."""


class RequestLimits:
    """Counts requests; what is remembered is never more than what one minute may have."""

    def __init__(self) -> None:
        self._recent: deque[tuple[float, tuple[Hashable, ...]]] = deque()
        self._paid: deque[float] = deque()
        self._running: Counter[Hashable] = Counter()
        self._count = 0

    def begin(self, sources: tuple[Hashable, ...], now: float) -> bool:
        """Say whether a request may begin, whose peer and prefix are `sources`; if so, count it."""
        self._forget(now)
        recent = Counter(source for _, several in self._recent for source in several)
        if self._count >= AT_ONCE or len(self._recent) >= REQUESTS:
            return False
        for source in sources:
            if self._running[source] >= AT_ONCE_PER_SOURCE:
                return False
            if recent[source] >= REQUESTS_PER_SOURCE:
                return False
        self._recent.append((now, sources))
        self._running.update(sources)
        self._count += 1
        return True

    def end(self, sources: tuple[Hashable, ...]) -> None:
        """Count a request that has ended, for which `begin` had said yes."""
        self._count -= 1
        self._running -= Counter(sources)

    def charge(self, now: float) -> bool:
        """Say whether a dial elsewhere may be paid for; if so, count it."""
        self._forget(now)
        if len(self._paid) >= PAID_REQUESTS:
            return False
        self._paid.append(now)
        return True

    def _forget(self, now: float) -> None:
        while self._recent and self._recent[0][0] <= now - WINDOW:
            self._recent.popleft()
        while self._paid and self._paid[0] <= now - WINDOW:
            self._paid.popleft()
