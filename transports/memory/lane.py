"""One direction of a virtual link, without any IO: what was sent, and when it arrives."""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field
from math import inf
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from random import Random

    from .settings import LinkSettings

T = TypeVar("T")

# Seconds that a lost segment waits at least to be sent again: losses are noticed late (RFC 9002).
MIN_RETRANSMIT = 0.01
# Seconds that what is reordered is held back at least, so that it is overtaken on short links too.
MIN_HOLD = 0.001


@dataclass(slots=True, order=True)
class _Item(Generic[T]):
    arrival: float
    sequence: int
    size: int = field(compare=False)
    content: T | None = field(compare=False)


class Lane(Generic[T]):
    """Takes items with `send` or `send_message`, gives those that have arrived with `take`.

    `send` is reliable and in order: a lost segment arrives a round trip later, and so does all
    behind it. `send_message` is neither. Times are arguments, and never go back.
    """

    def __init__(self, settings: LinkSettings, random: Random) -> None:
        self.settings = settings
        self.is_stalled = False
        self.held = 0
        self.bytes_sent = 0
        self.items_sent = 0
        self.items_lost = 0
        self.items_reordered = 0
        self._random = random
        self._items: list[_Item[T]] = []
        self._idle_at = -inf
        self._last_arrival = -inf

    @property
    def room(self) -> int:
        """Bytes that may be sent before the queue is full."""
        return max(0, self.settings.queue - self.held)

    def send(self, content: T, size: int, now: float) -> float:
        """Send reliably and return when it arrives; the caller has looked at `room`."""
        arrival = self._depart(size, now) + self._travel()
        while self._is_hit(self.settings.loss):
            self.items_lost += 1
            arrival += self._retransmit
        self._last_arrival = max(self._last_arrival, arrival)
        self._push(content, size, self._last_arrival)
        return self._last_arrival

    def send_message(
        self,
        content: T,
        size: int,
        now: float,
        *,
        max_age: float | None = None,
        max_retransmits: int | None = None,
    ) -> bool:
        """Send unreliably; False if it never arrives.

        It is sent again when lost: as often as `max_retransmits`, as long as `max_age` seconds, or,
        if neither is given, not at all.
        """
        if max_age is not None and max(now, self._idle_at) > now + max_age:
            self.items_lost += 1
            return False
        retries: float = 0 if max_age is None else inf
        retries = retries if max_retransmits is None else max_retransmits
        departure = self._depart(size, now)
        arrival = departure + self._travel()
        limit = inf if max_age is None else now + max_age
        while self._is_hit(self.settings.loss):
            retries -= 1
            arrival += self._retransmit
            if retries < 0 or arrival > limit:
                break
        else:
            if arrival <= limit:
                self._push(content, size, arrival)
                return True
        # It fills the queue until it has left, wherever it is lost then.
        self.items_lost += 1
        self._push(None, size, departure)
        return False

    def next_arrival(self) -> float:
        """When the next item arrives; infinite if none is under way."""
        return self._items[0].arrival if self._items and not self.is_stalled else inf

    def take(self, now: float) -> T | None:
        """Return the next item that has arrived, None if there is none."""
        while self._items and self.next_arrival() <= now:
            item = heapq.heappop(self._items)
            self.held -= item.size
            if item.content is not None:
                return item.content
        return None

    def clear(self) -> None:
        """Lose all that is under way."""
        self._items.clear()
        self.held = 0

    def _push(self, content: T | None, size: int, arrival: float) -> None:
        self.items_sent += 1
        self.bytes_sent += size
        self.held += size
        heapq.heappush(self._items, _Item(arrival, self.items_sent, size, content))

    def _depart(self, size: int, now: float) -> float:
        start = max(now, self._idle_at)
        rate = self.settings.rate
        self._idle_at = start if rate is None else start + size / rate
        return self._idle_at

    def _travel(self) -> float:
        settings = self.settings
        travel = settings.delay
        if settings.jitter:
            travel += self._random.uniform(0, settings.jitter)
        if self._is_hit(settings.reorder):
            self.items_reordered += 1
            travel += max(settings.delay, MIN_HOLD)
        return travel

    def _is_hit(self, probability: float) -> bool:
        return probability > 0 and self._random.random() < probability

    @property
    def _retransmit(self) -> float:
        return max(2 * self.settings.delay, MIN_RETRANSMIT)
