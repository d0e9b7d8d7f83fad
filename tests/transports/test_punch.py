"""Connections that both sides open at once, over loopback: real simultaneous opens, and near."""

from __future__ import annotations

import socket
import threading
import time

import anyio
import pytest
from isthmus.transports.core.errors import DialError, NoTransport, PeerIdMismatch
from isthmus.transports.core.interfaces import Puncher, RawPuncher, Side
from isthmus.transports.core.multiaddr import Multiaddr
from isthmus.transports.memory.plain import PlainMemoryTransport
from isthmus.transports.sockets import SocketStream
from isthmus.transports.tcp import TcpTransport
from isthmus.transports.testing.pair import TestHost
from isthmus.transports.upgrade import Upgraded
from isthmus.transports.websocket.transport import WebSocketTransport

ANY4 = Multiaddr.parse("/ip4/127.0.0.1/tcp/0")
NOWHERE = Multiaddr.parse("/ip4/127.0.0.1/tcp/9")


class Peer:
    """A transport that listens, and keeps the connections that come in."""

    def __init__(self, tasks):
        self.host = TestHost()
        self.transport = Upgraded(TcpTransport(reuse_port=True))
        self.transport.attach(self.host)
        self.accepted = []
        self._tasks = tasks

    async def listen(self):
        listener = await self.transport.listen(ANY4)
        self._tasks.start_soon(listener.serve, self._accept)
        self.address = listener.addresses[0]
        return listener

    async def _accept(self, connection):
        self.accepted.append(connection)

    async def punch(self, other, side):
        connection = await self.transport.punch(other.address, peer=other.host.peer_id, side=side)
        self.accepted.append(connection)


def bound(port=0):
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    sock.bind(("127.0.0.1", port))
    return sock


def simultaneous_open():
    """Return both ends of a connection that nobody accepted: each has called connect()."""
    give_up = time.monotonic() + 10
    while time.monotonic() < give_up:
        found = _race()
        if len(found) == 2:
            for sock in found:
                sock.settimeout(0)
            return found
        for sock in found:
            sock.close()
    raise AssertionError("no simultaneous open in ten seconds")


def _race():
    first, second = bound(), bound()
    ports = [first.getsockname()[1], second.getsockname()[1]]
    first.close()
    second.close()
    found = {}
    give_up = time.monotonic() + 0.5

    def race(mine, other):
        # Who comes too early is refused, until both are within the same microseconds.
        while time.monotonic() < give_up:
            sock = bound(mine)
            try:
                sock.connect(("127.0.0.1", other))
            except OSError:
                sock.close()
                continue
            found[mine] = sock
            return

    threads = [threading.Thread(target=race, args=each) for each in (ports, ports[::-1])]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [*found.values()]


async def carries(one, other):
    """Say whether two connections are ends of one."""
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(one.run)
        tasks.start_soon(other.run)
        near = await one.open_stream()
        await near.send(b"there")
        far = await other.accept_stream()
        assert await far.receive() == b"there"
        back = await other.open_stream()
        await back.send(b"back")
        assert await (await one.accept_stream()).receive() == b"back"
        await one.aclose()
        await other.aclose()
        tasks.cancel_scope.cancel()


async def test_both_ends_of_a_simultaneous_open_agree_on_their_roles():
    sockets = await anyio.to_thread.run_sync(simultaneous_open)
    hosts = TestHost(), TestHost()
    ends = {}

    async def upgrade(index, side):
        transport = Upgraded(TcpTransport())
        transport.attach(hosts[index])
        peer = hosts[1 - index].peer_id
        stream = SocketStream(sockets[index])
        ends[side] = await transport.upgrade(stream, NOWHERE, side=side, peer=peer)

    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(upgrade, 0, Side.DIALER)
            tasks.start_soon(upgrade, 1, Side.LISTENER)
        assert [ends[side].side for side in Side] == [*Side]
        await carries(ends[Side.DIALER], ends[Side.LISTENER])


@pytest.mark.parametrize("is_told", [True, False])
@pytest.mark.parametrize("early", [Side.DIALER, Side.LISTENER, None])
async def test_whoever_comes_first_the_roles_are_those_agreed(early, is_told):
    """Without a NAT between them the first SYN meets the other's listener, not its connect.

    It may even be quicker than the SYNC, which takes the way through the relay.
    """
    async with anyio.create_task_group() as tasks:
        dialer, listener = Peer(tasks), Peer(tasks)
        places = [await dialer.listen(), await listener.listen()]
        peers = {Side.DIALER: (dialer, listener), Side.LISTENER: (listener, dialer)}
        with anyio.fail_after(2):
            order = [*Side] if early is None else [early, early.other]
            for side in order if is_told else ():
                one, other = peers[side]
                # What the other expects is set before either sends anything, as after a SYNC.
                other.transport._expected[one.address] = one.host.peer_id, side.other
            for side in order:
                tasks.start_soon(peers[side][0].punch, peers[side][1], side)
                if early is not None:
                    await anyio.wait_all_tasks_blocked()
            while not (dialer.accepted and listener.accepted):
                await anyio.lowlevel.checkpoint()
        assert not dialer.transport._undecided
        assert not listener.transport._undecided
        near, far = dialer.accepted[0], listener.accepted[0]
        assert (near.side, far.side) == (Side.DIALER, Side.LISTENER)
        assert near.remote_peer == listener.host.peer_id
        assert far.remote_peer == dialer.host.peer_id
        await carries(near, far)
        for place in places:
            await place.aclose()
        tasks.cancel_scope.cancel()


async def test_another_peer_at_that_address_ends_it_and_silence_does_not():
    async with anyio.create_task_group() as tasks:
        one, other = Peer(tasks), Peer(tasks)
        place, far = await one.listen(), await other.listen()
        with pytest.raises(PeerIdMismatch):
            await one.transport.punch(other.address, peer=TestHost().peer_id, side=Side.DIALER)
        await far.aclose()
        with anyio.move_on_after(0.3) as scope:
            await one.punch(other, Side.DIALER)
        assert scope.cancelled_caught
        assert one.transport._expected == {}
        # It was still tried: the peer is met as soon as it is there.
        tasks.start_soon(one.punch, other, Side.DIALER)
        await anyio.wait_all_tasks_blocked()
        again = await other.transport.listen(other.address)
        tasks.start_soon(again.serve, other._accept)
        with anyio.fail_after(5):
            while not (one.accepted and other.accepted):
                await anyio.lowlevel.checkpoint()
        for each in (place, again):
            await each.aclose()
        for connection in one.accepted + other.accepted:
            await connection.aclose()
        tasks.cancel_scope.cancel()


async def test_what_can_be_punched():
    plain, reusing = TcpTransport(), TcpTransport(reuse_port=True)
    assert not plain.can_punch(NOWHERE)
    assert not reusing.can_punch(NOWHERE)
    listener = await reusing.listen_raw(ANY4)
    assert reusing.can_punch(NOWHERE)
    for text in ("/ip6/::1/tcp/9", "/dns4/localhost/tcp/9", "/ip4/127.0.0.1/tcp/9/ws"):
        assert not reusing.can_punch(Multiaddr.parse(text))
    with pytest.raises(DialError, match="refused"):
        await reusing.punch_raw(NOWHERE)
    await listener.aclose()
    for raw in (PlainMemoryTransport(), WebSocketTransport()):
        assert not isinstance(raw, RawPuncher)
        upgraded = Upgraded(raw)
        assert isinstance(upgraded, Puncher)
        assert not upgraded.can_punch(NOWHERE)
        with pytest.raises(NoTransport):
            await upgraded.punch(NOWHERE, peer=TestHost().peer_id, side=Side.DIALER)


async def test_only_public_addresses_are_dialled_from_the_port_where_that_is_asked():
    transport, other = TcpTransport(reuse_port=True, only_public=True), TcpTransport()
    near, far = await transport.listen_raw(ANY4), await other.listen_raw(ANY4)
    async with await transport.dial_raw(far.addresses[0]) as stream:
        assert stream.socket.getsockname()[1] != near.addresses[0].port
    assert transport._reuses(socket.AF_INET, ("1.1.1.1", 443))
    assert not transport._reuses(socket.AF_INET, ("10.0.0.1", 443))
    assert not transport._reuses(socket.AF_INET6, ("2606:4700::1", 443))
    await near.aclose()
    await far.aclose()


@pytest.mark.parametrize("reuse_port", [False, True])
async def test_a_port_that_is_dialled_from_is_not_shared_with_another_listener(reuse_port):
    first = await TcpTransport(reuse_port=True).listen_raw(ANY4)
    with pytest.raises(OSError, match="in use"):
        await TcpTransport(reuse_port=reuse_port).listen_raw(first.addresses[0])
    await first.aclose()
