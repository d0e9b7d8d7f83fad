"""perf (`/perf/1.0.0`): how fast a connection carries bytes each way.

The client sends the number of bytes it wants (u64, big endian), then its upload, and half-closes;
the server then sends that many bytes and closes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

import anyio

from ...transports.core.errors import RemoteProtocolError
from ...transports.sockets import loop_clock

if TYPE_CHECKING:
    from ...transports.core.interfaces import Stream

PERF_PROTOCOL = "/perf/1.0.0"

BLOCK_BYTES = 64 * 1024
"""What is handed to the stream at once; as js. Larger ones do not go faster."""

SERVE_TIME = 600.0
"""Seconds that a run may keep the server busy; rust ends runs after 300."""

HEADER_BYTES = 8

Progress: TypeAlias = Callable[[Literal["upload", "download"], int, float], None]


@dataclass(frozen=True, slots=True)
class PerfResult:
    """Bytes and seconds each way; a direction without bytes takes the time of its round trip.

    The upload lasts until the server is known to have read it all: until its first byte or end.
    """

    upload_bytes: int
    upload_seconds: float
    download_bytes: int
    download_seconds: float

    def to_json(self) -> dict[str, float]:
        """Return the fields by name."""
        return asdict(self)


async def serve_perf(stream: Stream) -> None:
    """Read to the end, then send as many bytes as the first eight asked for."""
    with anyio.fail_after(SERVE_TIME):
        header = bytearray()
        while True:
            try:
                data = await stream.receive(BLOCK_BYTES)
            except anyio.EndOfStream:
                break
            if len(header) < HEADER_BYTES:
                header += data[: HEADER_BYTES - len(header)]
        if len(header) < HEADER_BYTES:
            raise RemoteProtocolError("a perf run must begin with eight bytes")
        left = int.from_bytes(header, "big")
        block = bytes(BLOCK_BYTES)
        while left:
            size = min(left, BLOCK_BYTES)
            await stream.send(block if size == BLOCK_BYTES else block[:size])
            left -= size


async def measure(
    stream: Stream,
    *,
    upload: int = 0,
    download: int = 0,
    progress: Progress | None = None,
) -> PerfResult:
    """Send `upload` bytes, then receive `download` bytes, on a stream of this protocol.

    `progress` is called after each block with the direction, its bytes so far and its seconds so
    far. Raises RemoteProtocolError if the server sends another number of bytes.
    """
    clock = loop_clock()
    started = clock()
    await _send(stream, upload, download, progress)
    sent = clock()
    answered = None
    received = 0
    while True:
        try:
            data = await stream.receive(BLOCK_BYTES)
        except anyio.EndOfStream:
            break
        now = clock()
        answered = answered or now
        received += len(data)
        if received > download:
            raise RemoteProtocolError(f"more than the {download} bytes asked for")
        if progress is not None:
            progress("download", received, now - sent)
    ended = clock()
    if received != download:
        raise RemoteProtocolError(f"only {received} of the {download} bytes asked for")
    return PerfResult(upload, (answered or ended) - started, download, ended - sent)


async def _send(stream: Stream, upload: int, download: int, progress: Progress | None) -> None:
    clock = loop_clock()
    started = clock()
    await stream.send(download.to_bytes(HEADER_BYTES, "big"))
    block = bytes(BLOCK_BYTES)
    done = 0
    while done < upload:
        size = min(upload - done, BLOCK_BYTES)
        await stream.send(block if size == BLOCK_BYTES else block[:size])
        done += size
        if progress is not None:
            progress("upload", done, clock() - started)
    await stream.send_eof()
