"""What an upgraded peer may send instead of records and frames: its connection ends, typed."""

from __future__ import annotations

import random
import struct
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

import anyio
import pytest
from isthmus.node.events import ConnectionEnded
from isthmus.transports.noise.wire import LENGTH

from ..transports.yamux.frames import (
    ACK,
    DATA,
    FIN,
    GO_AWAY,
    PING,
    RST,
    SYN,
    WINDOW,
    WINDOW_UPDATE,
    data,
    go_away,
    ping,
    update,
)
from .attacker import Attacker, upgraded
from .victim import ECHO, attacked

if TYPE_CHECKING:
    from collections.abc import Callable

    from .victim import Victim

PROTOCOL_ERROR = 1
TOGETHER = 50
"""Attackers at a time: fewer than the upgrades that may be under way."""


def header(kind: int, flags: int, stream_id: int, length: int, *, version: int = 0) -> bytes:
    return struct.pack(">BBHII", version, kind, flags, stream_id, length)


async def breach(victim: Victim, name: str, why: str, said: Callable[[Attacker], bytes]) -> None:
    """Break the protocol; see that the connection ends by a go-away that says so, for `why`."""
    async with upgraded(victim.address) as attacker:
        with suppress(anyio.BrokenResourceError):
            await attacker.send(said(attacker))
        last = await attacker.last_frame()
        assert last is not None, name
        assert (last.kind, last.length) == (GO_AWAY, PROTOCOL_ERROR), name
        ended = await victim.event(ConnectionEnded, attacker.peer_id)
        assert ended.remote is False, name
        assert why in ended.reason, name


# Noise records


def changed(records: list[bytes]) -> bytes:
    return records[0] + records[1][:-1] + bytes([records[1][-1] ^ 1]) + records[2]


def length_changed(records: list[bytes]) -> bytes:
    (length,) = LENGTH.unpack(records[0][:2])
    return LENGTH.pack(length - 1) + records[0][2:] + records[1]


RECORDS = {
    "changed": changed,
    "another length": length_changed,
    "reordered": lambda records: records[1] + records[0],
    "dropped": lambda records: records[0] + records[2],
    "repeated": lambda records: records[0] + records[0],
    "empty": lambda records: records[0] + b"\x00\x00" + records[1],
    "shorter than a tag": lambda records: records[0] + LENGTH.pack(15) + bytes(15),
    "oversized garbage": lambda _: LENGTH.pack(0xFFFF) + bytes(0xFFFF),
    "in the clear": lambda _: ping(SYN, 1) + bytes(1000),
}


async def test_records_that_do_not_authenticate():
    """All at once: the connections know nothing of each other."""

    def broken(make, attacker: Attacker) -> bytes:
        return make([attacker.sealed(ping(SYN, value)) for value in range(3)])

    async with attacked() as victim, anyio.create_task_group() as tasks:
        for name, make in RECORDS.items():
            why = "does not authenticate"
            tasks.start_soon(breach, victim, name, why, partial(broken, make))


async def test_a_record_that_is_cut_off():
    async with attacked() as victim, upgraded(victim.address) as attacker:
        await attacker.send(attacker.sealed(ping(SYN, 1))[:-1])
        await attacker.raw.send_eof()
        await attacker.read_to_end()
        ended = await victim.event(ConnectionEnded, attacker.peer_id)
        assert ended.remote is None
        assert "within a record" in ended.reason


async def test_an_end_without_a_word():
    async with attacked() as victim, upgraded(victim.address) as attacker:
        await attacker.agree(1, ECHO)
        await attacker.raw.send_eof()
        await attacker.read_to_end()
        assert (await victim.event(ConnectionEnded, attacker.peer_id)).remote is True


async def test_a_reset_of_the_path():
    async with attacked() as victim, upgraded(victim.address) as attacker:
        await attacker.agree(1, ECHO)
        attacker.break_off()
        assert (await victim.event(ConnectionEnded, attacker.peer_id)).remote is None


# Yamux frames

FRAMES = {
    "another version": (header(DATA, SYN, 1, 0, version=1), "yamux version 1"),
    "an unknown type": (header(4, 0, 0, 0), "frame type 4"),
    "the last type": (header(255, 0, 0, 0), "frame type 255"),
    "data for no stream": (data(0, b"x"), "stream 0"),
    "credit for no stream": (update(0, 1), "stream 0"),
    "a stream without number": (update(0, 0, SYN), "parity"),
    "the other side's parity": (update(2, 0, SYN), "parity"),
    "a stream opened twice": (update(1, 0, SYN) * 2, "open already"),
    "a stream opened again by data": (data(1, b"x", SYN) * 2, "open already"),
    "more than the window": (update(1, 0, SYN) + data(1, bytes(WINDOW + 1)), "credit for"),
    "more at once": (header(DATA, SYN, 1, WINDOW + 1), "credit for 262144"),
    "as much as there is": (header(DATA, SYN, 1, 0xFFFF_FFFF), "credit for 262144"),
    "after the end": (update(1, 0, SYN | FIN) + data(1, bytes(WINDOW + 1)), "credit for"),
    "a credit too large": (update(1, 0, SYN) + update(1, 0xFFFF_FFFF), "more than 2^32"),
    "credits that add up": (update(1, 2**31, SYN) + update(1, 2**31), "more than 2^32"),
    "a ping with no flag": (ping(0, 1), "ping with flags 0"),
    "a ping and a pong": (ping(SYN | ACK, 1), "ping with flags 3"),
    "a ping with all flags": (ping(0xFFFF, 1), "ping with flags 65535"),
    "zeros": (bytes(4096), "stream 0"),
    "ones": (b"\xff" * 4096, "yamux version 255"),
}


async def test_frames_that_break_the_protocol():
    async with attacked() as victim:
        async with anyio.create_task_group() as tasks:
            for name, (frames, why) in FRAMES.items():
                tasks.start_soon(breach, victim, name, why, partial(sealed, frames))
        assert victim.most_held <= 2 * WINDOW


def sealed(frames: bytes, attacker: Attacker) -> bytes:
    return attacker.sealed(frames)


async def test_data_beyond_what_was_granted():
    """No credit comes for what is echoed, so none comes back; the data goes on all the same."""

    async def go_on(attacker: Attacker) -> None:
        with suppress(anyio.BrokenResourceError):
            for _ in range(1000):
                await attacker.say(data(1, bytes(60_000)))

    async with attacked() as victim, upgraded(victim.address) as attacker:
        await attacker.agree(1, ECHO)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(go_on, attacker)
            last = await attacker.last_frame()
        assert (last.kind, last.length) == (GO_AWAY, PROTOCOL_ERROR)
        ended = await victim.event(ConnectionEnded, attacker.peer_id)
        assert "on stream 1, which has credit for" in ended.reason
        assert victim.most_held < 2**21


async def test_a_breach_after_honest_use():
    """What runs on the connection ends with it."""
    async with attacked() as victim, upgraded(victim.address) as attacker:
        for stream_id in range(1, 101, 2):
            await attacker.agree(stream_id, ECHO)
        await attacker.say(header(9, 0, 0, 0))
        last = await attacker.last_frame()
        assert (last.kind, last.length) == (GO_AWAY, PROTOCOL_ERROR)
        ended = await victim.event(ConnectionEnded, attacker.peer_id)
        assert "frame type 9" in ended.reason


HARMLESS = {
    "data for a stream that is not there": data(77, b"x"),
    "a reset of one": update(77, 5, RST),
    "an end of one": update(77, 0, FIN),
    "credit for one": update(77, 0xFFFF_FFFF),
    "an acknowledgement of one": update(4, 0, ACK),
    "a pong to no ping": ping(ACK, 12345),
    "unknown flags": update(1, 0, SYN | 0xFFF0),
    "an end twice": update(1, 0, SYN) + update(1, 0, FIN) * 2,
    "reset as it opens": update(1, 0, SYN | RST),
    "empty data": data(1, b"", SYN) + data(1, b""),
    "a stream above all": update(0xFFFF_FFFF, 0, SYN),
}


@pytest.mark.parametrize("name", HARMLESS)
async def test_frames_that_mean_nothing(name):
    """They cost the peer nothing: it may have been a race."""
    async with attacked() as victim, upgraded(victim.address) as attacker:
        await attacker.say(HARMLESS[name], ping(SYN, 7))
        await attacker.until(lambda frame: (frame.kind, frame.length) == (PING, 7))
        await attacker.agree(21, ECHO, b"still here")
        assert attacker.peer_id in [each.remote_peer for each in victim.node.connections]


async def test_a_body_of_four_gibibytes_for_nobody():
    """It is dropped as it comes; what is inside it does nothing."""
    async with attacked() as victim, upgraded(victim.address) as attacker:
        await attacker.say(header(DATA, 0, 77, 0xFFFF_FFFF))
        for _ in range(40):
            await attacker.say(bytes(100_000))
        connection = victim.connection_of(attacker.peer_id)
        await victim.until(lambda: connection.statistics().bytes_received > 4_000_000)
        assert victim.most_held < 70_000


async def test_a_header_that_never_ends():
    async with attacked() as victim, upgraded(victim.address) as attacker:
        await attacker.say(update(1, 0, SYN)[:11])
        await victim.echo()
        await attacker.say(update(1, 0, SYN)[11:], ping(SYN, 1))
        await attacker.until(lambda frame: (frame.kind, frame.length) == (PING, 1))


@pytest.mark.parametrize("code", [0, 1, 2, 77, 0xFFFF_FFFF])
async def test_a_go_away_of_any_code_is_the_peers_end(code):
    async with attacked() as victim, upgraded(victim.address) as attacker:
        await attacker.agree(1, ECHO)
        await attacker.say(go_away(code))
        # What is open may finish; then the connection ends.
        await attacker.say(data(1, b"", FIN))
        await attacker.until(lambda frame: frame.stream_id == 1 and frame.flags & FIN)
        await attacker.say(update(2, 0, RST))
        await attacker.read_to_end()
        assert (await victim.event(ConnectionEnded, attacker.peer_id)).remote is True


async def throw(victim: Victim, frames: bytes) -> None:
    """Send them; see that the connection lives up to the end or has one for a typed reason."""
    async with upgraded(victim.address) as attacker:
        await attacker.attempt(attacker.sealed(frames))
        await attacker.last_frame()
        ended = await victim.event(ConnectionEnded, attacker.peer_id)
        assert ended.reason.startswith("the connection was closed"), frames.hex()


async def test_random_frames(seed, scaled):
    chance = random.Random(seed)
    async with attacked() as victim:
        await throw_all(
            victim,
            [b"".join(random_frame(chance) for _ in range(40)) for _ in range(scaled(300))],
        )


def random_frame(chance: random.Random) -> bytes:
    kind = chance.choice([DATA, DATA, WINDOW_UPDATE, WINDOW_UPDATE, PING, GO_AWAY])
    if chance.random() < 0.01:
        kind = chance.randrange(256)
    flags = chance.choice([0, SYN, SYN, ACK, FIN, RST, SYN | FIN, SYN | RST, FIN | RST])
    flags = {PING: chance.choice([SYN, ACK]), GO_AWAY: 0}.get(kind, flags)
    stream_id = chance.choice([1, 3, 5, 7, 9, 11, 13, 2, 2 * chance.getrandbits(30) + 1])
    length = chance.choice([0, 1, 20, 300, chance.getrandbits(18)])
    body = chance.randbytes(length) if kind == DATA and length < 1000 else b""
    return header(kind, flags, stream_id, len(body) or length) + body


async def test_random_plaintext(seed, scaled):
    chance = random.Random(seed)
    sizes = [chance.choice([1, 13, 500, 70_000]) for _ in range(scaled(300))]
    async with attacked() as victim:
        await throw_all(victim, [chance.randbytes(size) for size in sizes])


async def throw_all(victim: Victim, attacks: list[bytes]) -> None:
    for start in range(0, len(attacks), TOGETHER):
        async with anyio.create_task_group() as tasks:
            for frames in attacks[start : start + TOGETHER]:
                tasks.start_soon(throw, victim, frames)
