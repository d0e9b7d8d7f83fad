"""Programs of the hosts of tests/lab/test_fairness.py: the ends of circuits through one relay.

Each writes JSON lines.

    circuits.py target BACKEND RELAY          serves an echo and a sink; tells what it took
    circuits.py echo BACKEND ADDRESS COUNT    asks for echoes, one every 20 ms; tells their times
    circuits.py flood BACKEND ADDRESS         sends as much as it can
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections import deque

import anyio
from isthmus import Node
from isthmus.node.events import RelayReserved

ECHO = "/lab/echo/1.0.0"
SINK = "/lab/sink/1.0.0"
INTERVAL = 0.02
"""Seconds from one echo to the next: fifty a second, as from someone who types or talks."""

TOLD = 0.1
"""Seconds between two reports of a sink."""

SIZE = 32
"""Bytes of an echo."""

CHUNK = bytes(65_536)


def say(name, **fields):
    sys.stdout.write(json.dumps({"event": name, **fields}) + "\n")
    sys.stdout.flush()


async def target(relay):
    taken = 0

    async def echo(stream):
        async for data in stream:
            await stream.send(data)

    async def sink(stream):
        nonlocal taken
        try:
            async for data in stream:
                taken += len(data)
        except anyio.BrokenResourceError:
            pass

    async with Node(relays=relay) as node:
        node.handle(ECHO, echo, allow_limited=True)
        node.handle(SINK, sink, allow_limited=True)
        async for event in node.events():
            if isinstance(event, RelayReserved):
                say("reserved", address=str(event.addresses[0].with_peer(node.peer_id)))
                break
        while True:
            await anyio.sleep(TOLD)
            if taken:
                say("taken", bytes=taken, time=time.monotonic())


async def ask(address, count):
    async with Node() as node, anyio.create_task_group() as tasks:
        stream = await node.open_stream(address, ECHO, allow_limited=True)
        sent, times = deque(), []

        async def send():
            # In time, whether those before have come back or not: what waits is to be seen.
            due = anyio.current_time()
            for _ in range(int(count)):
                sent.append(time.monotonic())
                await stream.send(os.urandom(SIZE))
                due += INTERVAL
                await anyio.sleep_until(due)

        tasks.start_soon(send)
        received = 0
        while len(times) < int(count):
            received += len(await stream.receive())
            while received >= SIZE:
                received -= SIZE
                times.append(time.monotonic() - sent.popleft())
        say("echoes", times=times)


async def flood(address):
    async with Node() as node:
        stream = await node.open_stream(address, SINK, allow_limited=True)
        say("flooding")
        while True:
            await stream.send(CHUNK)


if __name__ == "__main__":
    main = {"target": target, "echo": ask, "flood": flood}[sys.argv[1]]
    anyio.run(main, *sys.argv[3:], backend=sys.argv[2])
