"""The node: what an application holds, and what its transports see as their host."""

from __future__ import annotations

import time
from contextlib import asynccontextmanager, closing
from typing import TYPE_CHECKING, overload

import anyio

from ..relay.circuit.addresses import CIRCUIT
from ..transports.core.errors import (
    LocalProtocolError,
    unwrap_group,
)
from ..transports.core.interfaces import Priority, Side
from ..transports.core.keys import PrivateKey
from ..transports.core.peer_id import PeerId
from .config import NodeConfig, upgrade_config
from .dialing import Target, parse_listen, parse_target
from .entries import Entry, StandingConnections
from .events import AddressesChanged, EventHub, Listening
from .examination import examine
from .finding import DEFAULT_FOUND, Finding
from .inbound_streams import InboundStreams
from .keeping import Keeping
from .limits import Standing
from .links import Links
from .networks import LocalNetworks
from .opening import Manner, Opener
from .own_addresses import OwnAddresses
from .protocols.identify_service import Identify
from .protocols.own import own_protocols
from .protocols.perf import PERF_PROTOCOL, serve_perf
from .reach import Reach, reuse_of
from .relayed import Relayed, with_relays
from .relaying import Relaying
from .router import Registration, Router
from .store.stores import Stores
from .swarm import Swarm
from .watch import watch_networks

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path
    from types import TracebackType
    from typing import Self

    from anyio.abc import TaskGroup

    from ..relay.autonat.reachability import Reachability
    from ..relay.kad.wire import FoundPeer
    from ..transports.core.interfaces import Connection, RawTransport, Stream, Transport
    from ..transports.core.multiaddr import Multiaddr
    from .dialing import Destination
    from .dialreport import DialReport
    from .discovery import Discovery
    from .doctor.findings import Diagnosis
    from .events import EventReader, PeerIdentified
    from .limits import Fullness
    from .link import Link
    from .path import Rank
    from .relayed import RelayStatus
    from .router import Handler

MAX_RESPONSE_BYTES = 1024 * 1024
"""What `request` reads at most, unless told otherwise: an answer is held in memory whole."""


class Node:
    """A peer of the network; an async context manager, to be entered once.

    Embedding it is silent: no socket is bound and nothing is announced unless `listen` says so.
    `lan` finds the peers of the same network, and shows this node to them if it listens.
    `relays` are addresses of relays to be reached behind, each with its /p2p.
    `data_dir` is a directory for what it learns of peers, which the next node there begins with;
    one node at a time uses it, and without one nothing is kept.
    `identity` is a new Ed25519 key unless given; `listen` names one or several multiaddrs;
    `transports` replaces the default, TCP and WebSocket, by objects and by names that packages
    have registered; `config` has the settings of the layers below, too. Raises ConfigError for a
    transport that cannot be used, AddressError for an address that does not parse; entering raises
    NoTransport, AddressError, ConfigError or OSError if it cannot listen, and StoreError if a newer
    isthmus has written in `data_dir`. Leaving flushes what waits, for at most `config.stop_timeout`
    seconds, and closes every connection.
    """

    def __init__(
        self,
        *,
        identity: PrivateKey | None = None,
        listen: str | Multiaddr | Sequence[str | Multiaddr] = (),
        lan: bool = False,
        relays: str | Multiaddr | Sequence[str | Multiaddr] = (),
        data_dir: Path | None = None,
        transports: Sequence[Transport | RawTransport | str] | None = None,
        config: NodeConfig | None = None,
    ) -> None:
        self.config = config or NodeConfig()
        self.key = identity or PrivateKey.generate()
        self.peer_id = PeerId.from_public_key(self.key.public_key)
        self.stores = Stores(data_dir)
        self.peers = self.stores.peers
        self._events = EventHub()
        self.relayed = Relayed(
            with_relays(self.config.relays, relays), peers=self.peers, publish=self._events.publish
        )
        self._listen = (*parse_listen(listen), *self.relayed.listen)
        self._own = OwnAddresses(
            self.peer_id, self.config.privacy.addresses, lambda: self.reach.external
        )
        self._has_to_watch = anyio.Event()
        if self._listen or lan:
            self._has_to_watch.set()
        self._context: AbstractAsyncContextManager[None] | None = None
        self._router = Router(
            negotiation_timeout=self.config.negotiation_timeout,
            streams=InboundStreams(self.config.limits, self._standing),
            publish=self._events.publish,
            on_change=self._on_protocols,
        )
        self.links = Links(
            policy=self.config.reconnect,
            publish=self._events.publish,
            connect=lambda peer: self._swarm.connect(Target(peer), is_quiet=True),
            histories=self.stores.links,
        )
        self._keeping = Keeping(self.peer_id, self.stores, self.links)
        self._make_layers(transports, lan=lan)

    @property
    def addresses(self) -> tuple[Multiaddr, ...]:
        """The addresses this node can be dialled at, each ending in /p2p/<id>."""
        return self._own.named

    @property
    def protocols(self) -> tuple[str, ...]:
        """The protocols this node serves."""
        return self._router.protocols

    @property
    def connections(self) -> tuple[Connection, ...]:
        """The connections that stand."""
        return tuple(entry.connection for entry in self._swarm.entries)

    @property
    def reachability(self) -> Reachability:
        """Whether others can dial this node, as far as they have tried and said so."""
        return self.reach.reachability

    @property
    def relays(self) -> tuple[RelayStatus, ...]:
        """The relays that this node is, or may be, reached behind."""
        return self.relayed.status()

    def usage(self) -> tuple[Fullness, ...]:
        """Return how full each limit of this node is."""
        return self._swarm.usage()

    def events(self) -> EventReader:
        """Return an iterator over what happens from now on; it ends when the node has stopped.

        At most 1024 events wait in it; an EventsLost stands where more have been dropped.
        """
        return self._events.reader()

    @overload
    def handle(
        self,
        protocol: str,
        handler: None = None,
        *,
        priority: Priority = Priority.MEDIUM,
        allow_limited: bool = False,
    ) -> Callable[[Handler], Handler]: ...

    @overload
    def handle(
        self,
        protocol: str,
        handler: Handler,
        *,
        priority: Priority = Priority.MEDIUM,
        allow_limited: bool = False,
    ) -> None: ...

    def handle(
        self,
        protocol: str,
        handler: Handler | None = None,
        *,
        priority: Priority = Priority.MEDIUM,
        allow_limited: bool = False,
    ) -> Callable[[Handler], Handler] | None:
        """Serve a protocol with `await handler(stream)`; without a handler, a decorator.

        A stream is closed when its handler returns; it is reset, and HandlerFailed emitted, when
        it raises. On relayed connections with a limit it is served only if `allow_limited`.
        Raises ConfigError if the name cannot be a protocol's or is taken.
        """
        if handler is None:

            def decorate(function: Handler) -> Handler:
                self.handle(protocol, function, priority=priority, allow_limited=allow_limited)
                return function

            return decorate
        registration = Registration(handler, Priority(priority), allow_limited)
        self._router.register(protocol, registration)
        return None

    async def connect(
        self, to: Destination, *, side: Side = Side.DIALER, fresh: bool = False
    ) -> Connection:
        """Return a connection to a peer: the best that stands, unless `fresh`, or a new one.

        `to` is a peer id or one or several addresses of one peer, tried in order. Raises
        DialError with every attempt in it, NoTransport, AddressError, LimitExceeded.
        """
        return await self._swarm.connect(parse_target(to), side=side, fresh=fresh)

    async def open_stream(
        self,
        to: Destination,
        *protocols: str,
        priority: Priority = Priority.MEDIUM,
        allow_limited: bool = False,
    ) -> Stream:
        """Open a stream that speaks one of `protocols`, best first; connects if need be.

        Once the peer has said that it speaks one of them no round trip is spent on agreeing, and
        a refusal shows as NegotiationError at the first `receive`. Raises NegotiationError,
        ConnectionClosed, StreamReset and what `connect` does.
        """
        if not protocols:
            raise LocalProtocolError("name at least one protocol to open a stream for")
        manner = Manner(priority=priority, allow_limited=allow_limited)
        return await self._opener.open_stream(parse_target(to), protocols, manner)

    async def request(
        self,
        to: Destination,
        protocol: str,
        data: bytes = b"",
        *,
        max_bytes: int = MAX_RESPONSE_BYTES,
        timeout: float = 60.0,  # noqa: ASYNC109 - part of what is asked for, named in the error
        allow_limited: bool = False,
        repeatable: bool = False,
    ) -> bytes:
        """Send `data`, half-close, and return all that the peer answers up to its half-close.

        A request that is `repeatable`, so that it does no harm if the peer gets it twice, is sent
        again where its connection ends, or falls silent, before the answer is complete; with the
        addresses of two relays that takes less than a second. Raises TimeoutError after `timeout`
        seconds, LimitExceeded for an answer of more than `max_bytes`, StreamReset if the peer's
        handler fails, and what `open_stream` does.
        """
        manner = Manner(allow_limited=allow_limited)
        with anyio.move_on_after(timeout):
            target = parse_target(to)
            if repeatable:
                return await self._opener.ask_again(
                    target, protocol, data, manner, max_bytes=max_bytes
                )
            stream = await self._opener.open_stream(target, (protocol,), manner)
            return await self._opener.ask(stream, data, max_bytes=max_bytes)
        raise TimeoutError(f"no complete answer on {protocol} within {timeout:g} s")

    async def identify(self, connection: Connection) -> PeerIdentified:
        """Ask a peer what it is, over this connection; every new one is asked without this, too.

        Raises NegotiationError, RemoteProtocolError, PeerIdMismatch, ConnectionClosed, StreamReset.
        """
        return await self._identify.ask(connection)

    def keep(self, to: Destination) -> Link:
        """Keep a peer connected from now on, as far as that is up to this node; return the link.

        It is dialled at once, again whenever it is lost, without end, and every minute where it
        has left; `PeerOnline` and `PeerOffline` tell. With a data directory the next node there
        keeps it, too. Raises AddressError if `to` does not say whose addresses these are,
        ConfigError for this very node and for the 1025th peer.
        """
        link = self._keeping.keep(parse_target(to))
        self._has_to_watch.set()
        return link

    def forget(self, peer: PeerId) -> None:
        """Keep a peer no more, and forget its link and its addresses; connections stay."""
        self._keeping.forget(peer)

    async def find_peers(self, service: str, *, limit: int = DEFAULT_FOUND) -> list[FoundPeer]:
        """Return who is said to offer a service, by the DHT of the configuration (`dht`).

        Connecting proves it: a peer that is found may be gone, or never have been there. Raises
        ConfigError without a DHT, DialError if none of its servers answers.
        """
        return await self._finding.find(service, limit)

    def provide(self, service: str) -> None:
        """Have others find this node by a service from now on, while it runs and listens.

        `ServiceProvided` tells when it is so. Raises ConfigError without a DHT, LimitExceeded for
        the 65th service.
        """
        self._finding.provide(service)

    def rank_of(self, connection: Connection) -> Rank:
        """Return the kind of path that a connection takes."""
        return self._swarm.rank_of(connection.remote_addr)

    def is_used(self, connection: Connection) -> bool:
        """Say whether what this node opens to its peer goes over this connection."""
        return self._swarm.best(connection.remote_peer) is connection

    def is_suspect(self, connection: Connection) -> bool:
        """Say whether a connection does not answer at present, while something waits for it."""
        return self._swarm.paths.is_suspect(self._swarm.entry(connection))

    def why(self, peer: PeerId | None) -> DialReport | None:
        """Return what the last dial to a peer did at every address; None if there was none.

        Without a peer: the last dial of an address that did not say whose it is.
        """
        return self._swarm.reports.get(peer)

    async def examine(self, to: Destination, *, dial_timeout: float | None = None) -> DialReport:
        """Dial a peer anew, also if it is connected, and return what happened at every address.

        Each address has `dial_timeout` seconds, or what is configured. A peer that ends the new
        connection at once counts as not connected; where one stood already the new one is ended.
        Raises AddressError, and SelfDial for this very node.
        """
        return await examine(self._swarm, parse_target(to), dial_timeout=dial_timeout)

    async def diagnose(self) -> Diagnosis:
        """Return what hinders this node, and what to change, as far as that is known by now."""
        from .doctor.gathering import look_at

        return await look_at(self, self._own.bound, self.relayed, self._discovery)

    def serve_perf(self) -> None:
        """Serve /perf/1.0.0, by which any peer may have this node send as much as it asks for."""
        self.handle(PERF_PROTOCOL, serve_perf, priority=Priority.LOW)

    def begin_upgrade(self, addr: Multiaddr) -> bool:
        """Say whether a connection that comes in may begin its upgrade; transports ask it."""
        return self._swarm.begin_upgrade(addr)

    def end_upgrade(self, addr: Multiaddr) -> None:
        """Note that such an upgrade has ended; transports say it."""
        self._swarm.end_upgrade(addr)

    async def __aenter__(self) -> Self:
        if self._context is not None:
            raise LocalProtocolError("a node is entered once; make a new one")
        self._context = self._running()
        await self._context.__aenter__()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_val: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> bool | None:
        assert self._context is not None
        swallowed = await self._context.__aexit__(exc_type, exc_val, exc_tb)
        if exc_type is None and self.config.raise_handler_errors and self._router.first_error:
            raise self._router.first_error
        return swallowed

    @asynccontextmanager
    async def _running(self) -> AsyncIterator[None]:
        with unwrap_group(), closing(self._events):
            async with self.stores.opened(), anyio.create_task_group() as tasks:
                try:
                    self._swarm.start(tasks)
                    self.relaying.start(tasks, self._router)
                    if self._keeping.resume():
                        self._has_to_watch.set()
                    tasks.start_soon(self._identify.run)
                    tasks.start_soon(self.links.run)
                    tasks.start_soon(self.reach.run)
                    tasks.start_soon(self._watch_networks)
                    if any(each.last_transport == CIRCUIT for each in self._listen):
                        tasks.start_soon(self.relayed.run, self._events.reader())
                    await self._own.listeners.bind(self._listen, self._swarm)
                    self._own.update()
                    self._own.listeners.serve(tasks, self._swarm, self._look_at_addresses)
                    self._events.publish(Listening(self.peer_id, self.addresses))
                    self._finding.start(tasks)
                    tasks.start_soon(self.stores.run, self._events.publish)
                    if self._discovery is not None:
                        tasks.start_soon(self._discovery.run, self._swarm)
                    yield
                finally:
                    await self._stop()
                    tasks.cancel_scope.cancel()

    def _make_layers(
        self, transports: Sequence[Transport | RawTransport | str] | None, *, lan: bool
    ) -> None:
        """Put together what carries connections, and what is said over every one."""
        # Loaded here, since the transports are most of what an import of the node would cost.
        from ..transports.registry import transports_for

        chosen = transports_for(
            transports,
            upgrade=upgrade_config(self.config.upgrade, self.config.limits),
            websocket=self.config.websocket,
            reuse_port=reuse_of(self.config, self._listen),
            more=(self.relayed.transport,),
        )
        self._discovery = self._discover(chosen) if lan else None
        if self._discovery is not None:
            chosen.append(self._discovery.transport)
        networks = LocalNetworks(time.monotonic)
        self._swarm = Swarm(
            peer_id=self.peer_id,
            transports=chosen,
            config=self.config,
            peers=self.peers,
            publish=self._events.publish,
            serve=self._serve,
            links=self.links,
            is_on_link=networks.holds,
            standing=self._standing,
            is_wanted=self._is_wanted,
        )
        self._opener = Opener(self._swarm, self.peers, self.config)
        self._router.on_refusal = self._swarm.refused_stream
        self._make_help(networks)
        for transport in chosen:
            transport.attach(self)

    def _make_help(self, networks: LocalNetworks) -> None:
        """Put together how this node is reached, and what it does for others."""
        self.reach = Reach(
            self,
            self._swarm,
            config=self.config,
            peers=self.peers,
            listening=lambda: self._own.bound,
            is_on_link=networks.holds,
            publish=self._events.publish,
            on_change=self._look_at_addresses,
        )
        self.relayed.bind(self._swarm)
        self._identify = Identify(
            key=self.key,
            addresses=self._own.told,
            protocols=lambda: self._router.protocols,
            connections=StandingConnections(self._swarm),
            peers=self.peers,
            publish=self._events.publish,
            is_on_link=networks.holds,
            observed=self._on_identified,
        )
        self.relaying = Relaying(
            self,
            self.config.relay_server,
            swarm=self._swarm,
            peers=self.peers,
            standing=self._standing,
            publish=self._events.publish,
            negotiation_timeout=self.config.negotiation_timeout,
        )
        self._finding = Finding(
            self.peer_id,
            self.config,
            swarm=self._swarm,
            peers=self.peers,
            addresses=self._own.told,
            events=self._events,
            is_on_link=networks.holds,
            is_kept=self.stores.kept.__contains__,
        )
        self._register_own()
        self.reach.register(self._listen)

    async def _watch_networks(self) -> None:
        # Only where it is of use: a node that merely dials holds nothing open for it.
        await self._has_to_watch.wait()
        await watch_networks(self._on_networks)

    def _on_networks(self) -> None:
        self._look_at_addresses()
        self.reach.network_changed()
        self.relayed.client.network_changed()
        self.links.news()
        self._swarm.paths.news()

    def _on_identified(self, stream: Stream, observed: Multiaddr | None) -> None:
        self.reach.observed(stream, observed)
        self._swarm.paths.learnt(stream.connection.remote_peer)

    def _on_sign_of(self, peer: PeerId) -> None:
        self.links.news(peer)
        self._swarm.paths.learnt(peer)

    def _look_at_addresses(self) -> None:
        """Tell everyone if the addresses have changed."""
        if self._own.update():
            self._events.publish(AddressesChanged(self.addresses))
            self._identify.poke()

    def _told_now(self) -> tuple[Multiaddr, ...]:
        self._look_at_addresses()
        return self._own.told()

    async def _stop(self) -> None:
        self._finding.stop()
        deadline = anyio.current_time() + self.config.stop_timeout
        with anyio.CancelScope(shield=True, deadline=deadline):
            async with anyio.create_task_group() as closing:
                self._own.listeners.close(closing)
                closing.start_soon(self._swarm.stop)

    async def _serve(self, entry: Entry, tasks: TaskGroup, on_end: Callable[[], None]) -> None:
        def ended() -> None:
            on_end()
            # At once: a handler that does not notice must not hold a slot for who has left.
            self.relaying.connection_ended(entry.connection)

        self.reach.came(entry.connection)
        tasks.start_soon(self._greet, entry)
        try:
            await self._router.serve(entry.connection, tasks, entry.upkeep, ended)
        finally:
            self.relaying.connection_ended(entry.connection)
            self._identify.forget(entry.connection)
            self.reach.parted(entry.connection)

    async def _greet(self, entry: Entry) -> None:
        await self._identify.greet(entry.connection, entry.upkeep)
        self.reach.met(entry.connection)

    def _standing(self, peer: PeerId) -> Standing:
        return Standing.KEPT if peer in self.stores.kept else Standing.UNKNOWN

    def _is_wanted(self, peer: PeerId) -> bool:
        """Say whether a connection to a peer stays though it is idle."""
        if peer in self.stores.kept:
            return True
        found = self._discovery
        return found is not None and self.config.dial_found and found.is_there(peer)

    def _discover(self, transports: Sequence[Transport]) -> Discovery:
        # Loaded only where it is used: it brings zeroconf.
        from .discovery import Discovery

        return Discovery(
            self.peer_id,
            self.config.lan,
            transports=tuple(transports),
            peers=self.peers,
            addresses=self._told_now,
            publish=self._events.publish,
            news=self._on_sign_of,
            dial=self.config.dial_found,
        )

    def _register_own(self) -> None:
        for protocol, registration in own_protocols(self._identify).items():
            self._router.register(protocol, registration)
        if self.config.serve_perf:
            self.serve_perf()

    def _on_protocols(self) -> None:
        if self._context is not None:
            self._identify.poke()
