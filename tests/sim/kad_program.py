"""A server of the DHT as a process: it prints its address and serves until it is killed."""

from __future__ import annotations

import sys
from pathlib import Path

import anyio
from isthmus import Node

sys.path.insert(0, str(Path(__file__).parents[1]))

from sim.kad import KadServer


async def main() -> None:
    """Serve."""
    async with Node(listen="/ip4/127.0.0.1/tcp/0") as node:
        KadServer(node)
        sys.stdout.write(f"{node.addresses[0]}\n")
        sys.stdout.flush()
        await anyio.sleep_forever()


anyio.run(main)
