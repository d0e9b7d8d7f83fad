"""How connections over memory and over loopback sockets end, and who is told that it ended them."""

from __future__ import annotations

import socket
import struct
from contextlib import suppress

import anyio
import pytest
from anyio.streams.stapled import StapledByteStream
from isthmus.transports.core.errors import ConnectionClosed, StreamReset
from isthmus.transports.core.interfaces import Side
from isthmus.transports.sockets import SocketStream
from isthmus.transports.testing.pair import open_pair, receive_all, receive_exactly

from . import frames
from .ends import BIG, UVLOOP, connected, connection, raw_pair, session, tcp_pair, with_raw_peer


class Hasty(SocketStream):
    """A path whose far end closes as soon as it has the last words."""

    is_last = False

    def __init__(self, sock, far):
        super().__init__(sock)
        self.far = far

    def send_nowait(self, data, flags=0):
        sent = super().send_nowait(data, flags)
        if self.is_last:
            self.far.close()
        return sent


class HastyPath(StapledByteStream):
    """The same, of one that is not a socket."""

    is_last = False

    def __init__(self, near, far):
        super().__init__(near, near)
        self.far = far

    async def send(self, item):
        await super().send(item)
        if self.is_last:
            await self.far.aclose()
            await anyio.wait_all_tasks_blocked()  # the reader has seen it


def reset(stream):
    stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    stream.close()


@pytest.fixture(params=["memory", "tcp"])
def path(request):
    return request.param


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


@pytest.mark.parametrize("path", ["memory", "tcp"])
async def test_a_peer_that_closes_on_our_last_words_has_not_ended_it(path):
    near, far = await raw_pair(path)
    raw = Hasty(near.socket, far) if path == "tcp" else HastyPath(near, far)
    end = connection(raw, Side.DIALER)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(end.run)
        await anyio.wait_all_tasks_blocked()
        raw.is_last = True
        await end.aclose()
        closed = await end.wait_closed()
    assert (closed.remote, closed.code, closed.cause) == (False, None, None)


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
        closed = await near.wait_closed()
        assert (closed.remote, closed.code) == (False, None)
        # It is told that this was meant, or it would look for us.
        closed = await far.wait_closed()
        assert (closed.remote, closed.code) == (True, 0)


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
