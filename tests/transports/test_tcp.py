"""TCP over real loopback sockets: listening, dialing, ports, and what the kernel refuses."""

from __future__ import annotations

import errno
import socket
import subprocess
import sys

import anyio
import pytest
from isthmus.transports.core.errors import AddressError, DialError
from isthmus.transports.core.multiaddr import Multiaddr
from isthmus.transports.tcp import LOOPBACK_NOTSENT_LOWAT, TcpTransport
from isthmus.transports.testing.pair import TestHost
from isthmus.transports.websocket.transport import WebSocketTransport
from isthmus.transports.yamux.records import RECORD

ANY4 = Multiaddr.parse("/ip4/127.0.0.1/tcp/0")

# A process with few descriptors: the backlog fills until descriptors are free again.
EXHAUSTED = """
import resource, socket, sys, anyio
from isthmus.transports.core.multiaddr import Multiaddr
from isthmus.transports.tcp import TcpTransport

async def main():
    listener = await TcpTransport().listen_raw(Multiaddr.parse("/ip4/127.0.0.1/tcp/0"))
    served = anyio.Event()
    async def handle(stream, addr):
        served.set()
        await stream.aclose()
    async with anyio.create_task_group() as tasks:
        dialer = socket.create_connection(("127.0.0.1", listener.addresses[0].port))
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (dialer.fileno() + 1, limit[1]))
        tasks.start_soon(listener.serve, handle)
        with anyio.move_on_after(0.05):
            await served.wait()
        assert not served.is_set()
        resource.setrlimit(resource.RLIMIT_NOFILE, limit)
        await served.wait()
        dialer.close()
        await listener.aclose()

anyio.run(main, backend=sys.argv[1])
"""


async def echo(stream, _addr):
    async with stream:
        try:
            while True:
                await stream.send(await stream.receive())
        except (anyio.EndOfStream, anyio.BrokenResourceError):
            return


@pytest.mark.parametrize("reuse_port", [False, True])
async def test_both_families_on_one_port(reuse_port):
    transport = TcpTransport(reuse_port=reuse_port)
    transport.attach(None)
    four = await transport.listen_raw(ANY4)
    six = await transport.listen_raw(Multiaddr.parse(f"/ip6/::1/tcp/{four.addresses[0].port}"))
    async with anyio.create_task_group() as tasks:
        for listener in (four, six):
            tasks.start_soon(listener.serve, echo)
        for listener in (four, six):
            async with await TcpTransport().dial_raw(listener.addresses[0]) as stream:
                await stream.send(b"hello")
                assert await stream.receive() == b"hello"
                await stream.send_eof()
                with pytest.raises(anyio.EndOfStream):
                    await stream.receive()
        await four.aclose()
        await four.aclose()
        await six.aclose()


async def test_a_dial_leaves_from_the_port_listened_on():
    transport, other = TcpTransport(reuse_port=True), TcpTransport()
    near, far = await transport.listen_raw(ANY4), await other.listen_raw(ANY4)
    seen = []

    async def note(stream, addr):
        seen.append(addr)
        await stream.aclose()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(far.serve, note)
        async with await transport.dial_raw(far.addresses[0]) as stream:
            with pytest.raises(anyio.EndOfStream):
                await stream.receive()
        await far.aclose()
        await near.aclose()
    assert seen == [near.addresses[0]]


async def test_a_second_dial_from_the_same_port_takes_another():
    """The first one's four-tuple is taken: any port is better than no connection."""
    transport, other = TcpTransport(reuse_port=True), TcpTransport()
    near, far = await transport.listen_raw(ANY4), await other.listen_raw(ANY4)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(far.serve, echo)
        streams = [await transport.dial_raw(far.addresses[0]) for _ in range(2)]
        ports = [stream.socket.getsockname()[1] for stream in streams]
        assert ports[0] == near.addresses[0].port != ports[1]
        for stream in streams:
            await stream.aclose()
        await far.aclose()
        await near.aclose()


async def test_refused():
    listener = await TcpTransport().listen_raw(ANY4)
    await listener.aclose()
    with pytest.raises(DialError, match="refused"):
        await TcpTransport().dial_raw(listener.addresses[0])


@pytest.mark.parametrize("name", ["isthmus.invalid", "a..b", "ü" * 70])
async def test_a_name_without_address(name):
    with pytest.raises(DialError):
        await TcpTransport().dial_raw(Multiaddr.parse(f"/dns4/{name}/tcp/1"))


async def test_a_name():
    listener = await TcpTransport().listen_raw(ANY4)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, echo)
        addr = Multiaddr.parse(f"/dns4/localhost/tcp/{listener.addresses[0].port}")
        async with await TcpTransport().dial_raw(addr) as stream:
            await stream.send(b"x")
            assert await stream.receive() == b"x"
        await listener.aclose()


async def test_a_zone():
    zone = socket.if_indextoname(1)
    transport = TcpTransport()
    listener = await transport.listen_raw(Multiaddr.parse(f"/ip6zone/{zone}/ip6/::1/tcp/0"))
    addr = Multiaddr.parse(f"/ip6zone/{zone}/ip6/::1/tcp/{listener.addresses[0].port}")
    assert transport.can_dial(addr)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, echo)
        async with await transport.dial_raw(addr) as stream:
            await stream.send(b"x")
            assert await stream.receive() == b"x"
        await listener.aclose()
    with pytest.raises(DialError):
        await transport.dial_raw(Multiaddr.parse("/ip6zone/nowhere/ip6/::1/tcp/1"))


@pytest.mark.parametrize("text", ["/dns4/localhost/tcp/0", "/ip4/127.0.0.1/udp/0", "/memory/1"])
async def test_nothing_to_listen_on(text):
    with pytest.raises(AddressError):
        await TcpTransport().listen_raw(Multiaddr.parse(text))


async def test_a_port_in_use():
    listener = await TcpTransport().listen_raw(ANY4)
    with pytest.raises(OSError, match=str(listener.addresses[0])) as caught:
        await TcpTransport().listen_raw(listener.addresses[0])
    assert caught.value.errno == errno.EADDRINUSE
    await listener.aclose()


class Door(TestHost):
    """An owner who lets so many in at a time."""

    def __init__(self, most):
        super().__init__()
        self.most = most
        self.inside = []
        self.refused = 0

    def begin_upgrade(self, addr):
        if len(self.inside) == self.most:
            self.refused += 1
            return False
        self.inside.append(addr)
        return True

    def end_upgrade(self, addr):
        self.inside.remove(addr)


@pytest.mark.parametrize("kind", [TcpTransport, WebSocketTransport])
async def test_the_owner_is_asked_who_comes_in(kind):
    transport, door = kind(), Door(most=1)
    transport.attach(door)
    path = "/ws" if kind is WebSocketTransport else ""
    listener = await transport.listen_raw(Multiaddr.parse(f"{ANY4}{path}"))
    place = Multiaddr(listener.addresses[0].components[:2])
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, echo)
        first = await TcpTransport().dial_raw(place)
        await anyio.wait_all_tasks_blocked()
        with anyio.fail_after(5):
            while not door.inside:
                await anyio.lowlevel.checkpoint()
            second = await TcpTransport().dial_raw(place)
            with pytest.raises((anyio.EndOfStream, anyio.BrokenResourceError)):
                await second.receive()
            assert (len(door.inside), door.refused) == (1, 1)
            await first.aclose()
            while door.inside:
                await anyio.lowlevel.checkpoint()
            third = await TcpTransport().dial_raw(place)
            while not door.inside:
                await anyio.lowlevel.checkpoint()
        for stream in (second, third):
            await stream.aclose()
        await listener.aclose()
    assert door.inside == []


async def test_closing_ends_serve():
    listener = await TcpTransport().listen_raw(ANY4)
    served = anyio.Event()

    async def serve():
        await listener.serve(echo)
        served.set()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(serve)
        await anyio.wait_all_tasks_blocked()
        await listener.aclose()
        await served.wait()
    assert [change async for change in listener.changes()] == []


async def test_a_dial_given_up_closes_its_socket():
    """A full backlog leaves the dial waiting; cancelling it leaves no socket (warnings fail)."""
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        addr = Multiaddr.parse(f"/ip4/127.0.0.1/tcp/{full.getsockname()[1]}")
        streams = []
        with anyio.move_on_after(0.2) as scope:
            while True:
                streams.append(await TcpTransport().dial_raw(addr))
        assert scope.cancelled_caught
        for stream in streams:
            await stream.aclose()


@pytest.mark.skipif(sys.platform == "win32", reason="no resource limits")
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_no_descriptors_left(backend):
    """Accepting pauses, says so, and goes on once there are some."""
    done = subprocess.run(
        [sys.executable, "-c", EXHAUSTED, backend],
        capture_output=True,
        text=True,
        timeout=15,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "cannot accept" in done.stderr


@pytest.mark.skipif(not hasattr(socket, "TCP_NOTSENT_LOWAT"), reason="Linux and macOS have it")
@pytest.mark.parametrize("host", ["/ip4/127.0.0.1", "/ip6/::1"])
async def test_within_a_machine_the_kernel_may_hold_a_record(host):
    transport = TcpTransport()
    listener = await transport.listen_raw(Multiaddr.parse(f"{host}/tcp/0"))
    found = []

    def note(stream):
        option = (socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT)
        found.append(stream.socket.getsockopt(*option))

    async def accept(stream, _addr):
        note(stream)
        await stream.aclose()
        await listener.aclose()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, accept)
        async with await transport.dial_raw(listener.addresses[0]) as stream:
            note(stream)
    assert found == [LOOPBACK_NOTSENT_LOWAT] * 2
    assert RECORD < LOOPBACK_NOTSENT_LOWAT
