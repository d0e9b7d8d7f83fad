"""What a peer may do to a relay: it is answered by a status or a reset, and nobody else notices."""

from __future__ import annotations

import random
from contextlib import asynccontextmanager, suppress

import anyio
import pytest
from isthmus import Node, NodeConfig
from isthmus.relay.circuit.limits import RelayServerConfig
from isthmus.relay.circuit.wire import (
    MAX_MESSAGE,
    HopMessage,
    HopType,
    Peer,
    Status,
    StopMessage,
    StopType,
    Voucher,
)
from isthmus.transports.core.errors import StreamReset
from isthmus.transports.core.varint import encode_varint, length_prefixed

from ..relay.circuit.hops import PATIENCE, Client
from .victim import attacked

RESERVE = HopMessage(HopType.RESERVE).frame()

NONSENSE = {
    "nothing": b"",
    "an empty message": b"\x00",
    "zeros": bytes(1000),
    "ones": b"\xff" * 1000,
    "half a length": b"\x80",
    "a length that is not minimal": b"\x82\x00\x08\x00",
    "half a message": b"\x20\x08\x01\x12",
    "an oversized message": encode_varint(MAX_MESSAGE + 1) + bytes(MAX_MESSAGE + 1),
    "the longest message": length_prefixed(b"\x08\x01" * (MAX_MESSAGE // 2)),
    "a type that is none": length_prefixed(b"\x08\x07"),
    "a group": length_prefixed(b"\x0b\x08\x00\x0c"),
    "a peer that is none": length_prefixed(b"\x08\x01\x12\x04\x0a\x02ab"),
    "peers in peers": length_prefixed(b"\x08\x01\x12\x06\x12\x04\x12\x02\x12\x00"),
    "a megabyte": b"\x7f" * 1_000_000,
}


@asynccontextmanager
async def attacked_relay(**settings):
    """Lend a victim that relays, and a peer to attack it with."""
    server = RelayServerConfig(preset="public", **settings)
    config = NodeConfig(relay_server=server, negotiation_timeout=0.5)
    async with attacked(config=config) as victim:
        async with Node() as node:
            attacker = Client(node, victim.node)
            yield victim, attacker
            attacker.leave()
        await victim.until(lambda: victim.node.relaying.status()["circuits"]["used"] == 0)


async def end_of(stream):
    """Return what the relay says on a stream until it ends it, or that it has reset it."""
    said = bytearray()
    with anyio.fail_after(PATIENCE):
        try:
            async for data in stream:
                said += data
        except StreamReset:
            return None
    return bytes(said)


async def say(attacker, said):
    """Say something on a new hop stream; return how the relay ends it."""
    stream = await attacker.hop()
    async with anyio.create_task_group() as tasks:

        async def send():
            with suppress(StreamReset):
                await stream.send(said)
                await stream.send_eof()

        tasks.start_soon(send)
        answer = await end_of(stream)
        # Of a megabyte most waits for credit that nobody gives.
        tasks.cancel_scope.cancel()
    stream.reset()
    return answer


@pytest.mark.parametrize("name", NONSENSE)
async def test_hop_nonsense(name):
    async with attacked_relay() as (victim, attacker):
        said = NONSENSE[name]
        refused = HopMessage(HopType.STATUS, status=Status.MALFORMED_MESSAGE).frame()
        assert await say(attacker, said) in (refused, None)
        assert victim.node.relaying.status()["reservations"]["used"] == 0


async def test_hop_noise(seed, scaled):
    choice = random.Random(seed)
    async with attacked_relay() as (_, attacker):
        for _ in range(scaled(200)):
            message = bytearray(HopMessage(HopType.CONNECT, Peer(attacker.peer_id)).frame())
            for _ in range(choice.randrange(1, 4)):
                message[choice.randrange(len(message))] ^= choice.randrange(1, 256)
            await say(attacker, bytes(message))


@pytest.mark.parametrize("name", NONSENSE)
async def test_stop_nonsense(name):
    """A target that answers with anything: its source is told, and nothing stays."""
    async with attacked_relay() as (victim, attacker), Node() as node:
        source = Client(node, victim.node)
        await attacker.reserve()
        attacker.answer = NONSENSE[name]

        async def refuse():
            stream = await attacker.taken.receive()
            stream.reset()

        async with anyio.create_task_group() as tasks:
            if not attacker.answer or name.startswith("half"):
                tasks.start_soon(refuse)
            answer, _ = await source.connect(attacker.peer_id)
        assert answer.status == Status.CONNECTION_FAILED
        source.leave()


async def test_stop_noise(seed, scaled):
    """A target that answers with what is nearly an answer; some of it may even be one."""
    choice = random.Random(seed)
    async with attacked_relay(circuits_per_peer=1000) as (victim, attacker), Node() as node:
        source = Client(node, victim.node)
        await attacker.reserve()
        good = StopMessage(StopType.STATUS, status=Status.OK).frame()
        for _ in range(scaled(200)):
            answer = bytearray(good + choice.randbytes(choice.randrange(3)))
            for _ in range(choice.randrange(1, 3)):
                answer[choice.randrange(len(answer))] ^= choice.randrange(1, 256)
            attacker.answer = bytes(answer)
            stream = await source.hop()
            await stream.send(HopMessage(HopType.CONNECT, Peer(attacker.peer_id)).frame())
            # What lacks its end is waited for; here it never comes.
            far = await attacker.taken.receive()
            with anyio.move_on_after(0.02), suppress(StreamReset):
                await stream.receive()
            far.reset()
            stream.reset()
        attacker.answer = good
        answer, _ = await source.connect(attacker.peer_id)
        assert answer.status == Status.OK
        source.leave()


async def test_nobody_reserves_for_another():
    """A request that names somebody: who asks has the reservation, and it leads to nobody else."""
    async with attacked_relay() as (victim, attacker), Node() as node:
        other = Client(node, victim.node)
        for named in (other.peer_id, victim.node.peer_id):
            answer, _ = await attacker.ask(HopMessage(HopType.RESERVE, Peer(named)))
            assert answer.status == Status.OK
            Voucher.from_envelope(
                answer.reservation.voucher, relay=victim.node.peer_id, peer=attacker.peer_id
            )
            held = victim.node.relaying.status()["reservations"]["peers"]
            assert [each["peer"] for each in held] == [str(attacker.peer_id)]
            answer, _ = await other.connect(named)
            assert answer.status in (Status.NO_RESERVATION, Status.PERMISSION_DENIED)
        other.leave()


async def test_a_slot_ends_with_its_peer_though_a_handler_does_not_notice():
    """A handler that looks at nothing, of a stream that was opened before."""
    async with attacked_relay() as (victim, attacker):
        goes_on, runs = anyio.Event(), anyio.Event()

        async def deaf(_):
            runs.set()
            await goes_on.wait()

        victim.node.handle("/deaf", deaf)
        # Its first stream is this one: who serves it is who waits for the connection's end.
        stream = await attacker.node.open_stream(victim.node.addresses, "/deaf")
        await runs.wait()
        assert (await attacker.reserve()).status == Status.OK
        await stream.connection.aclose()
        await victim.until(lambda: not victim.node.relaying.status()["reservations"]["used"])
        assert not goes_on.is_set()
        goes_on.set()


async def test_who_does_not_say_what_it_wants_is_reset():
    async with attacked_relay() as (_, attacker):
        stream = await attacker.hop()
        await stream.send(RESERVE[:1])
        assert await end_of(stream) is None


async def test_a_flood_of_requests():
    async with attacked_relay() as (victim, attacker):

        async def flood():
            for _ in range(20):
                await say(attacker, RESERVE)

        async with anyio.create_task_group() as tasks:
            for _ in range(8):
                tasks.start_soon(flood)
        assert victim.node.relaying.status()["reservations"]["used"] == 1


async def test_circuits_that_nobody_uses_are_bounded_and_go_with_their_peer():
    async with attacked_relay(circuits_per_peer=4) as (victim, attacker), Node() as node:
        target = Client(node, victim.node)
        await target.reserve()
        answers = []
        for _ in range(6):
            answer, _ = await attacker.connect(target.peer_id)
            answers.append(answer.status)
        assert answers == [Status.OK] * 4 + [Status.RESOURCE_LIMIT_EXCEEDED] * 2
        await attacker.node.connections[0].aclose()
        await victim.until(lambda: victim.node.relaying.status()["circuits"]["used"] == 0)
        target.leave()


async def test_a_target_that_never_answers_holds_a_place_and_nothing_else():
    async with attacked_relay(circuits_per_peer=2) as (victim, attacker), Node() as node:
        source = Client(node, victim.node)
        attacker.answer = b""
        await attacker.reserve()
        for _ in range(2):
            stream = await source.hop()
            await stream.send(HopMessage(HopType.CONNECT, Peer(attacker.peer_id)).frame())
            await attacker.taken.receive()
        answer, _ = await source.connect(attacker.peer_id)
        assert answer.status == Status.RESOURCE_LIMIT_EXCEEDED
        await attacker.node.connections[0].aclose()
        assert await end_of(stream) == (
            HopMessage(HopType.STATUS, status=Status.CONNECTION_FAILED).frame()
        )
        source.leave()


async def test_bytes_for_a_circuit_that_is_refused_change_nothing():
    async with attacked_relay() as (_, attacker):
        request = HopMessage(HopType.CONNECT, Peer(attacker.peer_id)).frame()
        answer = await say(attacker, request + bytes(100_000))
        refused = HopMessage(HopType.STATUS, status=Status.PERMISSION_DENIED).frame()
        assert answer in (refused, None)
