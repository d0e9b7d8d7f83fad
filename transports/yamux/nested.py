"""The fast way of a stream that is the path of another connection, such as a circuit's.

What arrives is handed on in the turn of the loop in which it arrived, and what is sent goes to the
stream's queue, so that no task switches for a record on its way through two connections.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio
from anyio.lowlevel import checkpoint

from ..core.interfaces import Priority
from ..wakeup import Flag
from .records import RECORD
from .stream import YamuxStream
from .wire import HEADER_SIZE

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..core.interfaces import Stream

FRAME = RECORD - HEADER_SIZE
"""Bytes of a frame that has a record for itself. A record of the connection above that is no larger
is cut nowhere, so that nobody has to put it together again."""

READ_SIZE = 262_144
"""Bytes that are handed on at a time, as many as are read from a socket."""


class FastWay:
    """How a `FastStream` over a stream moves bytes; its methods are described there."""

    def __init__(self, stream: YamuxStream) -> None:
        self._stream = stream
        self._machine = stream.connection.machine
        self._handler: Callable[[memoryview], bool] | None = None
        self._done = Flag()
        self._error: Exception | None = None
        self._most: Callable[[], int] = lambda: READ_SIZE
        self._is_handing_on = False
        self._has_enough = False
        self.is_paused = False

    @classmethod
    def of(cls, stream: Stream) -> FastWay | None:
        """Return the one of a stream, if it has any."""
        return cls(stream) if isinstance(stream, YamuxStream) else None

    def send_nowait(self, data: memoryview | bytes) -> int:
        """Queue what there is room for and return how much that was."""
        stream = self._stream
        stream.check_sendable()
        stream.state.keeps_frames = True
        sent = self._machine.send(stream.state, memoryview(data))
        stream.connection.poke(is_urgent=stream.state.priority is Priority.HIGH)
        return sent

    def end_sending(self) -> None:
        """Say that nothing more comes."""
        self._machine.finish(self._stream.state)
        self._stream.connection.wake_writer()

    async def wait_writable(self) -> None:
        """Wait until there is room again."""
        if self._stream.state.stalled:
            await self._stream.wait_for_room()
        else:
            await checkpoint()

    async def receive_each(
        self, handler: Callable[[memoryview], bool], most: Callable[[], int] | None = None
    ) -> bool:
        """Hand on what arrives; False at the end, True once `handler` has enough.

        `most` says how many bytes may be handed on next, 1 or more.
        """
        self._done, self._error = Flag(), None
        if most is not None:
            self._most = most
        while self._stream.is_negotiating:
            try:
                data = await self._stream.receive(self._most())
            except anyio.EndOfStream:
                return False
            if not handler(memoryview(data)):
                return True
        self._handler = handler
        self._stream.on_news = self._hand_on
        try:
            self._hand_on()
            self._take_note()
            await self._done.wait()
        finally:
            self._handler = self._stream.on_news = None
        if self._error is not None:
            raise self._error
        return self._has_enough

    def pause(self) -> None:
        """Leave what arrives in the stream, which grants no more credit then."""
        self.is_paused = True

    def resume(self) -> None:
        """Go on, with what waits."""
        if self.is_paused:
            self.is_paused = False
            self._hand_on()
            self._take_note()

    def _hand_on(self) -> None:
        """Hand on what waits, unless that is being done further up the stack."""
        if self._is_handing_on:
            return
        self._is_handing_on = True
        try:
            self._hand_on_each()
        except Exception as error:  # noqa: BLE001  # boundary
            # A handler's bug is its own connection's, not that of the one below.
            self._end(error)
        finally:
            self._is_handing_on = False

    def _hand_on_each(self) -> None:
        stream, state = self._stream, self._stream.state
        while self._handler is not None and not (self.is_paused or self._done.is_set):
            if stream.is_closed:
                self._end(anyio.ClosedResourceError())
            elif state.received.size:
                data = self._machine.take_piece(state, self._most(), stream.connection.clock())
                if not self._handler(data):
                    self._end(None, has_enough=True)
            elif state.remote_fin:
                self._end(None)
            elif state.reset_code is not None:
                self._end(stream.reset_error())
            else:
                return

    def _end(self, error: Exception | None, *, has_enough: bool = False) -> None:
        self._error, self._has_enough = error, has_enough
        self._done.set()

    def _take_note(self) -> None:
        """Have credit sent that taking has granted; what arrives brings that about by itself."""
        if self._machine.has_control:
            self._stream.connection.poke()
