"""A circuit through a relay keeps the contract of a transport, as a socket does."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import anyio
import pytest
from isthmus import Node, NodeConfig
from isthmus.relay.circuit.addresses import ANY_RELAY
from isthmus.relay.circuit.limits import RelayServerConfig
from isthmus.transports.testing.contract import TRANSPORT_CONTRACT, run_check
from isthmus.transports.testing.pair import TransportPair

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from isthmus.transports.core.interfaces import Connection, Transport
    from isthmus.transports.core.multiaddr import Multiaddr
    from isthmus.transports.core.peer_id import PeerId

UNLIMITED = RelayServerConfig(
    preset="public", circuit_bytes=0, circuit_duration=0, circuits_per_peer=100
)


class Towards:
    """A transport that leads to one peer unless another is named: no address of a relay does."""

    def __init__(self, transport: Transport, peer: PeerId) -> None:
        self._transport = transport
        self._peer = peer
        self.protocols = transport.protocols
        self.attach = transport.attach
        self.can_dial = transport.can_dial
        self.listen = transport.listen

    async def dial(self, addr: Multiaddr, *, peer: PeerId | None = None, **options) -> Connection:
        whom = peer or addr.peer_id or self._peer
        return await self._transport.dial(addr, peer=whom, **options)


ELSEWHERE = {"check_transport_refuses_another_peer"}
"""Whom a relay does not know it refuses itself: see tests/relay/circuit/test_client.py."""


@asynccontextmanager
async def circuits() -> AsyncIterator[TransportPair]:
    """Two nodes and a relay; the one that listens does so only where the contract asks it to."""
    config = NodeConfig(relay_server=UNLIMITED)
    async with (
        Node(listen="/ip4/127.0.0.1/tcp/0", config=config) as relay,
        Node() as dialer,
        Node() as listener,
        anyio.create_task_group() as tasks,
    ):
        client = listener.relayed.client
        (address,) = relay.addresses
        client.use(relay.peer_id, [address.without_peer()])
        tasks.start_soon(listener.relayed.run, listener.events())
        while not client.holds(relay.peer_id):
            await client.wait_changed()
        yield TransportPair(
            dialer=Towards(dialer._swarm.transport_for(ANY_RELAY), listener.peer_id),
            dialer_host=dialer,
            listener=listener._swarm.transport_for(ANY_RELAY),
            listener_host=listener,
            address=ANY_RELAY,
        )
        tasks.cancel_scope.cancel()


@pytest.mark.parametrize(
    "check",
    [each for each in TRANSPORT_CONTRACT if each.__name__ not in ELSEWHERE],
    ids=lambda each: each.__name__[6:],
)
async def test_contract(check):
    await run_check(check, circuits)
