# mypy: ignore-errors
"""The protocols that this peer serves; identify, ping and perf are py-libp2p's own."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import trio
from libp2p.custom_types import TProtocol
from streams import BLOCK, exactly, receive

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from libp2p.abc import IHost, INetStream

ECHO = TProtocol("/echo/1.0.0")
PERF = TProtocol("/perf/1.0.0")
SINK = TProtocol("/isthmus-test/sink/1.0.0")
SLOW = TProtocol("/isthmus-test/slow/1.0.0")
RESET = TProtocol("/isthmus-test/reset/1.0.0")
ONE = TProtocol("/isthmus-test/one/1.0.0")

SLOW_START = 0.3
"""Seconds that the slow reader reads nothing."""
SLOW_TICK = 0.005
"""Seconds per block of the slow reader afterwards."""


def serve(host: IHost) -> None:
    """Register every handler on the host."""
    handlers = {ECHO: echo, SINK: sink, SLOW: slow, RESET: reset, ONE: one}
    for protocol, handler in handlers.items():
        host.set_stream_handler(protocol, guarded(handler))


def guarded(
    handler: Callable[[INetStream], Awaitable[None]],
) -> Callable[[INetStream], Awaitable[None]]:
    """Reset the stream when its handler fails: the other side must never wait for an answer."""

    async def run(stream: INetStream) -> None:
        try:
            await handler(stream)
        except Exception:  # noqa: BLE001  # boundary: one stream among several
            await stream.reset()

    return run


async def echo(stream: INetStream) -> None:
    """Send back what comes, until the peer's end of stream."""
    while chunk := await receive(stream):
        await stream.write(chunk)
    await stream.close()


async def sink(stream: INetStream) -> None:
    """Read to the end, answer the count and the SHA-256."""
    await digest(stream, tick=0.0)


async def slow(stream: INetStream) -> None:
    """Do what sink does, but start late and read slowly."""
    await trio.sleep(SLOW_START)
    await digest(stream, tick=SLOW_TICK)


async def digest(stream: INetStream, *, tick: float) -> None:
    """Read to the end with a pause of `tick` seconds after each block; answer count and SHA-256."""
    seen = hashlib.sha256()
    count = 0
    while chunk := await receive(stream, BLOCK):
        seen.update(chunk)
        count += len(chunk)
        if tick:
            await trio.sleep(tick)
    await stream.write(count.to_bytes(8, "big") + seen.digest())
    await stream.close()


async def reset(stream: INetStream) -> None:
    """Read one byte, then reset."""
    await exactly(stream, 1)
    await stream.reset()


async def one(stream: INetStream) -> None:
    """Read one byte, write one byte, close."""
    await stream.write(await exactly(stream, 1))
    await stream.close()
