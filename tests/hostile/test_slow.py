"""Peers that take their time: nobody gets more of it than the settings allow."""

from __future__ import annotations

import itertools
import struct
from contextlib import suppress

import anyio
import pytest
from anyio.abc import ByteStream
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from isthmus import Node, NodeConfig
from isthmus.node.events import ConnectionEnded
from isthmus.transports.multistream import HEADER
from isthmus.transports.noise.machine import NoiseSession
from isthmus.transports.noise.stream import SecureStream
from isthmus.transports.upgrade import UpgradeConfig
from isthmus.transports.yamux.config import YamuxConfig

from ..transports.yamux.frames import ACK, RST, SYN, data, ping, update
from .attacker import NOISE, connected, framed, line, proposal, upgraded
from .victim import ECHO, attacked

INBOUND_TIMEOUT = 0.3
"""Seconds that a stranger has for its upgrade."""
PENDING = 64
"""Upgrades under way at once."""
SLACK = 1.0
"""Seconds that a busy machine may add to a timeout."""
DRIP = 0.02
"""Seconds between two bytes of a stranger that sends them one by one."""

SLOW = UpgradeConfig(inbound_timeout=INBOUND_TIMEOUT, max_pending_inbound=PENDING)


async def silent(attacker) -> None:
    """Say nothing."""


async def half_a_frame(attacker) -> None:
    await attacker.send(NOISE[:7])


async def only_the_header(attacker) -> None:
    await attacker.send(line(HEADER))


async def only_noise(attacker) -> None:
    await attacker.propose()


async def half_a_first_message(attacker) -> None:
    await attacker.propose()
    await attacker.send(b"\x00\x20" + bytes(31))


async def no_third_message(attacker) -> None:
    await attacker.secure()


async def half_a_third_message(attacker) -> None:
    await attacker.send((await attacker.secure())[:-1])


async def no_muxer(attacker) -> None:
    await attacker.send(await attacker.secure(muxers=()))


async def half_a_muxer(attacker) -> None:
    await attacker.send(await attacker.secure(muxers=()))
    await attacker.say(proposal("/yamux/1.0.0")[:-1])


STAGES = [
    silent,
    half_a_frame,
    only_the_header,
    only_noise,
    half_a_first_message,
    no_third_message,
    half_a_third_message,
    no_muxer,
    half_a_muxer,
]


async def test_upgrades_that_stop_on_the_way():
    """At whichever stage: the time is for all of them together."""
    took = {}

    async def stop_at(stage) -> None:
        async with connected(victim.address) as attacker:
            started = anyio.current_time()
            await stage(attacker)
            await attacker.read_to_end()
            took[stage] = anyio.current_time() - started

    async with attacked(upgrade=SLOW) as victim:
        async with anyio.create_task_group() as tasks:
            for stage in STAGES:
                tasks.start_soon(stop_at, stage)
        await victim.settled()
        assert min(took.values()) > INBOUND_TIMEOUT / 2
        assert max(took.values()) < INBOUND_TIMEOUT + SLACK
        assert victim.listener.failed == len(STAGES)
        assert all(isinstance(error, TimeoutError) for error in victim.failed_upgrades)


async def test_bytes_one_by_one_gain_no_time():
    async with attacked(upgrade=SLOW) as victim:
        async with connected(victim.address) as attacker:
            started, sent, answer = anyio.current_time(), 0, None
            with anyio.fail_after(INBOUND_TIMEOUT + SLACK):
                while answer != b"":
                    await attacker.send(NOISE[sent : sent + 1])
                    sent += 1
                    with anyio.move_on_after(DRIP):
                        # Nothing comes but the end: no proposal is ever whole.
                        answer = await attacker._chunk()
                        assert answer in (b"", line(HEADER))
            assert anyio.current_time() - started > INBOUND_TIMEOUT / 2
            assert 1 < sent < len(NOISE)
        await victim.settled()
        assert isinstance(victim.failed_upgrades[0], TimeoutError)


async def test_more_strangers_than_may_wait():
    more = 9
    async with attacked(upgrade=SLOW) as victim, anyio.create_task_group() as tasks:

        async def wait() -> None:
            async with connected(victim.address) as attacker:
                await attacker.read_to_end()

        for _ in range(PENDING + more):
            tasks.start_soon(wait)
        await victim.until(lambda: victim.listener.refused == more)
        assert victim.listener.pending == PENDING
        # Who is connected is served; who comes now is not, and who comes afterwards is.
        await victim.echo()
        async with connected(victim.address) as late:
            assert await late.read_to_end() == b""
        assert victim.listener.refused == more + 1
        await victim.until(lambda: not victim.listener.pending)
        async with Node() as other:
            assert await other.request(victim.node.addresses, ECHO, b"in") == b"in"
        assert victim.listener.failed == PENDING


SAID = {
    "nothing": b"",
    "half a header": line(HEADER)[:9],
    "the header": line(HEADER),
    "half a proposal": proposal(ECHO)[:-2],
    "what is not served": proposal("/nothing/1"),
    "half a length": line(HEADER) + b"\x80",
}


@pytest.mark.parametrize("name", SAID)
async def test_streams_that_never_say_what_they_are_for(name):
    config = NodeConfig(negotiation_timeout=0.1)
    async with attacked(config=config) as victim, upgraded(victim.address) as attacker:
        await attacker.say(*(data(number, SAID[name], SYN) for number in range(1, 101, 2)))
        left = set(range(1, 101, 2))
        while left:
            frame = await attacker.until(lambda frame: frame.flags & RST)
            left.remove(frame.stream_id)
        connection = victim.connection_of(attacker.peer_id)
        assert [each for each in connection.machine.streams if each % 2] == []
        # The connection is as good as before.
        await attacker.agree(201, ECHO)


async def test_a_peer_that_gives_no_sign_of_life():
    yamux = YamuxConfig(keepalive_interval=0.1, keepalive_timeout=0.1)
    async with attacked(upgrade=UpgradeConfig(yamux=yamux)) as victim:
        async with upgraded(victim.address) as attacker:
            assert (await attacker.last_frame()).length == 2
            ended = await victim.event(ConnectionEnded, attacker.peer_id)
        assert ended.remote is False
        assert "silent" in ended.reason


async def test_a_peer_that_neither_reads_nor_stops():
    """It pays for its pings with data, so that no flood shows, and never reads a pong."""
    yamux = YamuxConfig(keepalive_interval=0.2, keepalive_timeout=0.2)
    async with attacked(upgrade=UpgradeConfig(yamux=yamux)) as victim:
        async with upgraded(victim.address) as attacker:
            with suppress(anyio.BrokenResourceError):
                while True:
                    await attacker.say((data(99, b"x") + ping(SYN, 1)) * 2000)
            ended = await victim.event(ConnectionEnded, attacker.peer_id)
        assert ended.remote is False
        assert "silent" in ended.reason
        assert victim.most_held < 2**20


async def test_an_identity_that_never_comes():
    """The node asks every new peer; here it waits for the answer in vain, and lets go."""
    async with attacked() as victim, upgraded(victim.address) as attacker:
        asked = await attacker.until(lambda frame: frame.flags & SYN and frame.stream_id == 2)
        await attacker.say(update(asked.stream_id, 0, ACK))
        await attacker.agree(1, ECHO)
        assert victim.node.peers.protocols(attacker.peer_id) is None


class EmptyRecords(ByteStream):
    """A byte stream that has one more empty record whenever it is asked, and never waits."""

    def __init__(self, key: bytes) -> None:
        self._encrypt = ChaCha20Poly1305(key).encrypt
        self._nonces = itertools.count()

    async def receive(self, max_bytes: int = 65536) -> bytes:
        return framed(self._encrypt(struct.pack("<4xQ", next(self._nonces)), b"", None))

    async def send(self, item: bytes) -> None:
        """Lose it."""

    async def send_eof(self) -> None:
        """Lose it."""

    async def aclose(self) -> None:
        """Hold nothing."""


async def test_empty_records_without_end_leave_others_their_turns():
    """However fast they come: else even the timeout of the upgrade would not be noticed."""
    key = bytes(32)
    stream = SecureStream(EmptyRecords(key), NoiseSession(key, key))
    with anyio.move_on_after(0.05) as scope:
        await stream.receive()
    assert scope.cancelled_caught
