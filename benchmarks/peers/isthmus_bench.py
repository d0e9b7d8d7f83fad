"""What the harness asks an isthmus peer for; times are taken here, on the monotonic clock."""

from __future__ import annotations

import struct
import time
from typing import TYPE_CHECKING, Any

import anyio

from ...node.protocols.perf import PERF_PROTOCOL
from ...transports.core.errors import unwrap_group
from ...transports.core.interfaces import Priority

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from ...node.node import Node
    from ...transports.core.interfaces import Connection, Stream

BLOCK = bytes(65_536)
WARM_UP_ECHOES = 50
# Seconds that the saturating stream runs before echoes count.
RAMP = 0.2


async def open_stream(
    node: Node, connection: Connection, protocol: str, priority: Priority = Priority.MEDIUM
) -> Stream:
    """Open a stream to the peer of a connection; over a relay with limits, too, but for perf."""
    return await node.open_stream(
        connection.remote_peer, protocol, priority=priority, allow_limited=protocol != PERF_PROTOCOL
    )


async def receive_exactly(stream: Stream, size: int) -> bytes:
    """Receive `size` bytes; raises EndOfStream if there are fewer."""
    data = await stream.receive(size)
    while len(data) < size:
        data += await stream.receive(size - len(data))
    return data


async def perf_client(stream: Stream, upload: int, download: int) -> tuple[float, float]:
    """Run the client of /perf/1.0.0; return the seconds of both halves."""
    start = time.perf_counter()
    uploaded = 0.0
    async with stream:
        await stream.send(struct.pack(">Q", download))
        left = upload
        while left:
            size = min(left, len(BLOCK))
            await stream.send(BLOCK if size == len(BLOCK) else BLOCK[:size])
            left -= size
        await stream.send_eof()
        received = 0
        async for data in stream:
            # The server answers once it has the whole upload.
            uploaded = uploaded or time.perf_counter() - start
            received += len(data)
    elapsed = time.perf_counter() - start
    if received != download:
        raise ValueError(f"asked for {download} bytes, received {received}")
    uploaded = uploaded or elapsed
    return uploaded, max(elapsed - uploaded, 1e-9)


async def throughput(
    node: Node, *, address: str, direction: str = "up", streams: int = 1, **options: int
) -> dict[str, Any]:
    """Measure perf over one or several streams at once."""
    connection = await node.connect(address)
    each = options.get("bytes", 256_000_000) // streams
    opened = [
        await open_stream(node, connection, "/perf/1.0.0", Priority.LOW) for _ in range(streams)
    ]
    up, down = (each, 0) if direction == "up" else (0, each)
    start = time.perf_counter()
    with unwrap_group():
        async with anyio.create_task_group() as tasks:
            for stream in opened:
                tasks.start_soon(perf_client, stream, up, down)
    seconds = time.perf_counter() - start
    return {"mb_s": each * streams / 1e6 / seconds, "seconds": seconds}


class Echo:
    """One open echo stream that takes samples in microseconds."""

    def __init__(self, stream: Stream, size: int) -> None:
        self._stream = stream
        self._payload = b"\x07" * size

    async def once(self) -> float:
        """Send, wait for all of it to come back, return the time."""
        start = time.perf_counter()
        await self._stream.send(self._payload)
        missing = len(self._payload)
        while missing:
            missing -= len(await self._stream.receive(missing))
        return (time.perf_counter() - start) * 1e6

    async def many(self, count: int) -> list[float]:
        """Take `count` samples."""
        return [await self.once() for _ in range(count)]

    async def until(self, deadline: float, interval: float = 0) -> list[float]:
        """Take samples until a time of the monotonic clock, `interval` seconds apart or at once."""
        samples = []
        due = time.perf_counter()
        while time.perf_counter() < deadline:
            samples.append(await self.once())
            due += interval
            if (wait := due - time.perf_counter()) > 0:
                await anyio.sleep(wait)
        return samples


def summary(samples: list[float]) -> dict[str, float]:
    """Return the usual percentiles."""
    ordered = sorted(samples)

    def at(share: float) -> float:
        return ordered[min(int(len(ordered) * share), len(ordered) - 1)]

    return {
        "min": ordered[0],
        "p50": at(0.5),
        "p90": at(0.9),
        "p99": at(0.99),
        "max": ordered[-1],
    }


async def echo_latency(
    node: Node, *, address: str, count: int = 2000, size: int = 32
) -> dict[str, Any]:
    """Measure sequential echoes on one open stream."""
    connection = await node.connect(address)
    async with await open_stream(node, connection, "/echo/1.0.0") as stream:
        echo = Echo(stream, size)
        await echo.many(min(WARM_UP_ECHOES, count))
        figures = summary(await echo.many(count))
    return {
        "p50_us": figures["p50"],
        "p99_us": figures["p99"],
        "samples_us": figures,
        "count": count,
    }


async def stream_rate(node: Node, *, address: str, count: int = 500) -> dict[str, Any]:
    """Measure opening a stream, one byte there, one byte back, closing it; one after another."""
    connection = await node.connect(address)
    start = time.perf_counter()
    for _ in range(count):
        stream = await open_stream(node, connection, "/isthmus-test/one/1.0.0")
        await stream.send(b"\x01")
        await stream.receive(1)
        await stream.aclose()
    seconds = time.perf_counter() - start
    return {"per_second": count / seconds, "seconds": seconds}


async def dial_rate(node: Node, *, address: str, count: int = 50) -> dict[str, Any]:
    """Measure dialling, the handshake, and closing; one after another."""
    start = time.perf_counter()
    for _ in range(count):
        connection = await node.connect(address)
        await connection.aclose()
    seconds = time.perf_counter() - start
    return {"per_second": count / seconds, "seconds": seconds}


async def saturate(
    stream: Stream, deadline: float, on_progress: Callable[[int], None] | None = None
) -> float:
    """Upload as fast as the stream takes it; return MB/s up to the peer's answer."""
    start = time.perf_counter()
    sent = 0
    async with stream:
        # The first eight zero bytes are perf's "send nothing back".
        while time.perf_counter() < deadline:
            await stream.send(BLOCK)
            sent += len(BLOCK)
        await stream.send_eof()
        async for _ in stream:
            pass
    return sent / 1e6 / (time.perf_counter() - start)


async def beside(
    node: Node,
    *,
    address: str,
    seconds: float = 3,
    interval: float = 0,
    bulk: str = "perf",
    size: int = 32,
) -> dict[str, Any]:
    """Measure an urgent echo, idle and beside a saturating upload."""
    protocol = "/isthmus-test/slow/1.0.0" if bulk == "slow" else "/perf/1.0.0"
    connection = await node.connect(address)
    rates: list[float] = []

    async def upload(stream: Stream, deadline: float) -> None:
        rates.append(await saturate(stream, deadline))

    async def open_bulk() -> Stream:
        return await open_stream(node, connection, protocol, Priority.LOW)

    async with await open_stream(node, connection, "/echo/1.0.0", Priority.HIGH) as stream:
        echo = Echo(stream, size)
        await echo.many(WARM_UP_ECHOES)
        idle = summary(await echo.until(time.perf_counter() + seconds, interval))
    await upload(await open_bulk(), time.perf_counter() + seconds)
    async with await open_stream(node, connection, "/echo/1.0.0", Priority.HIGH) as stream:
        echo = Echo(stream, size)
        await echo.many(1)
        deadline = time.perf_counter() + RAMP + seconds
        with unwrap_group():
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(upload, await open_bulk(), deadline)
                await anyio.sleep(RAMP)
                samples = await echo.until(deadline, interval)
    busy = summary(samples)
    return {
        "idle_p50_us": idle["p50"],
        "idle_p99_us": idle["p99"],
        "p50_us": busy["p50"],
        "p99_us": busy["p99"],
        "bulk_mb_s": rates[1],
        "bulk_alone_mb_s": rates[0],
        "samples": len(samples),
    }


BENCHES: dict[str, Callable[..., Awaitable[dict[str, Any]]]] = {
    "bench_throughput": throughput,
    "bench_echo": echo_latency,
    "bench_streams": stream_rate,
    "bench_dials": dial_rate,
    "bench_beside": beside,
}
