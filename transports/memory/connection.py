"""A connection in memory: streams and pipes whose frames travel as objects, without a cipher."""

from __future__ import annotations

from collections import deque
from math import inf
from typing import TYPE_CHECKING

import anyio
from anyio.lowlevel import checkpoint

from ..core.errors import ConnectionClosed, StreamReset
from ..core.interfaces import ConnectionStatistics, Priority
from .frames import (
    OVERHEAD,
    Accepted,
    Credit,
    Data,
    Finished,
    Goodbye,
    Message,
    Opened,
    Ping,
    PipeFinished,
    PipeOpened,
    Pong,
    Reset,
)
from .link import Signal
from .pipe import PlainPipe
from .plain_stream import PlainStream

if TYPE_CHECKING:
    from ..core.interfaces import ChannelBinding, Limit, MessagePipe, Side
    from ..core.multiaddr import Multiaddr
    from ..core.peer_id import PeerId
    from .frames import Frame
    from .link import Link, Wire

# Streams of our making that the peer has not accepted: as in Yamux.
MAX_UNACCEPTED = 256
# Streams and pipes of the peer's making, each: as in Yamux.
MAX_INBOUND = 1000
# Seconds that the peer has to end a stream that we have closed.
LINGER = 60.0


class MemoryConnection:
    """One end of a connection over a virtual link; see `Connection`."""

    def __init__(
        self,
        link: Link[Frame],
        *,
        is_dialled: bool,
        side: Side,
        remote_peer: PeerId,
        remote_addr: Multiaddr,
        channel_binding: ChannelBinding,
    ) -> None:
        self.side = side
        self.remote_peer = remote_peer
        self.remote_addr = remote_addr
        self.channel_binding = channel_binding
        self.limit: Limit | None = None
        self.link = link
        ways = (link.back, link.forth) if is_dialled else (link.forth, link.back)
        self._incoming: Wire[Frame] = ways[0]
        self._outgoing: Wire[Frame] = ways[1]
        self._streams: dict[int, PlainStream] = {}
        self._pipes: dict[int, PlainPipe] = {}
        self._lingering: dict[PlainStream, float] = {}
        self._opened: deque[PlainStream] = deque()
        self._opened_pipes: deque[PlainPipe] = deque()
        self._changed = Signal()
        # Odd numbers are the dialer's, as in Yamux.
        self._next_id = 1 + int(side)
        self._unaccepted = 0
        self._is_draining = False
        self._closed: ConnectionClosed | None = None
        self._ended = anyio.Event()
        self._pings: dict[int, tuple[anyio.Event, float]] = {}
        self._pings_sent = 0
        self._round_trip_time: float | None = None
        self._bytes_sent = 0
        self._bytes_received = 0
        self._streams_opened = 0
        self._opened_at = self._last_received_at = anyio.current_time()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} to {self.remote_peer} at {self.remote_addr}>"

    # The interface

    async def run(self) -> None:
        """Deliver what arrives until the connection has ended."""
        try:
            while self._closed is None:
                while self._closed is None and (frame := self._incoming.take()) is not None:
                    self._receive(frame)
                if self._closed is None:
                    await self._incoming.wait_arrival(min(self._lingering.values(), default=inf))
                    self._end_lingering()
        except anyio.BrokenResourceError as error:
            self._end(ConnectionClosed(remote=None, cause=error))
        finally:
            if self._closed is None:
                self.link.cut()
                self._end(ConnectionClosed(remote=False))

    async def open_stream(self, *, priority: Priority = Priority.MEDIUM) -> PlainStream:
        """Open a stream; waits while too many are not accepted; raises ConnectionClosed."""
        await checkpoint()
        while True:
            self._check_open()
            if self._unaccepted < MAX_UNACCEPTED:
                break
            await self._changed.wait()
        number = self._take_id()
        self._unaccepted += 1
        stream = self._add_stream(number)
        stream.priority = priority
        self.push(Opened(number))
        self._check_open()
        return stream

    async def accept_stream(self) -> PlainStream:
        """Wait for the next stream that the peer opens; raises ConnectionClosed at the end."""
        await checkpoint()
        while not self._opened:
            if self._closed is not None:
                raise self._closed
            await self._changed.wait()
        stream = self._opened.popleft()
        self.push(Accepted(stream.id))
        return stream

    async def open_pipe(
        self,
        label: str,
        *,
        priority: Priority = Priority.MEDIUM,
        max_age: float | None = None,
        max_retransmits: int | None = None,
    ) -> MessagePipe | None:
        """Open a message pipe; raises ConnectionClosed."""
        await checkpoint()
        self._check_open()
        number = self._take_id()
        pipe = PlainPipe(self, number, label, max_age=max_age, max_retransmits=max_retransmits)
        self._pipes[number] = pipe
        self.push(PipeOpened(number, label))
        self._check_open()
        return pipe

    async def accept_pipe(self) -> MessagePipe:
        """Wait for the next pipe that the peer opens; raises ConnectionClosed at the end."""
        await checkpoint()
        while not self._opened_pipes:
            if self._closed is not None:
                raise self._closed
            await self._changed.wait()
        return self._opened_pipes.popleft()

    async def probe(self) -> float:
        """Measure one round trip, in seconds; raises ConnectionClosed."""
        await checkpoint()
        if self._closed is not None:
            raise self._closed
        self._pings_sent += 1
        value, sent_at, answered = self._pings_sent, anyio.current_time(), anyio.Event()
        self._pings[value] = (answered, sent_at)
        self.push(Ping(value))
        try:
            await answered.wait()
        finally:
            is_open = self._pings.pop(value, None) is None
        if not is_open:
            raise await self.wait_closed()
        return anyio.current_time() - sent_at

    def drain(self) -> None:
        """Open no more streams, and close when the last stream has ended."""
        self._is_draining = True
        self._changed.notify()
        self._close_if_drained()

    async def aclose(self, *, code: int = 0) -> None:
        """Say goodbye behind all that was sent, which still arrives; harmless twice."""
        self._close(code)
        await checkpoint()

    async def wait_closed(self) -> ConnectionClosed:
        """Wait for the end and return what ended it."""
        await self._ended.wait()
        assert self._closed is not None
        return self._closed

    def statistics(self) -> ConnectionStatistics:
        """This connection's counters; `data_channels` counts streams."""
        return ConnectionStatistics(
            bytes_sent=self._bytes_sent,
            bytes_received=self._bytes_received,
            round_trip_time=self._round_trip_time,
            jitter=None,
            packet_loss=None,
            data_channels_opened=self._streams_opened,
            data_channels_closed=self._streams_opened - len(self._streams),
            opened_at=self._opened_at,
            last_received_at=self._last_received_at,
        )

    # What streams and pipes ask for

    @property
    def room(self) -> int:
        """Bytes that the link takes now."""
        return self._outgoing.lane.room

    async def wait_room(self) -> None:
        """Wait until the link may take more; look again afterwards."""
        await self._outgoing.wait_room()

    def wake_senders(self) -> None:
        """Let those who wait for room look again."""
        self._outgoing.notify()

    def push(self, frame: Frame) -> None:
        """Send a frame, reliably and in order; nothing once the connection has ended."""
        if self._is_sendable():
            self._outgoing.send(frame, self._count(frame))

    def push_message(
        self, frame: Message, *, max_age: float | None, max_retransmits: int | None
    ) -> None:
        """Send a message that may be lost and overtaken."""
        if self._is_sendable():
            size = self._count(frame)
            self._outgoing.send_message(
                frame, size, max_age=max_age, max_retransmits=max_retransmits
            )

    def let_linger(self, stream: PlainStream) -> None:
        """Reset a stream in a while, unless the peer ends it."""
        if stream.id in self._streams:
            self._lingering[stream] = anyio.current_time() + LINGER
            self._incoming.notify()

    def forget_ended(self, stream: PlainStream) -> None:
        """Forget a stream once it has ended in both directions."""
        if stream.is_ended and self._streams.pop(stream.id, None) is not None:
            self._lingering.pop(stream, None)
            self._note_accepted(stream)
            self._close_if_drained()

    def forget_pipe(self, number: int) -> None:
        """Forget a pipe."""
        self._pipes.pop(number, None)

    # Helpers

    def _receive(self, frame: Frame) -> None:
        self._bytes_received += _size_of(frame)
        self._last_received_at = anyio.current_time()
        match frame:
            case Opened(number):
                self._receive_opened(number)
            case PipeOpened() | Message() | PipeFinished():
                self._receive_for_pipe(frame)
            case Ping(value):
                self.push(Pong(value))
            case Pong(value):
                self._receive_pong(value)
            case Goodbye(code):
                self._end(ConnectionClosed(remote=True, code=code))
            case _:
                self._receive_for_stream(frame)

    def _receive_for_stream(self, frame: Accepted | Data | Credit | Finished | Reset) -> None:
        stream = self._streams.get(frame.stream)
        if stream is None:
            # It was reset while the frame was under way.
            return
        match frame:
            case Accepted():
                self._note_accepted(stream)
            case Data(_, data):
                stream.receive_data(data)
            case Credit(_, size):
                stream.receive_credit(size)
            case Finished():
                stream.receive_end()
            case Reset(_, code):
                stream.end(StreamReset(code, remote=True))

    def _receive_for_pipe(self, frame: PipeOpened | Message | PipeFinished) -> None:
        pipe = self._pipes.get(frame.pipe)
        match frame:
            case PipeOpened(number, label):
                if len(self._pipes) < 2 * MAX_INBOUND:
                    pipe = self._pipes[number] = PlainPipe(self, number, label)
                    self._opened_pipes.append(pipe)
                    self._changed.notify()
                else:
                    self.push(PipeFinished(number))
            case Message(_, data) if pipe is not None:
                pipe.receive_message(data)
            case PipeFinished() if pipe is not None:
                pipe.receive_end()

    def _receive_opened(self, number: int) -> None:
        if sum(1 for each in self._streams if each % 2 == number % 2) >= MAX_INBOUND:
            self.push(Reset(number, 0))
            return
        self._opened.append(self._add_stream(number))
        self._changed.notify()

    def _receive_pong(self, value: int) -> None:
        answered = self._pings.pop(value, None)
        if answered is not None:
            rtt, last = anyio.current_time() - answered[1], self._round_trip_time
            self._round_trip_time = rtt if last is None else last + (rtt - last) / 8
            answered[0].set()

    def _add_stream(self, number: int) -> PlainStream:
        stream = self._streams[number] = PlainStream(self, number)
        self._streams_opened += 1
        return stream

    def _take_id(self) -> int:
        self._next_id += 2
        return self._next_id - 2

    def _note_accepted(self, stream: PlainStream) -> None:
        is_own = stream.id % 2 != int(self.side)
        if is_own and not stream.is_accepted:
            stream.is_accepted = True
            self._unaccepted -= 1
            self._changed.notify()

    def _check_open(self) -> None:
        if self._closed is not None:
            raise self._closed
        if self._is_draining:
            raise ConnectionClosed(remote=False)

    def _is_sendable(self) -> bool:
        if self._closed is None and self.link.is_cut:
            error = anyio.BrokenResourceError("the link was cut")
            self._end(ConnectionClosed(remote=None, cause=error))
        return self._closed is None

    def _count(self, frame: Frame) -> int:
        size = _size_of(frame)
        self._bytes_sent += size
        return size

    def _end_lingering(self) -> None:
        now = anyio.current_time()
        for stream in [each for each, until in self._lingering.items() if until <= now]:
            stream.reset()

    def _close_if_drained(self) -> None:
        if self._is_draining and not self._streams:
            self._close(0)

    def _close(self, code: int) -> None:
        self.push(Goodbye(code))
        self._end(ConnectionClosed(remote=False))

    def _end(self, closed: ConnectionClosed) -> None:
        if self._closed is not None:
            return
        self._closed = closed
        for stream in list(self._streams.values()):
            stream.end(StreamReset(remote=closed.remote is not False, why=str(closed)), keep=True)
        for pipe in self._pipes.values():
            pipe.end()
        self._pipes.clear()
        for answered, _ in self._pings.values():
            answered.set()
        self._ended.set()
        self._changed.notify()
        self._incoming.notify()
        self._outgoing.notify()
        self.link.release_end()


def _size_of(frame: Frame) -> int:
    match frame:
        case Data(_, data) | Message(_, data):
            return OVERHEAD + len(data)
        case PipeOpened(_, label):
            return OVERHEAD + len(label.encode())
        case _:
            return OVERHEAD
