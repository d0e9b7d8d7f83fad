"""One stream of a Yamux connection, as the application holds it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio

from ..core.codes import ConnectionCode, explain_code
from ..core.errors import StreamReset
from ..core.interfaces import Priority, Stream, StreamStatistics
from ..turns import MIN_TURN, next_turn
from ..wakeup import Waiters
from .buffer import PIECE

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from ..core.interfaces import Preface
    from .driver import YamuxConnection
    from .flow import StreamState

# Bytes that a call costs as much as, beside its data: tiny ones end a turn, too.
CALL_WEIGHT = 4096


class YamuxStream(Stream):
    """See `Stream`; the state lives in the machine, the waiting here."""

    def __init__(self, connection: YamuxConnection, state: StreamState) -> None:
        self.id = state.id
        self.connection: YamuxConnection = connection
        self.protocol: str | None = None
        self.state = state
        state.owner = self
        self._machine = connection.machine
        self._preface: Preface | None = None
        self._closed = False
        self._turn = MIN_TURN
        self._readers = Waiters()
        self._writers = Waiters()
        self.on_news: Callable[[], None] | None = None
        """Called in place of waking who receives."""

    def __repr__(self) -> str:
        return f"<stream {self.id} ({self.protocol}) of {self.connection!r}>"

    @property
    def priority(self) -> Priority:
        """The class that the scheduler serves this stream's data in."""
        return self.state.priority

    @priority.setter
    def priority(self, value: Priority) -> None:
        self._machine.set_priority(self.state, value)

    @property
    def extra_attributes(self) -> Mapping[Any, Callable[[], Any]]:
        """What the connection's own byte stream tells, such as its local address."""
        return self.connection.extra_attributes

    async def receive(self, max_bytes: int = 65536) -> bytes:
        """Receive at least one byte and at most `max_bytes`, which must be 1 or more."""
        if max_bytes < 1:
            raise ValueError("max_bytes must be at least 1")
        if self._turn <= 0:
            self._turn = await next_turn()
        if self._preface is not None:
            await self._end_negotiation(self._preface)
        if self._closed or not self.state.received.size:
            await self._wait_for_data()
        return self._take(max_bytes)

    async def send(self, item: bytes) -> None:
        """Send all of `item`, waiting while the peer grants no credit; keeps no reference to it."""
        if self._turn <= 0:
            self._turn = await next_turn()
        view = memoryview(item if type(item) is bytes else bytes(item))
        self._turn -= CALL_WEIGHT + len(view)
        while True:
            self.check_sendable()
            view = view[self._machine.send(self.state, view) :]
            if not view:
                self.connection.poke(is_urgent=self.state.priority is Priority.HIGH)
                return
            # Waiting begins before the flush, which may make room at once.
            wakeup = self._writers.add()
            self.connection.poke()
            await self._writers.wait(wakeup)

    async def send_eof(self) -> None:
        """Say that nothing more will be sent; receiving goes on."""
        if self._closed:
            raise anyio.ClosedResourceError
        self._machine.finish(self.state)
        self.connection.wake_writer()

    async def aclose(self) -> None:
        """Send what waits and the end, in the background; drop what still comes in."""
        if not self._closed:
            self._closed = True
            self._machine.close(self.state, self.connection.clock())
            # Not at once: the next stream's first bytes may go along.
            self.connection.wake_writer()
            self.wake_reader()
            self.wake_writers()
        self._turn -= CALL_WEIGHT
        if self._turn <= 0:
            self._turn = await next_turn()

    def reset(self, code: int = 0) -> None:
        """End both directions at once and drop what waits; never blocks, harmless twice."""
        events = self._machine.reset(self.state, code)
        self.connection.dispatch(events)
        self.connection.poke()

    def unread(self, data: bytes) -> None:
        """Put back the first bytes of what was received."""
        if data:
            self._machine.unread(self.state, data)
            self.wake_reader()

    def begin(self, preface: Preface) -> None:
        """Let a negotiation ride on the first bytes each way.

        What it has to send goes with the application's first bytes, in the next turn of the loop
        at the latest.
        """
        self._preface = preface
        self._machine.send(self.state, memoryview(preface.data_to_send()))
        self.connection.wake_writer()

    def move_in_steps(self, step: int, rate: float) -> None:
        """Queue two steps at most, and grant little more credit than this rate of taking needs."""
        self.state.step, self.state.pace = step, rate

    def statistics(self) -> StreamStatistics:
        """This stream's counters."""
        state = self.state
        return StreamStatistics(
            bytes_sent=state.bytes_sent,
            bytes_received=state.bytes_received,
            bytes_unread=state.received.size,
            opened_at=state.opened_at,
        )

    def wake_reader(self) -> None:
        """Let `receive` look again."""
        if self.on_news is not None:
            held_back = self.connection.held_back
            if held_back is None or len(self.state.received) >= PIECE:
                self.on_news()
            else:
                held_back.append(self)
        else:
            self._readers.wake_all()

    def wake_writers(self) -> None:
        """Let `send` look again."""
        self._writers.wake_all()

    # For the fast way

    @property
    def is_negotiating(self) -> bool:
        """Whether a negotiation still rides on the first bytes."""
        return self._preface is not None

    @property
    def is_closed(self) -> bool:
        """Whether this side has closed it."""
        return self._closed

    def reset_error(self) -> StreamReset | None:
        """Return what `receive` raises, if the stream was reset."""
        code = self.state.reset_code
        return None if code is None else self._reset(code)

    async def wait_for_room(self) -> None:
        """Wait until more can be sent, or nothing any more."""
        await self._writers.wait()

    def check_sendable(self) -> None:
        """Raise what `send` raises, if nothing can be sent any more."""
        state = self.state
        if self._closed or state.fin_queued:
            raise anyio.ClosedResourceError
        if state.reset_code is not None:
            raise self._reset(state.reset_code)

    async def _wait_for_data(self) -> None:
        """Wait until there is something to take; raise what `receive` raises if nothing comes."""
        state = self.state
        while True:
            if self._closed:
                raise anyio.ClosedResourceError
            if state.received.size:
                return
            if state.remote_fin:
                raise anyio.EndOfStream
            if state.reset_code is not None:
                raise self._reset(state.reset_code)
            await self._readers.wait()

    def _take(self, max_bytes: int) -> bytes:
        data = self._machine.take(self.state, max_bytes, self.connection.clock())
        self._turn -= CALL_WEIGHT + len(data)
        if self._machine.has_control:
            self.connection.poke()
        return data

    async def _end_negotiation(self, preface: Preface) -> None:
        """Receive what still rides on the first bytes, and put back what comes after it."""
        data = None
        while data is None:
            await self._wait_for_data()
            data = preface.receive_data(self._take(MIN_TURN))
        self._preface = None
        self.unread(data)

    def _reset(self, code: int) -> StreamReset:
        remote = self.state.reset_remote
        ended = self._machine.remote_go_away or 0
        why = explain_code(ConnectionCode, ended) if remote else ""
        return StreamReset(code, remote=remote, why=why and f"the peer ended the connection: {why}")
