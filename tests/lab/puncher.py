"""Nodes behind NATs of tests/lab/test_dcutr.py: a fresh one for each line that comes in.

Each line of the input begins a round, an empty one ends it; what happens is told in JSON lines.

    puncher.py BACKEND listener    a line names relays: be reached through them, and serve the echo
    puncher.py BACKEND dialer      a line names a peer: connect to it, and talk to it all the time
"""

from __future__ import annotations

import json
import sys
import time

import anyio
from isthmus import Node, run
from isthmus.node.daemon import ECHO_PROTOCOL, echo
from isthmus.node.events import PathChanged, PeerIdentified, RelayReserved
from isthmus.transports.core.interfaces import Priority
from isthmus.transports.core.multiaddr import Multiaddr

ANY = "/ip4/0.0.0.0/tcp/0"
INTERVAL = 0.03
"""Seconds from one echo to the next; a circuit's 128 KiB must last for the longest round."""

AFTER = 5
"""Echoes on the direct way before the round has told enough."""


def say(name, **fields):
    sys.stdout.write(json.dumps({"event": name, **fields}) + "\n")
    sys.stdout.flush()


async def tell_events(events):
    async for event in events:
        plain = event.to_json()
        say(plain.pop("event"), **plain)


async def listener(relays):
    """Say where it can be reached, once every relay has said from where it sees this node."""
    async with Node(listen=ANY, relays=relays) as node, anyio.create_task_group() as tasks:
        node.handle(ECHO_PROTOCOL, echo, priority=Priority.MEDIUM, allow_limited=True)
        events = node.events()
        tasks.start_soon(tell_events, node.events())
        missing = {Multiaddr.parse(relay).peer_id for relay in relays}
        seen, reserved = set(), {}
        while not (missing <= seen and missing <= {*reserved}):
            event = await anext(events)
            if isinstance(event, PeerIdentified):
                seen.add(event.peer)
            elif isinstance(event, RelayReserved):
                reserved[event.relay] = event.addresses
        ways = [str(each[0].with_peer(node.peer_id)) for each in reserved.values()]
        say("ready", peer=str(node.peer_id), addresses=ways)
        await anyio.sleep_forever()


async def dialer(addresses):
    """Talk to the peer at the last address; the others are of peers to be met before."""
    *before, address = addresses
    async with Node(listen=ANY) as node, anyio.create_task_group() as tasks:
        events = node.events()
        tasks.start_soon(tell_events, node.events())
        for each in before:
            await node.identify(await node.connect(each))
        counts = {"sent": 0, "answered": 0}
        began = time.monotonic()
        first = await open_echo(node, address)
        await ask(first, b"relayed", counts)
        relayed = time.monotonic() - began
        say("relayed", seconds=relayed, limited=first.connection.limit is not None)
        peer = first.connection.remote_peer
        tasks.start_soon(talk_on, first, counts)
        tasks.start_soon(talk, node, peer, counts)
        async for event in events:
            if isinstance(event, PathChanged) and event.peer == peer:
                break
        seconds = time.monotonic() - began
        (direct,) = [
            each for each in node.connections if node.is_used(each) and each.remote_peer == peer
        ]
        say("direct", seconds=seconds, address=str(direct.remote_addr), side=direct.side.name)
        await anyio.sleep_forever()


async def open_echo(node, whom):
    return await node.open_stream(whom, ECHO_PROTOCOL, allow_limited=True)


async def ask(stream, data, counts):
    counts["sent"] += 1
    await stream.send(data)
    answer = b""
    while len(answer) < len(data):
        answer += await stream.receive()
    counts["answered"] += answer == data


async def talk_on(stream, counts):
    """Talk on one stream, which stays on its path."""
    while True:
        await ask(stream, b"still there?", counts)
        await anyio.sleep(INTERVAL)


async def talk(node, peer, counts):
    """Talk on a new stream each time, which takes the path in use."""
    last, on_it = None, 0
    while True:
        async with await open_echo(node, peer) as stream:
            await ask(stream, b"there?", counts)
            if stream.connection.limit is None:
                on_it += 1
        if on_it == AFTER:
            say("talked", **counts)
        await anyio.sleep(INTERVAL)


async def main():
    role = {"listener": listener, "dialer": dialer}[sys.argv[2]]
    lines = anyio.wrap_file(sys.stdin)
    while words := await lines.readline():
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(role, words.split())
            await lines.readline()
            tasks.cancel_scope.cancel()
        say("ended")


run(main, backend=sys.argv[1])
