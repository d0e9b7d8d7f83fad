"""The streams of one session: how many are open, of which class, and what they hold unread."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

from ..core.errors import LimitExceeded
from ..scheduler import LOWEST_RANK, RANK
from .wire import INITIAL_WINDOW

if TYPE_CHECKING:
    from ..core.interfaces import Priority
    from .flow import NodeBudget, StreamState


class StreamTable:
    """Keeps the counts that limits are checked against; decides nothing itself."""

    def __init__(self, budget: NodeBudget | None = None) -> None:
        self.streams: dict[int, StreamState] = {}
        self.opened = 0
        self.inbound = 0
        self.unacknowledged = 0
        # Bytes received and not taken; `grown` is what exceeds every stream's first 256 KiB.
        self.unread = 0
        self.grown = 0
        # The most urgent class that has a stream open, and whether another class has one too.
        self.highest_open = LOWEST_RANK
        self.is_mixed = False
        # Streams that this side has closed and the peer has not, by when they are reset.
        self.lingering: dict[StreamState, float] = {}
        self._budget = budget
        self._open_by_rank = [0] * len(RANK)

    def add(self, stream: StreamState) -> None:
        """Enter a new stream."""
        self.streams[stream.id] = stream
        self.opened += 1
        if stream.is_remote:
            self.inbound += 1
        else:
            self.unacknowledged += 1
        self._count_open(stream.flow.rank, 1)

    def remove(self, stream: StreamState) -> None:
        """Forget a stream that has ended; what it holds unread still counts until it is taken."""
        del self.streams[stream.id]
        self.lingering.pop(stream, None)
        if stream.is_remote:
            self.inbound -= 1
        else:
            self.acknowledge(stream)
        self._count_open(stream.flow.rank, -1)

    def acknowledge(self, stream: StreamState) -> None:
        """Note that the peer knows a stream of our making."""
        if not stream.acked:
            stream.acked = True
            self.unacknowledged -= 1

    def too_many_unacknowledged(self, limit: int) -> LimitExceeded:
        """Return the error that says how many streams of our making the peer does not know yet."""
        return LimitExceeded(
            "unacknowledged streams",
            value=self.unacknowledged,
            limit=limit,
            setting="yamux.max_unacknowledged",
        )

    @property
    def next_overdue(self) -> float:
        """When the first stream has lingered long enough; infinite if none does."""
        return next(iter(self.lingering.values()), inf)

    def overdue(self, now: float) -> list[StreamState]:
        """Return the streams that have lingered long enough."""
        return [stream for stream, until in self.lingering.items() if until <= now]

    def reclassify(self, stream: StreamState, priority: Priority) -> None:
        """Count a stream in another class."""
        if self.streams.get(stream.id) is stream:
            self._count_open(stream.flow.rank, -1)
            self._count_open(RANK[priority], 1)

    def count(self, stream: StreamState, change: int) -> None:
        """Account for unread bytes that have come to or gone from the stream's buffer."""
        after = stream.received.size
        before = after - change
        if before > INITIAL_WINDOW or after > INITIAL_WINDOW:
            self.grown += max(after, INITIAL_WINDOW) - max(before, INITIAL_WINDOW)
        self.unread += change
        if self._budget is not None:
            self._budget.used += change

    def detach(self) -> None:
        """Give back to the node's budget what is held; what is taken later is not its matter."""
        if self._budget is not None:
            self._budget.used -= self.unread
            self._budget = None

    def fattest(self, least: int = 0) -> StreamState | None:
        """Return the stream with most unread, of the lowest class that has any beyond `least`."""
        holders = [stream for stream in self.streams.values() if stream.received.size > least]
        if not holders:
            return None
        return min(holders, key=lambda stream: (stream.priority, -stream.received.size))

    def _count_open(self, rank: int, change: int) -> None:
        self._open_by_rank[rank] += change
        ranks = [rank for rank, count in enumerate(self._open_by_rank) if count]
        self.highest_open = ranks[0] if ranks else LOWEST_RANK
        self.is_mixed = len(ranks) > 1
