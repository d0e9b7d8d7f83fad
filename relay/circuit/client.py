"""Holds reservations: runs what `Relays` asks for, over the connections of the node."""

from __future__ import annotations

import itertools
import logging
import random
import time
from dataclasses import dataclass, field
from math import inf
from typing import TYPE_CHECKING, Protocol

import anyio

from ...transports.core.errors import (
    LocalProtocolError,
    NegotiationError,
    P2PError,
    ReservationRefused,
)
from ...transports.core.interfaces import Side
from .addresses import announced
from .info import INFO_PROTOCOL, MAX_INFO, RelayInfo
from .machine import Attempt, Relays
from .reserving import reserve, ttl_of
from .selection import PROBES
from .wire import HOP_PROTOCOL

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from anyio.abc import TaskGroup

    from ...transports.core.interfaces import Connection, Host
    from ...transports.core.multiaddr import Multiaddr
    from ...transports.core.peer_id import PeerId
    from .client_config import RelaysConfig
    from .supervisor import SupervisorPolicy
    from .wire import Limit, Reservation

CHECK_INTERVAL = 10.0
"""Seconds between checks that a relay which holds a reservation is still there: a path that is cut
says nothing, and whoever dials through it would find nobody."""

CHECK_TIME = 3.0
"""Seconds for its answer; a packet that was lost is sent again within one."""

URGENT_CHECK_TIME = 1.0
"""The same after a change of the network, which most often has cut the path."""

SURVEY_INTERVAL = 600.0
"""Seconds between looks at relays that are not used: what is better now may be worse tonight."""

SURVEY_SIZE = 4
"""Relays looked at each time."""

_FAILURES = (
    P2PError,
    OSError,
    anyio.BrokenResourceError,
    anyio.ClosedResourceError,
    anyio.EndOfStream,
)

logger = logging.getLogger(__name__)


class RelayConnections(Protocol):
    """What the client asks of the node's table of connections."""

    async def connect(self, relay: PeerId, addresses: tuple[Multiaddr, ...]) -> Connection:
        """Return a connection without a limit to a relay, one that stands or a new one.

        Tells nobody of a failure: it will be tried again. Raises DialError and its like.
        """

    def best(self, relay: PeerId) -> Connection | None:
        """Return the connection that a stream to a relay would take."""

    def known(self, relay: PeerId) -> tuple[Multiaddr, ...]:
        """Return the addresses that are known of a relay."""

    def hold(self, connection: Connection) -> None:
        """Have a connection neither evicted nor ended as idle."""

    def release(self, connection: Connection) -> None:
        """Take back a `hold`."""

    def abandon(self, connection: Connection) -> None:
        """Choose a connection no more, and have it closed: it leads nowhere."""


@dataclass(slots=True)
class Held:
    """A reservation that stands, and the connection that it stands and falls with.

    `told_ttl` are the seconds that it has by the relay's clock and ours: far off, if one is wrong.
    """

    relay: PeerId
    connection: Connection
    addresses: tuple[Multiaddr, ...]
    until: float
    limit: Limit | None
    told_ttl: float = 0.0
    scope: anyio.CancelScope = field(default_factory=anyio.CancelScope)
    check: anyio.Event = field(default_factory=anyio.Event)


class RelayClient:
    """Keeps this node reachable behind relays.

    `on_reserved` and `on_lost` are told of changes, `on_refused` of every new reason that a relay
    has to refuse.
    """

    def __init__(
        self,
        config: RelaysConfig,
        connections: RelayConnections,
        *,
        on_reserved: Callable[[Held], object] = lambda _: None,
        on_lost: Callable[[PeerId, str], object] = lambda *_: None,
        on_refused: Callable[[PeerId, str], object] = lambda *_: None,
        policy: SupervisorPolicy | None = None,
        draw: Callable[[], float] = random.random,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._config = config
        self._connections = connections
        self._on_reserved = on_reserved
        self._on_lost = on_lost
        self._on_refused = on_refused
        self._draw = draw
        self._wall_clock = wall_clock
        self.relays = Relays(draw=draw, wanted=config.wanted, policy=policy)
        self._host: Host | None = None
        self._tasks: TaskGroup | None = None
        self._held: dict[PeerId, Held] = {}
        self._attempts: dict[PeerId, anyio.CancelScope] = {}
        self._poke = anyio.Event()
        self._changed = anyio.Event()
        for address in config.via:
            assert address.peer_id is not None
            self.use(address.peer_id, [address.without_peer()])

    # What the transport asks

    def attach(self, host: Host) -> None:
        """Learn the owner."""
        self._host = host

    def use(self, relay: PeerId, addresses: Iterable[Multiaddr]) -> None:
        """Hold a reservation at this relay from now on; raises LimitExceeded for too many."""
        self.relays.add(relay, addresses, is_configured=True, now=_now())
        self._poke.set()

    def holds(self, relay: PeerId) -> bool:
        """Say whether a reservation stands at a relay."""
        return relay in self._held

    def asks(self, relay: PeerId) -> bool:
        """Say whether a relay is being asked for a reservation now."""
        return relay in self._attempts

    def announced(self, relay: PeerId | None = None) -> tuple[Multiaddr, ...]:
        """Return the addresses to be reached at behind a relay, or behind all."""
        held = self._held.values()
        return tuple(
            address for each in held if relay in (None, each.relay) for address in each.addresses
        )

    async def wait_changed(self) -> None:
        """Wait until what `announced` returns may have changed."""
        await self._changed.wait()

    # What the node says

    @property
    def held(self) -> tuple[Held, ...]:
        """The reservations that stand."""
        return tuple(self._held.values())

    def found(self, relay: PeerId, addresses: Iterable[Multiaddr]) -> None:
        """Take note of a relay that was met, or of where it is; whoever discovers any calls it."""
        if self._config.discover or relay in self.relays:
            self.relays.add(relay, addresses, is_configured=False, now=_now())
            self._poke.set()

    def connected(self, relay: PeerId) -> None:
        """Note that a connection to a peer stands, or that another one is used from now on.

        If the peer is a relay it can be asked at once.
        """
        if relay not in self.relays:
            return
        self._follow(relay)
        self.relays.news(_now(), relay)
        self._poke.set()

    def _follow(self, relay: PeerId) -> None:
        """Have a reservation made anew on the connection that is used, if it stands on another."""
        held = self._held.get(relay)
        if held is None:
            return
        if self._connections.best(relay) not in (None, held.connection):
            self.relays.renew(relay, _now())

    def disconnected(self, relay: PeerId) -> None:
        """Note that a connection to a peer has ended: a relay that had refused may be another."""
        if relay in self.relays and relay not in self._held:
            self.relays.lost(relay, "the connection has ended", _now())
            self._poke.set()

    def network_changed(self) -> None:
        """Note that this machine's networks have changed: what stands may stand no longer."""
        for held in self._held.values():
            held.check.set()
        self.relays.news(_now())
        self._poke.set()

    # The work

    async def run(self) -> None:
        """Hold reservations until cancelled."""
        async with anyio.create_task_group() as tasks:
            self._tasks = tasks
            tasks.start_soon(self._survey)
            try:
                while True:
                    self._poke = anyio.Event()
                    self._act(tasks)
                    with anyio.CancelScope(deadline=self.relays.next_timeout()):
                        await self._poke.wait()
            finally:
                self._held.clear()
                self._tasks = None

    def _act(self, tasks: TaskGroup) -> None:
        for action in self.relays.handle_timeout(anyio.current_time()):
            if isinstance(action, Attempt):
                tasks.start_soon(self._attempt, action)
            else:
                self._let_go(action.relay)

    async def _attempt(self, attempt: Attempt) -> None:
        relay, why = attempt.relay, "it was not wanted any more"
        scope = anyio.CancelScope(deadline=anyio.current_time() + attempt.patience)
        self._attempts[relay] = scope
        connection: Connection | None = None
        is_refused = False
        held: Held | None = None
        try:
            with scope:
                addresses = self.relays.addresses(relay)
                connection = await self._connections.connect(relay, addresses)
                self.relays.connected(relay)
                held = await self._reserve(relay)
            if scope.cancelled_caught and held is None:
                why = f"no answer within {attempt.patience:.3g} s"
        except ReservationRefused as error:
            why, is_refused = str(error), True
        except _FAILURES as error:
            why = str(error) or type(error).__name__
        finally:
            self._attempts.pop(relay, None)
            self._conclude(relay, held, why, is_refused=is_refused)
            self._tell_changed()
        if (
            connection is not None
            and scope.cancelled_caught
            and not await self._answers(connection, CHECK_TIME)
        ):
            self._connections.abandon(connection)

    def _conclude(self, relay: PeerId, held: Held | None, why: str, *, is_refused: bool) -> None:
        now = anyio.current_time()
        if held is not None:
            if self.relays.reserved(relay, held.until - now, now):
                self._hold(held)
        elif is_refused:
            if relay in self.relays and self.relays.supervisor(relay).reason != why:
                self._on_refused(relay, why)
            self.relays.refused(relay, why, now)
        else:
            self.relays.failed(relay, why, now)
        if held is None:
            logger.debug("no reservation at %s: %s", relay, why)
        self._poke.set()

    async def _reserve(self, relay: PeerId) -> Held:
        if self._host is None:
            raise LocalProtocolError("attach the client to its owner first")
        stream = await self._host.open_stream(relay, HOP_PROTOCOL)
        connection = stream.connection
        reservation, limit = await reserve(stream, own=self._host.peer_id)
        wall_clock = self._wall_clock()
        until = anyio.current_time() + ttl_of(reservation, wall_clock)
        addresses = self._addresses(connection, reservation)
        told_ttl = reservation.expire - wall_clock
        return Held(relay, connection, addresses, until, limit, told_ttl)

    def _addresses(self, connection: Connection, reservation: Reservation) -> tuple[Multiaddr, ...]:
        relay = connection.remote_peer
        # Where a relay has dialled this side it shows the port of that connection only.
        is_dialled = connection.side is Side.DIALER
        return announced(
            relay,
            dialled=connection.remote_addr if is_dialled else None,
            told=reservation.addresses,
            known=[*self.relays.addresses(relay), *self._connections.known(relay)],
        )

    # What stands

    def _hold(self, held: Held) -> None:
        assert self._tasks is not None
        before = self._held.get(held.relay)
        is_news = before is None or before.addresses != held.addresses
        if before is not None and before.connection is held.connection:
            before.addresses, before.until = held.addresses, held.until
            before.limit, before.told_ttl = held.limit, held.told_ttl
            held = before
        self._held[held.relay] = held
        if is_news:
            self._tell_changed()
            self._on_reserved(held)
        if held is before:
            return
        self._connections.hold(held.connection)
        self._tasks.start_soon(self._keep, held)
        if before is not None:
            before.scope.cancel()
        # It may have changed while the relay was asked.
        self._follow(held.relay)

    def _let_go(self, relay: PeerId) -> None:
        if (scope := self._attempts.get(relay)) is not None:
            scope.cancel()
        if (held := self._held.pop(relay, None)) is not None:
            held.scope.cancel()
            self._tell_changed()
            self._on_lost(relay, "another relay is used instead")

    async def _keep(self, held: Held) -> None:
        """Stay while a connection carries a reservation; see that it does not end unnoticed."""
        connection, reason = held.connection, ""
        try:
            with held.scope:
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(self._check_again_and_again, held)
                    reason = str(await connection.wait_closed())
                    tasks.cancel_scope.cancel()
        finally:
            self._connections.release(connection)
        if reason:
            self._lost(held.relay, connection, reason)

    def _lost(self, relay: PeerId, connection: Connection, reason: str) -> None:
        held = self._held.get(relay)
        if held is None or held.connection is not connection:
            return
        del self._held[relay]
        self.relays.lost(relay, reason, anyio.current_time())
        self._tell_changed()
        self._on_lost(relay, reason)
        self._poke.set()

    async def _check_again_and_again(self, held: Held) -> None:
        for count in itertools.count():
            # At first to measure it.
            with anyio.move_on_after(CHECK_INTERVAL if count >= PROBES else 0):
                await held.check.wait()
            is_urgent = held.check.is_set()
            held.check = anyio.Event()
            patience = URGENT_CHECK_TIME if is_urgent else CHECK_TIME
            if not await self._answers(held.connection, patience):
                self._connections.abandon(held.connection)
                self._lost(held.relay, held.connection, "it does not answer any more")
                return

    async def _answers(self, connection: Connection, patience: float) -> bool:
        """Say whether a connection still leads somewhere; one that has ended tells so itself."""
        round_trip: float | None = None
        known = connection.statistics().round_trip_time or 0.0
        try:
            with anyio.move_on_after(max(patience, 4 * known)):
                round_trip = await connection.probe()
        except _FAILURES:
            return True
        if round_trip is None:
            return False
        self.relays.measured(connection.remote_peer, [round_trip])
        return True

    # What is not used

    async def _survey(self) -> None:
        """Look at other relays now and then: whether one of them has become better."""
        while True:
            await anyio.sleep(SURVEY_INTERVAL)
            resting = [
                relay for relay in self.relays if not self.relays.supervisor(relay).is_wanted
            ]
            resting.sort(key=lambda _: self._draw())
            for relay in [*self._held, *resting[:SURVEY_SIZE]]:
                await self._look_at(relay)
            self._poke.set()

    async def _look_at(self, relay: PeerId) -> None:
        try:
            with anyio.move_on_after(CHECK_TIME * PROBES):
                addresses = self.relays.addresses(relay)
                connection = await self._connections.connect(relay, addresses)
                times = [await connection.probe() for _ in range(PROBES)]
                self.relays.measured(relay, times)
                self.relays.measured(relay, [], load=await self._load_of(relay))
        except _FAILURES as error:
            logger.debug("the relay %s was not reached: %s", relay, error)

    async def _load_of(self, relay: PeerId) -> float | None:
        """Ask a relay which part of its places is taken; None if it does not say."""
        assert self._host is not None
        try:
            stream = await self._host.open_stream(relay, INFO_PROTOCOL)
            async with stream:
                data = bytearray()
                while len(data) <= MAX_INFO:
                    try:
                        data += await stream.receive()
                    except anyio.EndOfStream:
                        break
                return RelayInfo.decode(bytes(data)).load
        except NegotiationError:
            return None

    def _tell_changed(self) -> None:
        self._changed.set()
        self._changed = anyio.Event()


def _now() -> float:
    """Return the loop's time, or, before there is a loop, one before all others."""
    try:
        return anyio.current_time()
    except RuntimeError:
        return -inf
