"""Peers that are found rather than named: told as events, remembered, dialled where wanted."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

import anyio

from ..transports.core.errors import P2PError
from ..transports.lan.driver import LanDiscovery, MulticastMissing
from ..transports.lan.transport import LanTransport
from .events import MulticastUnavailable, PeerFound

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from ..transports.core.interfaces import Transport
    from ..transports.core.multiaddr import Multiaddr
    from ..transports.core.peer_id import PeerId
    from ..transports.lan.config import LanConfig
    from ..transports.lan.machine import PeerHeard
    from .events import NodeEvent
    from .peerstore import PeerStore
    from .swarm import Swarm

DIALS_PER_SECOND = 8
"""Dials that nobody asked for, a second: what a LAN full of lies may cost."""

DIALS_AT_ONCE = 8
"""The same, under way."""

WAITING = 64
"""Found peers that wait to be dialled; more will be heard of again within a minute."""

CROSSING_PAUSE = 0.3
"""Seconds that the higher peer id waits for the lower one, so that two who find each other at the
same time make one connection."""


class Discovery:
    """What a node does with the peers of its LAN."""

    def __init__(
        self,
        own: PeerId,
        config: LanConfig,
        *,
        transports: Sequence[Transport],
        peers: PeerStore,
        addresses: Callable[[], Iterable[Multiaddr]],
        publish: Callable[[NodeEvent], None],
        dial: bool,
    ) -> None:
        self._own = own
        self._peers = peers
        self._publish = publish
        self._dials = dial
        self._queue: deque[PeerId] = deque()
        self._under_way: set[PeerId] = set()
        self._poke = anyio.Event()
        self._lan = LanDiscovery(own, config, addresses=addresses, tell=self._receive)
        self.transport = LanTransport(self._lan, transports)

    async def run(self, swarm: Swarm) -> None:
        """Discover until cancelled."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._lan.run)
            limiter = anyio.CapacityLimiter(DIALS_AT_ONCE)
            while True:
                self._poke = anyio.Event()
                if not self._queue:
                    await self._poke.wait()
                    continue
                peer = self._queue.popleft()
                if peer in self._under_way or swarm.best(peer) is not None:
                    continue
                await limiter.acquire_on_behalf_of(peer)
                self._under_way.add(peer)
                tasks.start_soon(self._connect, swarm, peer, limiter)
                await anyio.sleep(1 / DIALS_PER_SECOND)

    def _receive(self, event: PeerHeard | MulticastMissing) -> None:
        if isinstance(event, MulticastMissing):
            self._publish(MulticastUnavailable(event.interfaces))
            return
        if event.is_new:
            self._peers.add_addresses(event.peer, event.addresses)
            self._publish(PeerFound(event.peer, event.addresses))
        if self._dials and len(self._queue) < WAITING and event.peer not in self._queue:
            self._queue.append(event.peer)
            self._poke.set()

    async def _connect(self, swarm: Swarm, peer: PeerId, limiter: anyio.CapacityLimiter) -> None:
        from .dialing import Target

        try:
            if peer < self._own:
                await anyio.sleep(CROSSING_PAUSE)
            if swarm.best(peer) is None:
                await swarm.connect(Target(peer))
        except P2PError:
            return  # the swarm has told of it, as DialFailed
        finally:
            limiter.release_on_behalf_of(peer)
            self._under_way.discard(peer)
