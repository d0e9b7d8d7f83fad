"""Connections over memory and over loopback sockets: wake-ups, congestion, time."""

from __future__ import annotations

from contextlib import suppress

import anyio
import pytest
import trio.testing
from anyio.abc import SocketAttribute
from isthmus.transports.core.errors import ConnectionClosed, StreamReset
from isthmus.transports.core.interfaces import Priority, Side
from isthmus.transports.sockets import loop_clock
from isthmus.transports.testing.pair import open_pair, receive_all, receive_exactly
from isthmus.transports.yamux.control import MAX_CONTROL
from isthmus.transports.yamux.flow import NodeBudget

from . import frames
from .ends import BIG, connected, connection, raw_pair, with_raw_peer


@pytest.fixture(params=["memory", "tcp"])
def path(request):
    return request.param


# Wake-ups


async def test_a_send_larger_than_the_queue(path):
    async with connected(path) as ends:
        near, far = await open_pair(*ends)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(near.send, bytes(BIG))
            assert len(await receive_exactly(far, BIG)) == BIG


async def test_concurrent_senders_all_finish(path):
    async with connected(path) as ends:
        near, far = await open_pair(*ends)
        async with anyio.create_task_group() as tasks:
            for each in b"abcd":
                tasks.start_soon(near.send, bytes([each]) * (BIG // 4))
            data = await receive_exactly(far, BIG)
        assert all(data.count(each) == BIG // 4 for each in b"abcd")


async def test_an_answer_goes_out_at_once_and_what_follows_is_gathered():
    now = loop_clock()()
    async with connected("tcp", clock=lambda: now) as (near, far):
        asking, asked = await open_pair(far, near)
        for _ in range(3):
            await asking.send(b"?")
            assert await asked.receive() == b"?"
            before = near.statistics().bytes_sent
            await asked.send(b"a")
            after = near.statistics().bytes_sent
            assert after > before
            await asked.send(b"b")
            await asked.send(b"c")
            assert near.statistics().bytes_sent == after
            assert await receive_exactly(asking, 3) == b"abc"


async def test_the_rest_of_bulk_waits_for_more_whatever_comes_in_meanwhile():
    now = loop_clock()()
    async with connected("tcp", clock=lambda: now) as (near, far):
        bulk, read = await open_pair(near, far)
        hears, says = await open_pair(near, far)
        for end in (near, far) * 2:
            await end.probe()  # and what each side asks at the start is answered before
        await bulk.send(bytes(65_536))
        await receive_exactly(read, 65_436)
        for _ in range(3):
            await says.send(b"!")
            assert await hears.receive() == b"!"
        assert not read.statistics().bytes_unread
        now += 1
        assert len(await receive_exactly(read, 100)) == 100


async def test_data_before_run(path):
    near, far = await raw_pair(path)
    one, two = connection(near, Side.DIALER), connection(far, Side.LISTENER)
    stream = await one.open_stream()
    await stream.send(b"early")
    await stream.send_eof()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(one.run)
        tasks.start_soon(two.run)
        assert await receive_all(await two.accept_stream()) == b"early"
        await one.aclose()
        await two.aclose()


async def test_early_plaintext(path):
    """What came with the handshake's last message."""
    near, far = await raw_pair(path)
    end = connection(near, Side.DIALER, early=[frames.data(2, b"hi", frames.SYN | frames.FIN)])
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(end.run)
        assert await receive_all(await end.accept_stream()) == b"hi"
        await end.aclose()
        await far.aclose()


async def test_a_cancelled_accept_passes_the_stream_on(path):
    async with connected(path) as (near, far):
        got, scopes = [], [anyio.CancelScope() for _ in range(2)]

        async def accept(scope):
            with scope:
                got.append(await far.accept_stream())

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(accept, scopes[0])
            await anyio.wait_all_tasks_blocked()
            tasks.start_soon(accept, scopes[1])
            await anyio.wait_all_tasks_blocked()
            stream = await near.open_stream()
            await stream.send(b"x")
            far.dispatch([])
            scopes[0].cancel()
            with anyio.fail_after(2):
                while not got:
                    await anyio.lowlevel.checkpoint()
        scopes[1].cancel()
        assert len(got) == 1


async def test_a_waiter_cancelled_before_a_stream_comes(path):
    async with connected(path) as (near, far):
        with anyio.move_on_after(0.01):
            await far.accept_stream()
        await open_pair(near, far)


async def test_cancelled_calls_lose_nothing_and_leave_nothing(path):
    async with connected(path) as ends:
        near, far = await open_pair(*ends)
        for _ in range(3):
            with anyio.move_on_after(0.001):
                await far.receive()
        assert not far._readers
        await near.send(b"whole")
        assert await receive_exactly(far, 5) == b"whole"
        with anyio.move_on_after(0.05) as scope:
            await near.send(bytes(BIG))
        assert scope.cancelled_caught
        assert not near._writers


async def test_opening_waits_for_acknowledgements(path):
    async with with_raw_peer(path) as (end, _far, _session):
        limit = end.machine.config.max_unacknowledged
        streams = [await end.open_stream() for _ in range(limit)]
        opened = []

        async def open_one():
            opened.append(await end.open_stream())

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(open_one)
            await anyio.wait_all_tasks_blocked()
            assert not opened
            streams[0].reset()
        assert opened


async def test_opening_that_is_cancelled_leaves_nobody_waiting(path):
    async with with_raw_peer(path) as (end, _far, _session):
        for _ in range(end.machine.config.max_unacknowledged):
            await end.open_stream()
        for _ in range(3):
            with anyio.move_on_after(0.001):
                await end.open_stream()
        assert not end._open_waiters


async def test_probes_of_a_peer_that_never_answers_pile_up_nowhere(path):
    async with with_raw_peer(path) as (end, _far, _session):
        for _ in range(3):
            with anyio.move_on_after(0.001):
                await end.probe()
        assert not end._round_trips._waiting


# Congestion and budgets


async def test_a_peer_that_pings_and_never_reads(path):
    async with with_raw_peer(path) as (end, far, peer):
        most = 0
        pings = b"".join(frames.ping(frames.SYN, n) for n in range(1000))
        # Either the path is full, for nobody reads, or the flood was found out.
        with suppress(anyio.BrokenResourceError), anyio.move_on_after(1):
            while True:
                await far.send(peer.seal(pings))
                most = max(most, len(end.machine._control.frames))
        assert most <= 2 * MAX_CONTROL


async def test_what_a_full_queue_of_answers_held_up_goes_on_by_itself(path):
    """The peer sends once, and then only reads."""
    count = 5 * MAX_CONTROL
    pings = b"".join(frames.ping(frames.SYN, n) for n in range(count))
    async with with_raw_peer(path) as (end, far, peer):
        await far.send(peer.seal(pings + frames.data(2, b"after", frames.SYN)))
        answered: list[int] = []
        with anyio.fail_after(3):
            while len(answered) < count:
                for record in peer.receive_data(await far.receive()):
                    found = [each for each in frames.parse(record) if each.kind == frames.PING]
                    answered += [each.length for each in found if each.flags == frames.ACK]
            stream = await end.accept_stream()
            assert await stream.receive() == b"after"
        assert answered == list(range(count))


@pytest.mark.parametrize("more", [1, MAX_CONTROL - 1])
async def test_what_comes_after_a_full_queue_of_answers_is_answered(more: int, path):
    """Too few to hold anything up again, and data that waited for the credit among them."""
    count = 2 * MAX_CONTROL + more
    pings = [frames.ping(frames.SYN, n) for n in range(count)]
    async with with_raw_peer(path) as (end, far, peer):
        stream = await end.open_stream()
        await stream.send(bytes(frames.WINDOW + 8))
        received = answered = 0
        with anyio.fail_after(3):
            while received < frames.WINDOW + 8 or answered < count:
                for record in peer.receive_data(await far.receive()):
                    for each in frames.parse(record):
                        received += len(each.body)
                        answered += each.flags == frames.ACK and each.kind == frames.PING
                if received == frames.WINDOW and not answered:
                    await far.send(peer.seal(b"".join((*pings, frames.update(stream.id, 8)))))


async def until_nothing_moves(end):
    moved = None
    while moved != (moved := (end.statistics().bytes_sent, end.statistics().bytes_received)):
        for _ in range(20):
            await anyio.lowlevel.checkpoint()


async def test_reading_stops_while_the_peer_reads_no_answers_and_goes_on_when_it_does(path):
    count, size = 2 * MAX_CONTROL, 1 << 25
    pings = b"".join(frames.ping(frames.SYN, n) for n in range(count))
    async with with_raw_peer(path) as (end, far, peer), anyio.create_task_group() as tasks:
        stream = await end.open_stream()
        # More than all buffers on the way hold.
        tasks.start_soon(stream.send, bytes(size))
        await far.send(peer.seal(frames.update(1, 2 * size)))
        asked = 0
        while not end.machine.is_congested:
            assert asked < 5 * count
            await until_nothing_moves(end)
            await far.send(peer.seal(pings))
            asked += count
            await until_nothing_moves(end)
        before = end.statistics().bytes_received
        last = peer.seal(frames.data(1, b"last"))
        await far.send(last)
        await until_nothing_moves(end)
        assert end.statistics().bytes_received == before
        pongs = 0
        answer = b"\0\2\0\2\0\0\0\0"
        with anyio.fail_after(10):
            while pongs < asked or not stream.statistics().bytes_received:
                for record in peer.receive_data(await far.receive()):
                    pongs += record.count(answer)
            assert await stream.receive() == b"last"
        assert end.statistics().bytes_received == before + len(last)
        tasks.cancel_scope.cancel()


async def test_the_fattest_stream_of_the_fattest_connection_goes(path):
    budget = NodeBudget(150_000)
    async with connected(path, budget=budget) as one, connected(path, budget=budget) as two:
        ends = [await open_pair(far, near) for near, far in (one, two)]
        await ends[0][0].send(bytes(100_000))
        with anyio.fail_after(3):
            while ends[0][1].statistics().bytes_unread < 100_000:
                await anyio.lowlevel.checkpoint()
        await ends[1][0].send(bytes(60_000))
        assert len(await receive_exactly(ends[1][1], 60_000)) == 60_000
        with pytest.raises(StreamReset):
            await ends[0][1].receive()
        with pytest.raises(StreamReset):
            await ends[0][0].receive()
    assert budget.used == 0


# Time and counters


async def test_probe_and_statistics(path):
    async with connected(path) as (near, far):
        assert await near.probe() >= 0
        assert await near.probe() >= 0
        one, _two = await open_pair(near, far)
        seen = near.statistics()
        assert seen.data_channels_opened == 1
        assert seen.data_channels_closed == 0
        assert seen.bytes_sent > 0
        assert seen.bytes_received > 0
        assert seen.round_trip_time is not None
        assert seen.jitter is not None
        assert one.statistics().bytes_sent == 1
        assert "stream" in repr(one)
        known = {SocketAttribute.local_address} if path == "tcp" else set()
        assert set(one.extra_attributes) == known


async def test_a_probe_ends_with_the_connection(path):
    async with with_raw_peer(path) as (end, far, _session), anyio.create_task_group() as tasks:

        async def probe():
            with pytest.raises(ConnectionClosed):
                await end.probe()

        tasks.start_soon(probe)
        await anyio.wait_all_tasks_blocked()
        await far.aclose()


async def test_an_accepted_stream_is_acknowledged_without_data(path):
    async with connected(path) as (near, far):
        stream = await near.open_stream()
        await stream.send(b"x")
        await far.accept_stream()
        with anyio.fail_after(1):
            while not stream.state.acked:
                await anyio.lowlevel.checkpoint()


def test_keep_alive_on_a_virtual_clock():
    """A silent peer is given up after 40 s; one that answers is kept for an hour."""

    async def silent():
        begun = anyio.current_time()
        async with with_raw_peer("memory") as (end, _far, _session):
            assert (await end.wait_closed()).remote is False
            assert 30 <= anyio.current_time() - begun <= 60

    async def alive():
        async with connected("memory") as (near, far):
            await anyio.sleep(3600)  # virtual
            await open_pair(near, far)

    for case in (silent, alive):
        clock = trio.testing.MockClock(autojump_threshold=0)
        anyio.run(case, backend="trio", backend_options={"clock": clock})


async def test_a_priority_may_change(path):
    async with connected(path) as ends:
        near, far = await open_pair(*ends)
        near.priority = Priority.HIGH
        assert near.priority is Priority.HIGH
        await near.send(b"x")
        assert await far.receive() == b"x"
