"""The relay over loopback sockets: reservations, circuits, and every refusal."""

from __future__ import annotations

import time

import anyio
import pytest
from isthmus import Multiaddr, Node, NodeConfig, PeerId, PrivateKey
from isthmus.node.api.reading import read_event
from isthmus.node.events import (
    CircuitEnded,
    CircuitOpened,
    RelayReservationEnded,
    RelayReservationMade,
)
from isthmus.relay.circuit.exchange import receive_hop
from isthmus.relay.circuit.limits import RelayServerConfig
from isthmus.relay.circuit.wire import (
    HOP_PROTOCOL,
    HopMessage,
    HopType,
    Limit,
    Peer,
    Status,
    StopMessage,
    StopType,
    Voucher,
)
from isthmus.transports.core.errors import StreamReset
from isthmus.transports.core.interfaces import Side
from isthmus.transports.multistream import negotiate_dialer
from isthmus.transports.tcp import TcpTransport
from isthmus.transports.upgrade import Upgraded

from .hops import LOOPBACK, PATIENCE, Client, clients, relay

BIG = 3 << 20
UNLIMITED = {"circuit_bytes": 0, "circuit_duration": 0}


async def until(condition):
    with anyio.fail_after(PATIENCE):
        while not condition():
            await anyio.lowlevel.checkpoint()


async def event(events, kind):
    with anyio.fail_after(PATIENCE):
        async for each in events:
            if isinstance(each, kind):
                return each
    raise AssertionError(f"no {kind.__name__}")


async def test_a_reservation_says_how_long_where_and_within_which_limits():
    async with relay() as node, clients(node, 1) as (alice,):
        events = node.events()
        before = int(time.time())
        answer = await alice.reserve()
        assert (answer.type, answer.status) == (HopType.STATUS, Status.OK)
        assert answer.limit == Limit(120, 131072)
        reservation = answer.reservation
        assert before + 3600 <= reservation.expire <= time.time() + 3600
        assert reservation.addresses == node.addresses
        voucher = Voucher.from_envelope(reservation.voucher, relay=node.peer_id, peer=alice.peer_id)
        assert voucher.expiration == reservation.expire
        made = await event(events, RelayReservationMade)
        assert read_event(made.to_json()) == made
        assert (made.peer, made.until) == (alice.peer_id, reservation.expire)
        again = await alice.reserve()
        assert again.status == Status.OK
        assert node.relaying.status()["reservations"]["used"] == 1
    assert (await event(events, RelayReservationEnded)).peer == alice.peer_id


async def test_a_circuit_carries_both_ways_and_half_closes():
    async with relay(**UNLIMITED) as node, clients(node, 2) as (alice, bob):
        events = node.events()
        await bob.reserve()
        near, far = await alice.circuit(bob)
        assert bob.asked == [StopMessage(StopType.CONNECT, Peer(alice.peer_id))]
        opened = await event(events, CircuitOpened)
        assert (opened.source, opened.target) == (alice.peer_id, bob.peer_id)
        sent = bytes(range(256)) * (BIG // 256)
        received = bytearray()

        async def receive():
            async for data in far:
                received.extend(data)

        with anyio.fail_after(PATIENCE):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(receive)
                await near.send(sent)
                await near.send_eof()
        assert bytes(received) == sent
        await far.send(b"thanks")
        await far.send_eof()
        with anyio.fail_after(PATIENCE):
            assert b"".join([data async for data in near]) == b"thanks"
        ended = await event(events, CircuitEnded)
        assert (ended.bytes, ended.reason) == (BIG + 6, "both peers had finished")
        assert node.relaying.status()["circuits"]["used"] == 0


STRANGER = PeerId.from_public_key(PrivateKey.from_seed(b"\x07" * 32).public_key)


async def refusal(client, message):
    """Return the status of a refusal, after which the relay closes the stream."""
    answer, stream = await client.ask(message)
    assert answer.type is HopType.STATUS
    assert (answer.reservation, answer.limit) == (None, None)
    with anyio.fail_after(PATIENCE):
        assert [data async for data in stream] == []
    return answer.status


def connect(target):
    return HopMessage(HopType.CONNECT, Peer(target))


RESERVE = HopMessage(HopType.RESERVE)


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"\x00", Status.MALFORMED_MESSAGE),
        (b"\x02\x08\x09", Status.MALFORMED_MESSAGE),
        (b"\x02\x08\x01", Status.MALFORMED_MESSAGE),
        (b"\x81\x20" + bytes(9), Status.MALFORMED_MESSAGE),
        (HopMessage(HopType.STATUS, status=Status.OK).frame(), Status.UNEXPECTED_MESSAGE),
    ],
)
async def test_what_is_no_request_is_answered_by_a_status(data, status):
    async with relay() as node, clients(node, 1) as (alice,):
        assert await refusal(alice, data) == status
        assert node.relaying.status()["refused"] == {status.name: 1}
        assert (await alice.reserve()).status == Status.OK


async def test_nobody_is_dialled_who_has_no_reservation():
    async with relay() as node, clients(node, 2) as (alice, bob):
        for target in (bob.peer_id, STRANGER, node.peer_id):
            assert await refusal(alice, connect(target)) == Status.NO_RESERVATION
        assert await refusal(alice, connect(alice.peer_id)) == Status.PERMISSION_DENIED


@pytest.mark.parametrize("preset", ["default", "generous"])
async def test_a_relay_that_is_not_open_serves_those_who_are_listed(preset):
    key = PrivateKey.generate()
    listed = PeerId.from_public_key(key.public_key)
    async with (
        relay(preset, allow=(listed,)) as node,
        clients(node, 1) as (alice,),
        Node(identity=key) as friend,
    ):
        assert await refusal(alice, RESERVE) == Status.PERMISSION_DENIED
        bob = Client(friend, node)
        assert (await bob.reserve()).status == Status.OK
        assert await refusal(alice, connect(listed)) == Status.PERMISSION_DENIED
        assert await refusal(alice, connect(STRANGER)) == Status.PERMISSION_DENIED
        node.keep(alice.peer_id)
        near, _ = await alice.circuit(bob)
        near.reset()
        bob.leave()


async def test_a_hook_may_serve_more():
    config = NodeConfig(relay_server=RelayServerConfig(preset="default"))
    async with Node() as asking:
        node = Node(listen=LOOPBACK, config=config)
        node.relaying.allows = lambda peer: peer == asking.peer_id
        async with node, clients(node, 1) as (alice,):
            assert await refusal(alice, RESERVE) == Status.PERMISSION_DENIED
            assert (await Client(asking, node).reserve()).status == Status.OK


async def test_a_relay_that_is_full_says_so():
    async with relay(reservations=1) as node, clients(node, 2) as (alice, bob):
        assert (await alice.reserve()).status == Status.OK
        assert await refusal(bob, RESERVE) == Status.RESERVATION_REFUSED
        assert (await alice.reserve()).status == Status.OK
        await alice.node.connections[0].aclose()
        await until(lambda: node.relaying.status()["reservations"]["used"] == 0)
        assert (await bob.reserve()).status == Status.OK


async def test_reservations_of_one_place_are_bounded():
    async with relay(reservations_per_prefix=2) as node, clients(node, 3) as (alice, bob, carol):
        for each in (alice, bob):
            assert (await each.reserve()).status == Status.OK
        assert await refusal(carol, RESERVE) == Status.RESERVATION_REFUSED


async def test_circuits_of_one_peer_are_bounded_and_come_free():
    async with relay(circuits_per_peer=2) as node, clients(node, 2) as (alice, bob):
        await bob.reserve()
        circuits = [await alice.circuit(bob) for _ in range(2)]
        assert await refusal(alice, connect(bob.peer_id)) == Status.RESOURCE_LIMIT_EXCEEDED
        circuits[0][0].reset()
        await until(lambda: node.relaying.status()["circuits"]["used"] == 1)
        await alice.circuit(bob)


async def test_a_target_that_refuses_or_talks_nonsense_is_not_reached():
    async with relay() as node, clients(node, 2) as (alice, bob):
        await bob.reserve()
        for answer in (
            StopMessage(StopType.STATUS, status=Status.PERMISSION_DENIED).frame(),
            StopMessage(StopType.STATUS, status=12345).frame(),
            StopMessage(StopType.CONNECT, Peer(alice.peer_id)).frame(),
            b"\x00",
            b"\xff" * 9,
        ):
            bob.answer = answer
            assert await refusal(alice, connect(bob.peer_id)) == Status.CONNECTION_FAILED
            far = await bob.taken.receive()
            with anyio.fail_after(PATIENCE), pytest.raises(StreamReset):
                await far.receive()
        assert node.relaying.status()["circuits"]["used"] == 0


async def test_a_target_that_does_not_speak_stop_is_not_reached():
    async with relay() as node, clients(node, 1) as (alice,), Node() as mute:
        stream = await mute.open_stream(node.addresses, HOP_PROTOCOL)
        await stream.send(RESERVE.frame())
        assert (await receive_hop(stream)).status == Status.OK
        assert await refusal(alice, connect(mute.peer_id)) == Status.CONNECTION_FAILED


async def test_a_source_that_leaves_while_the_target_thinks_frees_its_place():
    async with relay(circuits_per_peer=1) as node, clients(node, 3) as (alice, bob, carol):
        await bob.reserve()
        bob.answer = b""
        stream = await alice.hop()
        await stream.send(connect(bob.peer_id).frame())
        far = await bob.taken.receive()
        stream.reset()
        await far.send(StopMessage(StopType.STATUS, status=Status.OK).frame())
        with anyio.fail_after(PATIENCE), pytest.raises(StreamReset):
            await far.receive()
        bob.answer = StopMessage(StopType.STATUS, status=Status.OK).frame()
        await carol.circuit(bob)


async def test_what_the_target_says_right_behind_its_status_is_the_circuits():
    async with relay() as node, clients(node, 2) as (alice, bob):
        await bob.reserve()
        bob.answer += b"first bytes"
        near, _ = await alice.circuit(bob)
        with anyio.fail_after(PATIENCE):
            assert await near.receive() == b"first bytes"


async def test_a_reservation_outlives_its_connection_while_another_stands():
    async with relay() as node, clients(node, 2) as (alice, bob):
        await bob.reserve()
        (first,) = bob.node.connections
        await bob.node.connect(node.addresses, fresh=True)
        await first.aclose()
        await until(lambda: len(node.connections) == 1)
        near, _ = await alice.circuit(bob)
        near.reset()
        assert node.relaying.status()["reservations"]["used"] == 1


async def test_addresses_may_be_set():
    public = Multiaddr.parse("/dns4/relay.example/tcp/4001")
    async with relay(addresses=(public,)) as node, clients(node, 1) as (alice,):
        answer = await alice.reserve()
        assert answer.reservation.addresses == (public.with_peer(node.peer_id),)


async def test_no_more_addresses_are_told_than_fit():
    names = [f"{number:02}.{'x' * 60}.{'y' * 60}.{'z' * 60}.example" for number in range(40)]
    many = tuple(Multiaddr.parse(f"/dns4/{name}/tcp/4001") for name in names)
    async with relay(addresses=many) as node, clients(node, 1) as (alice,):
        told = (await alice.reserve()).reservation.addresses
        assert 8 < len(told) <= 16
        assert told == tuple(each.with_peer(node.peer_id) for each in many[: len(told)])


async def test_a_node_is_no_relay_unless_told():
    async with Node(listen=LOOPBACK) as node:
        assert HOP_PROTOCOL not in node.protocols
        assert node.relaying.status() == {"preset": "off"}


async def test_nothing_is_granted_over_a_circuit():
    """A relay that is itself reached through another one: neither slots nor circuits."""
    async with relay(**UNLIMITED) as outer, relay() as inner, clients(outer, 1) as (alice,):
        stops = Client(inner, outer)
        await stops.reserve()
        near, far = await alice.circuit(stops)
        address = Multiaddr.parse(f"{outer.addresses[0]}/p2p-circuit")
        ends = []

        async def upgrade(node, stream, side):
            transport = Upgraded(TcpTransport())
            transport.attach(node)
            ends.append(await transport.upgrade(stream, address, side=side))

        with anyio.fail_after(PATIENCE):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(upgrade, alice.node, near, Side.DIALER)
                tasks.start_soon(upgrade, inner, far, Side.LISTENER)
        ends.sort(key=lambda end: end.side)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ends[0].run)
            await inner._swarm.accept(ends[1])
            for request in (RESERVE, connect(stops.peer_id)):
                stream = await ends[0].open_stream()
                await negotiate_dialer(stream, (HOP_PROTOCOL,))
                await stream.send(request.frame())
                with anyio.fail_after(PATIENCE):
                    assert (await receive_hop(stream)).status == Status.PERMISSION_DENIED
            await ends[0].aclose()
        assert inner.relaying.status()["reservations"]["used"] == 0
        stops.leave()
