"""What one session has to say beside data: pongs and resets, credit and flags, pings."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, TypeAlias

from .wire import FIN, HEADER_SIZE, SYN, ping, window_update

if TYPE_CHECKING:
    from .flow import StreamState

# Pongs and resets that may wait for the socket; beyond, reading waits too.
MAX_CONTROL = 64
# Seconds that an acknowledgement waits for data to ride on; peers allow 256 without any.
ACK_DELAY = 0.005

Parts: TypeAlias = "list[bytes | bytearray | memoryview]"


class ControlQueue:
    """Frames without a stream's data, in the order they go out; decides nothing itself."""

    __slots__ = ("acks", "announced", "frames")

    def __init__(self) -> None:
        self.frames: list[bytes] = []  # at most MAX_CONTROL: a deque would take more
        # Streams with credit to grant, or flags to send.
        self.announced: dict[StreamState, int] = {}
        self.acks: dict[StreamState, float] = {}  # until when each waits for data

    @property
    def is_full(self) -> bool:
        """Whether as many pongs and resets wait as may."""
        return len(self.frames) >= MAX_CONTROL

    @property
    def next_due(self) -> float:
        """When the first acknowledgement has waited long enough; infinite if none does."""
        return next(iter(self.acks.values()), inf)

    def announce(self, stream: StreamState, credit: int = 0) -> None:
        """Have a stream's flags sent, and credit granted, with all that it is granted already."""
        self.announced[stream] = self.announced.get(stream, 0) + credit

    def acknowledge(self, stream: StreamState, now: float) -> None:
        """Have a stream's flags sent with its first data, or soon without."""
        self.acks[stream] = now + ACK_DELAY

    def handle_timeout(self, now: float) -> None:
        """Have acknowledgements sent without data, once one has waited long enough."""
        if now >= self.next_due:
            self.announced |= {s: 0 for s in self.acks if s not in self.announced}
            self.acks.clear()

    def forget(self, stream: StreamState) -> None:
        """Say nothing more of a stream that has ended."""
        self.announced.pop(stream, None)
        self.acks.pop(stream, None)

    def put(self, parts: Parts, room: int) -> tuple[int, list[StreamState]]:
        """Add what fits; return its size, and the streams whose last frame is among it."""
        size, finished = 0, []
        while self.frames and size + HEADER_SIZE <= room:
            parts.append(self.frames.pop(0))
            size += HEADER_SIZE
        while self.announced and size + 2 * HEADER_SIZE <= room:
            stream = next(iter(self.announced))
            credit = self.announced.pop(stream)
            if credit or (stream.flags and not stream.is_sendable):
                parts.append(window_update(stream.flags, stream.id, credit))
                stream.flags = 0
                size += HEADER_SIZE
            if stream.fin_queued and not stream.queued and not stream.fin_sent:
                parts.append(window_update(FIN, stream.id, 0))
                size += HEADER_SIZE
                stream.fin_sent = True
                finished.append(stream)
        return size, finished

    def put_acks(self, parts: Parts, room: int) -> int:
        """Add acknowledgements that found no data to ride on; return their size."""
        size = 0
        while self.acks and size + HEADER_SIZE <= room:
            stream, _ = self.acks.popitem()
            if stream.flags:
                parts.append(window_update(stream.flags, stream.id, 0))
                stream.flags = 0
                size += HEADER_SIZE
        return size


class Pings:
    """Pings of this side's, and which of them wait for an answer that measures the path."""

    __slots__ = ("_next", "_sent_at")

    def __init__(self) -> None:
        self._next = 0
        self._sent_at: dict[int, float] = {}

    def next_value(self, control: ControlQueue) -> int:
        """Queue a ping and return its value."""
        value, self._next = self._next, (self._next + 1) & 0xFFFF_FFFF
        control.frames.append(ping(SYN, value))
        return value

    def measure(self, control: ControlQueue, now: float) -> int:
        """Queue one whose answer is waited for; beyond `MAX_CONTROL` the last serves again."""
        if len(self._sent_at) >= MAX_CONTROL:
            return next(reversed(self._sent_at))
        value = self.next_value(control)
        self._sent_at[value] = now
        return value

    def answered(self, value: int) -> float | None:
        """Return when the ping was sent that is answered, None if none waits for that."""
        return self._sent_at.pop(value, None)
