"""Asks a peer again and again, and tells in JSON lines how it is reached; the tests start it."""

from __future__ import annotations

import json
import sys
import time

import anyio
from isthmus import Node, run
from isthmus.transports.core.errors import P2PError

INTERVAL = 0.05
"""Seconds from one request to the next, whether or not that was answered."""

PATIENCE = 3.0
"""Seconds that one waits for its answer."""


def write(line: object) -> None:
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


def tell(**fields: object) -> None:
    write({"time": time.time(), **fields})


async def tell_events(node: Node) -> None:
    async for event in node.events():
        write(event.to_json())


async def ask(node: Node, addresses: list[str]) -> None:
    begun = time.time()
    try:
        await node.request(addresses, "/echo/1.0.0", b"there?", timeout=PATIENCE)
    except (P2PError, TimeoutError, anyio.BrokenResourceError) as error:
        tell(event="unanswered", begun=begun, reason=str(error))
    else:
        tell(event="answered", begun=begun)


async def main(addresses: list[str]) -> None:
    async with Node(listen="/ip4/0.0.0.0/tcp/0") as node, anyio.create_task_group() as tasks:
        tasks.start_soon(tell_events, node)
        await node.connect(addresses)
        while True:
            tasks.start_soon(ask, node, addresses)
            await anyio.sleep(INTERVAL)


run(main, sys.argv[2:], backend=sys.argv[1])
