"""Services: who offers one, by the DHT that the configuration names, and what this node offers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..relay.kad.config import check_service
from ..transports.core.errors import ConfigError, LocalProtocolError
from ..transports.core.interfaces import Priority
from .claims import believable
from .dialing import Target
from .events import AddressesChanged, ProvidingFailed, ServiceProvided
from .protocols.identify import sendable
from .router import open_negotiated

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from anyio.abc import TaskGroup

    from ..relay.kad.client import KadClient
    from ..relay.kad.wire import FoundPeer
    from ..transports.core.interfaces import Connection, Stream
    from ..transports.core.multiaddr import Multiaddr
    from ..transports.core.peer_id import PeerId
    from .config import NodeConfig
    from .events import EventHub, EventReader
    from .peerstore import PeerStore
    from .swarm import Swarm

DEFAULT_FOUND = 20
"""Peers of one search, unless more are asked for."""

MAX_FOUND = 100
"""The most that may be asked for, as in go's discovery; each has up to sixteen addresses."""


class Finding:
    """What a node asks of the DHT, and tells it; the owner of the DHT's client.

    Without `dht.bootstrap` it does nothing, and says so to whoever asks.
    """

    def __init__(
        self,
        peer_id: PeerId,
        config: NodeConfig,
        *,
        swarm: Swarm,
        peers: PeerStore,
        addresses: Callable[[], Iterable[Multiaddr]],
        events: EventHub,
        is_on_link: Callable[[Multiaddr], bool],
        is_kept: Callable[[PeerId], bool],
    ) -> None:
        self.peer_id = peer_id
        self._config = config
        self._swarm = swarm
        self._peers = peers
        self._addresses = addresses
        self._events = events
        self._is_on_link = is_on_link
        self._is_kept = is_kept
        self._client: KadClient | None = None
        self._opened: dict[Connection, None] = {}

    def start(self, tasks: TaskGroup) -> None:
        """Begin to announce what the configuration says; nothing is dialled for nothing."""
        dht = self._config.dht
        if not dht.bootstrap:
            return
        # Loaded only where it is used.
        from ..relay.kad.client import KadClient

        self._client = KadClient(self, dht, tell=self._tell)
        for service in dht.provide:
            self._client.provide(service)
        tasks.start_soon(self._client.run)
        tasks.start_soon(self._watch, self._client, self._events.reader())

    def stop(self) -> None:
        """Answer no more."""
        self._client = None

    async def find(self, service: str, limit: int) -> list[FoundPeer]:
        """Return who is said to offer a service; see `Node.find_peers`."""
        check_service(service)
        if not 1 <= limit <= MAX_FOUND:
            raise ConfigError(f"limit must be between 1 and {MAX_FOUND}, not {limit}")
        client = self._running()
        # Loaded with the client.
        from ..relay.kad.wire import FoundPeer, service_key

        found = await client.find_providers(service_key(service), limit=limit)
        for each in found:
            if each.addresses and not self._peers.addresses(each.peer):
                # Only where nothing better is known: it is a claim until a dial has proven it.
                self._peers.add_addresses(each.peer, each.addresses)
        return [
            FoundPeer(each.peer, tuple(one.with_peer(each.peer) for one in each.addresses))
            for each in found
        ]

    def provide(self, service: str) -> None:
        """Offer a service; see `Node.provide`."""
        check_service(service)
        self._running().provide(service)

    async def open_stream(self, to: FoundPeer, protocol: str) -> Stream:
        """Open a stream to a server; a failure is no event, since most lookups meet some."""
        standing = self._swarm.best(to.peer, allow_limited=False)
        connection = await self._swarm.connect(
            Target(to.peer, to.addresses), allow_limited=False, is_quiet=True, priority=Priority.LOW
        )
        if connection is not standing:
            self._opened[connection] = None
        return await open_negotiated(
            connection,
            (protocol,),
            known=self._peers.protocols(to.peer),
            timeout=self._config.negotiation_timeout,
            priority=Priority.LOW,
        )

    def addresses(self) -> tuple[Multiaddr, ...]:
        """Return the addresses that the DHT is told."""
        told = (sendable(each) for each in self._addresses())
        return tuple(dict.fromkeys(each for each in told if each is not None))

    def believable(self, claimed: Iterable[Multiaddr], seen_at: Multiaddr) -> tuple[Multiaddr, ...]:
        """Return the claimed addresses that fit where the server is, those that can be dialled
        first."""
        believed = believable(claimed, seen_at, self._is_on_link)
        return tuple(sorted(believed, key=lambda each: not self._can_dial(each)))

    def neighbours(self) -> Iterable[FoundPeer]:
        """Return the connected peers that say that they serve the DHT."""
        from ..relay.kad.wire import FoundPeer

        protocol = self._config.dht.protocol
        for peer in {entry.connection.remote_peer for entry in self._swarm.entries}:
            if protocol in (self._peers.protocols(peer) or ()):
                yield FoundPeer(peer, self._peers.addresses(peer))

    def settled(self) -> None:
        """Let the connections go that were made to ask: their servers have others to serve.

        What somebody else has begun on one of them goes on, and kept peers stay.
        """
        opened, self._opened = self._opened, {}
        for connection in opened:
            is_there = self._swarm.entry(connection) is not None
            if is_there and not self._is_kept(connection.remote_peer):
                self._swarm.discard(connection)
                connection.drain()

    def _running(self) -> KadClient:
        if not self._config.dht.bootstrap:
            raise ConfigError(
                "no DHT is configured: name a server of one, in dht.bootstrap or with --bootstrap"
            )
        if self._client is None:
            raise LocalProtocolError("a node finds and provides only while it runs")
        return self._client

    def _can_dial(self, address: Multiaddr) -> bool:
        transport = self._swarm.transport_for(address)
        return transport is not None and transport.can_dial(address)

    async def _watch(self, client: KadClient, events: EventReader) -> None:
        async for event in events:
            if isinstance(event, AddressesChanged):
                client.moved()

    def _tell(self, service: str, taken: int, reason: str) -> None:
        if taken:
            self._events.publish(ServiceProvided(service, taken))
        else:
            self._events.publish(ProvidingFailed(service, reason))
