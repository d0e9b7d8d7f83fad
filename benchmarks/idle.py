"""The question of idle connections: what each one that only stands costs its listener, in KiB.

A dialer, always isthmus, opens many connections to the subject and leaves them alone; the resident
memory of the subject's process is read before and after. Linux only: it is read from /proc.
"""

from __future__ import annotations

import sys
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import anyio.to_thread

from .peers.control import running
from .peers.errors import PeerProgramError
from .peers.install import argv_of
from .results import Failure, Phase, Sample

if TYPE_CHECKING:
    from .questions import Subject

QUESTION = "idle"
TITLE = "connection held idle, of the listener"
FIGURE = "kib_each"
DIALER = "isthmus-uvloop"
FIRST = 100
"""Connections that stand before the first look: what is loaded once is not one connection's."""
HOLD_TIMEOUT = 600.0
"""Seconds to open all of them: py-libp2p takes a hundredth of one for each."""
QUIET = 0.005
"""Seconds of processor time in a look below which a process has settled."""
LOOKS = 100
LOOK = 0.1
"""A process that does not settle in so many looks, seconds apart, is measured as it is."""


async def ask(subject: Subject, number: int, count: int) -> Sample | Failure:
    """Hold `count` connections to one subject; what goes wrong is a failure in the answer."""
    try:
        figures = {FIGURE: await measure(subject.command_line(), subject.name, count)}
    except (PeerProgramError, TimeoutError, OSError) as error:
        why = str(error).partition("; stderr:")[0] or type(error).__name__
        return Failure(subject=subject.name, question=QUESTION, number=number, why=why)
    return Sample(
        subject=subject.name, question=QUESTION, phase=Phase.WARM, number=number, figures=figures
    )


async def measure(command: list[str], name: str, count: int) -> float:
    """Return KiB of resident memory per connection; raises PeerProgramError, TimeoutError."""
    dialer_command = await anyio.to_thread.run_sync(argv_of, DIALER)
    async with AsyncExitStack() as stack:
        listener = await stack.enter_async_context(running(name, command))
        dialer = await stack.enter_async_context(running(DIALER, dialer_command))

        async def hold(connections: int) -> int:
            await dialer.call(
                "hold", timeout=HOLD_TIMEOUT, address=listener.address, count=connections
            )
            await settled(listener.pid)
            return resident(listener.pid)

        before = await hold(FIRST)
        after = await hold(count)
    return (after - before) / 1024 / count


def resident(process: int) -> int:
    """Return the bytes of memory that a process holds in RAM."""
    pages = Path(f"/proc/{process}/statm").read_text("ascii").split()[1]
    return int(pages) * 4096


async def settled(process: int) -> None:
    """Wait until a process has nothing to do any more, within bounds."""
    last = processor_time(process)
    for _ in range(LOOKS):
        await anyio.sleep(LOOK)
        now = processor_time(process)
        if now - last < QUIET:
            return
        last = now


def processor_time(process: int) -> float:
    """Return the seconds that a process has computed so far."""
    fields = Path(f"/proc/{process}/stat").read_text("ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


TICKS = 100
"""A second, in /proc: fixed in the interface of the kernel, whatever its own clock."""


def missing() -> str | None:
    """Say what lacks for the question on this machine; None if nothing does."""
    return None if sys.platform == "linux" else "resident memory is read from Linux's /proc"
