"""Runs one Yamux machine over one secured byte stream: tasks, wake-ups, and the streams.

It owns no protocol knowledge. Commands go to the machine and are followed by `poke`; the reader
hands every chunk to the machine; the writer sleeps until there is something to send or a deadline.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

import anyio
from anyio.lowlevel import checkpoint

from ..core.errors import ConnectionClosed, LimitExceeded, P2PError, unwrap_group
from ..core.interfaces import ConnectionStatistics, Priority
from ..sockets import FastStream
from ..wakeup import Flag, Waiters, new_wakeup
from .events import (
    DataReceived,
    GoAwayReceived,
    OpenResumed,
    PongReceived,
    SendResumed,
    StreamFinished,
    StreamOpened,
    StreamWasReset,
)
from .records import FLUSH_SIZE, IDLE_SOCKET, RECORD, WORTH_SENDING, kept, largest_on, seal_for
from .roundtrips import RoundTrips
from .stream import YamuxStream
from .timekeeper import Timekeeper
from .wire import GoAwayCode

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from anyio.abc import ByteStream

    from ..core.interfaces import ChannelBinding, Limit, MessagePipe, Side
    from ..core.multiaddr import Multiaddr
    from ..core.peer_id import PeerId
    from ..noise.machine import NoiseSession
    from .events import Event
    from .flow import NodeBudget
    from .machine import YamuxMachine

logger = logging.getLogger(__name__)

# Seconds that closing waits for what is queued.
CLOSE_TIMEOUT = 1.0


class YamuxConnection:
    """A connection of streams over Noise; the `Connection` of every byte stream transport."""

    def __init__(  # noqa: PLR0913
        self,
        raw: ByteStream,
        session: NoiseSession,
        machine: YamuxMachine,
        *,
        remote_peer: PeerId,
        remote_addr: Multiaddr,
        channel_binding: ChannelBinding,
        clock: Callable[[], float],
        early: Iterable[bytes] = (),
        ahead: bytes = b"",
        limit: Limit | None = None,
        budget: NodeBudget | None = None,
        round_trip_time: float | None = None,
    ) -> None:
        self.side: Side = machine.side
        self.remote_peer = remote_peer
        self.remote_addr = remote_addr
        self.channel_binding = channel_binding
        self.limit = limit
        self.machine = machine
        self.clock = clock
        self._raw = raw
        self.extra_attributes = raw.extra_attributes
        self._socket = raw if isinstance(raw, FastStream) else None
        self._largest = largest_on(self._socket)
        self._session = session
        self._early = tuple(early)
        self._ahead = ahead
        if ahead:
            loop = asyncio.get_running_loop()
            loop.call_soon(loop.call_soon, self._send_ahead)
        self._budget = budget
        self._opened_at = clock()
        self._bytes_sent = self._bytes_received = 0
        self._incoming: list[YamuxStream] = []
        self._accept_waiters = Waiters()
        self._open_waiters = Waiters()
        self._round_trips = RoundTrips(round_trip_time)
        self._wake = new_wakeup()
        self._is_woken = False
        self._times = Timekeeper(clock, machine.next_timeout, self._handle_timeout)
        self._unsent: memoryview | None = None
        self._last_flush = 0.0
        self._in_bulk = self._is_answer = self._is_flushing = False
        self._is_held_up = False  # by answers that the peer does not read
        self.held_back: list[YamuxStream] | None = None  # those with little news in this chunk
        self._relieved: anyio.Event | None = None
        self._draining = self._is_running = False
        self._reading = anyio.CancelScope()
        self._has_read = self._has_ended_sending = False
        self._is_writer_at_rest = self._is_over = False
        self._closed: ConnectionClosed | None = None
        self._ended, self._finished = Flag(), Flag()
        self._broken: Exception | None = None  # why nothing more can be sent
        if budget is not None:
            budget.join(self, lambda: machine.unread_bytes)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} to {self.remote_peer} at {self.remote_addr}>"

    # The interface

    async def run(self) -> None:
        """Run every task of the connection until it has ended; a peer's fault raises nothing."""
        try:
            with unwrap_group():
                await self._run()
        finally:
            self._is_running = False
            if self._closed is None:
                # Cancelled: the last words go out if the path takes them at once.
                self.machine.go_away()
                self._flush()
            self._end(ConnectionClosed(remote=False))
            self._finished.set()
            with anyio.CancelScope(shield=True):
                await self._raw.aclose()

    async def _run(self) -> None:
        async with anyio.create_task_group() as tasks:
            self._is_running = True
            self.machine.ping(self.clock())
            tasks.start_soon(self._write)
            self._times.start(tasks)
            with self._reading:
                await self._read()
            if self._closed is not None and self._closed.remote is False:
                # Our last words: a go-away for a breach, or what `aclose` still flushes.
                with anyio.move_on_after(CLOSE_TIMEOUT):
                    await self._finished.wait()
            # Tasks that end by themselves cost less than a cancellation.
            self._is_over = True
            if self._is_writer_at_rest:
                self._wake.set()
            else:
                tasks.cancel_scope.cancel()

    async def open_stream(self, *, priority: Priority = Priority.MEDIUM) -> YamuxStream:
        """Open a stream; waits while too many are unacknowledged; raises ConnectionClosed."""
        while True:
            self._check_open()
            try:
                return YamuxStream(self, self.machine.open_stream(self.clock(), priority))
            except LimitExceeded:
                await self._open_waiters.wait()

    async def accept_stream(self) -> YamuxStream:
        """Wait for the next stream that the peer opens; raises ConnectionClosed at the end."""
        while not self._incoming:
            if self._closed is not None:
                raise self._closed
            await self._accept_waiters.wait()
        stream = self._incoming.pop(0)
        self.machine.accept(stream.state, self.clock())
        self._times.look_again()
        return stream

    async def open_pipe(
        self,
        label: str,
        *,
        priority: Priority = Priority.MEDIUM,
        max_age: float | None = None,
        max_retransmits: int | None = None,
    ) -> MessagePipe | None:
        """Return None: a byte stream carries no unreliable messages."""
        return None

    async def accept_pipe(self) -> MessagePipe:
        """Wait for the end of the connection, and raise it: no pipe can come in."""
        raise await self.wait_closed()

    async def probe(self) -> float:
        """Measure one round trip below the streams, in seconds; raises ConnectionClosed."""
        if self._closed is not None:
            raise self._closed
        value = self.machine.ping(self.clock())
        self.poke()
        rtt = await self._round_trips.wait(value)
        if rtt is None:
            raise await self.wait_closed()
        return rtt

    def drain(self) -> None:
        """Take no new streams, and close when the last one has ended, with a go-away only then."""
        self._draining = True
        self._open_waiters.wake_all()
        self._close_if_drained()

    async def aclose(self, *, code: int = GoAwayCode.NORMAL) -> None:
        """Flush what waits for at most a second, say go-away, close; harmless twice."""
        if self._closed is None:
            self.machine.go_away(code)
            try:
                if self._is_running and not self._says_goodbye():
                    with anyio.move_on_after(CLOSE_TIMEOUT):
                        self.wake_writer()
                        await self._finished.wait()
            finally:
                # Also when cancelled, as by anyio.aclose_forcefully.
                self.machine.abort(code)
                self._end(ConnectionClosed(remote=False))
                self._flush()
                self._finished.set()
                self._end_sending()
        if not self._is_running:
            await self._raw.aclose()

    def _says_goodbye(self) -> bool:
        """Send all that waits and the go-away; False if the socket does not take it now."""
        self._flush()
        return self.machine.is_finished and self._unsent is None and self._broken is None

    async def wait_closed(self) -> ConnectionClosed:
        """Wait for the end and return what ended it."""
        await self._ended.wait()
        assert self._closed is not None
        return self._closed

    def statistics(self) -> ConnectionStatistics:
        """This connection's counters; `data_channels` counts streams."""
        machine = self.machine
        return ConnectionStatistics(
            bytes_sent=self._bytes_sent,
            bytes_received=self._bytes_received,
            round_trip_time=self._round_trips.mean,
            jitter=self._round_trips.jitter,
            packet_loss=None,
            data_channels_opened=machine.streams_opened,
            data_channels_closed=machine.streams_opened - len(machine.streams),
            opened_at=self._opened_at,
            last_received_at=machine.last_received_at,
        )

    # What streams ask for

    def poke(self, *, is_urgent: bool = False) -> None:
        """Have what a command has queued sent: at once if urgent, or the first after a chunk."""
        if self._unsent is None and (is_urgent or self._is_answer or self._is_worth_flushing()):
            self._flush(WORTH_SENDING)
        else:
            self.wake_writer()

    def wake_writer(self) -> None:
        """Let the writer task flush in the next turn of the loop."""
        if not self._is_woken:
            self._is_woken = True
            self._wake.set()

    def dispatch(self, events: Iterable[Event]) -> None:
        """Tell the streams, and those who wait, what has happened."""
        for event in events:
            match event:
                case DataReceived() | StreamFinished():
                    if (owner := event.stream.owner) is not None:
                        owner.wake_reader()
                case SendResumed():
                    if (owner := event.stream.owner) is not None:
                        owner.wake_writers()
                case StreamWasReset():
                    if (owner := event.stream.owner) is not None:
                        owner.wake_reader()
                        owner.wake_writers()
                case StreamOpened():
                    self._incoming.append(YamuxStream(self, event.stream))
                    self._accept_waiters.wake_one()
                case _:
                    self._note(event)

    def _note(self, event: Event) -> None:
        match event:
            case PongReceived(value, rtt):
                if self._round_trips.answered(value, rtt):
                    # It came while both sides were still starting: once more, in peace.
                    self.machine.ping(self.clock())
            case OpenResumed():
                self._open_waiters.wake_all()
            case GoAwayReceived():
                self.drain()

    # Reading

    async def _read(self) -> None:
        """Feed the machine until the byte stream ends, and note what ended it."""
        try:
            self._take(self._early)
            self._early = ()
            self._flush()
            if self._socket is not None:
                await self._socket.receive_each(self._receive)
            else:
                while self._receive(await self._raw.receive(RECORD)):
                    if self._is_held_up and self.machine.is_congested:
                        self._relieved = anyio.Event()
                        await self._relieved.wait()
            if self._closed is None:
                raise anyio.EndOfStream
        except anyio.EndOfStream:
            self._has_read = True
            try:
                self._session.receive_eof()
                self._end(ConnectionClosed(remote=True, code=self.machine.remote_go_away))
            except P2PError as error:
                self._end(ConnectionClosed(remote=None, cause=error))
        except (anyio.BrokenResourceError, anyio.ClosedResourceError) as error:
            self._has_read = True
            self._end(ConnectionClosed(remote=None, cause=error))

    def _receive(self, data: memoryview | bytes) -> bool:
        """Take one chunk from the path; False once the connection has ended."""
        self._bytes_received += len(data)
        if self._closed is not None:
            return True
        try:
            records = self._session.receive_data(data)
        except P2PError as error:
            self._fail(error)
            return self._socket is not None
        if records:
            self._take(records)
        if self._budget is not None and self._budget.used > self._budget.limit:
            self._budget.relieve()
        machine = self.machine
        if machine.has_control or machine.queued:
            self._is_answer = False
            self.poke()
        self._is_answer = True
        if self._is_held_up and machine.is_congested and self._socket is not None:
            # The peer sends what must be answered and does not read the answers.
            self._socket.pause_reading()
        return self._closed is None or self._lingers

    def _take(self, records: Sequence[bytes]) -> None:
        machine, now = self.machine, self.clock()
        held_back: list[YamuxStream] = []
        self.held_back = held_back if len(records) > 1 else None  # one has but one event a stream
        try:
            for plaintext in records:
                if events := machine.receive_data(plaintext, now):
                    self.dispatch(events)
        except P2PError as error:
            self._fail(error)
        self.held_back = None
        for stream in held_back:
            stream.wake_reader()
        if machine.is_held_up:
            self._is_held_up = True
            self.wake_writer()
        if self._draining:
            self._close_if_drained()

    def shed(self) -> bool:
        """Give up the stream that holds most unread, and say whether there was one."""
        events = self.machine.shed()
        self.dispatch(events)
        self.poke()
        return bool(events)

    # Writing

    def _flush(self, leave: int = 0) -> None:
        """Send what the socket takes now, except a rest of less than `leave` bytes of data."""
        if self._socket is None or self._is_flushing:
            self.wake_writer()
            return
        if self._broken is not None:
            return
        self._last_flush = self.clock()
        self._is_answer = False
        # What sending sets going in the connection below may come back here: not between sealing
        # a record and handing it over.
        self._is_flushing = True
        try:
            self._flush_socket(self._socket, leave)
        except (anyio.BrokenResourceError, anyio.ClosedResourceError) as error:
            self._broken = error
            self.wake_writer()
        finally:
            self._is_flushing = False
        if self._is_held_up or self._draining or self.machine.has_news:
            self._flushed()
        inflight = self.machine.inflight
        if inflight.is_active and inflight.next_timeout() < self._times.deadline:
            # Markers have deadlines; all else that is sent only puts deadlines off.
            self._times.look_again()

    def _send_ahead(self) -> None:
        """Send what was to go along with the first record, where nobody has run the connection."""
        if self._ahead and self._unsent is None:
            self._unsent, self._ahead = memoryview(self._ahead), b""
            self._flush()

    def _flush_socket(self, sock: FastStream, leave: int) -> None:
        if self._unsent is not None and not self._send_rest(sock):
            return
        machine, now, budget = self.machine, self._last_flush, FLUSH_SIZE
        if not leave or machine.queued >= WORTH_SENDING:
            self._in_bulk = machine.queued >= WORTH_SENDING
        while record := machine.data_to_send(self._largest, now):
            data = seal_for(sock, self._session, record)
            size = len(data)
            if self._ahead:
                data, self._ahead = memoryview(self._ahead + data), b""
            ends = machine.local_go_away is not None
            is_last = ends and (machine.is_finished or machine.is_flushed)
            sent = (sock.send_last_nowait if is_last else sock.send_nowait)(data)
            self._bytes_sent += size
            if sent < len(data):
                self._unsent = kept(sock, data[sent:])
                self.wake_writer()
                return
            budget -= size
            if not (ends or machine.has_control):
                if not machine.queued:
                    return
                if machine.queued < leave or budget <= 0:
                    self.wake_writer()
                    return

    def _send_rest(self, sock: FastStream) -> bool:
        """Send what is left of the last record; True once nothing is."""
        assert self._unsent is not None
        self._unsent = self._unsent[sock.send_nowait(self._unsent) :] or None
        return self._unsent is None

    async def _send_all(self) -> None:
        """The way of byte streams without a fast way: record by record, each awaited."""
        machine = self.machine
        try:
            while record := machine.data_to_send(RECORD, self.clock()):
                sealed = self._session.seal(record)
                self._flushed()
                await self._raw.send(sealed)
                self._bytes_sent += len(sealed)
        except (anyio.BrokenResourceError, anyio.ClosedResourceError) as error:
            self._broken = error
        self._flushed()

    def _flushed(self) -> None:
        if self._is_held_up and not self.machine.is_congested:
            self._read_on()
        if self.machine.has_news:
            self.dispatch(self.machine.events())
        if self._draining:
            self._close_if_drained()

    def _read_on(self) -> None:
        """Take what waited for answers to be sent, and let the peer send more."""
        self._is_held_up = False
        self._take((b"",))
        self.wake_writer()  # for what these call for: answers, data that was granted credit
        if not self.machine.is_congested:
            if self._socket is not None:
                self._socket.resume_reading()
            elif self._relieved is not None:
                self._relieved.set()

    async def _write(self) -> None:
        """Send when the socket takes more, when it was not worth it before, and at deadlines."""
        while True:
            self._is_woken = False
            if self._socket is None:
                await self._send_all()
            elif not self._in_bulk or self._is_worth_flushing():
                self._flush()
                if self._unsent is not None and self._broken is None:
                    await self._wait_writable(self._socket)
                    continue
            else:
                self._is_woken = True
            if self._broken is not None:
                # What the peer sent before may still wait to be read; then the reader ends it.
                with anyio.move_on_after(CLOSE_TIMEOUT):
                    await self._ended.wait()
                self._end(ConnectionClosed(remote=None, cause=self._broken))
            if self.machine.is_finished or self._broken is not None:
                self._end(ConnectionClosed(remote=False))
                self._finished.set()
                self._end_sending()
                self._is_writer_at_rest = True
                return
            if self._is_woken:
                # More than one flush may send; or the rest of a write, to which more may come.
                self._wake = new_wakeup()
                await checkpoint()
                continue
            # No await between the last look and this, so no wake-up can be lost.
            self._wake = new_wakeup()
            self._is_writer_at_rest = True
            await self._wake.wait()
            if self._is_over:
                return
            self._is_writer_at_rest = False

    def _is_worth_flushing(self) -> bool:
        machine = self.machine
        return (
            machine.has_control
            or not 0 < machine.queued < WORTH_SENDING
            or self.clock() - self._last_flush > IDLE_SOCKET
        )

    async def _wait_writable(self, sock: FastStream) -> None:
        try:
            await sock.wait_writable()
        except (anyio.BrokenResourceError, anyio.ClosedResourceError) as error:
            self._broken = error

    def _handle_timeout(self) -> None:
        try:
            self.dispatch(self.machine.handle_timeout(self.clock()))
        except P2PError as error:
            self._fail(error)
        else:
            self.poke()

    # The end

    def _check_open(self) -> None:
        if self._closed is not None:
            raise self._closed
        if self._draining or self.machine.is_closing:
            code = self.machine.remote_go_away
            raise ConnectionClosed(remote=code is not None, code=code)

    def _fail(self, error: P2PError) -> None:
        """End with our go-away for a breach of the peer's, or for its silence."""
        logger.debug("%r: %s", self, error)
        code = getattr(error, "code", GoAwayCode.PROTOCOL_ERROR)
        self.machine.abort(code)
        self._end(ConnectionClosed(remote=False, code=code, cause=error))
        self._flush()
        self.wake_writer()

    def _end(self, closed: ConnectionClosed) -> None:
        """Note what ended the connection, once, and wake everybody who waits for something."""
        if self._closed is not None:
            return
        if self.machine.is_finished and closed.code is None:
            # Our go-away is out: whatever ends the path now is the answer to it.
            closed = ConnectionClosed(remote=False)
        self._closed = closed
        self.dispatch(self.machine.receive_eof(remote=closed.remote))
        # What the peer has finished can still be accepted and read.
        self._incoming = [each for each in self._incoming if each.state.remote_fin]
        self._accept_waiters.wake_all()
        self._open_waiters.wake_all()
        self._round_trips.end()
        if self._budget is not None:
            self._budget.leave(self)
        if closed.remote is not False:
            self._finished.set()
        self._ended.set()
        if self._lingers and self._socket is not None:
            self.wake_writer()
            self._socket.resume_reading()
            self._reading.deadline = anyio.current_time() + 2 * CLOSE_TIMEOUT  # to flush
        elif not self._has_read:
            self._reading.cancel()
        self._times.end()

    @property
    def _lingers(self) -> bool:
        """Whether this side has ended it, and reads on until the peer has closed, too."""
        closed = self._closed
        return self._socket is not None and closed is not None and closed.remote is False

    def _end_sending(self) -> None:
        if self._lingers and self._socket is not None and not self._has_ended_sending:
            self._has_ended_sending = True
            self._socket.end_sending()
            deadline = anyio.current_time() + min(self._round_trips.linger_time, CLOSE_TIMEOUT)
            self._reading.deadline = min(self._reading.deadline, deadline)

    def _close_if_drained(self) -> None:
        if self._closed is None and not self.machine.streams:
            if (code := self.machine.remote_go_away) is not None:
                self._end(ConnectionClosed(remote=True, code=code))
            else:
                self.machine.go_away()
                self.wake_writer()
