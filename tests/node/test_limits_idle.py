"""Whole nodes over links in memory, by a virtual clock: what is idle ends, what is used stays."""

from __future__ import annotations

from ipaddress import ip_interface

import anyio
import pytest
from isthmus import Multiaddr, Node, NodeConfig, PeerId, PrivateKey
from isthmus.node.events import ConnectionEnded, ConnectionOpened
from isthmus.transports.lan.config import LanConfig
from isthmus.transports.lan.interfaces import Interface
from isthmus.transports.lan.machine import LanMachine
from isthmus.transports.lan.wire import encode_text
from trio.testing import MockClock

PING = "/ipfs/ping/1.0.0"


@pytest.fixture
def anyio_backend():
    return ("trio", {"clock": MockClock(autojump_threshold=0)})


def in_memory(**settings) -> Node:
    return Node(listen="/memory/0", transports=["memory"], config=NodeConfig(**settings))


async def until(events, kind):
    async for event in events:
        if isinstance(event, kind):
            return event
    raise AssertionError(f"no {kind.__name__}")


async def test_an_idle_connection_ends_and_the_next_stream_makes_another():
    async with in_memory() as alice, in_memory() as bob:
        alice.handle("/echo/1", echo)
        events = bob.events()
        started = anyio.current_time()
        await bob.connect(alice.addresses)
        assert await bob.request(alice.peer_id, "/echo/1", b"once") == b"once"
        ended = await until(events, ConnectionEnded)
        assert 600 <= anyio.current_time() - started <= 600 * 1.25 + 1
        # Either side may be the first to find it idle.
        assert ended.remote or "limits.idle_timeout" in ended.reason
        assert bob.connections == ()
        assert await bob.request(alice.peer_id, "/echo/1", b"again") == b"again"


async def test_connections_that_are_used_stay():
    async with in_memory() as alice, in_memory() as bob, in_memory() as carol:
        alice.handle("/echo/1", echo)
        one = await bob.connect(alice.addresses)
        other = await carol.connect(alice.addresses)
        stream = await bob.open_stream(alice.peer_id, "/echo/1")
        await stream.send(b"x")
        # One has a stream that says nothing for hours, the other a short one now and then.
        for _ in range(20):
            assert await carol.request(alice.peer_id, "/echo/1", b"now and then") == b"now and then"
            await anyio.sleep(500)
        assert bob.connections == (one,)
        assert carol.connections == (other,)
        assert len(alice.connections) == 2
        await stream.aclose()
        await anyio.sleep(600 * 1.25 + 35)
        assert alice.connections == bob.connections == carol.connections == ()


async def test_a_stream_of_upkeep_does_not_hold_up_the_end():
    async with in_memory() as alice, in_memory() as bob:
        events = alice.events()
        await bob.connect(alice.addresses)
        await until(events, ConnectionOpened)
        stream = await bob.open_stream(alice.peer_id, PING)
        await stream.send(bytes(32))
        assert await stream.receive() == bytes(32)
        # To bob it is a stream of his program's; to alice it is upkeep.
        ended = await until(events, ConnectionEnded)
        assert (ended.remote, "limits.idle_timeout" in ended.reason) == (False, True)


async def echo(stream):
    async for data in stream:
        await stream.send(data)


@pytest.mark.parametrize("dial_found", [False, True])
async def test_a_peer_of_the_lan_is_wanted_as_long_as_it_is_there(dial_found):
    peer = PeerId.from_public_key(PrivateKey.generate().public_key)
    node = Node(lan=True, config=NodeConfig(dial_found=dial_found))
    machine = LanMachine(node.peer_id, LanConfig())
    machine.set_network((Interface("eth0", (ip_interface("192.168.1.7/24"),)),), (), 0)
    node._discovery._lan._machine = machine
    assert not node._is_wanted(peer)
    place = Multiaddr.parse("/ip4/192.168.1.9/tcp/1").with_peer(peer)
    machine.receive_text(encode_text([place]), 120, 0)
    assert node._is_wanted(peer) is dial_found
    machine.handle_timeout(1000)
    assert not node._is_wanted(peer)
