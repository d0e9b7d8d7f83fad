"""Both ends of a connection over memory and over loopback sockets, for tests."""

from __future__ import annotations

import socket
from contextlib import asynccontextmanager

import anyio
from isthmus.transports.core.errors import unwrap_group
from isthmus.transports.core.interfaces import ChannelBinding, Side
from isthmus.transports.core.multiaddr import Multiaddr
from isthmus.transports.memory.network import MemoryNetwork
from isthmus.transports.memory.stream import MemoryTransport
from isthmus.transports.noise.machine import NoiseSession
from isthmus.transports.sockets import SocketStream, loop_clock
from isthmus.transports.testing.pair import TestHost
from isthmus.transports.yamux.driver import YamuxConnection
from isthmus.transports.yamux.machine import YamuxMachine

ADDR = Multiaddr.parse("/memory/1")
KEYS = b"a" * 32, b"b" * 32
BIG = 3 << 20
UVLOOP = ("asyncio", {"use_uvloop": True})


def tcp_pair():
    with socket.create_server(("127.0.0.1", 0)) as server:
        near = socket.create_connection(server.getsockname())
        far, _ = server.accept()
    for each in (near, far):
        each.setblocking(False)
        each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return SocketStream(near), SocketStream(far)


async def memory_pair():
    transport = MemoryTransport(MemoryNetwork())
    listener = await transport.listen_raw(ADDR)
    accepted = []

    async def accept(stream, _addr):
        accepted.append(stream)
        await listener.aclose()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, accept)
        near = await transport.dial_raw(ADDR)
    return near, accepted[0]


async def raw_pair(path):
    return tcp_pair() if path == "tcp" else await memory_pair()


def session(side):
    send, receive = KEYS if side is Side.DIALER else KEYS[::-1]
    return NoiseSession(send, receive)


def connection(raw, side, *, budget=None, early=(), clock=None):
    clock = clock or loop_clock()
    return YamuxConnection(
        raw,
        session(side),
        YamuxMachine(side, clock(), budget=budget),
        remote_peer=TestHost().peer_id,
        remote_addr=ADDR,
        channel_binding=ChannelBinding("noise", b"x"),
        clock=clock,
        early=early,
        budget=budget,
    )


@asynccontextmanager
async def connected(path, **options):
    """Two running ends."""
    near, far = await raw_pair(path)
    ends = connection(near, Side.DIALER, **options), connection(far, Side.LISTENER)
    with unwrap_group():
        async with anyio.create_task_group() as tasks:
            for end in ends:
                tasks.start_soon(end.run)
            yield ends
            for end in ends:
                await end.aclose()


@asynccontextmanager
async def with_raw_peer(path, **options):
    """A running dialer, its peer's byte stream, and the peer's session."""
    near, far = await raw_pair(path)
    end = connection(near, Side.DIALER, **options)
    with unwrap_group():
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(end.run)
            yield end, far, session(Side.LISTENER)
            await end.aclose()
            await far.aclose()
