"""Programs of the hosts of tests/lab/test_fairness.py: the ends of circuits through one relay.

Each writes JSON lines.

    circuits.py target BACKEND RELAY          serves an echo and a sink behind the relay; tells where, and
                                        what the sink has taken
    circuits.py echo ADDRESS COUNT      asks for so many echoes, one every 20 ms; tells their times
    circuits.py flood ADDRESS SECONDS   sends as much as it can for so long
"""

from __future__ import annotations

import json
import os
import sys
import time

import anyio
from isthmus import Node
from isthmus.node.events import RelayReserved

ECHO = "/lab/echo/1.0.0"
SINK = "/lab/sink/1.0.0"
INTERVAL = 0.02
"""Seconds from one echo to the next: fifty a second, as from someone who types or talks."""

TOLD = 0.1
"""Seconds between two reports of a sink."""

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


async def echo(address, count):
    async with Node() as node:
        stream = await node.open_stream(address, ECHO, allow_limited=True)
        times = []
        due = anyio.current_time()
        for _ in range(int(count)):
            sent = os.urandom(32)
            began, got = time.monotonic(), b""
            await stream.send(sent)
            while len(got) < len(sent):
                got += await stream.receive()
            assert got == sent
            times.append(time.monotonic() - began)
            due = max(due + INTERVAL, anyio.current_time())
            await anyio.sleep_until(due)
        say("echoes", times=times)


async def flood(address, seconds):
    async with Node() as node:
        stream = await node.open_stream(address, SINK, allow_limited=True)
        say("flooding")
        with anyio.move_on_after(float(seconds)):
            while True:
                await stream.send(CHUNK)
        stream.reset()


if __name__ == "__main__":
    main = {"target": target, "echo": echo, "flood": flood}[sys.argv[1]]
    anyio.run(main, *sys.argv[3:], backend=sys.argv[2])
