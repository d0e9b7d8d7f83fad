"""Programs of the hosts of tests/lab/test_dcutr.py: a relay for one circuit, and its two ends.

The circuit is a stand-in: bytes through a TCP port of the relay, with a limit only by name. Each
program writes JSON lines.

    meeting.py relay IP                        a node on port 4001, a circuit on port 4002
    meeting.py listener IP PEER                waits for the circuit, and tells its events
    meeting.py dialer IP PEER LISTENER         dials it, and says when there is a direct connection
"""

from __future__ import annotations

import json
import sys
import time

import anyio
from isthmus import Multiaddr, Node, PeerId
from isthmus.node.events import HolePunched, HolePunchFailed, PeerIdentified, ReachabilityChanged
from isthmus.transports.core.interfaces import RawListener
from isthmus.transports.readiness import wait_readable
from isthmus.transports.tcp import TcpTransport
from isthmus.transports.upgrade import Upgraded

ANY = "/ip4/0.0.0.0/tcp/0"


def say(name, **fields):
    sys.stdout.write(json.dumps({"event": name, **fields}) + "\n")
    sys.stdout.flush()


class Waiting(RawListener):
    """The end of the circuit that waits for the other's first byte."""

    def __init__(self, address):
        self._address = address

    @property
    def addresses(self):
        return (self._address,)

    async def serve(self, handler):
        tcp = self._address.decapsulate_at("ws")
        stream = await TcpTransport().dial_raw(tcp)
        say("waiting")
        # Its upgrade has ten seconds from here on.
        await wait_readable(stream.socket)
        await handler(stream, self._address)

    async def aclose(self):
        await anyio.lowlevel.checkpoint()


class RawCircuit:
    protocols = ("ws",)

    def attach(self, host):
        pass

    def can_dial(self, addr):
        return True

    async def dial_raw(self, addr):
        return await TcpTransport().dial_raw(addr.decapsulate_at("ws"))

    async def listen_raw(self, addr):
        return Waiting(addr)


class Circuit(Upgraded):
    async def upgrade(self, stream, addr, **options):
        connection = await super().upgrade(stream, addr, **options)
        connection.limit = object()
        return connection


async def forward(source, sink):
    async for data in source:
        await sink.send(data)


async def relay(ip):
    waiting = []

    async def splice(stream, _):
        if len(waiting) == 2:
            # Somebody believes that the circuit's place is a peer's own.
            await stream.aclose()
            return
        waiting.append(stream)
        if len(waiting) < 2:
            await anyio.sleep_forever()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(forward, *waiting)
            tasks.start_soon(forward, *waiting[::-1])

    listener = await TcpTransport().listen_raw(Multiaddr.parse(f"/ip4/{ip}/tcp/4002"))
    async with Node(listen=f"/ip4/{ip}/tcp/4001") as node:
        say("listening", peer=str(node.peer_id))
        await listener.serve(splice)


def end(ip, *more):
    transports = [TcpTransport(reuse_port=True, only_public=True), Circuit(RawCircuit())]
    return Node(listen=[ANY, *more], transports=transports)


async def met(node, ip, peer):
    """Connect to the relay, and wait until it has said from where it sees this node."""
    events = node.events()
    await node.connect(f"/ip4/{ip}/tcp/4001/p2p/{peer}")
    async for event in events:
        if isinstance(event, PeerIdentified):
            say("seen", address=str(event.observed), peer=str(node.peer_id))
            return events
    raise AssertionError("the relay has said nothing")


async def listener(ip, peer):
    async with end(ip, f"/ip4/{ip}/tcp/4002/ws") as node:
        async for event in await met(node, ip, peer):
            if isinstance(event, (HolePunched, HolePunchFailed, ReachabilityChanged)):
                plain = event.to_json()
                say(plain.pop("event"), **plain)


async def dialer(ip, peer, other):
    async with end(ip) as node:
        await met(node, ip, peer)
        began = time.monotonic()
        await node.connect(f"/ip4/{ip}/tcp/4002/ws/p2p/{other}")
        say("relayed", seconds=time.monotonic() - began)
        direct = await node.reach._wait_direct(PeerId.parse(other))
        say("direct", seconds=time.monotonic() - began, address=str(direct.remote_addr))
        await direct.probe()
        say("works")
        await anyio.sleep_forever()


if __name__ == "__main__":
    main = {"relay": relay, "listener": listener, "dialer": dialer}[sys.argv[1]]
    anyio.run(main, *sys.argv[2:])
