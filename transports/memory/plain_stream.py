"""One stream of a connection in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio
from anyio.lowlevel import checkpoint

from ..core.errors import StreamReset
from ..core.interfaces import Priority, Stream, StreamStatistics
from .frames import Credit, Data, Finished, Reset
from .link import Signal

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from ..core.interfaces import Preface
    from .connection import MemoryConnection

# Bytes that the receiver of a stream holds unread: Yamux's window.
WINDOW = 262_144
# Bytes of one frame: small enough that streams take turns on a slow link.
MAX_DATA = 16_384


class PlainStream(Stream):
    """See `Stream`. The link serves frames in the order they are sent in, whatever the priority."""

    def __init__(self, connection: MemoryConnection, number: int) -> None:
        self.id = number
        self.connection: MemoryConnection = connection
        self.protocol: str | None = None
        self.is_accepted = False
        self.remote_finished = False
        self._priority = Priority.MEDIUM
        self._received = bytearray()
        self._credit = WINDOW
        self._taken = 0
        self._is_finished = False
        self._is_closed = False
        self._reset: StreamReset | None = None
        self._preface: Preface | None = None
        self._readable = Signal()
        self._writable = Signal()
        self._bytes_sent = 0
        self._bytes_received = 0
        self._opened_at = anyio.current_time()

    def __repr__(self) -> str:
        return f"<stream {self.id} ({self.protocol}) of {self.connection!r}>"

    @property
    def priority(self) -> Priority:
        """The class; it is kept, but a virtual link does not choose."""
        return self._priority

    @priority.setter
    def priority(self, value: Priority) -> None:
        self._priority = value

    @property
    def extra_attributes(self) -> Mapping[Any, Callable[[], Any]]:
        """No typed attributes."""
        return {}

    async def receive(self, max_bytes: int = 65536) -> bytes:
        """Receive at least one byte and at most `max_bytes` (>= 1)."""
        if max_bytes < 1:
            raise ValueError("max_bytes must be at least 1")
        await checkpoint()
        while self._preface is not None:
            data = self._preface.receive_data(await self._receive(max_bytes))
            if data is not None:
                self._preface = None
                if data:
                    return data
        return await self._receive(max_bytes)

    async def send(self, item: bytes) -> None:
        """Send all of `item`, waiting for the receiver's credit and for room on the link."""
        await checkpoint()
        view = memoryview(bytes(item))
        while True:
            self._check_sendable()
            while view and (size := self._allowance(len(view))):
                self._push(bytes(view[:size]))
                view = view[size:]
            if not view:
                return
            if self._credit:
                await self.connection.wait_room()
            else:
                await self._writable.wait()

    async def send_eof(self) -> None:
        """Say that nothing more will be sent; receiving goes on."""
        if self._is_closed:
            raise anyio.ClosedResourceError
        self._finish()
        await checkpoint()

    async def aclose(self) -> None:
        """Send the end; drop what still comes in, until the peer ends too or time is up."""
        if not self._is_closed:
            self._is_closed = True
            self._received.clear()
            self._finish()
            self.connection.let_linger(self)
            self._wake()
        await checkpoint()

    def reset(self, code: int = 0) -> None:
        """End both directions at once and drop what waits; never blocks, harmless twice."""
        if not self.is_ended:
            self.connection.push(Reset(self.id, code))
            self.end(StreamReset(code, remote=False))

    def unread(self, data: bytes) -> None:
        """Put back the first bytes of what was received."""
        self._received[:0] = data
        self._readable.notify()

    def begin(self, preface: Preface) -> None:
        """Let a negotiation ride on the first bytes each way."""
        self._preface = preface
        if data := preface.data_to_send():
            self._push(data)

    def statistics(self) -> StreamStatistics:
        """This stream's counters."""
        return StreamStatistics(
            bytes_sent=self._bytes_sent,
            bytes_received=self._bytes_received,
            bytes_unread=len(self._received),
            opened_at=self._opened_at,
        )

    # What the connection tells

    @property
    def is_ended(self) -> bool:
        """Whether both directions are over."""
        return self._reset is not None or (self._is_finished and self.remote_finished)

    def receive_data(self, data: bytes) -> None:
        """Take what has arrived."""
        self._bytes_received += len(data)
        if self._is_closed:
            self._grant(len(data))
        else:
            self._received += data
            self._readable.notify()

    def receive_credit(self, size: int) -> None:
        """Note that the peer has taken bytes."""
        self._credit += size
        self._writable.notify()

    def receive_end(self) -> None:
        """Note that the peer has sent its last byte."""
        self.remote_finished = True
        self._readable.notify()
        self.connection.forget_ended(self)

    def end(self, reset: StreamReset, *, keep: bool = False) -> None:
        """Note that the stream was reset; `keep` what has arrived if the connection just ended."""
        if self._reset is None:
            self._reset = reset
            if not keep:
                self._received.clear()
                self.remote_finished = False
            self._wake()
            self.connection.forget_ended(self)

    # Helpers

    async def _receive(self, max_bytes: int) -> bytes:
        while True:
            if self._is_closed:
                raise anyio.ClosedResourceError
            if self._received:
                data = bytes(self._received[:max_bytes])
                del self._received[:max_bytes]
                self._grant(len(data))
                return data
            if self.remote_finished:
                raise anyio.EndOfStream
            if self._reset is not None:
                raise self._reset_error(self._reset)
            await self._readable.wait()

    def _check_sendable(self) -> None:
        if self._is_closed or self._is_finished:
            raise anyio.ClosedResourceError
        if self._reset is not None:
            raise self._reset_error(self._reset)

    @staticmethod
    def _reset_error(reset: StreamReset) -> StreamReset:
        return StreamReset(reset.code, remote=reset.remote, why=reset.why)

    def _allowance(self, wanted: int) -> int:
        return min(wanted, self._credit, MAX_DATA, self.connection.room)

    def _push(self, data: bytes) -> None:
        self._credit -= len(data)
        self._bytes_sent += len(data)
        self.connection.push(Data(self.id, data))

    def _finish(self) -> None:
        if not self._is_finished and self._reset is None:
            self._is_finished = True
            self.connection.push(Finished(self.id))
            self.connection.forget_ended(self)

    def _grant(self, size: int) -> None:
        # Not for each small receive: a peer that is told of half a window never waits for long.
        self._taken += size
        if self._taken >= WINDOW // 2 and not self.is_ended:
            self.connection.push(Credit(self.id, self._taken))
            self._taken = 0

    def _wake(self) -> None:
        self._readable.notify()
        self._writable.notify()
        self.connection.wake_senders()
