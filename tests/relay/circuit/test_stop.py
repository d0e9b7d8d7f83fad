"""What a relay, or whoever plays one, can do to the node that it leads others to."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import anyio
import anyio.lowlevel
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from isthmus import LimitsConfig, Node, NodeConfig
from isthmus.node.events import RelayReserved
from isthmus.relay.circuit.exchange import receive_stop
from isthmus.relay.circuit.wire import (
    STOP_PROTOCOL,
    Peer,
    Status,
    StopMessage,
    StopType,
)
from isthmus.transports.core.errors import P2PError
from isthmus.transports.core.keys import PrivateKey
from isthmus.transports.core.peer_id import PeerId
from isthmus.transports.core.varint import length_prefixed

from .relays import SmallRelay, small_relay

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

STRANGER = PeerId.from_public_key(PrivateKey.from_seed(b"x" * 32).public_key)
CONNECT = StopMessage(StopType.CONNECT, Peer(STRANGER)).frame()


@asynccontextmanager
async def led(**options) -> AsyncIterator[tuple[SmallRelay, Node]]:
    """A relay and a node that holds a reservation there."""
    async with small_relay() as relay, Node(relays=relay.node.addresses, **options) as bob:
        async for event in bob.events():
            if isinstance(event, RelayReserved):
                break
        yield relay, bob


async def answer(node: Node, peer: PeerId, said: bytes) -> int | None:
    """Say something on a stop stream; return the status that comes back, None for a reset."""
    stream = await node.open_stream(peer, STOP_PROTOCOL)
    async with stream:
        try:
            await stream.send(said)
            await stream.send_eof()
            return (await receive_stop(stream)).status
        except (P2PError, anyio.BrokenResourceError, anyio.EndOfStream):
            return None


async def until_broken(stream) -> None:
    try:
        while await stream.receive():
            pass
    except (P2PError, anyio.BrokenResourceError, anyio.EndOfStream):
        return


@pytest.mark.parametrize(
    ("said", "status"),
    [
        (b"", Status.MALFORMED_MESSAGE),
        (b"\x05", Status.MALFORMED_MESSAGE),
        (b"\xff\xff\xff\xff\x0f", Status.MALFORMED_MESSAGE),
        (length_prefixed(b"\xff" * 20), Status.MALFORMED_MESSAGE),
        (length_prefixed(b"\x08\x00"), Status.MALFORMED_MESSAGE),
        (StopMessage(StopType.STATUS, status=100).frame(), Status.UNEXPECTED_MESSAGE),
    ],
)
async def test_what_is_no_offer_of_a_circuit(said, status):
    async with led() as (relay, bob):
        assert await answer(relay.node, bob.peer_id, said) == status
        assert len(bob.connections) == 1


async def test_who_holds_no_reservation_for_us_leads_nobody_here():
    async with led() as (relay, bob), Node() as mallory:
        await mallory.connect(f"{relay.node.addresses[0]}/p2p-circuit/p2p/{bob.peer_id}")
        assert await answer(mallory, bob.peer_id, CONNECT) == Status.PERMISSION_DENIED


async def test_circuits_whose_upgrade_does_not_go_on_are_bounded():
    config = NodeConfig(limits=LimitsConfig(pending_inbound=2))
    async with led(config=config) as (relay, bob):
        streams = []
        for status in (Status.OK, Status.OK, Status.RESOURCE_LIMIT_EXCEEDED):
            stream = await relay.node.open_stream(bob.peer_id, STOP_PROTOCOL)
            await stream.send(CONNECT)
            assert (await receive_stop(stream)).status == status
            streams.append(stream)
        # What breaks off makes room.
        streams[0].reset()
        with anyio.fail_after(5):
            while await answer(relay.node, bob.peer_id, CONNECT) != Status.OK:
                await anyio.lowlevel.checkpoint()


async def test_what_is_glued_to_the_offer_is_the_circuits():
    async with led() as (relay, bob):
        stream = await relay.node.open_stream(bob.peer_id, STOP_PROTOCOL)
        async with stream:
            await stream.send(CONNECT + b"\x13/multistream/1.0.0\n")
            assert (await receive_stop(stream)).status == Status.OK
            await stream.send(b"\x07/noise\n")
            said = b""
            while not said.endswith(b"/noise\n"):
                # What it agrees to waits for the first message of Noise.
                if said.endswith(b"/multistream/1.0.0\n"):
                    break
                said += await stream.receive()
            assert b"/multistream/1.0.0" in said


async def test_nonsense_on_a_circuit_costs_the_circuit_alone():
    async with led() as (relay, bob):
        for nonsense in (b"\xff" * 100, b"\x13/multistream/1.0.0\n\x07/noise\n" + b"\x00" * 500):
            stream = await relay.node.open_stream(bob.peer_id, STOP_PROTOCOL)
            async with stream:
                await stream.send(CONNECT)
                assert (await receive_stop(stream)).status == Status.OK
                await stream.send(nonsense)
                await until_broken(stream)
        assert [each.remote_peer for each in bob.connections] == [relay.node.peer_id]
        assert bob.relays[0].until is not None


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_any_bytes_are_answered_or_refused(scaled):
    @settings(
        max_examples=scaled(300),
        deadline=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture],
    )
    @given(st.lists(st.binary(max_size=200) | st.just(CONNECT), max_size=4))
    def collect(parts):
        found.append(b"".join(parts))

    found: list[bytes] = []
    collect()
    async with led() as (relay, bob):
        for said in found:
            with anyio.fail_after(5):
                await answer(relay.node, bob.peer_id, said)
        assert bob.relays[0].until is not None
        assert len(relay.node.connections) == 1


async def test_who_is_led_here_before_the_reservation_was_answered_has_to_wait():
    answered = []

    async with small_relay() as relay:
        reserve = relay.reserve

        async def early(stream):
            peer = stream.connection.remote_peer
            stop = await relay.node.open_stream(peer, STOP_PROTOCOL)
            async with stop:
                await stop.send(CONNECT)
                with anyio.move_on_after(0.2):
                    answered.append(await receive_stop(stop))
                await reserve(stream)
                answered.append((await receive_stop(stop)).status)

        relay.reserve = early
        async with Node(relays=relay.node.addresses) as bob:
            with anyio.fail_after(10):
                async for event in bob.events():
                    if isinstance(event, RelayReserved):
                        break
                while not answered:
                    await anyio.lowlevel.checkpoint()
    assert answered == [Status.OK]
