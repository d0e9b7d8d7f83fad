"""What happens to the bytes and the ends of a circuit, over loopback sockets."""

from __future__ import annotations

from contextlib import asynccontextmanager

import anyio
import pytest
from isthmus.node.events import CircuitEnded
from isthmus.relay.circuit.circuit import CircuitLimit, FastCircuitStream, circuit_stream
from isthmus.relay.circuit.wire import Limit
from isthmus.transports.core.errors import RelayLimitReached, StreamReset
from isthmus.transports.yamux.nested import FRAME

from .hops import PATIENCE, clients, relay

UNLIMITED = {"circuit_bytes": 0, "circuit_duration": 0}


@asynccontextmanager
async def joined(**settings):
    """Yield the relay's node, and both ends of a circuit through it."""
    async with relay(**settings) as node, clients(node, 2) as (alice, bob):
        await bob.reserve()
        near, far = await alice.circuit(bob)
        yield node, near, far


async def everything(stream):
    """Return what comes up to the end."""
    received = bytearray()
    with anyio.fail_after(PATIENCE):
        async for data in stream:
            received += data
    return bytes(received)


async def ended(events):
    with anyio.fail_after(PATIENCE):
        async for event in events:
            if isinstance(event, CircuitEnded):
                return event
    raise AssertionError("the circuit has not ended")


@pytest.mark.parametrize("from_source", [True, False])
async def test_a_reset_is_carried_over_with_its_code(from_source):
    async with joined() as (node, near, far):
        events = node.events()
        breaking, other = (near, far) if from_source else (far, near)
        breaking.reset(0x1234)
        with anyio.fail_after(PATIENCE), pytest.raises(StreamReset) as raised:
            await other.receive()
        assert raised.value.code == 0x1234
        assert (await ended(events)).reason == "a peer or its connection ended it"


async def test_a_lost_connection_ends_its_circuits():
    async with joined() as (node, near, far):
        events = node.events()
        await near.connection.aclose()
        with anyio.fail_after(PATIENCE), pytest.raises(StreamReset):
            await far.receive()
        await ended(events)
        assert node.relaying.status()["circuits"]["used"] == 0


async def test_a_circuit_ends_with_its_bytes_and_they_all_arrive():
    async with joined(circuit_bytes=100_000) as (node, near, far):
        events = node.events()
        await far.send(b"hello")
        with anyio.fail_after(PATIENCE):
            assert await near.receive() == b"hello"
        await near.send(bytes(250_000))
        assert await everything(far) == bytes(100_000)
        assert await everything(near) == b""
        end = await ended(events)
        assert (end.bytes, end.reason) == (100_005, "it had carried its bytes")


async def test_the_fast_way_counts_both_directions_and_says_which_limit_was_reached():
    async with joined(circuit_bytes=100_000) as (_, near, far):
        limit = CircuitLimit(Limit(None, 100_000), anyio.current_time)
        circuit = circuit_stream(near, limit)
        assert isinstance(circuit, FastCircuitStream)
        await far.send(b"hello")
        heard = []

        def listen(data):
            heard.append(bytes(data))
            return len(heard) < 1

        with anyio.fail_after(PATIENCE):
            await circuit.receive_each(listen)
            assert heard == [b"hello"]
            assert limit.bytes_left == 99_995
            left = 100_000
            while left:
                if not (sent := circuit.send_nowait(bytes(min(left, FRAME)))):
                    await circuit.wait_writable()
                left -= sent
            assert limit.bytes_left == 0
            with pytest.raises(RelayLimitReached):
                await circuit.receive_each(listen)
            assert await everything(far) == bytes(100_000)


async def test_a_circuit_ends_with_its_time():
    async with joined(circuit_duration=1) as (node, near, far):
        events = node.events()
        began = anyio.current_time()
        for stream in (near, far):
            with anyio.fail_after(PATIENCE), pytest.raises(StreamReset):
                await stream.receive()
        assert 0.5 < anyio.current_time() - began < 5
        assert (await ended(events)).reason == "its time was over"


async def test_a_target_that_does_not_read_stops_its_source():
    """The relay holds a window and a queue, whatever the source has to send."""
    async with joined(**UNLIMITED) as (node, near, far):
        sent = 0
        with anyio.move_on_after(1) as scope:
            while sent < 1 << 28:
                await near.send(bytes(65536))
                sent += 65536
        assert scope.cancelled_caught
        held = sum(each.machine.unread_bytes + each.machine.queued for each in node.connections)
        assert held < 20 << 20
        near.reset()
        with pytest.raises(StreamReset):
            await everything(far)


async def test_a_rate_is_held():
    async with joined(**UNLIMITED, circuit_rate=400_000) as (_, near, far):
        began = anyio.current_time()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(near.send, bytes(500_000))
            received = 0
            with anyio.fail_after(PATIENCE):
                while received < 500_000:
                    received += len(await far.receive())
        # A quarter of a second's worth may pass at once, and the last chunk is not waited for.
        assert 0.75 < anyio.current_time() - began < 3


@pytest.mark.parametrize("bandwidth", [0, 2_000_000])
async def test_a_flood_does_not_starve_another_peer(bandwidth):
    """One peer floods over eight circuits, another over one; with a bandwidth each gets half.

    Without one the loop sets the pace, and who is alone on a circuit has nothing ready sometimes.
    """
    settings = {**UNLIMITED, "bandwidth": bandwidth, "circuits_per_peer": 100}
    async with relay(**settings) as node, clients(node, 3) as (flood, one, target):
        await target.reserve()
        counts = {flood.peer_id: 0, one.peer_id: 0}

        async def send(stream):
            while True:
                await stream.send(bytes(65536))

        async def receive(stream, source):
            while True:
                data = await stream.receive()
                counts[source] += len(data)

        async with anyio.create_task_group() as tasks:
            for client, circuits in ((flood, 8), (one, 1)):
                for _ in range(circuits):
                    near, far = await client.circuit(target)
                    tasks.start_soon(send, near)
                    tasks.start_soon(receive, far, client.peer_id)
            with anyio.fail_after(PATIENCE):
                while not all(counts.values()):
                    await anyio.lowlevel.checkpoint()
            counts.update(dict.fromkeys(counts, 0))
            with anyio.move_on_after(1.5):
                await anyio.sleep_forever()
            tasks.cancel_scope.cancel()
        total = sum(counts.values())
        assert counts[one.peer_id] > (0.45 if bandwidth else 0.2) * total
        if bandwidth:
            assert total < 1.5 * bandwidth * 1.15
