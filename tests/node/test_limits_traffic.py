"""Thirty peers come and go for ten minutes where twenty may be connected; by a virtual clock."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

import anyio
import pytest
from isthmus.node.config import LimitsConfig, NodeConfig
from isthmus.node.dialing import parse_target
from isthmus.node.events import ConnectionEnded, ConnectionOpened, ConnectionRefused
from isthmus.node.limits import Standing
from isthmus.node.links import Links
from isthmus.node.peerstore import PeerStore
from isthmus.node.reconnect import ReconnectPolicy
from isthmus.node.swarm import Swarm
from isthmus.transports.core.errors import LimitExceeded, unwrap_group
from isthmus.transports.core.interfaces import Priority, Side
from isthmus.transports.core.keys import PrivateKey
from isthmus.transports.core.multiaddr import Multiaddr
from isthmus.transports.core.peer_id import PeerId
from sim.fakes import FakeConnection, FakeTransport
from trio.testing import MockClock

if TYPE_CHECKING:
    from isthmus.node.events import NodeEvent

LIMIT = 20
TRAFFIC = 600.0
"""Seconds of comings and goings."""
CALM = 180.0
"""Seconds after them in which nobody leaves by himself, but all who are out go on trying."""
LIMITS = LimitsConfig(connections=LIMIT)

OWN, *PEERS = (
    PeerId.from_public_key(PrivateKey.from_seed(bytes([number]) * 32).public_key)
    for number in range(1, 32)
)
KEPT, KNOWN, DIALLED, BUSY = PEERS[:4], PEERS[4:8], PEERS[8:16], PEERS[16:20]
WORTHY = PEERS[:LIMIT]
"""Kept, known, dialled by the node itself, in use: the other ten are idle strangers."""


@pytest.fixture
def anyio_backend():
    return ("trio", {"clock": MockClock(autojump_threshold=0)})


class Traffic:
    """The node's table of connections, and its thirty peers."""

    def __init__(self, seed: int) -> None:
        self.chance = Random(seed)
        self.events: list[NodeEvent] = []
        self.opened_at: dict[PeerId, float] = {}
        self.evicted: list[tuple[PeerId, float]] = []
        self.waits: list[float] = []
        self.is_calm = False
        self.standing = dict.fromkeys(KEPT, Standing.KEPT) | dict.fromkeys(KNOWN, Standing.KNOWN)
        self.swarm = Swarm(
            peer_id=OWN,
            transports=[FakeTransport(self.dial)],
            config=NodeConfig(limits=LIMITS),
            peers=PeerStore(),
            publish=self.note,
            serve=self.serve,
            links=Links(policy=ReconnectPolicy(), publish=self.note, connect=None),
            standing=lambda peer: self.standing.get(peer, Standing.UNKNOWN),
        )

    def note(self, event: NodeEvent) -> None:
        now = anyio.current_time()
        self.events.append(event)
        if isinstance(event, ConnectionOpened):
            self.opened_at[event.peer] = now
        if isinstance(event, ConnectionEnded) and "made room" in event.reason:
            self.evicted.append((event.peer, now - self.opened_at[event.peer]))
        assert len(self.swarm._table) <= LIMIT

    async def serve(self, entry, tasks, on_end) -> None:
        await entry.connection.wait_closed()
        on_end()

    async def dial(self, addr: Multiaddr) -> FakeConnection:
        await anyio.sleep(0.1)
        return FakeConnection(PEERS[addr.port - 1], addr.without_peer())

    async def live(self, peer: PeerId) -> None:
        """Come, stay for a while, go, and come again."""
        while True:
            await anyio.sleep(self.chance.uniform(1, 60 if not self.is_calm else 10))
            connection = await self.come(peer)
            if connection is None:
                continue
            with anyio.move_on_after(self.chance.uniform(20, 300)):
                await connection.wait_closed()
            if not self.is_calm:
                connection.fail()
            await connection.wait_closed()

    async def come(self, peer: PeerId) -> FakeConnection | None:
        number = PEERS.index(peer) + 1
        address = Multiaddr.parse(f"/ip4/192.0.2.{number}/tcp/{number}")
        if peer in DIALLED:
            started = anyio.current_time()
            try:
                target = parse_target(address.with_peer(peer))
                connection = await self.swarm.connect(target, priority=Priority.HIGH)
            except LimitExceeded:
                return None
            finally:
                self.waits.append(anyio.current_time() - started)
            return connection
        connection = FakeConnection(peer, address, side=Side.LISTENER)
        connection.streams = int(peer in BUSY)
        await self.swarm.accept(connection)
        return None if connection.is_closed else connection

    async def pass_by(self) -> set[PeerId]:
        """Let the traffic and the calm pass; return who is connected at the end."""
        with unwrap_group():
            async with anyio.create_task_group() as tasks:
                self.swarm.start(tasks)
                for peer in PEERS:
                    tasks.start_soon(self.live, peer)
                await anyio.sleep(TRAFFIC)
                self.is_calm = True
                await anyio.sleep(CALM)
                there = {entry.connection.remote_peer for entry in self.swarm.entries}
                tasks.cancel_scope.cancel()
        return there


async def test_the_twenty_most_valuable_stay(seed, scaled):
    for number in range(scaled(100)):
        it = Traffic(seed + number)
        assert await it.pass_by() == set(WORTHY), seed + number
        peers = [peer for peer, _ in it.evicted]
        assert peers, "nobody had to make room, so that nothing was tried"
        assert len(set(peers)) == len(peers), "somebody was evicted twice"
        assert min(age for _, age in it.evicted) >= LIMITS.minimum_age
        assert not set(peers) & set(WORTHY)
        # Those who are turned away are told why, and dials wait instead of failing.
        settings = {event.setting for event in it.events if isinstance(event, ConnectionRefused)}
        assert settings <= {"limits.connections", "limits.eviction_pause"}
        assert max(it.waits) <= LIMITS.dial_wait + 1
