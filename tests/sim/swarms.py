"""A swarm over connections that carry nothing, for tests of what it dials and keeps."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import anyio
from isthmus.node.config import NodeConfig
from isthmus.node.dialing import parse_target
from isthmus.node.limits import Standing
from isthmus.node.links import Links
from isthmus.node.peerstore import PeerStore
from isthmus.node.reconnect import ReconnectPolicy
from isthmus.node.swarm import Swarm
from isthmus.transports.core.errors import unwrap_group
from isthmus.transports.core.keys import PrivateKey
from isthmus.transports.core.multiaddr import Multiaddr
from isthmus.transports.core.peer_id import PeerId

from .fakes import FakeTransport

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from isthmus.node.events import NodeEvent

    from .fakes import FakeConnection

PEERS = sorted(
    PeerId.from_public_key(PrivateKey.from_seed(bytes([number]) * 32).public_key)
    for number in range(1, 6)
)
LOW, LOCAL, HIGH = PEERS[0], PEERS[2], PEERS[4]


def address(port: int = 1, peer: PeerId | None = None) -> Multiaddr:
    found = Multiaddr.parse(f"/ip4/192.0.2.1/tcp/{port}")
    return found if peer is None else found.with_peer(peer)


class Fixture:
    """A swarm whose dials succeed at the addresses in `online`, and fail with what is there."""

    def __init__(self, **settings) -> None:
        self.online: dict[Multiaddr, FakeConnection | Exception | anyio.Event | None] = {}
        self.answers: dict[Multiaddr, FakeConnection] = {}
        self.events: list[NodeEvent] = []
        self.kept: set[PeerId] = set()
        self.peers = PeerStore()
        self.transport = FakeTransport(self._dial)
        self.swarm = Swarm(
            peer_id=LOCAL,
            transports=[self.transport],
            config=NodeConfig(**settings),
            peers=self.peers,
            publish=self.events.append,
            serve=self._serve,
            links=Links(policy=ReconnectPolicy(), publish=self.events.append, connect=None),
            standing=lambda peer: Standing.KEPT if peer in self.kept else Standing.UNKNOWN,
        )

    def told(self, kind: type[NodeEvent]) -> list[NodeEvent]:
        return [event for event in self.events if isinstance(event, kind)]

    async def _dial(self, addr: Multiaddr) -> FakeConnection:
        await anyio.lowlevel.checkpoint()
        found = self.online[addr.without_peer()]
        if found is None:
            await anyio.sleep_forever()
        if isinstance(found, anyio.Event):
            await found.wait()
            found = self.answers[addr.without_peer()]
        if isinstance(found, Exception):
            raise found
        return found

    async def _serve(self, entry, tasks, on_end) -> None:
        await entry.connection.wait_closed()
        on_end()

    async def connect(self, to, **options) -> FakeConnection:
        return await self.swarm.connect(parse_target(to), **options)


@asynccontextmanager
async def running(**settings) -> AsyncIterator[Fixture]:
    fixture = Fixture(**settings)
    with unwrap_group():
        async with anyio.create_task_group() as tasks:
            fixture.swarm.start(tasks)
            try:
                yield fixture
            finally:
                await fixture.swarm.stop()
                tasks.cancel_scope.cancel()
