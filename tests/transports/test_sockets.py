"""A socket's plain way and its fast way, and their readiness, on asyncio, trio and uvloop."""

from __future__ import annotations

import socket
import struct

import anyio
import pytest
from isthmus.transports import readiness
from isthmus.transports.sockets import SocketStream, is_asyncio, loop_clock, settle_allocator

BACKENDS = {
    "asyncio": ("asyncio", {}),
    "trio": ("trio", {}),
    "uvloop": ("asyncio", {"use_uvloop": True}),
}


@pytest.fixture(params=BACKENDS)
def run(request):
    """Run a coroutine function on each loop."""
    backend, options = BACKENDS[request.param]

    async def limited(case):
        with anyio.fail_after(5):
            await case()

    return lambda case: anyio.run(limited, case, backend=backend, backend_options=options)


def tcp_pair():
    with socket.create_server(("127.0.0.1", 0)) as server:
        near = socket.create_connection(server.getsockname())
        far, _ = server.accept()
    near.setblocking(False)
    return SocketStream(near), far


def reset(sock):
    """Close with a reset, whatever waits."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


async def fill(stream):
    while stream.send_nowait(bytes(65536)):
        pass


def test_plain_way(run):
    async def case():
        near, far = tcp_pair()
        with far:
            far.sendall(b"hello")
            assert await near.receive(3) == b"hel"
            assert await near.receive() == b"lo"
            await near.send(b"answer")
            await near.send_eof()
            assert far.recv(100) + far.recv(100) == b"answer"
            far.shutdown(socket.SHUT_WR)
            with pytest.raises(anyio.EndOfStream):
                await near.receive()
            await near.aclose()
            await near.aclose()
            for use in (near.receive, near.send_eof, near.wait_writable, lambda: near.send(b"x")):
                with pytest.raises(anyio.ClosedResourceError):
                    await use()
            with pytest.raises(anyio.ClosedResourceError):
                await near.receive_each(lambda _: True)

    run(case)


def test_receive_waits_for_data(run):
    async def case():
        near, far = tcp_pair()
        got = []

        async def receive():
            got.append(await near.receive())

        with far:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(receive)
                await anyio.wait_all_tasks_blocked()
                far.sendall(b"late")
        await near.aclose()
        assert got == [b"late"]

    run(case)


def test_a_large_send_waits_for_room(run):
    async def case():
        near, far = tcp_pair()
        far.setblocking(False)
        reader, size = SocketStream(far), 0
        async with near, reader, anyio.create_task_group() as tasks:
            tasks.start_soon(near.send, bytes(8 << 20))
            while size < 8 << 20:
                size += len(await reader.receive())
        assert size == 8 << 20

    run(case)


@pytest.mark.parametrize("way", ["receive", "receive_each", "wait_writable", "paused"])
def test_closing_wakes_who_waits(run, way):
    async def case():
        near, far = tcp_pair()
        caught = []

        async def wait():
            try:
                if way == "wait_writable":
                    await near.wait_writable()
                elif way == "receive":
                    await near.receive()
                else:
                    await near.receive_each(lambda _: near.pause_reading() is None)
            except anyio.ClosedResourceError:
                caught.append(way)

        with far:
            if way == "wait_writable":
                await fill(near)
            if way == "paused":
                far.sendall(b"x")
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(wait)
                await anyio.wait_all_tasks_blocked()
                while way == "paused" and not near.is_reading_paused:
                    await anyio.lowlevel.checkpoint()
                near.close()
                near.close()
        assert caught == [way]

    run(case)


@pytest.mark.parametrize("way", ["receive", "receive_each", "send"])
def test_a_peers_reset_is_told(run, way):
    """Also on uvloop, which leaves a descriptor with an error pending alone."""

    async def case():
        near, far = tcp_pair()
        caught = []

        async def wait():
            try:
                if way == "send":
                    await near.send(bytes(1 << 20))
                elif way == "receive":
                    await near.receive()
                else:
                    await near.receive_each(lambda _: True)
            except anyio.BrokenResourceError:
                caught.append(way)

        if way == "send":
            await fill(near)
        async with near, anyio.create_task_group() as tasks:
            tasks.start_soon(wait)
            await anyio.wait_all_tasks_blocked()
            reset(far)
        assert caught == [way]

    run(case)


def test_receive_each_to_the_end(run):
    async def case():
        near, far = tcp_pair()
        got = bytearray()

        def take(chunk):
            got.extend(chunk)
            return True

        far.sendall(b"all of it")
        far.close()
        async with near:
            await near.receive_each(take)
        assert got == b"all of it"

    run(case)


def test_receive_each_ends_when_the_handler_has_enough(run):
    async def case():
        near, far = tcp_pair()
        with far:
            far.sendall(b"x")
            async with near:
                await near.receive_each(lambda _: False)
                far.sendall(b"y")
                assert await near.receive() == b"y"

    run(case)


@pytest.mark.parametrize("run", ["trio"], indirect=True)
def test_what_the_handler_raises_ends_the_reading(run):
    """A bug: asyncio's loops, where the handler is a callback, report it besides."""

    async def case():
        near, far = tcp_pair()

        def take(_):
            raise ZeroDivisionError

        with far:
            far.sendall(b"x")
            async with near:
                with pytest.raises(ZeroDivisionError):
                    await near.receive_each(take)

    run(case)


def test_paused_reading_leaves_data_in_the_kernel(run):
    async def case():
        near, far = tcp_pair()
        got, paused, ended = [], anyio.Event(), anyio.Event()

        def take(chunk):
            got.append(bytes(chunk))
            near.pause_reading()
            near.pause_reading()
            paused.set()
            return True

        async def read():
            await near.receive_each(take)
            ended.set()

        async with near, anyio.create_task_group() as tasks:
            tasks.start_soon(read)
            far.sendall(b"one")
            await paused.wait()
            far.sendall(b"two")
            await anyio.wait_all_tasks_blocked()
            assert got == [b"one"]
            paused = anyio.Event()
            near.resume_reading()
            near.resume_reading()
            await paused.wait()
            assert got == [b"one", b"two"]
            far.close()
            near.resume_reading()
            await ended.wait()

    run(case)


def test_cancelling_a_wait_leaves_the_socket_usable(run):
    async def case():
        near, far = tcp_pair()
        with far:
            for wait in (near.receive, lambda: near.receive_each(lambda _: True)):
                with anyio.move_on_after(0.01) as scope:
                    await wait()
                assert scope.cancelled_caught
            far.sendall(b"x")
            assert await near.receive() == b"x"
            await near.aclose()

    run(case)


def test_reading_and_writing_wait_apart(run):
    async def case():
        near, far = tcp_pair()
        done = []

        async def wait(kind):
            await kind(near.socket)
            done.append(kind)

        with far:
            await fill(near)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(wait, readiness.wait_readable)
                tasks.start_soon(wait, readiness.wait_writable)
                await anyio.wait_all_tasks_blocked()
                far.sendall(b"x")
                while not done:
                    await anyio.lowlevel.checkpoint()
                assert done == [readiness.wait_readable]
                far.setblocking(False)
                while len(done) < 2:
                    try:
                        far.recv(1 << 20)
                    except BlockingIOError:
                        await anyio.lowlevel.checkpoint()
        await near.aclose()

    run(case)


def test_a_descriptor_used_again(run):
    """A wait that ends after its socket was closed must not touch the next one's."""

    async def case():
        near, far = tcp_pair()
        outcome = []

        async def wait(stream):
            try:
                outcome.append(await stream.receive())
            except anyio.ClosedResourceError:
                outcome.append(None)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(wait, near)
            await anyio.wait_all_tasks_blocked()
            number = near.socket.fileno()
            near.close()
            far.close()
            first, second = socket.socketpair()
            if first.fileno() != number:  # the peer's was the lower one
                first, second = second, first
            assert first.fileno() == number
            first.setblocking(False)
            again, far = SocketStream(first), second
            tasks.start_soon(wait, again)
            await anyio.wait_all_tasks_blocked()
            far.sendall(b"x")
        far.close()
        await again.aclose()
        assert outcome == [None, b"x"]

    run(case)


def test_waiting_on_a_closed_socket(run):
    async def case():
        near, far = tcp_pair()
        far.close()
        await near.aclose()
        with pytest.raises((anyio.ClosedResourceError, OSError, ValueError)):
            await readiness.wait_readable(near.socket)

    run(case)


async def test_clocks(anyio_backend_name):
    assert is_asyncio() == (anyio_backend_name == "asyncio")
    clock = loop_clock()
    assert clock() <= clock()
    settle_allocator()
