"""Yamux as a state machine: no IO, no clock, no randomness.

Call order: commands (`open_stream`, `send`, `take`, ...) at any time; `receive_data` with every
plaintext that arrives; after either, `data_to_send` until it returns nothing; `handle_timeout` when
`next_timeout` is due. Events are returned by the inputs. After a RemoteProtocolError the machine is
dead: it sends its go-away and nothing else.
"""

from __future__ import annotations

from math import inf

from ..core.errors import LocalProtocolError, RemoteProtocolError
from ..core.interfaces import Priority, Side
from ..inflight import InFlightLimit
from ..scheduler import LOWEST_RANK, Scheduler
from .config import YamuxConfig
from .control import ControlQueue, Parts, Pings
from .events import (
    DataReceived,
    Event,
    GoAwayReceived,
    OpenResumed,
    PongReceived,
    SendResumed,
    StreamFinished,
    StreamOpened,
    StreamWasReset,
)
from .flow import LARGEST_FRAME, LINGER, SEND_QUEUE, NodeBudget, StreamState
from .guard import FloodGuard
from .keepalive import KeepAlive
from .table import StreamTable
from .wire import (
    ACK,
    DATA,
    FIN,
    GO_AWAY,
    HEADER,
    HEADER_SIZE,
    INITIAL_WINDOW,
    MAX_STREAM_ID,
    PING,
    RST,
    SYN,
    VERSION,
    WINDOW_UPDATE,
    GoAwayCode,
    go_away,
    ping,
    window_update,
)


class YamuxMachine:
    """One session; see the module for the call order."""

    def __init__(
        self,
        side: Side,
        now: float,
        *,
        config: YamuxConfig | None = None,
        budget: NodeBudget | None = None,
    ) -> None:
        self.side = side
        self.config = config or YamuxConfig()
        self.inflight = InFlightLimit()
        self._table = StreamTable(budget)
        self.streams = self._table.streams  # open ones, by id
        self.queued = 0
        self.streams_refused = 0
        self.remote_go_away: int | None = None
        self.last_received_at = now
        self._guard = FloodGuard(now)
        self._next_id = 1 if side is Side.DIALER else 2
        self._open_waits = False
        self._backlog = 0
        self._scheduler = Scheduler()
        self.local_go_away: int | None = None
        self._go_away_sent = False
        self._dead = False
        self._control = ControlQueue()
        self._events: list[Event] = []
        self._partial = b""  # input: a header that is not whole, then what is left of a body
        self._body_left = 0
        self._body_stream: StreamState | None = None
        self._body_flags = 0
        self._pings = Pings()
        self._keepalive = KeepAlive(now, self.config)

    # Commands

    @property
    def streams_opened(self) -> int:
        """Streams of either side's making since the start."""
        return self._table.opened

    @property
    def unread_bytes(self) -> int:
        """Bytes of all streams received and not taken."""
        return self._table.unread

    @property
    def can_open(self) -> bool:
        """Whether few enough opened streams wait for the peer's acknowledgement."""
        return self._table.unacknowledged < self.config.max_unacknowledged

    @property
    def is_closing(self) -> bool:
        """Whether either side has said go-away, or the session is dead."""
        return self._dead or self.local_go_away is not None or self.remote_go_away is not None

    def open_stream(self, now: float, priority: Priority = Priority.MEDIUM) -> StreamState:
        """Open a stream; its first frame says so.

        Raises LimitExceeded until `can_open` (see OpenResumed), LocalProtocolError at the end.
        """
        if self.is_closing or self._next_id > MAX_STREAM_ID:
            raise LocalProtocolError("the session is ending; no stream can be opened")
        if not self.can_open:
            self._open_waits = True
            raise self._table.too_many_unacknowledged(self.config.max_unacknowledged)
        stream = StreamState(self._next_id, priority, now, is_remote=False)
        self._next_id += 2
        stream.flags = SYN
        self._table.add(stream)
        self._control.announce(stream)
        return stream

    def accept(self, stream: StreamState, now: float) -> None:
        """Acknowledge a stream that the peer opened: with its first data, or soon without."""
        self._backlog -= 1
        if stream.is_open:
            stream.flags = ACK
            self._control.acknowledge(stream, now)

    def send(self, stream: StreamState, data: memoryview) -> int:
        """Queue bytes and return how many were taken; SendResumed tells when more are.

        The memory behind `data` must not change. Raises LocalProtocolError after `finish`.
        """
        if stream.fin_queued or stream.reset_code is not None:
            raise LocalProtocolError("the stream's sending side is closed")
        if taken := stream.add(data, self.queued):
            self.queued += taken
            if stream.credit > 0 and not stream.flow.is_ready:
                self._scheduler.join(stream.flow)
        return taken

    def finish(self, stream: StreamState) -> None:
        """Close the sending direction after what is queued; harmless twice."""
        if not stream.fin_queued and stream.reset_code is None:
            stream.fin_queued = True
            if not stream.queued:
                self._control.announce(stream)

    def take(self, stream: StreamState, max_bytes: int, now: float) -> bytes:
        """Remove up to `max_bytes` received bytes, and grant credit when it is due."""
        data = stream.received.take(max_bytes)
        self._table.count(stream, -len(data))
        if stream.step is not None or stream.granted + stream.received.size <= stream.window >> 1:
            self._grant(stream, now)
        return data

    def take_piece(self, stream: StreamState, max_bytes: int, now: float) -> memoryview:
        """Do the same with what came in one frame, without a copy; there must be something."""
        data = stream.received.take_piece(max_bytes)
        self._table.count(stream, -len(data))
        if stream.step is not None or stream.granted + stream.received.size <= stream.window >> 1:
            self._grant(stream, now)
        return data

    def unread(self, stream: StreamState, data: bytes) -> None:
        """Put bytes back in front of those received; they cost no credit a second time."""
        stream.received.prepend(data)
        self._table.count(stream, len(data))

    def close(self, stream: StreamState, now: float) -> None:
        """Finish sending, and drop what still comes in; the peer has `LINGER` seconds to finish."""
        self.finish(stream)
        self._drop_received(stream)
        stream.discards = True
        if stream.is_open and not stream.remote_fin:
            self._table.lingering.setdefault(stream, now + LINGER)

    def reset(self, stream: StreamState, code: int = 0) -> list[Event]:
        """End both directions now, and say so to the peer unless it knows."""
        self._drop_received(stream)
        if stream.is_open:
            if not stream.flags & SYN:
                self._control.frames.append(window_update(RST, stream.id, code))
            self._end(stream, code, remote=False, keep=False)
        return self.events()

    def set_priority(self, stream: StreamState, priority: Priority) -> None:
        """Move a stream into another class."""
        self._table.reclassify(stream, priority)
        stream.priority = priority
        self._scheduler.move(stream.flow, priority)

    def ping(self, now: float) -> int:
        """Measure a round trip; PongReceived carries the value returned here.

        Beyond `MAX_CONTROL` unanswered ones, the last of them serves again.
        """
        return self._pings.measure(self._control, now)

    def go_away(self, code: int = GoAwayCode.NORMAL) -> None:
        """Say go-away once what is queued has been sent; no stream opens from now on."""
        if self.local_go_away is None:
            self.local_go_away = code

    def abort(self, code: int = GoAwayCode.NORMAL) -> None:
        """Drop all that is queued; the go-away is the last thing sent."""
        if not self._dead:
            self.local_go_away = code
        self._dead = True

    def shed(self, least: int = 0) -> list[Event]:
        """Reset the stream with most unread, of the lowest class that has any beyond `least`."""
        worst = self._table.fattest(least)
        return [] if worst is None else self.reset(worst)

    # Inputs

    def receive_data(self, data: bytes, now: float) -> list[Event]:
        """Take plaintext from the peer; empty data continues after congestion.

        Raises RemoteProtocolError when the peer breaks the protocol; the machine is then dead.
        """
        if self._dead:
            return []
        if data:
            self.last_received_at = now
        try:
            self._parse(data, now)
            self._guard.check(now)
        except RemoteProtocolError as error:
            self.abort(error.code)
            raise
        events, self._events = self._events, []
        # Every stream may keep its first window.
        while self._table.grown > self.config.receive_budget and (
            shed := self.shed(INITIAL_WINDOW)
        ):
            events += shed
        return events

    def receive_eof(self, *, remote: bool | None = True) -> list[Event]:
        """Take the end of the byte stream: every open stream is reset, by whom `remote` says."""
        self._dead = True
        for stream in list(self.streams.values()):
            self._end(stream, 0, remote=remote, keep=stream.remote_fin)
        self._table.detach()
        return self.events()

    def handle_timeout(self, now: float) -> list[Event]:
        """Do what is due: keep-alive, lost markers, streams that linger.

        Raises RemoteProtocolError when the peer has given no sign of life.
        """
        if self._dead:
            return []
        self.inflight.handle_timeout(now)
        events = [event for stream in self._table.overdue(now) for event in self.reset(stream)]
        self._control.handle_timeout(now)
        try:
            if now >= self._keepalive.due and self._keepalive.check(now, self.last_received_at):
                self.ping(now)
        except RemoteProtocolError as error:
            self.abort(error.code)
            raise
        return events

    # Outputs

    @property
    def is_congested(self) -> bool:
        """Whether so much control waits for the socket that the peer must not be read."""
        return self._control.is_full

    @property
    def is_held_up(self) -> bool:
        """Whether that is so, or frames wait that were held up by it.

        `receive_data(b"")` goes on with these.
        """
        return len(self._partial) >= HEADER_SIZE or self._control.is_full

    @property
    def has_control(self) -> bool:
        """Whether something is to be sent that must not wait for more."""
        return bool(self._control.announced or self._control.frames)

    @property
    def has_farewell(self) -> bool:
        """Whether a go-away waits to be sent, after all else."""
        return self.local_go_away is not None and not self._go_away_sent

    @property
    def is_flushed(self) -> bool:
        """Whether nothing but a go-away is left to send."""
        return not (self.queued or self._control.announced or self._control.frames)

    @property
    def is_finished(self) -> bool:
        """Whether nothing will be sent again: the go-away is out, or the path is gone."""
        return self._go_away_sent or (self._dead and self.local_go_away is None)

    @property
    def has_news(self) -> bool:
        """Whether `events` returns any."""
        return bool(self._events)

    def events(self) -> list[Event]:
        """Return what `data_to_send` has caused since the last call."""
        events, self._events = self._events, []
        return events

    def next_timeout(self) -> float:
        """When `handle_timeout` is due; never once the machine is dead."""
        if self._dead:
            return inf
        due = min(self._control.next_due, self._keepalive.due)
        return min(due, self.inflight.next_timeout(), self._table.next_overdue)

    def data_to_send(self, max_bytes: int, now: float) -> bytes:
        """Return the plaintext of one record, at most `max_bytes` (>= 64) long; empty if none.

        Control first, then frames as scheduled; it ends after its first HIGH frame.
        """
        if self.local_go_away is not None and self.has_farewell and (self._dead or self.is_flushed):
            self._go_away_sent = True
            return go_away(self.local_go_away)
        if self._dead:
            return b""
        inflight, control = self.inflight, self._control
        if (
            self._scheduler.ready == 1
            and not (self._table.is_mixed or control.announced or control.frames or control.acks)
            and (frame := self._lone_frame(max_bytes))
        ):
            if inflight.is_active:
                inflight.deactivate()
            inflight.written(len(frame), now)
            return frame
        parts: Parts = []
        lowest, room = LOWEST_RANK, max_bytes
        if not self._table.is_mixed:
            if inflight.is_active:
                inflight.deactivate()
        elif not inflight.is_free(now):
            inflight.activate(now, is_busy=self.queued >= SEND_QUEUE)
            if inflight.marker_due() and inflight.mark(self._pings.next_value(control), now):
                max_bytes = HEADER_SIZE * len(control.frames)
            room = inflight.record_size(max_bytes)
            lowest = LOWEST_RANK if inflight.room(now) > 0 else self._table.highest_open
        size = self._put_control(parts, max_bytes) if self.has_control else 0
        size = self._put_frames(parts, size, room, inflight.frame_size(LARGEST_FRAME), lowest)
        if control.acks and parts:
            size += control.put_acks(parts, max_bytes - size)
        inflight.written(size, now)
        return b"".join(parts)

    # Sending

    def _put_control(self, parts: Parts, room: int) -> int:
        """Pongs and resets, then window updates and flags that have no data to ride on."""
        size, finished = self._control.put(parts, room)
        for stream in finished:
            if stream.remote_fin:
                self._remove(stream)
        return size

    def _lone_frame(self, max_bytes: int) -> bytes:
        """Return the usual record, if it is that: all of the only busy stream, in one frame."""
        flow = self._scheduler.next()
        assert flow is not None
        stream: StreamState = flow.owner
        size = stream.queued
        if not stream.is_one_frame(max_bytes - HEADER_SIZE):
            return b""
        header = HEADER.pack(VERSION, DATA, stream.flags, stream.id, size)
        stream.flags = 0
        (data,) = stream.take_frame(size)
        self.queued -= size
        self._guard.exchanged += 1
        self._scheduler.charge(flow, is_last=True)
        return header + data

    def _put_frames(
        self, parts: Parts, size: int, max_bytes: int, largest: int, lowest: int
    ) -> int:
        scheduler = self._scheduler
        while (room := max_bytes - size - HEADER_SIZE) > 0:
            flow = scheduler.next(lowest)
            if flow is None:
                break
            stream: StreamState = flow.owner
            most = largest if scheduler.ready > 1 else max_bytes
            # Where frames have to be short anyway, records are filled all the same.
            if not (length := stream.next_frame(room, may_cut=not size or most < max_bytes)):
                break
            length = min(length, most)
            parts.append(HEADER.pack(VERSION, DATA, stream.flags, stream.id, length))
            stream.flags = 0
            parts += stream.take_frame(length)
            size += HEADER_SIZE + length
            self.queued -= length
            self._guard.exchanged += 1
            scheduler.charge(flow, is_last=not stream.queued or not stream.credit)
            if stream.stalled and stream.queued <= SEND_QUEUE // 2:
                stream.stalled = False
                self._events.append(SendResumed(stream))
            if stream.fin_queued and not stream.queued:
                # A FIN is a frame of its own: js drops the payload of one that has both.
                self._control.announce(stream)
            if flow.rank == 0 or not scheduler.ready:
                break
        if self._control.announced:
            size += self._put_control(parts, max_bytes - size)
        return size

    # Receiving

    def _grant(self, stream: StreamState, now: float) -> None:
        if not stream.remote_fin and stream.reset_code is None:
            may_grow = self._table.grown + stream.window <= self.config.receive_budget
            if credit := stream.replenish(now, self.inflight.min_rtt, may_grow=may_grow):
                self._control.announce(stream, credit)

    def _parse(self, data: bytes, now: float) -> None:
        if self._partial:
            data = self._partial + data
            self._partial = b""
        view = memoryview(data)
        offset, end = 0, len(data)
        while True:
            if self._body_left:
                length = min(self._body_left, end - offset)
                self._deliver(view[offset : offset + length])
                offset += length
                if self._body_left:
                    return
            if offset == end:
                return
            if end - offset < HEADER_SIZE or self._control.is_full:
                self._partial = bytes(view[offset:])
                return
            version, kind, flags, stream_id, length = HEADER.unpack_from(data, offset)
            offset += HEADER_SIZE
            if version != VERSION:
                raise RemoteProtocolError(f"yamux version {version} instead of {VERSION}")
            if (
                kind == DATA
                and not flags
                and 0 < length <= end - offset
                and (stream := self.streams.get(stream_id)) is not None
            ):
                # The usual case: a frame in one piece, about nothing else.
                stream.use_grant(length)
                self._guard.exchanged += 1
                self._accept(stream, view[offset : offset + length], length)
                offset += length
            elif kind <= WINDOW_UPDATE:
                self._receive_frame(kind, flags, stream_id, length, now)
            else:
                self._receive_session_frame(kind, flags, length, now)

    def _receive_frame(self, kind: int, flags: int, stream_id: int, size: int, now: float) -> None:
        if flags & SYN:
            stream = self._receive_syn(stream_id, now)
        else:
            stream = self.streams.get(stream_id)
            if stream is None and not stream_id:
                raise RemoteProtocolError("a data frame or window update for stream 0")
        if flags & ACK and stream is not None:
            self._table.acknowledge(stream)
            self._resume_opening()
        if kind == DATA and size:
            if stream is not None:
                stream.use_grant(size)
            self._guard.exchanged += 1
            self._body_left, self._body_stream, self._body_flags = size, stream, flags
            return
        if not flags & (SYN | ACK | FIN | RST):
            self._guard.control += 1
        if stream is not None:
            if kind == WINDOW_UPDATE and not flags & RST:
                self._receive_credit(stream, size)
            if flags & (FIN | RST):
                self._receive_end(stream, flags, size)

    def _receive_syn(self, stream_id: int, now: float) -> StreamState | None:
        if not stream_id or stream_id % 2 == self._next_id % 2:
            raise RemoteProtocolError(f"stream {stream_id} has the parity of this side's streams")
        if stream_id in self.streams:
            raise RemoteProtocolError(f"stream {stream_id} is open already")
        config = self.config
        if (
            self._table.inbound >= config.max_inbound_streams
            or self._backlog >= config.accept_backlog
            or self.local_go_away is not None
        ):
            self.streams_refused += 1
            self._control.frames.append(window_update(RST, stream_id, 0))
            return None
        stream = StreamState(stream_id, Priority.MEDIUM, now, is_remote=True)
        self._backlog += 1
        self._table.add(stream)
        self._events.append(StreamOpened(stream))
        return stream

    def _receive_credit(self, stream: StreamState, credit: int) -> None:
        stream.add_credit(credit)
        if stream.is_sendable:
            self._scheduler.join(stream.flow)

    def _receive_end(self, stream: StreamState, flags: int, code: int) -> None:
        if flags & RST:
            if stream.is_remote:
                self._guard.resets += 1
            self._end(stream, code, remote=True, keep=False)
        elif not stream.remote_fin:
            stream.remote_fin = stream.discards = True
            self._table.lingering.pop(stream, None)
            self._events.append(StreamFinished(stream))
            if stream.fin_sent:
                self._remove(stream)

    def _receive_session_frame(self, kind: int, flags: int, value: int, now: float) -> None:
        if kind == GO_AWAY:
            self.remote_go_away = value
            self._events.append(GoAwayReceived(value))
            return
        if kind != PING:
            raise RemoteProtocolError(f"unknown yamux frame type {kind}")
        self._guard.control += 1
        if flags == SYN:
            self._control.frames.append(ping(ACK, value))
        elif flags == ACK:
            sent_at = self._pings.answered(value)
            if sent_at is None:
                self.inflight.answered(value, now)
            else:
                self.inflight.measured(now - sent_at, now)
                self._events.append(PongReceived(value, now - sent_at))
        else:
            raise RemoteProtocolError(f"a ping with flags {flags}")

    def _deliver(self, body: memoryview) -> None:
        length = len(body)
        self._body_left -= length
        stream = self._body_stream
        if stream is None:
            return
        if length:
            self._accept(stream, body, length)
        if not self._body_left:
            self._body_stream = None
            if self._body_flags & (FIN | RST) and stream.is_open:
                self._receive_end(stream, self._body_flags, 0)

    def _accept(self, stream: StreamState, body: memoryview, length: int) -> None:
        if stream.reset_code is None and not stream.discards:
            if not stream.received.size:
                self._events.append(DataReceived(stream))
            stream.received.append(body)
            self._table.count(stream, length)
            stream.bytes_received += length

    def _remove(self, stream: StreamState) -> None:
        self._table.remove(stream)
        self._control.forget(stream)
        self._resume_opening()

    def _end(self, stream: StreamState, code: int, *, remote: bool | None, keep: bool) -> None:
        stream.reset_code = code
        stream.reset_remote = remote
        self.queued -= stream.queued
        stream.drop_queue()
        stream.remote_fin = keep
        if not keep:
            self._drop_received(stream)
        self._scheduler.leave(stream.flow)
        self._remove(stream)
        self._events.append(StreamWasReset(stream))

    def _drop_received(self, stream: StreamState) -> None:
        dropped = stream.received.size
        stream.received.clear()
        self._table.count(stream, -dropped)

    def _resume_opening(self) -> None:
        if self._open_waits and self.can_open:
            self._open_waits = False
            self._events.append(OpenResumed())
