"""`isthmus ping`."""

from __future__ import annotations

import time
from statistics import fmean
from typing import TYPE_CHECKING

import click

from .options import backend_option, output_options, storage_options

if TYPE_CHECKING:
    from ...transports.core.interfaces import Connection
    from .options import StorageOptions
    from .output import Output

MAX_COUNT = 1_000_000
"""Round trips of one call; each is kept until the end, for the result."""


@click.command()
@click.argument("address", metavar="ADDR")
@click.option(
    "-c",
    "--count",
    type=click.IntRange(1, MAX_COUNT),
    default=5,
    show_default=True,
    help="How many round trips.",
)
@click.option(
    "-i",
    "--interval",
    type=click.FloatRange(0, 3600),
    default=0.0,
    show_default=True,
    help="Seconds between two of them.",
)
@click.option(
    "--timeout",
    type=click.FloatRange(0, 3600, min_open=True),
    default=10.0,
    show_default=True,
    help="Seconds to wait for the connection and for each answer.",
)
@backend_option
@storage_options
@output_options
def ping(
    *,
    address: str,
    count: int,
    interval: float,
    timeout: float,
    backend: str,
    storage: StorageOptions,
    output: Output,
) -> None:
    """Connect to the peer at ADDR and measure the round trip to it.

    Uses the key of the data directory if there is one, else a new one.

    \b
    Examples:
      isthmus ping /ip4/192.0.2.7/tcp/4001/p2p/12D3KooW...
      isthmus ping /dns4/peer.example/tcp/4001 -c 100 -i 0.2 --json
    """
    import anyio

    from ...transports.core.interfaces import Priority
    from ..protocols.ping import PING_PROTOCOL, ping_once
    from ..router import open_negotiated
    from .client import call

    async def measure(connection: Connection, elapsed: float) -> None:
        peer = connection.remote_peer
        output.line(f"connected to {peer} in {elapsed * 1e3:.1f} ms")
        stream = await open_negotiated(
            connection, (PING_PROTOCOL,), known=None, timeout=timeout, priority=Priority.HIGH
        )
        times: list[float] = []
        async with stream:
            for number in range(1, count + 1):
                if times and interval:
                    await anyio.sleep(interval)
                # Not the loop's clock: uvloop's counts milliseconds.
                started = time.perf_counter()
                await ping_once(stream, timeout=timeout)
                times.append((time.perf_counter() - started) * 1e3)
                output.line(f"{number:>4}  {times[-1]:.3f} ms")
            await stream.send_eof()
        output.line(_summary(times))
        output.result(
            {
                "peer_id": str(peer),
                "connect_ms": round(elapsed * 1e3, 3),
                "rtt_ms": [round(each, 4) for each in times],
            }
        )

    call(address, measure, storage=storage, backend=backend, timeout=timeout)


def _summary(times: list[float]) -> str:
    shown = " / ".join(f"{each:.3f}" for each in (min(times), fmean(times), max(times)))
    return f"min / mean / max: {shown} ms"
