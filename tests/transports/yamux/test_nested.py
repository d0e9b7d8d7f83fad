"""A stream as the path of another connection: what arrives, what ends, and who waits for whom."""

from __future__ import annotations

from contextlib import asynccontextmanager

import anyio
import pytest
from isthmus.transports.core.errors import StreamReset
from isthmus.transports.multistream import LazyDialer
from isthmus.transports.testing.pair import open_pair, receive_exactly
from isthmus.transports.yamux.flow import SEND_QUEUE
from isthmus.transports.yamux.nested import FRAME, FastWay
from isthmus.transports.yamux.wire import INITIAL_WINDOW

from . import frames
from .ends import connected, with_raw_peer

PATIENCE = 10
"""Seconds that nothing here takes."""


class Taker:
    """What a handler is given, and until when it wants more."""

    def __init__(self, enough: float = float("inf")) -> None:
        self.enough = enough
        self.chunks: list[bytes] = []
        self._news = anyio.Event()

    def __call__(self, data: memoryview) -> bool:
        self.chunks.append(bytes(data))
        self._news.set()
        return self.size < self.enough

    @property
    def size(self) -> int:
        return sum(map(len, self.chunks))

    async def wait_for(self, size: int) -> None:
        while self.size < size:
            self._news = anyio.Event()
            await self._news.wait()


@asynccontextmanager
async def ways():
    """Both ends of a stream, its fast ways, and a task group for those who read."""
    async with connected("tcp") as ends:
        near, far = await open_pair(*ends)
        with anyio.fail_after(PATIENCE):
            async with anyio.create_task_group() as tasks:
                yield near, far, FastWay(near), FastWay(far), tasks
                tasks.cancel_scope.cancel()


async def send_all(way: FastWay, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        if not (sent := way.send_nowait(rest[:FRAME])):
            await way.wait_writable()
        rest = rest[sent:]


# What arrives


async def test_what_is_sent_at_a_time_arrives_in_one_piece():
    async with ways() as (_, _, sending, receiving, tasks):
        taker = Taker()
        tasks.start_soon(receiving.receive_each, taker)
        pieces = [bytes([number]) * FRAME for number in range(40)]
        for piece in pieces:
            while not sending.send_nowait(piece):
                await sending.wait_writable()
        await taker.wait_for(40 * FRAME)
        # Only where the credit ends a frame has to be cut.
        whole = [chunk for chunk in taker.chunks if len(chunk) == FRAME]
        assert b"".join(taker.chunks) == b"".join(pieces)
        assert len(whole) >= 35


async def test_it_is_handed_on_in_the_turn_in_which_it_arrives():
    async with ways() as (near, far, _, receiving, tasks):
        taker = Taker()
        tasks.start_soon(receiving.receive_each, taker)
        await anyio.wait_all_tasks_blocked()
        seen = []
        take = far.connection._take

        def watched(records):
            take(records)
            seen.append(taker.size)

        far.connection._take = watched
        await near.send(b"hello")
        await taker.wait_for(5)
        assert next(filter(None, seen)) == 5


async def test_single_bytes_of_one_chunk_are_gathered():
    async with with_raw_peer("tcp") as (end, _far, session):
        stream = await end.open_stream()
        await stream.send(b"!")
        taker = Taker()
        with anyio.fail_after(PATIENCE):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(FastWay(stream).receive_each, taker)
                await anyio.wait_all_tasks_blocked()
                # What one read finds in the socket, as many small records as it holds.
                chunk = b"".join(session.seal(frames.data(stream.id, b"x")) for _ in range(1000))
                end._receive(chunk)
                assert b"".join(taker.chunks) == b"x" * 1000
                assert len(taker.chunks) <= 2
                tasks.cancel_scope.cancel()


async def test_a_queue_takes_a_piece_whole_or_not_at_all():
    async with ways() as (near, far, sending, _, tasks):
        piece = bytes(FRAME)
        # Without a reader the credit ends first, then the queue is full.
        taken = 0
        while sent := sending.send_nowait(piece):
            assert sent == FRAME
            taken += sent
        assert INITIAL_WINDOW < taken < INITIAL_WINDOW + SEND_QUEUE + 2 * FRAME
        assert near.state.queued < SEND_QUEUE + FRAME
        tasks.start_soon(receive_exactly, far, taken)
        await sending.wait_writable()
        assert sending.send_nowait(piece) == FRAME


async def test_a_handler_that_has_enough_is_given_no_more_until_it_asks_again():
    async with ways() as (near, _, _, receiving, tasks):
        data = bytes(range(256)) * 4000
        tasks.start_soon(near.send, data)
        taken = b""
        while len(taken) < len(data):
            taker = Taker(enough=1)
            assert await receiving.receive_each(taker, lambda: 1000)
            (chunk,) = taker.chunks
            assert 0 < len(chunk) <= 1000
            taken += chunk
        assert taken == data


async def test_the_plain_way_goes_on_where_the_fast_one_was_left():
    async with ways() as (near, far, _, receiving, _tasks):
        data = bytes(range(256)) * 100
        await near.send(data)
        taker = Taker(enough=1)
        await receiving.receive_each(taker, lambda: 300)
        assert await receive_exactly(far, 700) == data[300:1000]
        with anyio.move_on_after(0):
            await receiving.receive_each(taker)
        rest = len(data) - 1000 - (taker.size - 300)
        if rest:
            taker.chunks.append(await receive_exactly(far, rest))
        assert b"".join(taker.chunks) == data[:300] + data[1000:]
        await near.send(b"more")
        assert await receive_exactly(far, 4) == b"more"


async def test_who_pauses_is_given_nothing_and_grants_no_credit():
    async with ways() as (_near, far, sending, receiving, tasks):
        taker = Taker()
        tasks.start_soon(receiving.receive_each, taker)
        await send_all(sending, bytes(FRAME))
        await taker.wait_for(FRAME)
        receiving.pause()
        tasks.start_soon(send_all, sending, bytes(8 * INITIAL_WINDOW))
        while len(far.state.received) < INITIAL_WINDOW - FRAME - 1:
            await anyio.lowlevel.checkpoint()
        await anyio.wait_all_tasks_blocked()
        assert taker.size == FRAME
        assert len(far.state.received) <= far.state.window
        receiving.resume()
        receiving.resume()
        await taker.wait_for(FRAME + 8 * INITIAL_WINDOW)


async def test_a_negotiation_may_ride_on_the_first_bytes():
    async with connected("tcp") as (near, far):
        with anyio.fail_after(PATIENCE):
            stream = await near.open_stream()
            stream.begin(LazyDialer("/isthmus/test/1"))
            asked = await far.accept_stream()
            hello = b"\x13/multistream/1.0.0\n\x10/isthmus/test/1\n"
            assert await receive_exactly(asked, len(hello)) == hello
            await asked.send(hello + b"and bytes")
            taker = Taker(enough=9)
            assert await FastWay(stream).receive_each(taker)
            assert b"".join(taker.chunks) == b"and bytes"


# How it ends


async def test_the_end_comes_after_the_last_bytes():
    async with ways() as (_, _, sending, receiving, _tasks):
        taker = Taker()
        await send_all(sending, b"the last")
        sending.end_sending()
        assert not await receiving.receive_each(taker)
        assert taker.chunks == [b"the last"]
        assert not await receiving.receive_each(taker)
        with pytest.raises(anyio.ClosedResourceError):
            sending.send_nowait(b"more")


async def test_a_reset_is_told_to_both():
    async with ways() as (near, _, sending, receiving, _tasks):
        near.reset(0x77)
        with pytest.raises(StreamReset) as told:
            await receiving.receive_each(Taker())
        assert told.value.code == 0x77
        with pytest.raises(StreamReset):
            sending.send_nowait(b"x")
        await sending.wait_writable()


async def test_closing_ends_the_reading_that_is_under_way():
    async with ways() as (near, _, reading, _, _tasks):
        told = []

        async def read():
            with pytest.raises(anyio.ClosedResourceError) as error:
                await reading.receive_each(Taker())
            told.append(error.value)

        async with anyio.create_task_group() as group:
            group.start_soon(read)
            await anyio.wait_all_tasks_blocked()
            await near.aclose()
        assert told


async def test_a_handler_that_fails_fails_where_it_was_asked_for():
    async with ways() as (near, far, _, receiving, _tasks):

        def fail(_data):
            raise RuntimeError("a bug")

        await near.send(b"x")
        with pytest.raises(RuntimeError, match="a bug"):
            await receiving.receive_each(fail)
        # The connection that carries the stream goes on.
        other, same = await open_pair(near.connection, far.connection)
        await other.send(b"hello")
        assert await receive_exactly(same, 5) == b"hello"


async def test_only_streams_of_yamux_have_one():
    class Other:
        pass

    assert FastWay.of(Other()) is None


async def test_a_flush_within_a_flush_waits_for_the_record_that_is_being_handed_over():
    async with connected("tcp") as (near, far):
        with anyio.fail_after(PATIENCE):
            sending, receiving = await open_pair(near, far)
            path, calls = near._socket, []
            send_nowait = path.send_nowait

            def come_back(*data):
                # As the connection below may: more to send, and a flush, before this record is out.
                if not calls:
                    calls.append(near.machine.send(sending.state, memoryview(b"second")))
                    near._flush()
                return send_nowait(*data)

            path.send_nowait = come_back
            await sending.send(b"first ")
            assert await receive_exactly(receiving, 12) == b"first second"
            assert calls == [6]
