"""Two ends of a byte stream in memory."""

from __future__ import annotations

import math
from contextlib import contextmanager
from typing import TYPE_CHECKING

import anyio
from anyio.abc import ByteStream, ObjectReceiveStream, ObjectSendStream

if TYPE_CHECKING:
    from collections.abc import Iterator


class PipeEnd(ByteStream):
    """One end; `receive` returns at most `max_receive` bytes, whatever was asked for."""

    def __init__(
        self,
        outgoing: ObjectSendStream[bytes],
        incoming: ObjectReceiveStream[bytes],
        max_receive: int,
    ) -> None:
        self._outgoing = outgoing
        self._incoming = incoming
        self._max_receive = max_receive
        self._rest = b""

    async def receive(self, max_bytes: int = 65536) -> bytes:
        data = self._rest or await self._incoming.receive()
        size = min(max_bytes, self._max_receive)
        self._rest = data[size:]
        return data[:size]

    async def send(self, item: bytes) -> None:
        await self._outgoing.send(bytes(item))

    async def send_eof(self) -> None:
        self._outgoing.close()

    async def aclose(self) -> None:
        self._outgoing.close()
        self._incoming.close()


@contextmanager
def pipe_pair(*, max_receive: int = 65536) -> Iterator[tuple[PipeEnd, PipeEnd]]:
    """Lend both ends; the first one receives at most `max_receive` bytes at a time."""
    there = anyio.create_memory_object_stream[bytes](math.inf)
    back = anyio.create_memory_object_stream[bytes](math.inf)
    with there[0], there[1], back[0], back[1]:
        yield PipeEnd(there[0], back[1], max_receive), PipeEnd(back[0], there[1], 65536)
