"""A program that uses stores on a disk that is full, or where it may not write, and tells of it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import anyio
from isthmus.node.events import StoreDegraded, StoreRecovered
from isthmus.node.store.machine import WriteBehind
from isthmus.node.store.stores import Stores
from isthmus.transports.core.multiaddr import Multiaddr
from isthmus.transports.core.peer_id import PeerId

ADDRESS = Multiaddr.parse("/ip4/192.0.2.1/tcp/4001")


class Keeper:
    """Stores whose troubles are printed, and can be waited for."""

    def __init__(self, folder: Path) -> None:
        self.stores = Stores(folder, machine=WriteBehind(interval=0.01, retry_time=0.05))
        self._told: dict[type, anyio.Event] = {}

    def tell(self, event) -> None:
        sys.stdout.write(json.dumps(event.to_json()) + "\n")
        self._told.setdefault(type(event), anyio.Event()).set()

    async def wait(self, kind: type) -> None:
        with anyio.fail_after(10):
            await self._told.setdefault(kind, anyio.Event()).wait()

    def meet(self, count: int) -> None:
        for number in range(count):
            peer = PeerId(b"\x12\x20" + number.to_bytes(32, "big"))
            self.stores.peers.add_addresses(peer, [ADDRESS])


async def full_disk(folder: Path) -> None:
    """Fill the disk, meet peers, make room."""
    ballast = folder / "ballast"
    keeper = Keeper(folder / "data")
    async with keeper.stores.opened(), anyio.create_task_group() as tasks:
        tasks.start_soon(keeper.stores.run, keeper.tell)
        fill(ballast)
        keeper.meet(3000)
        await keeper.wait(StoreDegraded)
        keeper.stores.kept.keep(PeerId(b"\x12\x20" + bytes(32)), now=0.0)
        ballast.unlink()
        await keeper.wait(StoreRecovered)
        tasks.cancel_scope.cancel()
    await count(folder)


async def full_from_the_start(folder: Path) -> None:
    """Begin on a full disk."""
    ballast = folder / "ballast"
    fill(ballast)
    keeper = Keeper(folder / "data")
    async with keeper.stores.opened(), anyio.create_task_group() as tasks:
        tasks.start_soon(keeper.stores.run, keeper.tell)
        keeper.meet(3)
        await keeper.wait(StoreDegraded)
        ballast.unlink()
        await keeper.wait(StoreRecovered)
        tasks.cancel_scope.cancel()
    await count(folder)


async def forbidden(folder: Path) -> None:
    """Use a directory that cannot be written to."""
    keeper = Keeper(folder / "data")
    async with keeper.stores.opened(), anyio.create_task_group() as tasks:
        tasks.start_soon(keeper.stores.run, keeper.tell)
        keeper.meet(3)
        await keeper.wait(StoreDegraded)
        tasks.cancel_scope.cancel()
    assert len(keeper.stores.peers) == 3


def fill(ballast: Path) -> None:
    with ballast.open("wb", buffering=0) as file:
        for size in (65_536, 4096, 1):
            try:
                while True:
                    file.write(bytes(size))
            except OSError:
                continue


async def count(folder: Path) -> None:
    stores = Stores(folder / "data")
    async with stores.opened():
        sys.stdout.write(f"{len(stores.peers)} {len(stores.kept)}\n")


if __name__ == "__main__":
    anyio.run(globals()[sys.argv[1]], Path(sys.argv[2]), backend=sys.argv[3])
