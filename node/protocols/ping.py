"""ping (`/ipfs/ping/1.0.0`): 32 bytes and their echo, on a stream that may be used again."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import anyio

from ...transports.core.errors import RemoteProtocolError
from ...transports.core.interfaces import Priority
from ...transports.sockets import loop_clock

if TYPE_CHECKING:
    from ...transports.core.interfaces import Connection, Stream

PING_PROTOCOL = "/ipfs/ping/1.0.0"

PING_BYTES = 32

MAX_INBOUND_PINGS = 2
"""Streams of one connection that are served at a time, as in go and js."""

PING_TIMEOUT = 10.0
"""Seconds for one answer, as in go and js."""


async def serve_ping(stream: Stream) -> None:
    """Send back every 32 bytes until the peer half-closes."""
    while (data := await _receive_exactly(stream)) is not None:
        await stream.send(data)


async def ping(
    connection: Connection,
    count: int = 1,
    *,
    timeout: float = PING_TIMEOUT,  # noqa: ASYNC109 - of each echo, which a caller cannot scope
) -> list[float]:
    """Measure `count` round trips one after the other, on one stream; each in seconds.

    Raises TimeoutError if an answer takes more than `timeout` seconds, RemoteProtocolError if it
    is wrong, NegotiationError, ConnectionClosed, StreamReset.
    """
    from ..router import open_negotiated  # the router serves this module's protocol

    stream = await open_negotiated(
        connection, (PING_PROTOCOL,), known=None, timeout=timeout, priority=Priority.HIGH
    )
    async with stream:
        times = [await ping_once(stream, timeout=timeout) for _ in range(count)]
        await stream.send_eof()
    return times


async def ping_once(
    stream: Stream,
    *,
    timeout: float = PING_TIMEOUT,  # noqa: ASYNC109 - named in the error
) -> float:
    """Measure one round trip on a stream of this protocol, in seconds; raises as `ping` does."""
    challenge = os.urandom(PING_BYTES)
    answer = None
    clock = loop_clock()
    with anyio.move_on_after(timeout) as scope:
        started = clock()
        await stream.send(challenge)
        answer = await _receive_exactly(stream)
        elapsed = clock() - started
    if scope.cancelled_caught:
        raise TimeoutError(f"no answer to a ping within {timeout:g} s")
    if answer != challenge:
        raise RemoteProtocolError("the answer to a ping is not its echo")
    return elapsed


async def _receive_exactly(stream: Stream) -> bytes | None:
    """Return the next 32 bytes, or None if the stream ends before."""
    data = b""
    while len(data) < PING_BYTES:
        try:
            data += await stream.receive(PING_BYTES - len(data))
        except anyio.EndOfStream:
            return None
    return data
