"""Many refusals of one kind told as few: the first at once, then one a second with a count.

Sans-IO. So whoever is refused a thousand times a second cannot flood those who read the events.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Hashable

Item = TypeVar("Item")

INTERVAL = 1.0
"""Seconds between two tellings about one source."""

MAX_SOURCES = 32
"""Sources told apart; what others do is told together. A busy reader takes this many a second."""

OTHERS = "others"


@dataclass(slots=True)
class _Source(Generic[Item]):
    until: float
    last: Item
    count: int = 0


class RefusalDigest(Generic[Item]):
    """What is to be told of refusals, each with the count of those that it stands for."""

    def __init__(self) -> None:
        self._sources: dict[Hashable, _Source[Item]] = {}

    def add(self, source: Hashable, item: Item, now: float) -> list[tuple[Item, int]]:
        """Take note of a refusal; return what is to be told now."""
        if source not in self._sources and len(self._sources) >= MAX_SOURCES:
            source = OTHERS
        known = self._sources.get(source)
        if known is None:
            self._sources[source] = _Source(now + INTERVAL, item)
            return [(item, 1)]
        known.last = item
        known.count += 1
        return []

    def next_timeout(self) -> float | None:
        """Return when `handle_timeout` has something to do."""
        return min((source.until for source in self._sources.values()), default=None)

    def handle_timeout(self, now: float) -> list[tuple[Item, int]]:
        """Return what was not told yet, once an interval; forget a source that was quiet."""
        told = []
        for key, source in tuple(self._sources.items()):
            if source.until > now:
                continue
            if source.count:
                told.append((source.last, source.count))
                source.until, source.count = now + INTERVAL, 0
            else:
                del self._sources[key]
        return told
