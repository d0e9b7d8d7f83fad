"""Peers that are found rather than named: told as events, remembered, dialled where wanted."""

from __future__ import annotations

import logging
from collections import deque
from typing import TYPE_CHECKING

import anyio

from ..transports.core.errors import P2PError
from ..transports.core.interfaces import Priority
from ..transports.lan.driver import LanDiscovery, MulticastMissing
from ..transports.lan.transport import LanTransport
from .dialing import Target
from .events import MulticastUnavailable, PeerFound

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from ..transports.core.interfaces import Transport
    from ..transports.core.multiaddr import Multiaddr
    from ..transports.core.peer_id import PeerId
    from ..transports.lan.config import LanConfig
    from ..transports.lan.driver import LanState
    from ..transports.lan.machine import PeerHeard
    from .events import NodeEvent
    from .peerstore import PeerStore
    from .swarm import Swarm

logger = logging.getLogger(__name__)

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
        news: Callable[[PeerId], None],
        dial: bool,
    ) -> None:
        self._own = own
        self._peers = peers
        self._publish = publish
        self._news = news
        self._dials = dial
        self._queue: deque[Target] = deque()
        self._under_way: set[PeerId | None] = set()
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
                target = self._queue.popleft()
                if target.peer in self._under_way or _is_connected(swarm, target):
                    continue
                await limiter.acquire_on_behalf_of(target)
                self._under_way.add(target.peer)
                tasks.start_soon(self._connect, swarm, target, limiter)
                await anyio.sleep(1 / DIALS_PER_SECOND)

    def state(self) -> LanState:
        """Return where peers are looked for, and whether that works."""
        return self._lan.state()

    def is_there(self, peer: PeerId) -> bool:
        """Say whether this LAN has been heard to have a peer, not long ago."""
        return self._lan.is_known(peer)

    def _receive(self, event: PeerHeard | MulticastMissing) -> None:
        if isinstance(event, MulticastMissing):
            self._publish(MulticastUnavailable(event.interfaces))
            return
        if event.is_new:
            self._peers.add_addresses(event.peer, event.addresses)
            self._publish(PeerFound(event.peer, event.addresses))
        self._news(event.peer)
        target = Target(event.peer, event.addresses)
        if self._dials and len(self._queue) < WAITING and target not in self._queue:
            self._queue.append(target)
            self._poke.set()

    async def _connect(self, swarm: Swarm, target: Target, limiter: anyio.CapacityLimiter) -> None:
        try:
            if target.peer is not None and target.peer < self._own:
                await anyio.sleep(CROSSING_PAUSE)
            if not _is_connected(swarm, target):
                await swarm.connect(target, priority=Priority.LOW)
        except P2PError as error:
            # The swarm has published it, as DialFailed.
            logger.debug("a peer of the LAN was not reached: %s", error)
        finally:
            limiter.release_on_behalf_of(target)
            self._under_way.discard(target.peer)


def _is_connected(swarm: Swarm, target: Target) -> bool:
    return target.peer is not None and swarm.best(target.peer) is not None
