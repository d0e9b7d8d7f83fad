"""The relay server in a node: what it is told and asked there, and what people see of it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from ..transports.core.interfaces import Priority
from .events import CircuitEnded, CircuitOpened, RelayReservationEnded, RelayReservationMade
from .limits import Standing
from .router import Registration, open_negotiated

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from anyio.abc import TaskGroup

    from ..relay.circuit.limits import RelayServerConfig
    from ..relay.circuit.server import RelayServer
    from ..relay.circuit.splice import Circuit, CircuitEnd
    from ..relay.circuit.wire import Status
    from ..transports.core.interfaces import Connection, Host, Stream
    from ..transports.core.peer_id import PeerId
    from .events import Json, NodeEvent
    from .peerstore import PeerStore
    from .router import Router
    from .swarm import Swarm

HOLDER = "relay"
"""Who holds the connections of those that have a reservation."""

MAX_SHOWN = 256
"""Reservations and circuits that a status lists; the counts are of all."""


class Relaying:
    """The relay of a node, if it is one.

    `allows` may be set, before the node is entered, to a function that says of more peers that
    they are served.
    """

    def __init__(
        self,
        host: Host,
        config: RelayServerConfig,
        *,
        swarm: Swarm,
        peers: PeerStore,
        standing: Callable[[PeerId], Standing],
        publish: Callable[[NodeEvent], None],
        negotiation_timeout: float,
    ) -> None:
        self.config = config
        self.allows: Callable[[PeerId], bool] = lambda _: False
        self._host = host
        self._swarm = swarm
        self._peers = peers
        self._standing = standing
        self._publish = publish
        self._negotiation_timeout = negotiation_timeout
        self._server: RelayServer | None = None

    def start(self, tasks: TaskGroup, router: Router) -> None:
        """Begin to relay, if the configuration says so, in the loop that runs."""
        if not self.config.is_on:
            return
        # Loaded only where it is used.
        from ..relay.circuit.info import INFO_PROTOCOL
        from ..relay.circuit.server import RelayServer
        from ..relay.circuit.wire import HOP_PROTOCOL

        self._server = RelayServer(
            self._host, self.config, self, request_time=self._negotiation_timeout
        )
        self._server.allows = self.allows
        # Also over circuits, where it is refused by a status that says so.
        registration = Registration(self._server.serve_hop, Priority.MEDIUM, allow_limited=True)
        router.register(HOP_PROTOCOL, registration)
        info = Registration(self._server.serve_info, allow_limited=True, is_upkeep=True)
        router.register(INFO_PROTOCOL, info)
        tasks.start_soon(self._server.run)

    def connection_ended(self, connection: Connection) -> None:
        """Take note that a connection takes no more streams."""
        if self._server is not None:
            self._server.connection_ended(connection)

    def status(self) -> dict[str, Json]:
        """Return how the relay is, in JSON's values; of a node that is none, just that."""
        return {"preset": "off"} if self._server is None else _status(self._server)

    # What the server asks

    def is_known(self, peer: PeerId) -> bool:
        """Say whether the user has said something good of a peer."""
        return self._standing(peer) >= Standing.KNOWN

    def is_standing(self, connection: Connection) -> bool:
        """Say whether a connection takes new streams."""
        entry = self._swarm.entry(connection)
        return entry is not None and not entry.is_ended

    def standing(self, peer: PeerId) -> Sequence[Connection]:
        """Return the best direct connection to a peer, if there is one."""
        best = self._swarm.best(peer, allow_limited=False)
        return () if best is None else (best,)

    def hold(self, connection: Connection) -> None:
        """Have a connection stay however little it is used."""
        self._swarm.hold(connection, HOLDER)

    def release(self, connection: Connection) -> None:
        """Have it end when it is of no other use."""
        self._swarm.release(connection, HOLDER)

    async def open_on(self, connection: Connection, protocol: str) -> Stream:
        """Open a stream on this connection; raises P2PError."""
        return await open_negotiated(
            connection,
            (protocol,),
            known=self._peers.protocols(connection.remote_peer),
            timeout=self._negotiation_timeout,
        )

    # What the server tells

    def reserved(self, peer: PeerId, until: float, *, is_new: bool) -> None:
        """Publish a reservation; a renewal is none."""
        if is_new:
            self._publish(RelayReservationMade(peer, float(until)))

    def reservation_ended(self, peer: PeerId, reason: str) -> None:
        """Publish that a reservation is no more."""
        self._publish(RelayReservationEnded(peer, reason))

    def refused(self, peer: PeerId, status: Status, reason: str) -> None:
        """Leave it at the count that the server keeps: anyone can ask as often as he likes."""

    def circuit_opened(self, circuit: Circuit) -> None:
        """Publish a circuit."""
        self._publish(CircuitOpened(circuit.source, circuit.target))

    def circuit_ended(self, circuit: Circuit, end: CircuitEnd, duration: float) -> None:
        """Publish the end of a circuit."""
        carried = circuit.bytes_to_target + circuit.bytes_to_source
        self._publish(
            CircuitEnded(circuit.source, circuit.target, carried, round(duration, 3), end.value)
        )


def _status(server: RelayServer) -> dict[str, Json]:
    limits, meter, now = server.limits, server.meter, time.time()
    reservations, circuits = server.reservations, server.circuits
    return {
        "preset": server.config.preset,
        "bytes": meter.bytes,
        "bytes_per_second": round(server.bytes_per_second, 1),
        "reservations": {
            "used": len(reservations),
            "max": limits.reservations,
            "peers": [
                {
                    "peer": str(each.peer),
                    "address": str(each.address),
                    "expires": round(now + each.seconds_left, 3),
                }
                for each in reservations[:MAX_SHOWN]
            ],
        },
        "circuits": {
            "used": len(circuits),
            "max": limits.circuits,
            "open": [
                {
                    "source": str(each.source),
                    "target": str(each.target),
                    "bytes_to_target": each.bytes_to_target,
                    "bytes_to_source": each.bytes_to_source,
                }
                for each in circuits[:MAX_SHOWN]
            ],
        },
        "sources": [
            {"peer": str(peer), "circuits": account.circuits, "bytes": account.bytes}
            for peer, account in sorted(meter.accounts.items(), key=lambda each: -each[1].bytes)
        ],
        "refused": {status.name: count for status, count in sorted(server.refusals.items())},
        "limits": {
            "reservations_per_prefix": limits.reservations_per_prefix,
            "reservation_ttl": limits.reservation_ttl,
            "circuits_per_peer": limits.circuits_per_peer,
            "circuit_duration": limits.circuit_duration,
            "circuit_bytes": limits.circuit_bytes,
            "circuit_rate": limits.circuit_rate,
            "bandwidth": limits.bandwidth,
        },
    }
