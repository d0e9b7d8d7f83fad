"""One end of a circuit: a byte stream that passes through a relay, and what is left of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio
from anyio.abc import ByteStream

from ...transports.core.errors import RelayLimitReached
from ...transports.core.interfaces import PathAttribute
from ...transports.sockets import FastStream
from ...transports.yamux.nested import FRAME, FastWay

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from ...transports.core.interfaces import Stream
    from ...transports.core.peer_id import PeerId
    from .wire import Limit

MAX_DURATION = 86_400
"""Seconds: js has milliseconds where a duration is longer than a day."""

NEARLY_ALL = 0.9
"""The part of a circuit's bytes after which its end means that they are used up: a relay also
counts what we never saw of it, and go counts each direction by itself."""

LAST_MOMENT = 1.0
"""Seconds before its time at which a circuit's end means that it is over."""


class CircuitLimit:
    """What a relay lets pass through one circuit, counted down; the relay's own count decides."""

    def __init__(self, limit: Limit, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._data = limit.data or None
        duration = limit.duration or None
        if duration is not None and duration > MAX_DURATION:
            self._duration: float | None = duration / 1000
        else:
            self._duration = duration
        self._ends_at = None if self._duration is None else clock() + self._duration
        self._bytes = 0

    @property
    def bytes_left(self) -> int | None:
        """Bytes that may still pass in both directions together; None if no such limit is known."""
        return None if self._data is None else max(0, self._data - self._bytes)

    @property
    def seconds_left(self) -> float | None:
        """Seconds until the relay ends the circuit; None if no such limit is known."""
        return None if self._ends_at is None else max(0.0, self._ends_at - self._clock())

    def count(self, size: int) -> None:
        """Count bytes that have passed, either way."""
        self._bytes += size

    def reached(self) -> RelayLimitReached | None:
        """Return which limit explains that the circuit ends now, if one does."""
        left, duration, data = self.seconds_left, self._duration, self._data
        if left is not None and duration is not None and left <= min(LAST_MOMENT, duration / 2):
            return RelayLimitReached("seconds of a circuit", value=duration - left, limit=duration)
        if data is not None and self._bytes >= NEARLY_ALL * data:
            return RelayLimitReached("bytes of a circuit", value=self._bytes, limit=data)
        return None


class CircuitStream(ByteStream):
    """A stream to a relay that has become a circuit; Noise and Yamux go on top of it.

    Where a limit of the relay's explains its end, `receive` and `send` raise RelayLimitReached.
    """

    def __init__(
        self, stream: Stream, limit: CircuitLimit | None, *, peer: PeerId | None = None
    ) -> None:
        self._stream = stream
        self._limit = limit
        self._peer = peer
        self._is_closed = anyio.Event()

    @property
    def extra_attributes(self) -> Mapping[Any, Callable[[], Any]]:
        """The limit, and who must be at the other end, where they are known."""
        found: dict[Any, Callable[[], Any]] = {}
        if self._limit is not None:
            found[PathAttribute.limit] = lambda: self._limit
        if self._peer is not None:
            found[PathAttribute.peer] = lambda: self._peer
        return found

    async def receive(self, max_bytes: int = 65536) -> bytes:
        """Receive at least one byte and at most `max_bytes`."""
        try:
            data = await self._stream.receive(max_bytes)
        except (anyio.EndOfStream, anyio.BrokenResourceError) as error:
            self._explain(error)
            raise
        if self._limit is not None:
            self._limit.count(len(data))
        return data

    async def send(self, item: bytes) -> None:
        """Send all of `item`, waiting while the relay takes no more."""
        try:
            await self._stream.send(item)
        except anyio.BrokenResourceError as error:
            self._explain(error)
            raise
        if self._limit is not None:
            self._limit.count(len(item))

    async def send_eof(self) -> None:
        """Say that nothing more will be sent."""
        await self._stream.send_eof()

    async def aclose(self) -> None:
        """End the circuit."""
        self._is_closed.set()
        await self._stream.aclose()

    async def wait_closed(self) -> None:
        """Wait until this side has ended the circuit."""
        await self._is_closed.wait()

    def _explain(self, error: Exception | None) -> None:
        if self._limit is not None and (reached := self._limit.reached()) is not None:
            raise reached from error


class FastCircuitStream(CircuitStream, FastStream):
    """The same, where the stream to the relay has a fast way."""

    record = FRAME

    def __init__(
        self,
        stream: Stream,
        way: FastWay,
        limit: CircuitLimit | None,
        *,
        peer: PeerId | None = None,
    ) -> None:
        super().__init__(stream, limit, peer=peer)
        self._way = way

    def send_nowait(self, data: memoryview | bytes) -> int:
        """Queue what the stream has room for, and return how much that was."""
        try:
            sent = self._way.send_nowait(data)
        except anyio.BrokenResourceError as error:
            self._explain(error)
            raise
        if self._limit is not None:
            self._limit.count(sent)
        return sent

    def end_sending(self) -> None:
        """Say that nothing more will be sent."""
        self._way.end_sending()

    async def wait_writable(self) -> None:
        """Wait until the stream has room."""
        await self._way.wait_writable()

    async def receive_each(self, handler: Callable[[memoryview], bool]) -> None:
        """Call `handler` with what arrives until the circuit ends, or it returns False."""
        if self._limit is not None:
            handler = _counting(self._limit, handler)
        try:
            await self._way.receive_each(handler)
        except anyio.BrokenResourceError as error:
            self._explain(error)
            raise
        self._explain(None)

    @property
    def is_reading_paused(self) -> bool:
        return self._way.is_paused

    def pause_reading(self) -> None:
        self._way.pause()

    def resume_reading(self) -> None:
        self._way.resume()


def _counting(
    limit: CircuitLimit, handler: Callable[[memoryview], bool]
) -> Callable[[memoryview], bool]:
    def counted(data: memoryview) -> bool:
        limit.count(len(data))
        return handler(data)

    return counted


def circuit_stream(
    stream: Stream, limit: CircuitLimit | None, *, peer: PeerId | None = None
) -> CircuitStream:
    """Return the end of a circuit that a stream to a relay has become."""
    way = FastWay.of(stream)
    if way is None:
        return CircuitStream(stream, limit, peer=peer)
    return FastCircuitStream(stream, way, limit, peer=peer)
