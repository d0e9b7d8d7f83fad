"""`isthmus perf`."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NamedTuple

import click

from .options import backend_option, output_options, size, storage_options
from .sizes import format_size, megabytes_per_second

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ...transports.core.interfaces import Connection
    from ..protocols.perf import Progress
    from .options import StorageOptions
    from .output import Output

STALL_TIME = 60.0
"""Seconds without a byte after which a run is given up; a full window drains at 40 kbit/s."""


class Way(NamedTuple):
    """What was carried one way, in bytes and seconds."""

    name: str
    size: int
    seconds: float


@click.command()
@click.argument("address", metavar="ADDR")
@click.option(
    "--upload", metavar="SIZE", type=size, default="200MB", show_default=True, help="0 to omit it."
)
@click.option(
    "--download",
    metavar="SIZE",
    type=size,
    default="200MB",
    show_default=True,
    help="0 to omit it.",
)
@click.option(
    "--timeout",
    type=click.FloatRange(0, 3600, min_open=True),
    default=10.0,
    show_default=True,
    help="Seconds to wait for the connection.",
)
@backend_option
@storage_options
@output_options
def perf(
    *,
    address: str,
    upload: int,
    download: int,
    timeout: float,
    backend: str,
    storage: StorageOptions,
    output: Output,
) -> None:
    """Connect to the peer at ADDR, send it bytes, then receive as many as asked for.

    Sizes are written 65536, 200MB (10^6) or 1GiB (2^30). The peer must serve /perf/1.0.0:
    `isthmus run --perf` does. One MB/s is 10^6 bytes a second of payload.

    \b
    Examples:
      isthmus perf /ip4/192.0.2.7/tcp/4001/p2p/12D3KooW...
      isthmus perf /ip4/127.0.0.1/tcp/4001 --upload 1GiB --download 0 --json
    """
    if not upload and not download:
        raise click.UsageError("Nothing to measure: --upload and --download are both 0.")

    from .client import call

    async def measure(connection: Connection, elapsed: float) -> None:
        output.line(f"connected to {connection.remote_peer} in {elapsed * 1e3:.1f} ms")
        sent = received = 0.0
        if upload:
            sent = await _carry(connection, output, timeout, upload=upload)
        if download:
            received = await _carry(connection, output, timeout, download=download)
        ways = (Way("upload", upload, sent), Way("download", download, received))
        _report(output, connection, elapsed, ways)

    call(address, measure, storage=storage, backend=backend, timeout=timeout)


async def _carry(
    connection: Connection, output: Output, patience: float, *, upload: int = 0, download: int = 0
) -> float:
    """Carry bytes one way and return the seconds until the last one is known to have arrived.

    Each way has a stream of its own, so that the tail of one does not count for the other.
    """
    import anyio

    from ...transports.core.interfaces import Priority
    from ..protocols.perf import PERF_PROTOCOL, measure
    from ..router import open_negotiated
    from .progress import showing

    stream = await open_negotiated(
        connection, (PERF_PROTOCOL,), known=None, timeout=patience, priority=Priority.LOW
    )
    name = "upload" if upload else "download"
    with showing(name, upload or download, is_live=output.is_live) as show:
        with anyio.move_on_after(STALL_TIME) as scope:

            def progress(direction: str, done: int, seconds: float) -> None:
                del direction, seconds
                scope.deadline = anyio.current_time() + STALL_TIME
                show(done)

            watched: Progress = progress
            # Not the loop's clock: uvloop's counts milliseconds.
            started = time.perf_counter()
            async with stream:
                await measure(stream, upload=upload, download=download, progress=watched)
                return time.perf_counter() - started
    raise TimeoutError(f"the {name} stood still for {STALL_TIME:g} s")


def _report(output: Output, connection: Connection, elapsed: float, ways: Iterable[Way]) -> None:
    value: dict[str, object] = {
        "peer_id": str(connection.remote_peer),
        "connect_ms": round(elapsed * 1e3, 3),
    }
    for way in ways:
        rate = megabytes_per_second(way.size, way.seconds)
        value[f"{way.name}_mb_s"] = None if rate is None else round(rate, 3)
        value[f"{way.name}_bytes"] = way.size
        value[f"{way.name}_seconds"] = round(way.seconds, 6)
        if rate is not None:
            took = f"{format_size(way.size)} in {way.seconds:.2f} s"
            output.line(f"{way.name:<9} {took}: {rate:.1f} MB/s")
    output.result(value)
