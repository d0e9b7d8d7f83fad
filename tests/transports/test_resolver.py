"""Names are looked up beside the loop, by a bounded number of threads that may be left behind."""

from __future__ import annotations

import errno
import socket
import threading
import time

import anyio
import pytest
from isthmus.transports.core.errors import DialError, LocalProtocolError
from isthmus.transports.core.multiaddr import Multiaddr
from isthmus.transports.resolver import Resolver, system_look_up
from isthmus.transports.tcp import TcpTransport

ANY = socket.AF_UNSPEC
HOME = [(socket.AF_INET, ("127.0.0.1", 9))]


class Silent:
    """A resolver of the system that does not return until it is told to."""

    def __init__(self):
        self.asked = []
        self.released = threading.Event()

    def __call__(self, host, port, family):
        self.asked.append(host)
        assert self.released.wait(15)
        return HOME


@pytest.fixture
def silent():
    silent = Silent()
    yield silent
    silent.released.set()
    for each in threading.enumerate():
        if each.name == "isthmus-resolver":
            each.join(5)


async def until(condition):
    with anyio.fail_after(5):
        while not condition():
            await anyio.lowlevel.checkpoint()


async def test_a_name_has_its_addresses():
    found = await Resolver().look_up("localhost", 80, socket.AF_INET)
    assert (socket.AF_INET, ("127.0.0.1", 80)) in found
    resolver = Resolver(lambda *asked: [(socket.AF_INET, asked)])
    assert await resolver.look_up("x", 1, ANY) == [(socket.AF_INET, ("x", 1, ANY))]


async def test_what_it_raises_is_raised():
    def refuse(host, port, family):
        raise {"gone": socket.gaierror(socket.EAI_NONAME, "unknown"), "bad": UnicodeError()}[host]

    resolver = Resolver(refuse)
    with pytest.raises(socket.gaierror, match="unknown"):
        await resolver.look_up("gone", 1, ANY)
    with pytest.raises(UnicodeError):
        await resolver.look_up("bad", 1, ANY)
    with pytest.raises(UnicodeError):
        system_look_up("a" * 100 + ".example", 1, ANY)


async def test_who_gives_up_goes_at_once(silent):
    resolver = Resolver(silent)
    began = time.perf_counter()
    with anyio.move_on_after(0.05) as scope:
        await resolver.look_up("a", 1, ANY)
    assert scope.cancelled_caught
    assert time.perf_counter() - began < 1


def test_a_loop_does_not_wait_for_the_threads_it_leaves_behind(silent, anyio_backend_name):
    async def main():
        transport = TcpTransport(resolver=Resolver(silent))
        with anyio.move_on_after(0.05):
            await transport.dial_raw(Multiaddr.parse("/dns4/peer.example/tcp/1"))

    began = time.perf_counter()
    anyio.run(main, backend=anyio_backend_name)
    assert time.perf_counter() - began < 2
    assert silent.asked == ["peer.example"]


async def test_threads_are_bounded_and_the_next_one_waits_for_its_turn(silent):
    resolver = Resolver(silent, max_threads=2)
    found = []

    async def ask(host):
        found.append((host, await resolver.look_up(host, 1, ANY)))

    async with anyio.create_task_group() as tasks:
        for host in "ab":
            tasks.start_soon(ask, host)
        await until(lambda: len(silent.asked) == 2)
        tasks.start_soon(ask, "c")
        # One that is given up before its turn is never asked for.
        with anyio.move_on_after(0.05):
            await ask("d")
        assert (sorted(silent.asked), resolver._threads) == (["a", "b"], 2)
        silent.released.set()
    assert sorted(found) == [("a", HOME), ("b", HOME), ("c", HOME)]
    assert sorted(silent.asked) == ["a", "b", "c"]
    await until(lambda: resolver._threads == 0)
    assert await resolver.look_up("e", 1, ANY) == HOME


async def test_a_thread_that_dies_leaves_nobody_waiting():
    died = threading.Event()
    before, threading.excepthook = threading.excepthook, lambda _: died.set()
    try:
        with pytest.raises(LocalProtocolError, match="has died"):
            await Resolver(lambda *_: 1 / 0).look_up("x", 1, ANY)
        await until(died.is_set)
    finally:
        threading.excepthook = before


async def test_a_process_without_threads_to_spare_says_so():
    resolver = Resolver()
    # More than there is to address, so that the next thread cannot be started.
    before = threading.stack_size(1 << 50)
    try:
        with pytest.raises(OSError, match="no thread can be started") as caught:
            await resolver.look_up("localhost", 1, ANY)
        assert caught.value.errno == errno.EAGAIN
        transport = TcpTransport(resolver=resolver)
        with pytest.raises(DialError, match="cannot be resolved: no thread") as caught:
            await transport.dial_raw(Multiaddr.parse("/dns4/localhost/tcp/1"))
        assert caught.value.phase == "resolve"
    finally:
        threading.stack_size(before)
    assert (resolver._threads, len(resolver._waiting)) == (0, 0)
    assert await resolver.look_up("localhost", 1, ANY)
