"""Two nodes on this machine's loopback interface, by zeroconf itself; nothing leaves it."""

from __future__ import annotations

import threading
from contextlib import asynccontextmanager
from ipaddress import ip_interface

import anyio
import pytest
from isthmus.transports.core.errors import AddressError, DialError
from isthmus.transports.core.keys import PrivateKey
from isthmus.transports.core.multiaddr import Multiaddr
from isthmus.transports.core.peer_id import PeerId
from isthmus.transports.lan.config import LanConfig
from isthmus.transports.lan.driver import LanDiscovery, MulticastMissing
from isthmus.transports.lan.interfaces import Interface
from isthmus.transports.lan.machine import PeerHeard
from isthmus.transports.lan.transport import LanTransport

LOOPBACK = Interface("lo", (ip_interface("127.0.0.1/8"),))
CONFIG = LanConfig(trusted=("lo",))


class Here:
    """One node's part: its discovery, and what that told."""

    def __init__(self, port=None, *interfaces):
        self.peer = PeerId.from_public_key(PrivateKey.generate().public_key)
        self.addresses = [Multiaddr.parse(f"/ip4/127.0.0.1/tcp/{port}")] if port else []
        self.interfaces = interfaces or (LOOPBACK,)
        self._send, self.told = anyio.create_memory_object_stream(100)
        self.discovery = LanDiscovery(
            self.peer,
            CONFIG,
            addresses=lambda: self.addresses,
            tell=self._send.send_nowait,
            interfaces=lambda: self.interfaces,
        )

    async def heard(self, peer):
        """Wait for the first word of a peer."""
        async for event in self.told:
            if isinstance(event, PeerHeard) and event.peer == peer:
                return event
        raise AssertionError("the node was closed")

    async def missing(self):
        """Wait for the complaint."""
        async for event in self.told:
            if isinstance(event, MulticastMissing):
                return event
        raise AssertionError("the node was closed")

    def close(self):
        self._send.close()
        self.told.close()


@asynccontextmanager
async def running(*nodes):
    async with anyio.create_task_group() as tasks:
        for node in nodes:
            tasks.start_soon(node.discovery.run)
        yield
        tasks.cancel_scope.cancel()
    for node in nodes:
        node.close()
    assert [each for each in threading.enumerate() if each.name == "isthmus-portal"] == []


async def test_two_find_each_other():
    a, b = Here(4001), Here(4002)
    async with running(a, b):
        with anyio.fail_after(5):
            assert await a.heard(b.peer) == PeerHeard(b.peer, tuple(b.addresses), is_new=True)
            assert (await b.heard(a.peer)).addresses == tuple(a.addresses)
            assert await a.discovery.find(b.peer) == tuple(b.addresses)


async def test_who_only_asks_finds_and_is_not_found():
    a, b = Here(4001), Here()
    async with running(a, b):
        with anyio.fail_after(5):
            assert await b.discovery.find(a.peer) == tuple(a.addresses)
        assert a.told.statistics().current_buffer_used == 0


async def test_an_address_that_changes():
    a, b = Here(4001), Here(4002)
    async with running(a, b):
        with anyio.fail_after(15):
            await a.heard(b.peer)
            b.addresses = [Multiaddr.parse("/ip4/127.0.0.1/tcp/4003")]
            while b.addresses[0] not in (await a.heard(b.peer)).addresses:
                pass
            b.addresses = []


async def test_an_interface_without_multicast_is_named_and_one_that_comes_is_used():
    deaf = Interface("lo", LOOPBACK.addresses, has_multicast=False)
    a, b = Here(4001, deaf), Here(4002)
    async with running(a, b):
        with anyio.fail_after(8):
            assert await a.missing() == MulticastMissing(("lo",))
            a.interfaces = (LOOPBACK,)
            await b.heard(a.peer)
            a.interfaces = ()
            a.addresses = []


class Told:
    """A discovery that knows what it was told."""

    def __init__(self, *addresses):
        self.addresses = addresses

    async def find(self, peer):
        return self.addresses


class Fake:
    """A transport whose connections are the addresses that were dialled."""

    protocols = ("tcp",)

    def __init__(self, *broken):
        self.broken = broken

    def can_dial(self, addr):
        return True

    async def dial(self, addr, *, peer=None, side=None):
        if addr.port in self.broken:
            raise DialError("broken")
        return addr


async def test_the_transport_tries_each_address():
    peer = PeerId.from_public_key(PrivateKey.generate().public_key)
    places = [Multiaddr.parse(f"/ip4/192.168.1.1/tcp/{port}") for port in (1, 2)]
    by_id = Multiaddr.parse(f"/p2p/{peer}")
    lan = LanTransport(Told(*places), [Fake(1)])
    assert lan.can_dial(by_id)
    assert not lan.can_dial(places[0])
    assert await lan.dial(by_id) == places[1].with_peer(peer)
    with pytest.raises(DialError, match="not the id of a peer alone"):
        await lan.dial(places[0])
    with pytest.raises(DialError, match="nobody on the LAN says that it is"):
        await LanTransport(Told(), [Fake()]).dial(by_id)
    with pytest.raises(DialError, match="was found on the LAN, but not reached") as caught:
        await LanTransport(Told(*places), [Fake(1, 2)]).dial(by_id)
    assert [each.address for each in caught.value.attempts] == places
    with pytest.raises(DialError, match="no transport of this node"):
        await LanTransport(Told(*places), []).dial(by_id)
    with pytest.raises(AddressError):
        await lan.listen(by_id)
