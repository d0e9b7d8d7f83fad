"""The program of a host that dials a peer every 200 ms, each time as one who was never there.

    prober.py BACKEND ADDRESS...

Each dial is a node of its own that asks the peer for an echo. It writes a JSON line for each: at
what time it began, the seconds that it took, by which way, or what has failed.
"""

from __future__ import annotations

import json
import os
import sys
import time

import anyio
from isthmus import Multiaddr, Node
from isthmus.node.protocols.ping import PING_BYTES, PING_PROTOCOL
from isthmus.transports.core.errors import P2PError

INTERVAL = 0.2
"""Seconds from one dial to the next."""

PATIENCE = 5.0
"""Seconds for an echo; longer than any may take, so that it is seen how long it would be."""


def say(name, **fields):
    sys.stdout.write(json.dumps({"event": name, **fields}) + "\n")
    sys.stdout.flush()


async def dial(addresses):
    began, started = time.time(), anyio.current_time()
    sent = os.urandom(PING_BYTES)
    async with Node() as node:
        try:
            answer = await node.request(
                addresses,
                PING_PROTOCOL,
                sent,
                timeout=PATIENCE,
                allow_limited=True,
                repeatable=True,
            )
        except (P2PError, TimeoutError) as error:
            seconds = anyio.current_time() - started
            report = node.why(Multiaddr.parse(addresses[0]).peer_id)
            say(
                "failed",
                began=began,
                seconds=seconds,
                reason=f"{type(error).__name__}: {error}",
                ways=[(str(each.remote_addr), node.is_suspect(each)) for each in node.connections],
                last_dial=None if report is None else report.to_json(),
            )
            return
        seconds = anyio.current_time() - started
        assert answer == sent
        ways = [str(each.remote_addr) for each in node.connections]
        say("echo", began=began, seconds=seconds, ways=ways)


async def main(addresses):
    async with anyio.create_task_group() as tasks:
        due = anyio.current_time()
        while True:
            tasks.start_soon(dial, addresses)
            due += INTERVAL
            await anyio.sleep_until(due)


if __name__ == "__main__":
    anyio.run(main, sys.argv[2:], backend=sys.argv[1])
