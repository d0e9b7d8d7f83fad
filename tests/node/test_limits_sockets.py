"""Limits where peers meet them: over real sockets on loopback, which is one prefix."""

from __future__ import annotations

from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING

import anyio
import pytest
from isthmus import LimitsConfig, Node, NodeConfig
from isthmus.node.events import (
    ConnectionEnded,
    ConnectionOpened,
    ConnectionRefused,
    StreamRefused,
)
from isthmus.transports.core.codes import ConnectionCode, StreamCode
from isthmus.transports.core.errors import DialError, StreamReset
from isthmus.transports.tcp import TcpTransport

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

LOOPBACK = "/ip4/127.0.0.1/tcp/0"


@asynccontextmanager
async def limited(listen: str = LOOPBACK, **limits) -> AsyncIterator[Node]:
    """A node that listens, and echoes, with some limits of its own."""
    async with Node(listen=listen, config=NodeConfig(limits=LimitsConfig(**limits))) as node:

        @node.handle("/echo/1")
        async def echo(stream):
            async for data in stream:
                await stream.send(data)

        yield node


async def until(events, kind):
    with anyio.fail_after(5):
        async for event in events:
            if isinstance(event, kind):
                return event
    raise AssertionError(f"no {kind.__name__}")


@pytest.mark.parametrize("listen", [LOOPBACK, f"{LOOPBACK}/ws", "/ip6/::1/tcp/0"])
async def test_one_prefix_has_its_share_and_others_the_rest(listen):
    async with AsyncExitStack() as stack:
        alice = await stack.enter_async_context(limited(listen, connections_per_prefix=2))
        events = alice.events()
        nodes = [await stack.enter_async_context(Node()) for _ in range(3)]
        for node in nodes[:2]:
            assert await node.request(alice.addresses, "/echo/1", b"in") == b"in"
        late = await nodes[2].connect(alice.addresses)
        refused = await until(events, ConnectionRefused)
        assert (refused.peer, refused.setting, refused.count) == (
            nodes[2].peer_id,
            "limits.connections_per_prefix",
            1,
        )
        # The one who is refused learns that a limit is the reason.
        with anyio.fail_after(5):
            ended = await late.wait_closed()
        assert (ended.remote, ended.code) == (True, ConnectionCode.RESOURCE_LIMIT_EXCEEDED)
        assert str(ended) == "the connection was closed by the peer: a limit of it is reached"
        # This side dials whom it wants, however many of them are there.
        bob = await stack.enter_async_context(limited())
        await alice.connect(bob.addresses)
        assert len(alice.connections) == 3
        # Who leaves makes room.
        await nodes[0].connections[0].aclose()
        await until(events, ConnectionEnded)
        assert await nodes[2].request(alice.addresses, "/echo/1", b"in") == b"in"


async def test_the_quarter_for_dialling_stays_usable_under_a_flood():
    limits = {"connections": 4, "connections_per_prefix": 99, "connection_burst": 999}
    async with limited(**limits) as alice, limited() as bob, AsyncExitStack() as stack:
        events = alice.events()
        crowd = [await stack.enter_async_context(Node()) for _ in range(6)]
        async with anyio.create_task_group() as tasks:
            dialled = anyio.Event()

            async def flood(node: Node) -> None:
                while not dialled.is_set():
                    connection = await node.connect(alice.addresses, fresh=True)
                    with anyio.move_on_after(0.2):
                        await connection.wait_closed()

            for node in crowd:
                tasks.start_soon(flood, node)
            await until(events, ConnectionRefused)
            assert await alice.request(bob.addresses, "/echo/1", b"out") == b"out"
            assert len(alice.connections) == 4
            dialled.set()
        inbound = [each for each in alice.connections if each.remote_peer != bob.peer_id]
        assert len(inbound) == 3


async def test_a_flood_from_one_prefix_is_closed_before_it_costs_anything():
    async with limited(connection_burst=5, connection_rate=0.001) as alice, Node() as bob:
        events = alice.events()
        await bob.connect(alice.addresses)
        tcp = TcpTransport()
        for _ in range(100):
            raw = await tcp.dial_raw(alice.addresses[0].without_peer())
            await raw.aclose()
        refused = await until(events, ConnectionRefused)
        assert (refused.peer, refused.setting) == (None, "limits.connection_burst")
        assert "127.0.0.1" in refused.reason
        told = [refused]
        while sum(event.count for event in told) < 96:
            told.append(await until(events, ConnectionRefused))
        assert len(told) < 5
        listener = alice._own.listeners[0]
        assert listener.failed + listener.pending <= 4
        # Who is in stays served; who is not learns at least that the other side hung up.
        assert await bob.request(alice.peer_id, "/echo/1", b"in") == b"in"
        async with Node() as carol:
            with pytest.raises(DialError):
                await carol.connect(alice.addresses)


async def test_one_prefix_cannot_take_all_the_handshakes():
    limits = {"connections_per_prefix": 3, "pending_inbound": 64}
    async with limited(**limits) as alice, AsyncExitStack() as stack:
        events = alice.events()
        tcp = TcpTransport()
        for _ in range(4):
            raw = await tcp.dial_raw(alice.addresses[0].without_peer())
            stack.push_async_callback(raw.aclose)
        refused = await until(events, ConnectionRefused)
        assert refused.setting == "limits.connections_per_prefix"
        assert alice._swarm._doorway.pending == 3
    assert alice._swarm._doorway.pending == 0


async def test_handshakes_under_way_are_bounded_over_all_listeners():
    config = NodeConfig(limits=LimitsConfig(pending_inbound=2))
    listen = [LOOPBACK, f"{LOOPBACK}/ws"]
    async with Node(listen=listen, config=config) as alice, AsyncExitStack() as stack:
        events = alice.events()
        tcp = TcpTransport()
        for address in (*alice.addresses, alice.addresses[1]):
            place = address.without_peer()
            if "ws" in place.names:
                place = place.decapsulate_at("ws")
            raw = await tcp.dial_raw(place)
            stack.push_async_callback(raw.aclose)
        assert (await until(events, ConnectionRefused)).setting == "limits.pending_inbound"
        assert alice._swarm._doorway.pending == 2


async def test_a_stranger_has_few_streams_and_is_told_of_the_last():
    async with limited(inbound_streams_unknown=3) as alice, Node() as bob:
        events = alice.events()
        connection = await bob.connect(alice.addresses)
        await until(events, ConnectionOpened)
        with anyio.fail_after(5):
            while bob.peers.protocols(alice.peer_id) is None:
                await anyio.lowlevel.checkpoint()
            while connection.statistics().data_channels_closed < 2:  # both have asked
                await anyio.lowlevel.checkpoint()
        streams = []
        for _ in range(3):
            stream = await bob.open_stream(alice.peer_id, "/echo/1")
            await stream.send(b"x")
            assert await stream.receive() == b"x"
            streams.append(stream)
        last = await bob.open_stream(alice.peer_id, "/echo/1")
        await last.send(b"x")
        with pytest.raises(StreamReset, match="a limit of it is reached") as caught:
            await last.receive()
        assert (caught.value.remote, caught.value.code) == (
            True,
            StreamCode.RESOURCE_LIMIT_EXCEEDED,
        )
        refused = await until(events, StreamRefused)
        assert (refused.peer, refused.setting) == (bob.peer_id, "limits.inbound_streams_unknown")
        # The connection and the other streams go on, and one that ends makes room.
        await streams[0].aclose()
        await streams[1].send(b"y")
        assert await streams[1].receive() == b"y"
        assert await bob.request(alice.peer_id, "/echo/1", b"z") == b"z"


async def test_several_nodes_on_one_machine_are_served():
    """Seventeen of them, each connected to each other one, as a developer may have them."""
    async with AsyncExitStack() as stack:
        nodes = [await stack.enter_async_context(limited()) for _ in range(17)]
        async with anyio.create_task_group() as tasks:
            for position, node in enumerate(nodes):
                for other in nodes[:position]:
                    tasks.start_soon(node.connect, other.addresses)
        assert [len(node.connections) for node in nodes] == [16] * 17
