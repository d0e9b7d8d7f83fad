"""What hours of use must not do: memory that grows, objects and descriptors that stay behind.

Each test looks at real processes over loopback. A plain run does a tenth of the counts.
"""

from __future__ import annotations

import sys
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import pytest
from isthmus.benchmarks import idle
from isthmus.benchmarks.peers.control import launch
from isthmus.benchmarks.peers.install import argv_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from isthmus.benchmarks.peers.control import Peer

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="memory is read from Linux's /proc"),
    pytest.mark.timeout(120),
]

MIB = 1 << 20
LEFT = 100
"""Objects that may be more after many connections: fewer than a single one has."""
PROGRAMS = (
    "isthmus-uvloop",
    "isthmus-trio",
    pytest.param("isthmus-asyncio", marks=pytest.mark.slow),
)


@pytest.fixture(params=PROGRAMS)
def program(request: pytest.FixtureRequest) -> str:
    return request.param


@asynccontextmanager
async def pair(program: str) -> AsyncIterator[tuple[Peer, Peer]]:
    async with launch(program) as listener, launch(program) as dialer:
        yield listener, dialer


def peak(peer: Peer) -> int:
    """The most memory that a process has held in RAM since `forget_peak`."""
    status = Path(f"/proc/{peer.pid}/status").read_text("ascii")
    (line,) = (line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


def forget_peak(peer: Peer) -> None:
    Path(f"/proc/{peer.pid}/clear_refs").write_text("5", "ascii")


async def test_a_gib_to_a_reader_that_pauses(program, scaled, tell):
    total = scaled(1024) * MIB
    async with pair(program) as (listener, dialer):
        arguments = {"address": listener.address}
        # What is loaded and allocated once is no growth.
        await dialer.call("pausing", bytes=MIB, **arguments)
        before = {peer: idle.resident(peer.pid) for peer in (listener, dialer)}
        for peer in before:
            forget_peak(peer)
        told = await dialer.call("pausing", bytes=total, timeout=100, **arguments)
        assert told["bytes"] == total
        grown = [(peak(peer) - at) / MIB for peer, at in before.items()]
    tell(
        f"{program}: {total // MIB} MiB past a reader that pauses:"
        f" listener +{grown[0]:.1f} MiB, dialer +{grown[1]:.1f} MiB at the peak"
    )
    assert max(grown) < 48


async def test_connections_leave_nothing_behind(program, scaled, tell):
    cycles = scaled(10_000)
    async with pair(program) as peers:
        listener, dialer = peers

        async def connect_and_close(count: int) -> None:
            await dialer.call("bench_dials", address=listener.address, count=count, timeout=100)
            for peer in peers:
                await idle.settled(peer.pid)

        # What remembers the last of them is full after 128: a link's history holds 256 changes.
        warm = cycles // 5
        await connect_and_close(warm)
        early = [await peer.call("census") for peer in peers]
        await connect_and_close(cycles - warm)
        late = [await peer.call("census") for peer in peers]
    for name, before, after in zip(("listener", "dialer"), early, late, strict=True):
        grown = {key: after[key] - before[key] for key in before}
        tell(
            f"{program}, {name}, cycles {warm} to {cycles}:"
            f" RSS {grown['rss'] / MIB:+.2f} MiB, objects {grown['objects']:+},"
            f" descriptors {grown['descriptors']:+}"
        )
        assert grown["rss"] < 2 * MIB
        assert grown["objects"] < LEFT
        assert grown["descriptors"] == 0


async def test_connections_held_idle_are_cheap(program, scaled, tell):
    count = scaled(1000)
    command = await anyio.to_thread.run_sync(argv_of, program)
    each = await idle.measure(command, program, count)
    tell(f"{program}: {each:.1f} KiB for each of {count} connections held idle")
    assert each <= 60
