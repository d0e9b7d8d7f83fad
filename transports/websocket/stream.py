"""Runs one WebSocket machine over one socket: a byte stream, whatever the bounds of messages."""

from __future__ import annotations

from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING

import anyio
from anyio.lowlevel import checkpoint

from ..core.errors import P2PError, unwrap_group
from ..sockets import FastStream, SocketStream
from ..wakeup import new_wakeup

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from anyio.abc import ByteStream

    from .machine import WebSocketMachine

READ_SIZE = 65_536
"""Bytes read at a time, which is also what is decoded and not taken, at most."""

MAX_ANSWERS = 4096
"""Bytes of answers, pongs above all, that wait for the socket before the peer is not read."""

CLOSE_TIMEOUT = 1.0
"""Seconds that closing takes at most, for what waits to go out and the peer's answer."""


class WebSocketStream(FastStream):
    """A WebSocket as a byte stream; what is sent in one call is one message.

    Call `open` first. Each direction serves one task. A peer that does not read what it must be
    told, pongs among it, is not read either, so nothing piles up.
    """

    def __init__(self, raw: ByteStream, machine: WebSocketMachine) -> None:
        assert isinstance(raw, SocketStream), "what TCP gives"
        self._raw = raw
        self._machine = machine
        self._received: deque[bytes] = deque()
        self._unsent = bytearray()
        self._answers = 0  # bytes of answers, of what is unsent
        self._sending = anyio.Lock()
        self._wake = new_wakeup()
        self._is_reading = False
        self._is_held = False  # the peer is not read until `_unsent` has gone
        self._is_paused = False  # nor while whoever reads has enough
        self._has_said_goodbye = False
        self._is_closed = False

    @property
    def extra_attributes(self) -> Mapping[Any, Callable[[], Any]]:
        return self._raw.extra_attributes

    async def open(self) -> None:
        """Run TLS and the HTTP upgrade; the caller bounds the time.

        Raises HandshakeError if the peer fails it, RemoteProtocolError for a breach right behind,
        EndOfStream or BrokenResourceError if the peer goes.
        """
        await self.wait_writable()
        while not self._machine.is_open:
            # However fast a peer sends, the others have their turns.
            await checkpoint()
            await self._read()

    # The plain way

    async def receive(self, max_bytes: int = 65536) -> bytes:
        await checkpoint()
        while not self._received:
            self._check_receivable()
            try:
                await self._read()
            except P2PError as error:
                raise anyio.BrokenResourceError(str(error)) from error
            if not self._received:
                # Frames without data can come without end.
                await checkpoint()
        data = self._received.popleft()
        if len(data) > max_bytes:
            self._received.appendleft(data[max_bytes:])
            data = data[:max_bytes]
        return data

    async def send(self, item: bytes) -> None:
        await checkpoint()
        async with self._sending:
            await self._push_all()
            self._check_sendable()
            self._machine.send(item)
            await self._push_all()

    async def send_eof(self) -> None:
        """Begin to close: a WebSocket has no half of it that ends alone."""
        self._machine.close()
        await self.wait_writable()

    async def aclose(self) -> None:
        """Close, with the handshake that the peer expects if it answers within a second."""
        if self._is_closed:
            return
        self._is_closed = True
        try:
            with anyio.move_on_after(CLOSE_TIMEOUT):
                await self._say_goodbye()
        finally:
            self._raw.close()
        await checkpoint()

    # The fast way

    def send_nowait(self, data: memoryview | bytes) -> int:
        """Send all of `data`, or nothing while the last message waits for the socket."""
        if self._unsent and not self._push():
            return 0
        self._check_sendable()
        self._machine.send(data)
        if not self._push():
            # It may be the last that is sent for long.
            self._wake.set()
        return len(data)

    def end_sending(self) -> None:
        self._machine.close()
        self._has_said_goodbye = True
        with suppress(anyio.BrokenResourceError, anyio.ClosedResourceError):
            self._push()

    async def wait_writable(self) -> None:
        async with self._sending:
            await self._push_all()

    async def receive_each(self, handler: Callable[[memoryview], bool]) -> None:
        def take(data: memoryview) -> bool:
            try:
                payloads = self._machine.receive_data(data)
            except P2PError as error:
                raise anyio.BrokenResourceError(str(error)) from error
            finally:
                self._answer()
                self._hold_if_unread()
            more = all(handler(memoryview(payload)) for payload in payloads)
            return more and not self._machine.has_ended

        while self._received:
            if not handler(memoryview(self._received.popleft())):
                return
        if self._is_closed:
            raise anyio.ClosedResourceError
        if self._machine.has_ended:
            return
        with unwrap_group():
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._push_answers)
                await self._raw.receive_each(take)
                tasks.cancel_scope.cancel()

    @property
    def is_reading_paused(self) -> bool:
        return self._is_paused

    def pause_reading(self) -> None:
        self._is_paused = True
        self._raw.pause_reading()

    def resume_reading(self) -> None:
        self._is_paused = False
        if not self._is_held:
            self._raw.resume_reading()

    # Helpers

    def _check_sendable(self) -> None:
        if self._is_closed:
            raise anyio.ClosedResourceError
        if not self._machine.is_open:
            raise anyio.BrokenResourceError("the WebSocket is closed")

    def _check_receivable(self) -> None:
        if self._is_closed:
            raise anyio.ClosedResourceError
        if self._machine.has_ended:
            raise anyio.EndOfStream

    async def _read(self) -> None:
        """Receive once, and answer what must be answered."""
        self._is_reading = True
        try:
            data = await self._raw.receive(READ_SIZE)
        finally:
            self._is_reading = False
        try:
            self._received.extend(map(bytes, self._machine.receive_data(data)))
        finally:
            # Also what a breach or a refusal leaves: an alert, an HTTP answer, a close frame.
            self._answer()
            if self._answers > (MAX_ANSWERS if self._sending.locked() else 0):
                # Who sends takes a few along; and reading must not wait until all else is sent.
                await self.wait_writable()

    def _answer(self) -> None:
        """Send what receiving has left to say, as far as the socket takes it."""
        answers = self._machine.data_to_send()
        if answers or self._machine.is_last:
            self._unsent += answers
            self._answers += len(answers)
            with suppress(anyio.BrokenResourceError, anyio.ClosedResourceError):
                self._push()

    def _hold_if_unread(self) -> None:
        """Read no more while too many answers wait; see to it that they go at last."""
        if self._answers:
            self._wake.set()
        if self._answers > MAX_ANSWERS:
            self._is_held = True
            self._raw.pause_reading()

    async def _push_answers(self) -> None:
        """Send them once the socket takes them, which nobody else may be waiting for."""
        while True:
            with suppress(anyio.BrokenResourceError, anyio.ClosedResourceError):
                await self.wait_writable()
            self._wake = new_wakeup()
            await self._wake.wait()

    def _push(self) -> bool:
        """Send what the socket takes now; True once nothing waits."""
        data = self._machine.data_to_send()
        if data and not self._unsent:
            sent = self._raw.send_nowait(data)
            self._unsent += memoryview(data)[sent:]
        else:
            self._unsent += data
            if self._unsent:
                sent = self._raw.send_nowait(self._unsent)
                del self._unsent[:sent]
        if self._unsent:
            return False
        self._answers = 0
        if self._is_held:
            self._is_held = False
            if not self._is_paused:
                self._raw.resume_reading()
        if self._machine.is_last:
            self._raw.end_sending()
        return True

    async def _push_all(self) -> None:
        while not self._push():
            await self._raw.wait_writable()

    async def _say_goodbye(self) -> None:
        machine = self._machine
        machine.close()
        try:
            # At once, for who may not wait.
            if not self._push():
                await self.wait_writable()
            # Read on, so that nothing unread makes the socket reset what was sent last.
            while not (self._has_said_goodbye or self._is_reading or machine.has_ended):
                await checkpoint()
                await self._read()
                self._received.clear()
            machine.close_tls()
            self._push()
        except (P2PError, anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError):
            # The peer has gone, too, if less politely.
            return
