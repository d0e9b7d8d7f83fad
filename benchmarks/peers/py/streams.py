# mypy: ignore-errors
"""Reading, writing and measuring on py-libp2p streams."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from libp2p.network.stream.exceptions import StreamEOF, StreamReset

if TYPE_CHECKING:
    from collections.abc import Iterable

    from libp2p.abc import INetStream

BLOCK = 64 << 10
"""Bytes per read and write: what py-libp2p's own perf service uses."""


class PeerError(Exception):
    """A check that failed on this side; `kind` says which."""

    def __init__(self, kind: str, text: str) -> None:
        self.kind = kind
        super().__init__(text)


async def receive(stream: INetStream, most: int = BLOCK) -> bytes:
    """Return the next bytes, or b"" at the peer's end of stream; raise StreamReset.

    A reset that comes while a read waits looks like an end of stream in py-libp2p, so the muxer's
    own note of it decides.
    """
    try:
        return await stream.read(most)
    except StreamEOF:
        if getattr(stream.muxed_stream, "reset_received", False):
            raise StreamReset("the peer reset the stream") from None
        return b""


async def exactly(stream: INetStream, count: int) -> bytes:
    """Return exactly `count` bytes; raise PeerError if the stream ends before."""
    data = b""
    while len(data) < count:
        chunk = await receive(stream, count - len(data))
        if not chunk:
            raise PeerError("UnexpectedEOF", f"the stream ended after {len(data)} of {count} bytes")
        data += chunk
    return data


async def everything(stream: INetStream, limit: int) -> bytes:
    """Return all bytes up to the end of the stream; raise PeerError above `limit`."""
    data = b""
    while chunk := await receive(stream):
        data += chunk
        if len(data) > limit:
            raise PeerError("TooLong", f"more than {limit} bytes")
    return data


async def count_to_end(stream: INetStream) -> int:
    """Count the bytes up to the end of the stream without keeping them."""
    count = 0
    while chunk := await receive(stream):
        count += len(chunk)
    return count


async def write_zeros(stream: INetStream, count: int) -> None:
    """Send `count` zero bytes in blocks."""
    block = bytes(BLOCK)
    while count > 0:
        await stream.write(block[:count])
        count -= BLOCK


def microseconds() -> float:
    """Return the monotonic clock in microseconds."""
    return time.perf_counter_ns() / 1000


def summary(samples: Iterable[float]) -> dict[str, float]:
    """Return min, p50, p90, p99 and max of a list of microseconds."""
    ordered = sorted(samples)

    def at(share: float) -> float:
        return round(ordered[min(len(ordered) - 1, int(len(ordered) * share))], 3)

    return {"min": at(0), "p50": at(0.5), "p90": at(0.9), "p99": at(0.99), "max": at(1)}
