"""A relay on a virtual clock, over links in memory: what ends when, and how fast it goes."""

from __future__ import annotations

from math import inf

import anyio
import pytest
from isthmus import LimitsConfig, Node, NodeConfig
from isthmus.node.events import CircuitEnded, RelayReservationEnded
from isthmus.node.router import open_negotiated
from isthmus.relay.circuit.exchange import receive_hop
from isthmus.relay.circuit.limits import RelayServerConfig
from isthmus.relay.circuit.wire import HOP_PROTOCOL, HopMessage, HopType, Peer, Status
from isthmus.transports.core.errors import StreamReset
from trio.testing import MockClock

from .hops import Client

UNLIMITED = {"circuit_bytes": 0, "circuit_duration": 0}


@pytest.fixture
def anyio_backend():
    return ("trio", {"clock": MockClock(autojump_threshold=0)})


def in_memory(idle_timeout=inf, **settings) -> Node:
    config = NodeConfig(limits=LimitsConfig(idle_timeout=idle_timeout), **settings)
    return Node(listen="/memory/0", transports=["memory"], config=config)


def relay(**settings) -> Node:
    return in_memory(relay_server=RelayServerConfig(preset="public", **settings))


async def event(events, kind):
    with anyio.fail_after(100_000):
        async for each in events:
            if isinstance(each, kind):
                return each
    raise AssertionError(f"no {kind.__name__}")


async def test_a_reservation_that_is_not_renewed_ends():
    async with relay() as node, in_memory() as one:
        alice, events, began = Client(one, node), node.events(), anyio.current_time()
        await alice.reserve()
        await anyio.sleep(3000)
        await alice.reserve()
        ended = await event(events, RelayReservationEnded)
        assert (ended.peer, ended.reason) == (alice.peer_id, "it was not renewed")
        assert anyio.current_time() - began == pytest.approx(6600, abs=1)
        assert node.relaying.status()["reservations"]["used"] == 0


async def test_who_has_a_reservation_stays_connected_though_it_is_idle():
    server = RelayServerConfig(preset="public", reservation_ttl=10_000)
    relaying = in_memory(600, relay_server=server)
    async with relaying as node, in_memory() as one, in_memory() as other:
        alice = Client(one, node)
        await alice.reserve()
        await other.connect(node.addresses)
        await anyio.sleep(2000)
        assert [each.remote_peer for each in node.connections] == [alice.peer_id]
        await anyio.sleep(10_000)
        assert node.connections == ()


async def test_a_circuit_lasts_as_long_as_its_limit():
    async with relay() as node, in_memory() as one, in_memory() as other:
        alice, bob, events = Client(one, node), Client(other, node), node.events()
        await bob.reserve()
        near, far = await alice.circuit(bob)
        began = anyio.current_time()
        await near.send(b"x")
        assert await far.receive() == b"x"
        with anyio.fail_after(1000), pytest.raises(StreamReset):
            await far.receive()
        assert anyio.current_time() - began == pytest.approx(120, abs=1)
        assert (await event(events, CircuitEnded)).seconds == pytest.approx(120, abs=1)
        bob.leave()


async def test_a_target_has_half_a_minute_to_take_a_circuit():
    async with relay() as node, in_memory() as one, in_memory() as other:
        alice, bob = Client(one, node), Client(other, node)
        await bob.reserve()
        bob.answer = b"\x04"
        stream = await alice.hop()
        began = anyio.current_time()
        await stream.send(HopMessage(HopType.CONNECT, Peer(bob.peer_id)).frame())
        with anyio.fail_after(1000):
            answer = b"".join([data async for data in stream])
        assert answer == HopMessage(HopType.STATUS, status=Status.CONNECTION_FAILED).frame()
        assert anyio.current_time() - began == pytest.approx(30, abs=1)
        bob.leave()


async def test_a_source_that_has_gone_holds_no_circuit_though_the_target_is_silent():
    async with relay(circuits_per_peer=1) as node, in_memory() as one, in_memory() as other:
        alice, bob = Client(one, node), Client(other, node)
        await bob.reserve()
        good, bob.answer = bob.answer, b"\x04"
        stream = await alice.hop()
        await stream.send(HopMessage(HopType.CONNECT, Peer(bob.peer_id)).frame())
        await anyio.sleep(1)
        assert len(bob.asked) == 1
        stream.reset()
        await anyio.sleep(1)
        bob.answer = good
        near, _ = await alice.circuit(bob)
        near.reset()
        bob.leave()


async def test_a_target_that_reserves_on_another_connection_is_asked_again_on_that():
    async with relay() as node, in_memory() as one, in_memory() as other:
        alice, bob = Client(one, node), Client(other, node)
        await bob.reserve()
        good, bob.answer = bob.answer, b"\x04"
        stream = await alice.hop()
        await stream.send(HopMessage(HopType.CONNECT, Peer(bob.peer_id)).frame())
        await anyio.sleep(1)
        assert len(bob.asked) == 1
        bob.answer = good
        anew = await other.connect(node.addresses, fresh=True)
        async with await open_negotiated(anew, (HOP_PROTOCOL,), known=None, timeout=10) as hop:
            await hop.send(HopMessage(HopType.RESERVE).frame())
            assert (await receive_hop(hop)).status == Status.OK
        with anyio.fail_after(1):
            assert (await receive_hop(stream)).status == Status.OK
        assert len(bob.asked) == 2
        stream.reset()
        bob.leave()


async def test_what_a_source_says_early_is_not_lost():
    async with relay() as node, in_memory() as one, in_memory() as other:
        alice, bob = Client(one, node), Client(other, node)
        await bob.reserve()
        stream = await alice.hop()
        await stream.send(HopMessage(HopType.CONNECT, Peer(bob.peer_id)).frame() + b"early")
        far = await bob.taken.receive()
        with anyio.fail_after(10):
            assert await far.receive() == b"early"
        stream.reset()
        bob.leave()


async def test_who_says_nothing_has_ten_seconds():
    async with relay() as node, in_memory() as one:
        stream = await Client(one, node).hop()
        began = anyio.current_time()
        await stream.send(b"\x02")
        with anyio.fail_after(1000), pytest.raises(StreamReset):
            await stream.receive()
        assert anyio.current_time() - began == pytest.approx(10, abs=1)


@pytest.mark.parametrize("rate", [20_000, 300_000, 5_000_000])
async def test_the_rate_of_a_circuit_holds_within_a_tenth_over_ten_seconds(rate):
    settings = {**UNLIMITED, "circuit_rate": rate}
    async with relay(**settings) as node, in_memory() as one, in_memory() as other:
        alice, bob = Client(one, node), Client(other, node)
        await bob.reserve()
        near, far = await alice.circuit(bob)
        received = 0

        async def send():
            while True:
                await near.send(bytes(65536))

        async def receive():
            nonlocal received
            while True:
                received += len(await far.receive())

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(send)
            tasks.start_soon(receive)
            await anyio.sleep(10)
            tasks.cancel_scope.cancel()
        assert received == pytest.approx(10 * rate, rel=0.1)
        near.reset()
        bob.leave()
