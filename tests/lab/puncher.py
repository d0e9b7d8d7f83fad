"""Nodes behind the NATs of tests/lab/test_dcutr.py: a fresh one for each round.

A line of the input begins a round, an empty one ends it; what happens is told in JSON lines.

    puncher.py BACKEND listener    a line names a relay: be reached through it, and serve the echo
    puncher.py BACKEND dialer      a line names a peer: connect to it, and talk to it all the time
"""

from __future__ import annotations

import json
import sys
import time

import anyio
from isthmus import Multiaddr, Node, run
from isthmus.node.daemon import ECHO_PROTOCOL, echo
from isthmus.node.events import PathChanged, PeerIdentified, RelayReserved

ANY = "/ip4/0.0.0.0/tcp/0"
INTERVAL = 0.03
"""Seconds between two echoes."""

ENOUGH = 5
"""Echoes on the direct path after which the round has told what it has to."""


def say(name, **fields):
    sys.stdout.write(json.dumps({"event": name, **fields}) + "\n")
    sys.stdout.flush()


async def tell_events(events):
    async for event in events:
        plain = event.to_json()
        say(plain.pop("event"), **plain)


async def listener(relay, leaving):
    """Say where it can be reached, once the relay has said from where it sees this node."""
    async with Node(listen=ANY, relays=relay) as node, anyio.create_task_group() as tasks:
        node.handle(ECHO_PROTOCOL, echo, allow_limited=True)
        events = node.events()
        tasks.start_soon(tell_events, node.events())
        is_seen, reserved = False, None
        while not is_seen or reserved is None:
            event = await anext(events)
            if isinstance(event, PeerIdentified):
                is_seen = is_seen or event.peer == Multiaddr.parse(relay).peer_id
            elif isinstance(event, RelayReserved):
                reserved = event.addresses[0].with_peer(node.peer_id)
        say("ready", peer=str(node.peer_id), addresses=[str(reserved)])
        await leaving.wait()
        tasks.cancel_scope.cancel()


async def dialer(address, leaving):
    """Connect to a peer, and talk to it until the round ends."""
    async with Node(listen=ANY) as node, anyio.create_task_group() as tasks:
        events = node.events()
        tasks.start_soon(tell_events, node.events())
        talk = Talk(node, address)
        began = time.monotonic()
        first = await talk.begin()
        seconds = time.monotonic() - began
        say("relayed", seconds=seconds, limited=first.connection.limit is not None)
        async with anyio.create_task_group() as talking:
            talking.start_soon(talk.on_one_stream, first)
            talking.start_soon(talk.on_many_streams)
            tasks.start_soon(tell_direct, node, events, first.connection.remote_peer, began)
            await leaving.wait()
            talk.is_over = True
        say("left", lost=talk.sent - talk.answered, relayed=talk.relayed, direct=talk.direct)
        tasks.cancel_scope.cancel()


async def tell_direct(node, events, peer, began):
    async for event in events:
        if isinstance(event, PathChanged) and event.peer == peer:
            seconds = time.monotonic() - began
            mine = [each for each in node.connections if each.remote_peer == peer]
            (used,) = filter(node.is_used, mine)
            say("direct", seconds=seconds, address=str(used.remote_addr))


class Talk:
    """Echoes, each of which is to be answered whatever becomes of the paths."""

    def __init__(self, node, whom):
        self._node = node
        self._whom = whom
        self.sent = self.answered = self.relayed = self.direct = 0
        self.is_over = False

    async def begin(self):
        stream = await self._open()
        await self._ask(stream)
        return stream

    async def on_one_stream(self, stream):
        """Talk on one stream, which stays on its path; then leave that."""
        async with stream:
            while not self.is_over and self.direct < ENOUGH:
                await self._ask(stream)
                await anyio.sleep(INTERVAL)

    async def on_many_streams(self):
        """Talk on a new stream each time, which takes the path in use."""
        while not self.is_over:
            async with await self._open() as stream:
                await self._ask(stream)
            if self.direct == ENOUGH:
                say("talked")
            await anyio.sleep(INTERVAL)

    async def _open(self):
        return await self._node.open_stream(self._whom, ECHO_PROTOCOL, allow_limited=True)

    async def _ask(self, stream):
        self.sent += 1
        data = b"%d" % self.sent
        await stream.send(data)
        answer = b""
        while len(answer) < len(data):
            answer += await stream.receive()
        self.answered += answer == data
        if stream.connection.limit is None:
            self.direct += 1
        else:
            self.relayed += 1


async def main():
    role = {"listener": listener, "dialer": dialer}[sys.argv[2]]
    lines = anyio.wrap_file(sys.stdin)
    while line := await lines.readline():
        leaving = anyio.Event()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(role, line.strip(), leaving)
            await lines.readline()
            leaving.set()
        say("ended")


run(main, backend=sys.argv[1])
