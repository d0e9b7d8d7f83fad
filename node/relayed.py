"""How a node is reached behind relays: circuit relay v2's client, on the node's connections."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import anyio

from ..relay.circuit.addresses import ANY_RELAY
from ..relay.circuit.client import RelayClient
from ..relay.circuit.transport import CircuitTransport
from ..relay.circuit.wire import HOP_PROTOCOL
from ..transports.core.errors import ConfigError, DialError, LimitExceeded
from ..transports.core.interfaces import Priority
from ..transports.core.multiaddr import Multiaddr
from .dialing import Target
from .dialplan import MAX_ADDRESSES
from .events import (
    ConnectionEnded,
    ConnectionOpened,
    PathChanged,
    PeerIdentified,
    RelayLost,
    RelayRefused,
    RelayReserved,
)
from .wallclock import wall_clock

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ..relay.circuit.client import Held
    from ..relay.circuit.client_config import RelaysConfig
    from ..transports.core.interfaces import Connection
    from ..transports.core.peer_id import PeerId
    from .events import EventReader, Json, NodeEvent
    from .peerstore import PeerStore
    from .swarm import Swarm

HOLDER = "relay client"
"""Who keeps a connection from being closed: see `Swarm.hold`."""


@dataclass(frozen=True, slots=True)
class RelayStatus:
    """One relay that the node uses, or could use.

    `state` is that of its supervisor, `reason` why it is not reserved. `until` is in seconds since
    1970, None if no reservation stands; `round_trip` is in seconds, None if it was not measured.
    """

    relay: PeerId
    state: str
    is_configured: bool
    reason: str
    addresses: tuple[Multiaddr, ...]
    until: float | None
    round_trip: float | None

    def to_json(self) -> dict[str, Json]:
        """Return plain JSON values; seconds of a round trip become milliseconds."""
        rtt = self.round_trip
        return {
            "relay": str(self.relay),
            "state": self.state,
            "configured": self.is_configured,
            "reason": self.reason or None,
            "addresses": [str(address) for address in self.addresses],
            "until": self.until,
            "rtt_ms": None if rtt is None else round(rtt * 1e3, 3),
        }


class Relayed:
    """The relays of one node; `bind` gives it the connections, which need its transport first.

    Raises ConfigError for more relays than a user may name.
    """

    def __init__(
        self, config: RelaysConfig, *, peers: PeerStore, publish: Callable[[NodeEvent], None]
    ) -> None:
        self.config = config
        self._peers = peers
        self._publish = publish
        self._swarm: Swarm | None = None
        try:
            self.client = RelayClient(
                config,
                self,
                on_reserved=self._reserved,
                on_lost=self._on_lost,
                on_refused=self._on_refused,
            )
        except LimitExceeded as error:
            raise ConfigError(str(error)) from error
        self.transport = CircuitTransport(self.client)

    @property
    def listen(self) -> tuple[Multiaddr, ...]:
        """Where the node has to listen for what comes through relays, if any are to be used."""
        return (ANY_RELAY,) if self.config.via or self.config.discover else ()

    def bind(self, swarm: Swarm) -> None:
        """Learn the connections of the node."""
        self._swarm = swarm

    async def run(self, events: EventReader) -> None:
        """Hold reservations until cancelled; `events` tell of peers that are relays."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self.client.run)
            async for event in events:
                self._note(event)

    def status(self) -> tuple[RelayStatus, ...]:
        """Return the relays that are known: those of the user first, then those in use."""
        held = {each.relay: each for each in self.client.held}
        found = [self._status(relay, held.get(relay)) for relay in self.client.relays]
        return tuple(sorted(found, key=lambda each: (not each.is_configured, each.until is None)))

    # What the client asks

    async def connect(self, relay: PeerId, addresses: tuple[Multiaddr, ...]) -> Connection:
        """Return a direct connection to a relay; tells nobody but the caller of a failure."""
        places = dict.fromkeys((*addresses, *self.known(relay)))
        target = Target(relay, tuple(places)[:MAX_ADDRESSES])
        connection = await self._connections.connect(
            target, allow_limited=False, is_quiet=True, priority=Priority.HIGH
        )
        if "p2p-circuit" in connection.remote_addr.names:
            raise DialError(f"the relay {relay} is reached only through another one")
        return connection

    def best(self, relay: PeerId) -> Connection | None:
        """Return the connection that a stream to a relay would take."""
        return self._connections.best(relay, allow_limited=False)

    def known(self, relay: PeerId) -> tuple[Multiaddr, ...]:
        """Return the addresses that are known of a relay, without those behind others."""
        found = self._peers.addresses(relay)
        return tuple(address for address in found if "p2p-circuit" not in address.names)

    def hold(self, connection: Connection) -> None:
        """Have a connection stay."""
        self._connections.hold(connection, HOLDER)

    def release(self, connection: Connection) -> None:
        """Let a connection be closed again where it is of no use."""
        self._connections.release(connection, HOLDER)

    def abandon(self, connection: Connection) -> None:
        """Have a connection closed that leads nowhere."""
        self._connections.abandon(connection, "the relay does not answer")

    # Helpers

    @property
    def _connections(self) -> Swarm:
        if self._swarm is None:
            raise DialError("the node has no connections yet")
        return self._swarm

    def _note(self, event: NodeEvent) -> None:
        if isinstance(event, (ConnectionOpened, PathChanged)):
            self.client.connected(event.peer)
        elif isinstance(event, ConnectionEnded):
            self.client.disconnected(event.peer)
        elif (
            isinstance(event, PeerIdentified)
            and HOP_PROTOCOL in event.protocols
            # Only one that was met directly: a relay behind a relay is none.
            and self.best(event.peer) is not None
        ):
            self.client.found(event.peer, self.known(event.peer))

    def _status(self, relay: PeerId, held: Held | None) -> RelayStatus:
        relays = self.client.relays
        supervisor = relays.supervisor(relay)
        return RelayStatus(
            relay=relay,
            state=supervisor.state.value,
            is_configured=relays.selection.is_configured(relay),
            reason=supervisor.reason,
            addresses=() if held is None else held.addresses,
            until=None if held is None else wall_clock(held.until),
            round_trip=supervisor.round_trip,
        )

    def _reserved(self, held: Held) -> None:
        until = wall_clock(held.until)
        self._publish(RelayReserved(held.relay, held.addresses, until))

    def _on_refused(self, relay: PeerId, reason: str) -> None:
        self._publish(RelayRefused(relay, reason))

    def _on_lost(self, relay: PeerId, reason: str) -> None:
        self._publish(RelayLost(relay, reason))


def with_relays(
    config: RelaysConfig, relays: str | Multiaddr | Sequence[str | Multiaddr]
) -> RelaysConfig:
    """Return a configuration with relays added; raises AddressError, ConfigError."""
    each = (relays,) if isinstance(relays, (str, Multiaddr)) else relays
    added = [item if isinstance(item, Multiaddr) else Multiaddr.parse(item) for item in each]
    return replace(config, via=tuple(dict.fromkeys((*config.via, *added)))) if added else config
