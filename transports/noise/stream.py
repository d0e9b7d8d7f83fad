"""A byte stream inside Noise, for what comes before the muxer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from anyio.abc import ByteStream
from anyio.lowlevel import checkpoint

if TYPE_CHECKING:
    from .machine import NoiseSession


class SecureStream(ByteStream):
    """Reads and writes through a Noise session; small messages only, no throughput."""

    def __init__(self, raw: ByteStream, session: NoiseSession, received: bytes = b"") -> None:
        self._raw = raw
        self._session = session
        self._received = received

    async def receive(self, max_bytes: int = 65536) -> bytes:
        """Receive at least one byte; raises NoiseError for what does not authenticate."""
        while not self._received:
            # Empty records can come without end, and no stream below need ever make us wait.
            await checkpoint()
            chunk = await self._raw.receive()
            self._received = b"".join(self._session.receive_data(chunk))
        data, self._received = self._received[:max_bytes], self._received[max_bytes:]
        return data

    async def send(self, item: bytes) -> None:
        """Send one record of at most 65 519 bytes."""
        await self._raw.send(bytes(self._session.seal(item)))

    async def send_eof(self) -> None:
        """Close the sending side of the stream below; Noise has no such message."""
        await self._raw.send_eof()

    async def aclose(self) -> None:
        """Close the stream below."""
        await self._raw.aclose()

    def take_received(self) -> bytes:
        """Return what was received and not read, for the next layer."""
        data, self._received = self._received, b""
        return data
