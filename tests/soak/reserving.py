"""A program: many nodes, each reachable behind one relay and doing nothing else.

`python reserving.py ADDRESS COUNT` prints "reserved COUNT in SECONDS" when all have a reservation,
and a line for each that is lost from then on; it ends when its standard input does. Where the
system allows it too few open files it says so, and ends.
"""

from __future__ import annotations

import resource
import sys
import time
from typing import TYPE_CHECKING

import anyio
import anyio.to_thread
from isthmus import LimitsConfig, Node
from isthmus.node.descriptors import make_room
from isthmus.node.events import RelayLost, RelayRefused, RelayReserved
from isthmus.node.run import run

if TYPE_CHECKING:
    from isthmus.node.events import EventReader

PARALLEL = 32
"""Nodes that connect at a time: half of what the relay has under way at most."""

LOST = (RelayLost, RelayRefused)


class Reserving:
    """The nodes of one process."""

    def __init__(self, address: str, count: int) -> None:
        self._address = address
        self._count = count
        self._starting = anyio.Semaphore(PARALLEL)
        self._reserved = 0
        self._all_reserved = anyio.Event()

    async def run(self) -> None:
        began = time.monotonic()
        async with anyio.create_task_group() as tasks:
            for _ in range(self._count):
                await self._starting.acquire()
                tasks.start_soon(self._hold)
            await self._all_reserved.wait()
            say(f"reserved {self._count} in {time.monotonic() - began:.1f}")
            await anyio.to_thread.run_sync(sys.stdin.read)
            tasks.cancel_scope.cancel()

    async def _hold(self) -> None:
        node = Node(relays=self._address)
        events = node.events()
        async with node:
            await first_reservation(events)
            self._count_in()
            async for event in events:
                if isinstance(event, LOST):
                    say(f"lost {event.to_json()}")

    def _count_in(self) -> None:
        self._starting.release()
        self._reserved += 1
        if self._reserved == self._count:
            self._all_reserved.set()


async def first_reservation(events: EventReader) -> None:
    async for event in events:
        if isinstance(event, RelayReserved):
            return


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main() -> None:
    count = int(sys.argv[2])
    too_few = make_room(LimitsConfig(connections=count))
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if too_few is not None and soft < count + PARALLEL:
        say(f"cannot: {too_few}")
        return
    run(Reserving(sys.argv[1], count).run)


if __name__ == "__main__":
    main()
