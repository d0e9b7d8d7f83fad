"""The relay over loopback sockets: reservations, circuits, and every refusal."""

from __future__ import annotations

import time

import anyio
from isthmus.node.events import (
    CircuitEnded,
    CircuitOpened,
    RelayReservationEnded,
    RelayReservationMade,
)
from isthmus.relay.circuit.wire import (
    HopType,
    Limit,
    Peer,
    Status,
    StopMessage,
    StopType,
    Voucher,
)

from .hops import PATIENCE, clients, relay

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
