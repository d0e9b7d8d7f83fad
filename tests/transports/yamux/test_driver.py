"""Connections over memory and over loopback sockets: wake-ups, closing, congestion, time."""

from __future__ import annotations

import socket
import struct
from contextlib import asynccontextmanager, suppress

import anyio
import pytest
import trio.testing
from isthmus.transports.core.errors import ConnectionClosed, StreamReset, unwrap_group
from isthmus.transports.core.interfaces import ChannelBinding, Priority, Side
from isthmus.transports.core.multiaddr import Multiaddr
from isthmus.transports.memory.network import MemoryNetwork
from isthmus.transports.memory.stream import MemoryTransport
from isthmus.transports.noise.machine import NoiseSession
from isthmus.transports.sockets import SocketStream, loop_clock
from isthmus.transports.testing.pair import TestHost, open_pair, receive_all, receive_exactly
from isthmus.transports.yamux.driver import YamuxConnection
from isthmus.transports.yamux.flow import NodeBudget
from isthmus.transports.yamux.machine import MAX_CONTROL, YamuxMachine

from . import frames

ADDR = Multiaddr.parse("/memory/1")
KEYS = b"a" * 32, b"b" * 32
BIG = 3 << 20
UVLOOP = ("asyncio", {"use_uvloop": True})


def tcp_pair():
    with socket.create_server(("127.0.0.1", 0)) as server:
        near = socket.create_connection(server.getsockname())
        far, _ = server.accept()
    for each in (near, far):
        each.setblocking(False)
    return SocketStream(near), SocketStream(far)


async def memory_pair():
    transport = MemoryTransport(MemoryNetwork())
    listener = await transport.listen_raw(ADDR)
    accepted = []

    async def accept(stream, _addr):
        accepted.append(stream)
        await listener.aclose()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, accept)
        near = await transport.dial_raw(ADDR)
    return near, accepted[0]


async def raw_pair(path):
    return tcp_pair() if path == "tcp" else await memory_pair()


def session(side):
    send, receive = KEYS if side is Side.DIALER else KEYS[::-1]
    return NoiseSession(send, receive)


def connection(raw, side, *, budget=None, early=(), clock=None):
    clock = clock or loop_clock()
    return YamuxConnection(
        raw,
        session(side),
        YamuxMachine(side, clock(), budget=budget),
        remote_peer=TestHost().peer_id,
        remote_addr=ADDR,
        channel_binding=ChannelBinding("noise", b"x"),
        clock=clock,
        early=early,
        budget=budget,
    )


@asynccontextmanager
async def connected(path, **options):
    """Two running ends."""
    near, far = await raw_pair(path)
    ends = connection(near, Side.DIALER, **options), connection(far, Side.LISTENER)
    with unwrap_group():
        async with anyio.create_task_group() as tasks:
            for end in ends:
                tasks.start_soon(end.run)
            yield ends
            for end in ends:
                await end.aclose()


@asynccontextmanager
async def with_raw_peer(path, **options):
    """A running dialer, its peer's byte stream, and the peer's session."""
    near, far = await raw_pair(path)
    end = connection(near, Side.DIALER, **options)
    with unwrap_group():
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(end.run)
            yield end, far, session(Side.LISTENER)
            await end.aclose()
            await far.aclose()


def reset(stream):
    stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    stream.close()


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


# The end


async def test_aclose_flushes_and_says_go_away(path):
    async with connected(path) as (near, far):
        await far.probe()  # both run
        stream = await near.open_stream()
        await stream.send(bytes(200_000))
        await stream.send_eof()
        await near.aclose()
        await near.aclose()
        accepted = await far.accept_stream()
        assert len(await receive_all(accepted)) == 200_000
        closed = await far.wait_closed()
        assert closed.remote is True
        assert closed.code == 0
        for end in (near, far):
            with pytest.raises(ConnectionClosed):
                await end.open_stream()
            with pytest.raises(ConnectionClosed):
                await end.accept_stream()
            with pytest.raises(ConnectionClosed):
                await end.probe()
            with pytest.raises(ConnectionClosed):
                await end.accept_pipe()
            assert await end.open_pipe("x") is None


async def test_the_last_words_reach_a_peer_that_still_sends():
    """A socket closed over unread bytes would reset the path, and the go-away be lost."""
    near, far = tcp_pair()
    end, peer = connection(near, Side.DIALER), session(Side.LISTENER)
    received = bytearray()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(end.run)
        await anyio.wait_all_tasks_blocked()
        await end.aclose()
        # More than the kernel holds: it must be read, although the connection has ended.
        for _ in range(200):
            await far.send(peer.seal(frames.data(1, bytes(60_000))))
        with suppress(anyio.EndOfStream):
            while True:
                received += await far.receive()
        await far.aclose()
    assert b"".join(peer.receive_data(received)).endswith(frames.go_away(0))


async def test_cancelling_a_connection_takes_no_time_and_still_says_go_away():
    near, far = tcp_pair()
    end, peer = connection(near, Side.DIALER), session(Side.LISTENER)
    received = bytearray()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(end.run)
        await anyio.wait_all_tasks_blocked()
        with anyio.CancelScope() as scope:
            scope.cancel()
            await end.aclose()
        begun = anyio.current_time()
        tasks.cancel_scope.cancel()
    assert anyio.current_time() - begun < 0.5
    with suppress(anyio.EndOfStream):
        while True:
            received += await far.receive()
    assert b"".join(peer.receive_data(received)).endswith(frames.go_away(0))
    await far.aclose()


async def test_aclose_gives_up_after_a_second(path):
    async with with_raw_peer(path) as (end, _far, _session):
        stream = await end.open_stream()
        with anyio.move_on_after(0.05):
            await stream.send(bytes(BIG))
        begun = anyio.current_time()
        await end.aclose()
        assert 0.9 < anyio.current_time() - begun < 3


async def test_aclose_when_cancelled_closes_at_once(path):
    async with with_raw_peer(path) as (end, _far, _session):
        stream = await end.open_stream()
        with anyio.move_on_after(0.05):
            await stream.send(bytes(BIG))
        await anyio.aclose_forcefully(end)
        assert (await end.wait_closed()).remote is False


async def test_aclose_without_run(path):
    near, far = await raw_pair(path)
    end = connection(near, Side.DIALER)
    await end.aclose()
    await end.aclose()
    with pytest.raises(anyio.EndOfStream):  # noqa: PT012
        while await far.receive():
            pass
    with anyio.fail_after(2):
        await end.run()
    await far.aclose()


async def test_cancelling_run_ends_the_connection(path):
    near, far = await raw_pair(path)
    end = connection(near, Side.DIALER)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(end.run)
        await anyio.wait_all_tasks_blocked()
        tasks.cancel_scope.cancel()
    assert (await end.wait_closed()).remote is False
    with pytest.raises(anyio.ClosedResourceError):
        await near.receive()
    await far.aclose()


async def test_drain_waits_for_the_last_stream(path):
    async with connected(path) as (near, far):
        one, two = await open_pair(near, far)
        near.drain()
        with pytest.raises(ConnectionClosed):
            await near.open_stream()
        await one.send(b"last")
        await one.send_eof()
        assert await receive_exactly(two, 4) == b"last"
        await two.send_eof()
        with pytest.raises(anyio.EndOfStream):
            await one.receive()
        assert (await near.wait_closed()).code is None
        await far.wait_closed()


async def test_a_go_away_received_drains(path):
    async with with_raw_peer(path) as (end, far, peer):
        stream = await end.open_stream()
        await stream.send(b"x")
        await far.send(peer.seal(frames.go_away(0) + frames.data(1, b"y", frames.ACK)))
        assert await stream.receive() == b"y"
        with pytest.raises(ConnectionClosed) as caught:
            await end.open_stream()
        assert caught.value.remote
        await far.send(peer.seal(frames.data(1, b"", frames.FIN)))
        await stream.send_eof()
        closed = await end.wait_closed()
        assert closed.remote
        assert closed.code == 0


async def test_an_end_inside_a_record(path):
    async with with_raw_peer(path) as (end, far, peer):
        await far.send(peer.seal(frames.ping(frames.SYN, 1))[:-1])
        await far.aclose()
        closed = await end.wait_closed()
        assert closed.remote is None
        assert closed.cause is not None


@pytest.mark.parametrize("wire", [b"\x00\x14" + bytes(20), None])
async def test_a_breach_is_answered_by_a_go_away(path, wire):
    async with with_raw_peer(path) as (end, far, peer):
        stream = await end.open_stream()
        await far.send(wire or peer.seal(b"\xff" * 12))
        closed = await end.wait_closed()
        assert closed.remote is False
        assert closed.code == 1
        with pytest.raises(StreamReset):
            await stream.receive()
        plaintext = b""
        with pytest.raises((anyio.EndOfStream, anyio.BrokenResourceError)):  # noqa: PT012
            while True:
                plaintext += b"".join(peer.receive_data(await far.receive()))
        assert frames.parse(plaintext)[-1] == frames.Frame(frames.GO_AWAY, 0, 0, 1)


async def reset_case(*, is_writing):
    near, far = tcp_pair()
    end = connection(near, Side.DIALER)
    caught = []
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(end.run)
        stream = await end.open_stream()

        async def use():
            with pytest.raises(StreamReset):
                await (stream.send(bytes(64 << 20)) if is_writing else stream.receive())
            caught.append(1)

        tasks.start_soon(use)
        await anyio.wait_all_tasks_blocked()
        reset(far)
        with anyio.fail_after(3):
            assert (await end.wait_closed()).remote is None
    assert caught


@pytest.mark.parametrize("is_writing", [False, True])
async def test_a_reset(is_writing):
    await reset_case(is_writing=is_writing)


@pytest.mark.parametrize("is_writing", [False, True])
def test_a_reset_on_uvloop(is_writing):
    anyio.run(
        lambda: reset_case(is_writing=is_writing),
        backend=UVLOOP[0],
        backend_options=UVLOOP[1],
    )


async def test_a_write_error_loses_nothing_that_was_finished():
    """An answer and a reset wait in the kernel, and the next thing done is a send."""
    near, far = tcp_pair()
    end, peer = connection(near, Side.DIALER), session(Side.LISTENER)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(end.run)
        stream = await end.open_stream()
        await stream.send(b"question")
        await anyio.wait_all_tasks_blocked()
        # The loop does not run from here on until the send, which fails: the question is unread,
        # so closing resets.
        far.send_nowait(peer.seal(frames.data(1, b"answer", frames.ACK | frames.FIN)))
        far.close()
        await stream.send(bytes(100_000))
        assert await receive_all(stream) == b"answer"
        assert (await end.wait_closed()).remote is not False


# Congestion and budgets


async def test_a_peer_that_pings_and_never_reads(path):
    async with with_raw_peer(path) as (end, far, peer):
        most = 0
        pings = b"".join(frames.ping(frames.SYN, n) for n in range(1000))
        # Either the path is full, for nobody reads, or the flood was found out.
        with suppress(anyio.BrokenResourceError), anyio.move_on_after(1):
            while True:
                await far.send(peer.seal(pings))
                most = max(most, len(end.machine._control))
        assert most <= 2 * MAX_CONTROL


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
        assert dict(one.extra_attributes) == {}


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
