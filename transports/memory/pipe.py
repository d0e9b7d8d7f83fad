"""One message pipe of a connection in memory."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

import anyio
from anyio.lowlevel import checkpoint

from ..core.errors import LimitExceeded
from ..core.interfaces import MessagePipe
from .frames import Message, PipeFinished
from .link import Signal

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from .connection import MemoryConnection

# What a data channel carries everywhere (RFC 8831, section 6.6, and browsers of old).
MAX_MESSAGE_SIZE = 65_536
# Messages that wait for a receiver; then the oldest is lost, as it is worth least.
MAX_WAITING = 256


class PlainPipe(MessagePipe):
    """See `MessagePipe`. A lost message is sent again while `max_age` or `max_retransmits` allow.

    With neither given it is sent once.
    """

    def __init__(
        self,
        connection: MemoryConnection,
        number: int,
        label: str,
        *,
        max_age: float | None = None,
        max_retransmits: int | None = None,
    ) -> None:
        self.label = label
        self.max_message_size = MAX_MESSAGE_SIZE
        self._connection = connection
        self._number = number
        self._max_age = max_age
        self._max_retransmits = max_retransmits
        self._received: deque[bytes] = deque(maxlen=MAX_WAITING)
        self._readable = Signal()
        self._is_finished = False
        self._is_closed = False
        self._is_broken = False
        self._remote_finished = False

    @property
    def extra_attributes(self) -> Mapping[Any, Callable[[], Any]]:
        """No typed attributes."""
        return {}

    async def receive(self) -> bytes:
        """Receive the next message; raises EndOfStream, and BrokenResourceError at the end."""
        await checkpoint()
        while True:
            if self._is_closed:
                raise anyio.ClosedResourceError
            if self._received:
                return self._received.popleft()
            if self._remote_finished:
                raise anyio.EndOfStream
            if self._is_broken:
                raise anyio.BrokenResourceError("the connection has ended")
            await self._readable.wait()

    async def send(self, item: bytes) -> None:
        """Send a message, once the link has room; raises LimitExceeded if it is too long."""
        await checkpoint()
        if len(item) > self.max_message_size:
            raise LimitExceeded(
                "a message's bytes",
                value=len(item),
                limit=self.max_message_size,
                setting="max_message_size",
            )
        while True:
            if self._is_closed or self._is_finished:
                raise anyio.ClosedResourceError
            if self._is_broken:
                raise anyio.BrokenResourceError("the connection has ended")
            if self._connection.room:
                break
            await self._connection.wait_room()
        self._connection.push_message(
            Message(self._number, bytes(item)),
            max_age=self._max_age,
            max_retransmits=self._max_retransmits,
        )

    async def send_eof(self) -> None:
        """Say that nothing more will be sent."""
        if self._is_closed:
            raise anyio.ClosedResourceError
        self._finish()
        await checkpoint()

    async def aclose(self) -> None:
        """Send and receive nothing more."""
        if not self._is_closed:
            self._is_closed = True
            self._finish()
            self._connection.forget_pipe(self._number)
            self._readable.notify()
            self._connection.wake_senders()
        await checkpoint()

    # What the connection tells

    def receive_message(self, data: bytes) -> None:
        """Take what has arrived."""
        self._received.append(data)
        self._readable.notify()

    def receive_end(self) -> None:
        """Note that the peer sends no more."""
        self._remote_finished = True
        self._readable.notify()

    def end(self) -> None:
        """Note that the connection has ended."""
        self._is_broken = True
        self._readable.notify()

    def _finish(self) -> None:
        if not self._is_finished:
            self._is_finished = True
            self._connection.push(PipeFinished(self._number))
