"""What a peer may do on a stream: the stream is reset, and nothing else notices."""

from __future__ import annotations

import random

import anyio
import pytest
from isthmus import PrivateKey
from isthmus.node.events import ConnectionEnded, HandlerFailed, PeerIdentified
from isthmus.node.protocols.identify import (
    ID_PROTOCOL,
    MAX_PART_BYTES,
    PUSH_PROTOCOL,
    IdentifyMessage,
    encode,
)
from isthmus.node.protocols.perf import PERF_PROTOCOL
from isthmus.node.protocols.ping import MAX_INBOUND_PINGS, PING_PROTOCOL
from isthmus.node.router import MAX_UPKEEP_STREAMS
from isthmus.transports.core.errors import PeerIdMismatch, RemoteProtocolError
from isthmus.transports.core.varint import length_prefixed
from isthmus.transports.multistream import HEADER, MAX_FRAME, MAX_PROPOSALS

from ..transports.yamux.frames import ACK, FIN, RST, SYN, data, update
from .attacker import fill, line, proposal, upgraded
from .victim import ECHO, attacked

PROPOSALS = {
    "end": b"",
    "zeros": bytes(100),
    "ones": b"\xff" * 100,
    "http": b"GET / HTTP/1.1\r\n\r\n" * 9,
    "another version": line("/multistream/2.0.0"),
    "the proposal first": line(ECHO) + line(HEADER),
    "half of it": proposal(ECHO)[:-3],
    "half a length": line(HEADER) + b"\x80",
    "an endless length": line(HEADER) + b"\x80" * 9,
    "no line break": line(HEADER) + b"\x04/abc",
    "an empty frame": line(HEADER) + b"\x00",
    "not UTF-8": line(HEADER) + b"\x04\xff\xfe\xfd\n",
    "an oversized frame": line(HEADER) + line("/" + "x" * MAX_FRAME),
    "33 proposals": line(HEADER) + line("/nothing/1") * (MAX_PROPOSALS + 1),
    "ls for ever": line(HEADER) + line("ls") * 100,
    "a whole window": line(HEADER) + b"\x7f" * 200_000,
}


@pytest.mark.parametrize("name", PROPOSALS)
async def test_a_stream_that_agrees_on_nothing(name):
    async with attacked() as victim, upgraded(victim.address) as attacker:
        await attacker.agree(1, ECHO)
        said = PROPOSALS[name]
        pieces = [said[start : start + 16_000] for start in range(0, len(said), 16_000)]
        await attacker.say(update(3, 0, SYN), *(data(3, piece) for piece in pieces))
        await attacker.say(update(3, 0, FIN))
        _, end = await attacker.outcome(3)
        assert end.flags & RST
        assert end.length == 0
        (error,) = victim.failed_negotiations
        assert isinstance(error, (RemoteProtocolError, anyio.EndOfStream))
        # Its neighbour goes on.
        await attacker.say(data(1, b"still here"))
        await attacker.until(lambda frame: frame.body == b"still here")


async def test_random_bytes_on_streams(seed, scaled):
    chance = random.Random(seed)
    count = scaled(2000)
    protocols = [ECHO, PING_PROTOCOL, ID_PROTOCOL, PUSH_PROTOCOL, PERF_PROTOCOL]
    prefixes = [b"", line(HEADER), *map(proposal, protocols)]
    async with attacked() as victim, upgraded(victim.address) as attacker:
        for number in range(count):
            stream_id = 2 * number + 1
            said = chance.choice(prefixes) + chance.randbytes(chance.choice([0, 1, 30, 3000]))
            # A download of more than a little would never end here.
            said = said.replace(proposal(PERF_PROTOCOL), proposal(PERF_PROTOCOL) + bytes(6))
            await attacker.say(data(stream_id, said, SYN), update(stream_id, 0, FIN))
            await attacker.outcome(stream_id)
        connection = victim.connection_of(attacker.peer_id)
        assert not any(stream_id % 2 for stream_id in connection.machine.streams)


# identify

ASKED = 2
"""The stream on which the victim asks its new peer; it opens with the connection."""

NONSENSE = {
    "nothing": b"",
    "an oversized message": length_prefixed(bytes(MAX_PART_BYTES + 1)),
    "an endless length": b"\xff" * 20,
    "half a message": length_prefixed(bytes(100))[:-1],
    "no protobuf": length_prefixed(b"\xff" * 100),
    "no key": length_prefixed(encode(IdentifyMessage(public_key=b"\x08\x01"))),
    "another's key": length_prefixed(
        encode(IdentifyMessage(public_key=PrivateKey.generate().public_key.to_protobuf()))
    ),
}


@pytest.mark.parametrize("name", NONSENSE)
async def test_nonsense_for_an_identity(name):
    """In answer to the node's own question, and unasked."""
    async with attacked() as victim, upgraded(victim.address) as attacker:
        await attacker.agree(1, ECHO)
        await attacker.say(data(ASKED, proposal(ID_PROTOCOL) + NONSENSE[name], ACK))
        await attacker.say(update(ASKED, 0, FIN))
        await attacker.say(data(3, proposal(PUSH_PROTOCOL) + NONSENSE[name], SYN))
        await attacker.say(update(3, 0, FIN))
        _, end = await attacker.outcome(3)
        assert end.flags & RST
        failed = await victim.event(HandlerFailed, attacker.peer_id)
        assert failed.protocol == PUSH_PROTOCOL
        assert isinstance(failed.error, (RemoteProtocolError, PeerIdMismatch))
        assert victim.node.peers.protocols(attacker.peer_id) is None
        assert not victim.node.peers.addresses(attacker.peer_id)
        assert PeerIdentified not in [
            type(event) for event in victim.events if getattr(event, "peer", 0) == attacker.peer_id
        ]


async def test_more_pushes_than_anybody_needs():
    async with attacked() as victim, upgraded(victim.address) as attacker:
        numbers = range(1, 2 * MAX_UPKEEP_STREAMS + 20, 2)
        await attacker.say(*(data(each, proposal(PUSH_PROTOCOL), SYN) for each in numbers))
        refused = set()
        while len(refused) < len(numbers) - MAX_UPKEEP_STREAMS:
            refused.add((await attacker.until(lambda frame: frame.flags & RST)).stream_id)
        connection = victim.connection_of(attacker.peer_id)
        inbound = [each for each in connection.machine.streams if each % 2]
        assert len(inbound) == MAX_UPKEEP_STREAMS


async def test_an_endless_identity():
    """Ten parts are enough, however many come."""
    part = length_prefixed(encode(IdentifyMessage(protocols=("/x/" + "x" * 2000,) * 3)))
    async with attacked() as victim, upgraded(victim.address) as attacker:
        await attacker.say(data(1, proposal(PUSH_PROTOCOL), SYN))
        for _ in range(30):
            await attacker.say(data(1, part))
        await attacker.outcome(1)
        told = await victim.event(PeerIdentified, attacker.peer_id)
        assert len(told.protocols) == 30


# ping


@pytest.mark.parametrize("size", [0, 1, 31, 33, 63, 65, 1000])
async def test_pings_of_odd_sizes(size):
    """Whole ones come back; the rest is nothing."""
    said = random.Random(size).randbytes(size)
    async with attacked() as victim, upgraded(victim.address) as attacker:
        await attacker.agree(1, PING_PROTOCOL)
        await attacker.say(data(1, said), update(1, 0, FIN))
        body, end = await attacker.outcome(1)
        assert body == said[: size - size % 32]
        assert end.flags & FIN


async def test_pings_that_are_not_taken():
    """Without credit for the echo it stops to read, and holds a window at the most."""
    async with attacked() as victim, upgraded(victim.address) as attacker:
        await attacker.agree(1, PING_PROTOCOL)
        connection = victim.connection_of(attacker.peer_id)
        state = connection.machine.streams[1]
        await fill(victim, attacker, state)
        assert victim.most_held < 2**20
        # There is room for another, and for no third.
        await attacker.agree(3, PING_PROTOCOL)
        assert MAX_INBOUND_PINGS == 2
        await attacker.say(data(5, proposal(PING_PROTOCOL), SYN))
        _, end = await attacker.outcome(5)
        assert end.flags & RST


# perf


@pytest.mark.parametrize("size", [0, 1, 7])
async def test_half_a_perf_header(size):
    async with attacked() as victim, upgraded(victim.address) as attacker:
        await attacker.agree(1, PERF_PROTOCOL)
        await attacker.say(data(1, bytes(size)), update(1, 0, FIN))
        _, end = await attacker.outcome(1)
        assert end.flags & RST
        failed = await victim.event(HandlerFailed, attacker.peer_id)
        assert isinstance(failed.error, RemoteProtocolError)


async def test_streams_reset_while_they_are_served():
    async with attacked() as victim, upgraded(victim.address) as attacker:
        for number, protocol in enumerate([ECHO, PING_PROTOCOL, PERF_PROTOCOL, PUSH_PROTOCOL]):
            await attacker.agree(2 * number + 1, protocol)
        await attacker.say(*(update(each, each, RST) for each in range(1, 9, 2)))
        await victim.until(lambda: len(reset_codes(victim)) == 4)
        assert reset_codes(victim) == {1, 3, 5, 7}
        connection = victim.connection_of(attacker.peer_id)
        assert not any(each % 2 for each in connection.machine.streams)
        await attacker.agree(11, ECHO)
        assert ConnectionEnded not in map(type, victim.events)


def reset_codes(victim) -> set[int]:
    return {event.error.code for event in victim.events if isinstance(event, HandlerFailed)}
