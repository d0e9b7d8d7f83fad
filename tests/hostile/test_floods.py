"""Too much of what is allowed: cut off or held back, in bounded memory, and all others served."""

from __future__ import annotations

import socket
import struct
import tracemalloc
from contextlib import AsyncExitStack, suppress
from typing import TYPE_CHECKING

import anyio
import pytest
from isthmus import Node, NodeConfig
from isthmus.node.events import ConnectionEnded
from isthmus.node.protocols.perf import PERF_PROTOCOL
from isthmus.transports.yamux.config import YamuxConfig

from ..transports.yamux.frames import (
    ACK,
    FIN,
    GO_AWAY,
    RST,
    SYN,
    WINDOW,
    data,
    go_away,
    ping,
    update,
)
from .attacker import PATIENCE, fill, proposal, upgraded
from .victim import ECHO, LOOPBACK, MAX_LEAVING, attacked

if TYPE_CHECKING:
    from collections.abc import Iterator

    from isthmus.transports.yamux.machine import YamuxMachine

    from .attacker import Attacker
    from .victim import Victim

PROTOCOL_ERROR = 1
EVERYTHING = 2**63
"""Bytes of a download that never ends."""
CREDIT = 2**32 - 1 - WINDOW
"""The most that a peer may be granted."""

NO_IDENTITY = update(2, 0, RST)
"""Ends the stream on which the victim asks who this is, and which would else stay for a while."""
BACKLOG = 120
"""Connections that any kernel holds until they are accepted; more than may be upgraded at once."""
ABANDONED = 10_000
"""Streams opened and left alone, at full scale."""
PACE = 100
"""Streams opened at a time where each is to be accepted: fewer than may wait for that."""
BURST = 500
"""Frames in one record of a flood."""


def numbers() -> Iterator[int]:
    """Yield stream ids, without end."""
    number = 1
    while True:
        yield number
        number += 2


async def flood(attacker: Attacker, frames, *, most: int = 20_000) -> int:
    """Send bursts until the victim closes; return how many frames were taken."""
    sent = 0
    with suppress(anyio.BrokenResourceError):
        while sent < most:
            await attacker.say(*(next(frames) for _ in range(BURST)))
            sent += BURST
    return sent


def same(frame: bytes) -> Iterator[bytes]:
    while True:
        yield frame


def rapid_resets() -> Iterator[bytes]:
    for number in numbers():
        yield update(number, 0, SYN) + update(number, 0, RST)


def rapid_resets_by_data() -> Iterator[bytes]:
    for number in numbers():
        yield data(number, proposal(ECHO) + b"x", SYN) + update(number, 0, RST)


FLOODS = {
    "pings": (lambda: same(ping(SYN, 9)), "floods"),
    "pongs": (lambda: same(ping(ACK, 9)), "floods"),
    "credit": (lambda: same(update(1, 1)), "floods"),
    "credit for nobody": (lambda: same(update(7, 1)), "floods"),
    "no credit": (lambda: same(update(1, 0)), "floods"),
    "empty data": (lambda: same(data(1)), "floods"),
    "rapid reset": (rapid_resets, "too fast"),
    "rapid reset of served streams": (rapid_resets_by_data, "too fast"),
}


async def test_floods_are_cut_off():
    """All at once, each on a connection of its own."""
    async with attacked() as victim:
        async with anyio.create_task_group() as tasks:
            for name in FLOODS:
                tasks.start_soon(cut_off, victim, name)
        assert victim.most_held < 2**18


async def cut_off(victim: Victim, name: str) -> None:
    make, why = FLOODS[name]
    async with upgraded(victim.address) as attacker:
        await attacker.agree(1, ECHO)
        frames = make()
        next(frames)  # stream 1 is taken
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(flood, attacker, frames)
            last = await attacker.last_frame()
        assert (last.kind, last.length) == (GO_AWAY, PROTOCOL_ERROR), name
        ended = await victim.event(ConnectionEnded, attacker.peer_id)
        assert ended.remote is False, name
        assert why in ended.reason, name


def half_closed() -> Iterator[bytes]:
    for number in numbers():
        yield update(number, 0, SYN | FIN)


def never_more() -> Iterator[bytes]:
    for number in numbers():
        yield update(number, 0, SYN)


TIRESOME = {
    "acknowledgements": lambda: same(update(1, 0, ACK)),
    "ends of nothing": lambda: same(update(77, 0, FIN)),
    "resets of nothing": lambda: same(update(77, 0, RST)),
    "data for nobody": lambda: same(data(77, b"x")),
    "paid pings": lambda: same(ping(SYN, 1) + data(77, b"x")),
    "single bytes": lambda: same(data(1, b"x")),
    "streams without a word": half_closed,
    "streams beyond the limit": never_more,
}


@pytest.mark.parametrize("name", TIRESOME)
async def test_a_flood_that_is_borne(name, scaled):
    """What costs no more than it costs the peer is served, in turn with everybody else."""
    async with attacked() as victim, upgraded(victim.address) as attacker:
        await attacker.agree(1, ECHO)
        frames = TIRESOME[name]()
        next(frames)
        async with anyio.create_task_group() as tasks:

            async def read() -> None:
                await attacker.last_frame()

            tasks.start_soon(read)
            await flood(attacker, frames, most=scaled(50_000))
            tasks.cancel_scope.cancel()
        assert victim.most_held < 2**20


async def test_a_flood_of_go_aways():
    async with attacked() as victim, upgraded(victim.address) as attacker:
        await attacker.say(NO_IDENTITY)
        await flood(attacker, same(go_away(0)))
        assert (await victim.event(ConnectionEnded, attacker.peer_id)).remote is True


async def test_a_flood_of_connections():
    """Each that comes in has its turn before the next: none is refused for want of room."""
    async with attacked() as victim:
        strangers = []
        for _ in range(BACKLOG):
            stranger = socket.socket()
            stranger.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            stranger.connect(("127.0.0.1", victim.address.port))
            strangers.append(stranger)
        for stranger in strangers:
            stranger.close()
        await victim.until(lambda: victim.listener.failed + victim.listener.refused == BACKLOG)
        assert victim.listener.refused == 0


# Streams opened and abandoned


async def test_streams_opened_and_abandoned(scaled):
    """Those that say nothing are reset in time, those beyond the limit at once."""
    count = scaled(ABANDONED)
    config = NodeConfig(negotiation_timeout=0.3)
    async with attacked(config=config) as victim, upgraded(victim.address) as attacker:
        left = {number for number, _ in zip(numbers(), range(count), strict=False)}
        opened = sorted(left)

        async def open_them() -> None:
            for start in range(0, count, BURST):
                burst = opened[start : start + BURST]
                await attacker.say(*(update(number, 0, SYN) for number in burst))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(open_them)
            while left:
                frame = await attacker.until(lambda frame: frame.flags & RST)
                left.remove(frame.stream_id)
        # The connection has as much room as before.
        await attacker.agree(2 * count + 1, ECHO)
        machine = victim.connection_of(attacker.peer_id).machine
        assert [number for number in machine.streams if number % 2] == [2 * count + 1]


async def test_streams_agreed_and_abandoned(scaled):
    """Their handlers wait as long as the connection stands, up to its limit of streams."""
    count, limit = scaled(ABANDONED), YamuxConfig().max_inbound_streams
    async with attacked() as victim, upgraded(victim.address) as attacker:
        refused = 0

        async def count_refused() -> None:
            nonlocal refused
            while (frame := await attacker.frame()) is not None:
                refused += bool(frame.flags & RST)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(count_refused)
            machine = victim.connection_of(attacker.peer_id).machine
            for number in range(count):
                await attacker.say(data(2 * number + 1, proposal(ECHO) + b"x", SYN))
                if number % PACE == PACE - 1 or number == count - 1:
                    # No faster than they are accepted: those would be refused already for that.
                    await victim.until(
                        lambda: answered(machine) == number + 1 and not machine._backlog  # noqa: B023
                    )
            assert inbound(machine) == min(limit, count)
            await victim.until(lambda: refused == count - inbound(machine))
            tasks.cancel_scope.cancel()
    # `attacked` sees that nothing of it is left when the attacker is gone.


def answered(machine: YamuxMachine) -> int:
    return machine.streams_refused + inbound(machine)


def inbound(machine: YamuxMachine) -> int:
    """How many streams of the attacker's are open."""
    return sum(number % 2 for number in machine.streams)


# Peers that stop reading


def growth(before: int) -> int:
    """Bytes that Python holds more than `before`."""
    return tracemalloc.get_traced_memory()[0] - before


@pytest.fixture
def traced() -> Iterator[None]:
    tracemalloc.start()
    yield
    tracemalloc.stop()


@pytest.mark.usefixtures("traced")
@pytest.mark.parametrize("streams", [1, 20])
async def test_a_download_that_is_not_read(streams):
    """All the credit there is, and the socket never emptied."""
    async with attacked() as victim, upgraded(victim.address) as attacker:
        before = tracemalloc.get_traced_memory()[0]
        await attacker.say(NO_IDENTITY)
        for number in range(1, 2 * streams, 2):
            await attacker.say(*download(number))
        connection = victim.connection_of(attacker.peer_id)
        await victim.until(lambda: connection._unsent is not None)
        await victim.until(lambda: connection.machine.queued >= streams * WINDOW // 2)
        sent = connection.statistics().bytes_sent
        for _ in range(20):
            await victim.echo()
        # No more is taken in hand than what the socket takes, and what waits for it.
        assert connection.statistics().bytes_sent - sent < 2**20
        assert victim.most_held <= streams * WINDOW + 70_000
        assert growth(before) < 2 * streams * WINDOW + 2**21


async def test_a_download_without_credit():
    """Here the socket is read, but no window is ever opened."""
    async with attacked() as victim, upgraded(victim.address) as attacker:
        await attacker.say(*download(1, credit=0))
        received = 0
        while received < WINDOW:
            received += len((await attacker.until(lambda frame: frame.stream_id == 1)).body)
        assert received == WINDOW
        await victim.echo()
        assert victim.connection_of(attacker.peer_id).machine.queued <= WINDOW


@pytest.mark.usefixtures("traced")
async def test_an_upload_that_is_not_taken_back():
    """The echo of it waits on this side: a window and a queue for each stream, and no more."""
    streams = 20
    async with attacked() as victim, upgraded(victim.address) as attacker:
        before = tracemalloc.get_traced_memory()[0]
        connection = victim.connection_of(attacker.peer_id)
        for number in range(1, 2 * streams, 2):
            await attacker.agree(number, ECHO)
            await fill(victim, attacker, connection.machine.streams[number])
        assert victim.most_held <= 2 * streams * WINDOW + 70_000
        assert growth(before) < 3 * streams * WINDOW + 2**21


async def test_a_peer_that_stops_reading_does_not_hold_up_the_end():
    node = Node(listen=LOOPBACK, config=NodeConfig(serve_perf=True))
    async with AsyncExitStack() as attackers:
        async with node:
            attacker = await attackers.enter_async_context(upgraded(node.addresses[0]))
            await attacker.say(NO_IDENTITY, *download(1))
            (connection,) = node.connections
            with anyio.fail_after(PATIENCE):
                while connection._unsent is None:
                    await anyio.lowlevel.checkpoint()
            started = anyio.current_time()
        assert anyio.current_time() - started < MAX_LEAVING
        assert (await connection.wait_closed()).remote is False


def download(stream_id: int, credit: int = CREDIT) -> tuple[bytes, ...]:
    """Frames that ask for a download that never ends, and grant this much credit."""
    asked = proposal(PERF_PROTOCOL) + EVERYTHING.to_bytes(8, "big")
    return data(stream_id, asked, SYN), update(stream_id, credit, FIN)
