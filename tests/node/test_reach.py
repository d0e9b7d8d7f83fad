"""Reachability and hole punching between real nodes, over loopback by the settings for tests."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import replace

import anyio
import pytest
from isthmus import Multiaddr, Node, NodeConfig
from isthmus.node.config import AutonatConfig, DcutrConfig
from isthmus.node.events import (
    ConnectionOpened,
    HolePunched,
    HolePunchFailed,
    ReachabilityChanged,
)
from isthmus.node.privacy import PrivacyConfig
from isthmus.relay.autonat.observed import NatKind
from isthmus.relay.autonat.reachability import Reachability
from isthmus.relay.autonat.wire import DIAL_BACK_PROTOCOL, DIAL_REQUEST_PROTOCOL
from isthmus.relay.dcutr.wire import DCUTR_PROTOCOL, HolePunch, HolePunchType, encode
from isthmus.transports.core.interfaces import Side
from isthmus.transports.tcp import TcpTransport
from isthmus.transports.upgrade import Upgraded, UpgradedListener

LOOPBACK = "/ip4/127.0.0.1/tcp/0"
NEAR = NodeConfig(
    autonat=AutonatConfig(allow_private=True),
    dcutr=DcutrConfig(allow_private=True, attempt_timeout=2),
)


class RawCircuits(TcpTransport):
    """TCP that goes by the name of WebSocket, to be told from TCP by its addresses."""

    protocols = ("ws",)

    def can_dial(self, addr):
        return "ws" in addr.names

    async def dial_raw(self, addr):
        return await super().dial_raw(addr.decapsulate_at("ws"))


class Circuits(Upgraded):
    """The same with a limit, which makes a circuit of a connection."""

    def __init__(self):
        super().__init__(RawCircuits())

    async def listen(self, addr):
        tcp = Upgraded(TcpTransport())
        listener = UpgradedListener(self, await tcp.raw.listen_raw(addr.decapsulate_at("ws")))
        self.place = Multiaddr.parse(f"{listener.addresses[0]}/ws")
        return listener

    async def upgrade(self, stream, addr, **options):
        if "ws" not in addr.names:
            addr = Multiaddr.parse(f"{addr}/ws")
        connection = await super().upgrade(stream, addr, **options)
        connection.limit = object()
        return connection


def config(**settings) -> NodeConfig:
    return replace(NEAR, **settings)


async def until(events, kind):
    with anyio.fail_after(10):
        async for event in events:
            if isinstance(event, kind):
                return event
    raise AssertionError(f"no {kind.__name__}")


async def test_two_servers_tell_a_node_that_it_is_public():
    one, other = (Node(listen=LOOPBACK, config=NEAR) for _ in range(2))
    async with one, other, Node(listen=LOOPBACK, config=NEAR) as node:
        events = node.events()
        assert node.reachability is Reachability.UNKNOWN
        await node.connect(one.addresses)
        await node.connect(other.addresses)
        changed = await until(events, ReachabilityChanged)
        assert changed.reachability is node.reachability is Reachability.PUBLIC
        assert [each.with_peer(node.peer_id) for each in changed.addresses] == [*node.addresses]
        assert one.reach.server.dials >= 1 <= other.reach.server.dials
        # Both were dialled from the port listened on, and saw it as it is.
        assert node.reach.nat_kind() is NatKind.NONE
        assert node.reach.external == ()
        # They came as strangers, and left.
        assert {each.remote_peer for each in node.connections} <= {one.peer_id, other.peer_id}


async def test_a_node_that_cannot_be_dialled_is_told_so():
    """Its listener is gone, as if behind a NAT: what it says of itself leads nowhere."""
    one, other = (Node(listen=LOOPBACK, config=NEAR) for _ in range(2))
    async with one, other, Node(listen=LOOPBACK, config=NEAR) as node:
        events = node.events()
        await node._own.listeners[0].aclose()
        await node.connect(one.addresses)
        await node.connect(other.addresses)
        changed = await until(events, ReachabilityChanged)
        assert changed.reachability is node.reachability is Reachability.PRIVATE
        assert changed.addresses == ()
        # A new network: what was found is to be found again.
        node._on_networks()
        assert node.reachability is Reachability.PRIVATE


async def test_an_address_that_others_see_is_claimed_once_it_was_reached():
    """One is seen that is not ours by name: 127.0.0.2 stands for the outside of a NAT."""
    alone = NodeConfig(autonat=AutonatConfig(allow_private=True, confidence=1))
    node = Node(listen="/ip4/0.0.0.0/tcp/0", config=alone)
    async with node, Node(listen=LOOPBACK, config=alone) as server:
        events = node.events()
        local = node._own.bound[0]
        seen = Multiaddr.parse(f"/ip4/127.0.0.2/tcp/{local.port}")
        node.reach._observed.add(1, local=local, external=seen, observer=1)
        server.reach.server._may_dial = lambda address: address == seen
        assert node.reach.external == ()
        await node.connect(server.addresses)
        changed = await until(events, ReachabilityChanged)
        assert changed.addresses == node.reach.external == (seen,)
        assert seen.with_peer(node.peer_id) in node.addresses
        assert node.reach.nat_kind() is NatKind.UNKNOWN
        # Peers are told it, too.
        while seen not in server.peers.addresses(node.peer_id):
            await server.identify(server.connections[0])


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"privacy": PrivacyConfig(addresses="relay-only"), "autonat": NEAR.autonat},
        {
            "autonat": AutonatConfig(enabled=False, allow_private=True),
            "dcutr": DcutrConfig(enabled=False, allow_private=True),
        },
    ],
)
async def test_who_has_nothing_to_tell_serves_none_of_it(settings):
    ours = {DIAL_REQUEST_PROTOCOL, DIAL_BACK_PROTOCOL, DCUTR_PROTOCOL}
    node = Node(listen=LOOPBACK, config=NodeConfig(**settings))
    assert not ours & set(node.protocols)
    assert ours <= set(Node(listen="/ip4/0.0.0.0/tcp/0").protocols)
    assert not ours & set(Node().protocols)
    unserving = NodeConfig(autonat=AutonatConfig(serve=False))
    served = Node(listen="/ip4/0.0.0.0/tcp/0", config=unserving).protocols
    assert ours & set(served) == {DIAL_BACK_PROTOCOL, DCUTR_PROTOCOL}


async def test_a_circuit_is_joined_by_a_direct_connection_of_a_peer_that_can_be_dialled():
    async with circuit(NEAR, NEAR) as (dialer, listener, way):
        told = listener.events()
        connection = await dialer.connect(way)
        assert connection.limit is not None
        punched = await until(told, HolePunched)
        assert (punched.peer, punched.attempts) == (dialer.peer_id, 0)
        direct = listener.reach._direct(dialer.peer_id)
        assert direct.remote_addr == punched.address
        assert direct.side is Side.DIALER


async def test_peers_that_cannot_be_dialled_meet():
    """The listener of the circuit does not know where the dialer is, until DCUtR tells."""
    hidden = config(privacy=PrivacyConfig(addresses="public"))
    async with circuit(hidden, hidden) as (dialer, listener, way):
        dialer.reach._may_be_told = listener.reach._may_be_told = tuple
        told, seen = listener.events(), dialer.events()
        connection = await dialer.connect(way)
        punched = await until(told, HolePunched)
        assert (punched.peer, punched.attempts) == (dialer.peer_id, 1)
        near = dialer.reach._direct(listener.peer_id)
        far = listener.reach._direct(dialer.peer_id)
        assert (near.side, far.side) == (Side.DIALER, Side.LISTENER)
        # From the ports listened on: what each sees of the other is where it can be dialled.
        assert near.remote_addr.with_peer(listener.peer_id) in listener.addresses
        assert far.remote_addr.with_peer(dialer.peer_id) in dialer.addresses
        assert connection in dialer.connections
        # What is opened from now on takes the direct way.
        dialer.handle("/x/1", lambda stream: stream.aclose())
        stream = await listener.open_stream(dialer.peer_id, "/x/1")
        assert stream.connection.limit is None
        await stream.aclose()
        await until(seen, ConnectionOpened)


async def test_where_no_meeting_succeeds_the_circuit_stays_and_it_is_told():
    hidden = config(
        privacy=PrivacyConfig(addresses="public"),
        dcutr=DcutrConfig(allow_private=True, attempt_timeout=0.2),
    )
    async with circuit(hidden, hidden) as (dialer, listener, way):
        nowhere = Multiaddr.parse("/ip4/127.0.0.1/tcp/9")
        for node in (dialer, listener):
            node.reach._may_be_told = lambda _: (nowhere,)
        told = listener.events()
        connection = await dialer.connect(way)
        failed = await until(told, HolePunchFailed)
        assert failed.peer == dialer.peer_id
        assert "3 attempts" in failed.reason
        assert dialer.connections == (connection,)


async def test_without_an_address_of_its_own_nobody_is_asked_to_meet():
    hidden = config(privacy=PrivacyConfig(addresses="public"))
    async with circuit(hidden, hidden) as (dialer, listener, way):
        told = listener.events()
        await dialer.connect(way)
        assert "no address" in (await until(told, HolePunchFailed)).reason


@pytest.mark.parametrize("kind", ["direct", "wrong side"])
async def test_dcutr_is_refused_where_it_has_no_place(kind):
    async with circuit(NEAR, NEAR) as (dialer, listener, way):
        if kind == "direct":
            await dialer.connect(listener.addresses[0])
        else:
            listener.reach._upgrades = False
            await dialer.connect(way)
        with pytest.raises(anyio.BrokenResourceError):
            await say_connect(dialer, listener)


async def say_connect(dialer: Node, listener: Node) -> None:
    stream = await dialer.open_stream(listener.peer_id, DCUTR_PROTOCOL, allow_limited=True)
    await stream.send(encode(HolePunch(HolePunchType.CONNECT)))
    await stream.receive()


@asynccontextmanager
async def circuit(dialing: NodeConfig, listening: NodeConfig):
    """Two nodes that listen on TCP; the second one on what passes for a circuit, too."""
    circuits = Circuits()
    transports = [TcpTransport(reuse_port=True), Circuits()]
    dialer = Node(listen=LOOPBACK, transports=transports, config=dialing)
    transports = [TcpTransport(reuse_port=True), circuits]
    listener = Node(listen=[LOOPBACK, f"{LOOPBACK}/ws"], transports=transports, config=listening)
    async with dialer, listener:
        yield dialer, listener, circuits.place.with_peer(listener.peer_id)
