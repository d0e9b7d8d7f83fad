"""When what has changed is written. Knows the names of entries and the time, nothing of files."""

from __future__ import annotations

from enum import Enum
from itertools import islice
from math import inf
from typing import TYPE_CHECKING, TypeAlias

from ...transports.core.errors import LocalProtocolError

if TYPE_CHECKING:
    from ...transports.core.peer_id import PeerId

WRITE_INTERVAL = 1.0
"""Seconds between transactions: as much as a crash may cost, and no burden to any disk."""

RETRY_TIME = 10.0
"""Seconds until the next try after one that failed: a full disk is full for longer."""

MAX_BATCH = 1024
"""Entries of one transaction: some ten milliseconds, and a few MiB of SQLite's log."""

MAX_MARKED = 16_384
"""Changed entries: more than the tables hold together, so that only names of entries that are gone
(peers that are kept no more, while nothing can be written) are ever forgotten."""


class Table(Enum):
    """The tables whose entries are peers'."""

    PEERS = "peers"
    KEPT = "kept"
    LINKS = "links"


Key: TypeAlias = tuple[Table, "PeerId"]


class WriteBehind:
    """Collects what has changed, until it is time to write it.

    `mark` and `unmark` at any time; when `next_timeout` is due: `take`, and when that has been
    tried, `written` or `failed`. The first failure and the first success after it are told apart.
    """

    def __init__(
        self,
        *,
        interval: float = WRITE_INTERVAL,
        retry_time: float = RETRY_TIME,
        max_batch: int = MAX_BATCH,
        max_marked: int = MAX_MARKED,
    ) -> None:
        self._interval = interval
        self._retry_time = retry_time
        self._max_batch = max_batch
        self._max_marked = max_marked
        self._marked: dict[Key, None] = {}
        self._taken: dict[Key, None] | None = None
        self._not_before = -inf
        self.is_degraded = False

    def __contains__(self, key: Key) -> bool:
        return key in self._marked

    def __len__(self) -> int:
        return len(self._marked)

    def mark(self, key: Key) -> bool:
        """Note that an entry has changed; return whether `next_timeout` has."""
        was_idle = self.next_timeout() is None
        # Behind those that changed earlier: the file keeps the order.
        self._marked.pop(key, None)
        self._marked[key] = None
        if len(self._marked) > self._max_marked:
            del self._marked[next(iter(self._marked))]
        return was_idle

    def unmark(self, key: Key) -> None:
        """Note that an entry has been dropped, and need not be written."""
        self._marked.pop(key, None)
        if self._taken is not None:
            self._taken.pop(key, None)

    def next_timeout(self) -> float | None:
        """Return when to `take`; None while there is nothing to do."""
        return self._not_before if self._marked or self.is_degraded else None

    def take(self) -> tuple[Key, ...]:
        """Return what to write now, the earliest change first; it may be nothing.

        Raises LocalProtocolError if what was taken before has been neither written nor failed.
        """
        if self._taken is not None:
            raise LocalProtocolError("what was taken has been neither written nor failed")
        self._taken = dict.fromkeys(islice(self._marked, self._max_batch))
        for key in self._taken:
            del self._marked[key]
        return tuple(self._taken)

    def written(self, now: float) -> bool:
        """Note that what was taken is in the file; return whether this ends a failure."""
        self._taken = None
        self._not_before = now + self._interval
        was_degraded, self.is_degraded = self.is_degraded, False
        return was_degraded

    def failed(self, now: float) -> bool:
        """Note that nothing could be written; return whether this is the first failure."""
        self._marked = dict.fromkeys([*(self._taken or ()), *self._marked])
        self._taken = None
        self._not_before = now + self._retry_time
        was_degraded, self.is_degraded = self.is_degraded, True
        return not was_degraded
