# mypy: ignore-errors
"""What the benchmarks ask for. Times are taken in this process, on the monotonic clock."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import trio
from commands import connection_to, opened, resetting
from libp2p.peer.peerinfo import info_from_p2p_addr
from multiaddr import Multiaddr
from protocols import ECHO, ONE, PERF, SLOW
from streams import (
    BLOCK,
    PeerError,
    count_to_end,
    exactly,
    microseconds,
    summary,
    write_zeros,
)

if TYPE_CHECKING:
    from libp2p.abc import IHost, INetStream
    from libp2p.custom_types import TProtocol

WARM_UP_ECHOES = 50
RAMP = 0.2
"""Seconds that the saturating stream runs before echoes count."""


async def throughput(
    host: IHost,
    *,
    address: str,
    direction: str = "up",
    bytes: int = 64_000_000,  # noqa: A002 - the contract's word
    streams: int = 1,
) -> dict[str, Any]:
    """Time one or several perf streams; `up` ends when the answer to the last byte has come."""
    each = bytes // streams
    up, down = (each, 0) if direction == "up" else (0, each)
    ready = [await opened(host, address, PERF) for _ in range(streams)]

    async def run(stream: INetStream) -> None:
        async with resetting(stream):
            await stream.write(down.to_bytes(8, "big"))
            await write_zeros(stream, up)
            await stream.close_write()
            received = await count_to_end(stream)
        await stream.close()
        if received != down:
            raise PeerError("Mismatch", f"asked for {down} bytes, received {received}")

    start = time.perf_counter()
    async with trio.open_nursery() as nursery:
        for stream in ready:
            nursery.start_soon(run, stream)
    seconds = time.perf_counter() - start
    return {"mb_s": round(each * streams / 1e6 / seconds, 3), "seconds": round(seconds, 3)}


async def one_echo(stream: INetStream, payload: bytes) -> float:
    """Return the microseconds from sending the payload to having all of it back."""
    start = microseconds()
    await stream.write(payload)
    await exactly(stream, len(payload))
    return microseconds() - start


async def echoes_until(
    stream: INetStream, payload: bytes, deadline: float, interval: float
) -> list[float]:
    """Echo until the deadline on the performance counter, `interval` seconds apart or at once."""
    samples = []
    due = time.perf_counter()
    while time.perf_counter() < deadline:
        samples.append(await one_echo(stream, payload))
        due += interval
        if (wait := due - time.perf_counter()) > 0:
            await trio.sleep(wait)
    return samples


async def echo_latency(
    host: IHost, *, address: str, count: int = 2000, size: int = 32
) -> dict[str, Any]:
    """Time echoes on one open stream, one after the other."""
    stream = await opened(host, address, ECHO)
    payload = bytes([7]) * size
    for _ in range(min(WARM_UP_ECHOES, count)):
        await one_echo(stream, payload)
    figures = summary([await one_echo(stream, payload) for _ in range(count)])
    await stream.close()
    return {
        "p50_us": figures["p50"],
        "p99_us": figures["p99"],
        "samples_us": figures,
        "count": count,
    }


async def stream_rate(host: IHost, *, address: str, count: int = 300) -> dict[str, Any]:
    """Open a stream, send a byte, receive a byte, close; one after the other."""
    peer = await connection_to(host, address)
    start = time.perf_counter()
    for _ in range(count):
        stream = await host.new_stream(peer, [ONE])
        await stream.write(b"\1")
        await exactly(stream, 1)
        await stream.close()
    seconds = time.perf_counter() - start
    return {"per_second": round(count / seconds, 3), "seconds": round(seconds, 3)}


async def dial_rate(host: IHost, *, address: str, count: int = 10) -> dict[str, Any]:
    """Dial afresh and close, one after the other.

    py-libp2p always waits 250 ms for a second address after the first dial and 100 ms when it
    closes a connection; this measures what its users get.
    """
    info = info_from_p2p_addr(Multiaddr(address))
    await host.disconnect(info.peer_id)
    start = time.perf_counter()
    for _ in range(count):
        await host.connect(info)
        await host.disconnect(info.peer_id)
    seconds = time.perf_counter() - start
    return {"per_second": round(count / seconds, 3), "seconds": round(seconds, 3)}


async def saturate(host: IHost, address: str, protocol: TProtocol, deadline: float) -> float:
    """Upload as fast as the stream takes it until the deadline; return MB/s to the answer."""
    stream = await opened(host, address, protocol)
    block = bytes(BLOCK)
    sent = 0
    start = time.perf_counter()
    async with resetting(stream):
        # The first eight zero bytes are perf's "send nothing back".
        while time.perf_counter() < deadline:
            await stream.write(block)
            sent += BLOCK
        await stream.close_write()
        await count_to_end(stream)
    seconds = time.perf_counter() - start
    await stream.close()
    return round(sent / 1e6 / seconds, 3)


async def beside(
    host: IHost,
    *,
    address: str,
    seconds: float = 3,
    interval: float = 0,
    bulk: str = "perf",
    size: int = 32,
) -> dict[str, Any]:
    """Time echoes on an idle connection, then beside a saturating upload."""
    protocol = SLOW if bulk == "slow" else PERF
    stream = await opened(host, address, ECHO)
    payload = bytes([7]) * size
    for _ in range(WARM_UP_ECHOES):
        await one_echo(stream, payload)
    until = time.perf_counter() + seconds
    idle = summary(await echoes_until(stream, payload, until, interval))
    alone = await saturate(host, address, protocol, time.perf_counter() + seconds)
    deadline = time.perf_counter() + RAMP + seconds
    rate = 0.0

    async def run_bulk() -> None:
        nonlocal rate
        rate = await saturate(host, address, protocol, deadline)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run_bulk)
        await trio.sleep(RAMP)
        samples = await echoes_until(stream, payload, deadline, interval)
    busy = summary(samples)
    await stream.close()
    return {
        "idle_p50_us": idle["p50"],
        "idle_p99_us": idle["p99"],
        "p50_us": busy["p50"],
        "p99_us": busy["p99"],
        "bulk_mb_s": rate,
        "bulk_alone_mb_s": alone,
        "samples": len(samples),
    }


BENCHES = {
    "bench_throughput": throughput,
    "bench_echo": echo_latency,
    "bench_streams": stream_rate,
    "bench_dials": dial_rate,
    "bench_beside": beside,
}
