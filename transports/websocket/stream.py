"""Runs one WebSocket machine over one socket: a byte stream of messages whose bounds mean nothing."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

import anyio
from anyio.abc import ByteStream
from anyio.lowlevel import checkpoint

from ..core.errors import P2PError
from ..sockets import SocketStream

if TYPE_CHECKING:
    from .machine import WebSocketMachine

READ_SIZE = 65_536
"""Bytes read at a time, which is also what is decoded and not taken, at most."""

CLOSE_TIMEOUT = 1.0
"""Seconds that closing takes at most, for what waits to go out and the peer's answer."""


class WebSocketStream(ByteStream):
    """A WebSocket as a byte stream; what is sent in one call is one message.

    Call `open` first. Each direction serves one task. What the peer must be told, pongs among it,
    is sent before more of it is read, so nothing piles up.
    """

    def __init__(self, raw: ByteStream, machine: WebSocketMachine) -> None:
        assert isinstance(raw, SocketStream), "what TCP gives"
        self._raw = raw
        self._machine = machine
        self._received: deque[bytes] = deque()
        self._sending = anyio.Lock()
        self._is_reading = False
        self._is_torn = False  # a frame was sent in part, so that nothing can follow it
        self._is_closed = False

    async def open(self) -> None:
        """Run TLS and the HTTP upgrade; the caller bounds the time.

        Raises HandshakeError if the peer fails it, EndOfStream or BrokenResourceError if it goes.
        """
        await self._flush()
        while not self._machine.is_open:
            # However fast a peer sends, the others have their turns.
            await checkpoint()
            await self._read()

    async def receive(self, max_bytes: int = 65536) -> bytes:
        await checkpoint()
        while not self._received:
            if self._is_closed:
                raise anyio.ClosedResourceError
            if self._machine.has_ended:
                raise anyio.EndOfStream
            try:
                await self._read()
            except P2PError as error:
                raise anyio.BrokenResourceError(str(error)) from error
            if not self._received:
                await checkpoint()
        data = self._received.popleft()
        if len(data) > max_bytes:
            self._received.appendleft(data[max_bytes:])
            data = data[:max_bytes]
        return data

    async def send(self, item: bytes) -> None:
        await checkpoint()
        async with self._sending:
            if self._is_closed:
                raise anyio.ClosedResourceError
            if self._is_torn or not self._machine.is_open:
                raise anyio.BrokenResourceError("the WebSocket is closed")
            self._machine.send(item)
            await self._send_all()

    async def send_eof(self) -> None:
        """Begin to close: a WebSocket has no half of it that ends alone."""
        self._machine.close()
        await self._flush()

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

    async def _say_goodbye(self) -> None:
        machine = self._machine
        machine.close()
        try:
            await self._flush()
            # Read on, so that nothing unread makes the socket reset what was sent last.
            while not (self._is_torn or self._is_reading or machine.has_ended):
                await checkpoint()
                await self._read()
                self._received.clear()
            machine.close_tls()
            await self._flush()
        except (P2PError, anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError):
            # The peer has gone, too, if less politely.
            return

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
            await self._flush()

    async def _flush(self) -> None:
        async with self._sending:
            await self._send_all()

    async def _send_all(self) -> None:
        if self._is_torn:
            return
        while data := self._machine.data_to_send():
            self._is_torn = True
            await self._raw.send(data)
            self._is_torn = False
        if self._machine.is_last:
            self._raw.end_sending()
