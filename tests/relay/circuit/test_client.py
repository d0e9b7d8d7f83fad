"""Nodes that reach each other through a relay, on real sockets."""

from __future__ import annotations

import anyio
import pytest
from isthmus import Node
from isthmus.node.events import (
    AddressesChanged,
    ConnectionEnded,
    PeerIdentified,
    RelayLost,
    RelayReserved,
)
from isthmus.node.selection import Rank
from isthmus.relay.circuit.wire import HopMessage, HopType, Limit, Status
from isthmus.transports.core.errors import CircuitRefused, DialError, StreamReset
from isthmus.transports.core.keys import PrivateKey
from isthmus.transports.core.multiaddr import Multiaddr
from isthmus.transports.core.peer_id import PeerId

from .relays import LOOPBACK, small_relay

ECHO = "/echo/1.0.0"
STRANGER = PeerId.from_public_key(PrivateKey.from_seed(b"x" * 32).public_key)


async def echo(stream):
    async for data in stream:
        await stream.send(data)


async def until(events, kind, **wanted):
    async for event in events:
        if isinstance(event, kind) and all(getattr(event, k) == v for k, v in wanted.items()):
            return event
    raise AssertionError(f"no {kind.__name__}")


async def reserved(node: Node, events=None) -> None:
    """Wait until a relay leads to the node."""
    events = events or node.events()
    while not any(relay.until for relay in node.relays):
        await anext(events)


def behind(relay: Node, peer: Node) -> str:
    return f"{relay.addresses[0]}/p2p-circuit/p2p/{peer.peer_id}"


async def test_a_node_is_reached_through_a_relay():
    async with small_relay() as relay:
        async with Node(relays=relay.node.addresses) as bob, Node() as alice:
            events = bob.events()
            told = await until(events, RelayReserved)
            assert told.relay == relay.node.peer_id
            assert [str(each) for each in told.addresses] == [
                f"{relay.node.addresses[0]}/p2p-circuit"
            ]
            changed = await until(events, AddressesChanged)
            assert [str(each) for each in changed.addresses] == [behind(relay.node, bob)]
            assert bob.addresses == changed.addresses
            bob.handle(ECHO, echo)
            with anyio.fail_after(5):
                assert await alice.request(bob.addresses, ECHO, b"through") == b"through"
            (there,) = [each for each in alice.connections if each.remote_peer == bob.peer_id]
            assert alice.rank_of(there) is Rank.RELAY
            assert there.limit is None
            (here,) = [each for each in bob.connections if each.remote_peer == alice.peer_id]
            assert str(here.remote_addr).endswith(f"{relay.node.peer_id}/p2p-circuit")


async def test_it_is_also_reached_by_the_relays_id_alone():
    async with small_relay() as relay:
        async with Node(relays=relay.node.addresses) as bob, Node() as alice:
            await reserved(bob)
            bob.handle(ECHO, echo)
            await alice.connect(relay.node.addresses)
            short = f"/p2p/{relay.node.peer_id}/p2p-circuit/p2p/{bob.peer_id}"
            assert await alice.request(short, ECHO, b"short") == b"short"
