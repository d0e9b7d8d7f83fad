"""The relay: takes reservations, and joins circuits to those who have one.

It asks its owner for streams on connections that stand, and never dials anyone. Who is served is
the owner's to say.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from math import inf
from typing import TYPE_CHECKING, Protocol

import anyio

from ...transports.core.addresses import AddressClass, classify
from ...transports.core.codes import StreamCode
from ...transports.core.errors import (
    ConnectionClosed,
    LimitExceeded,
    P2PError,
    RemoteProtocolError,
    unwrap_group,
)
from ...transports.sockets import loop_clock
from .exchange import receive_hop, receive_stop
from .info import RelayInfo
from .meter import Meter
from .reservations import CircuitTable, ReservationTable
from .splice import Circuit, Splice, Turns
from .wire import (
    STOP_PROTOCOL,
    HopMessage,
    HopType,
    Peer,
    Reservation,
    Status,
    StopMessage,
    StopType,
    Voucher,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from ...transports.core.interfaces import Connection, Host, Stream
    from ...transports.core.multiaddr import Multiaddr
    from ...transports.core.peer_id import PeerId
    from .limits import RelayServerConfig
    from .reservations import Slot
    from .splice import CircuitEnd

FIELD_BYTES = 3
"""What a field's number and length take at most."""

REQUEST_TIME = 10.0
"""Seconds for a peer to say what it wants, once its stream stands; js allows 30, go 60."""

STOP_TIME = 30.0
"""Seconds for a target to take a circuit; as go allows for the stream alone."""

ANSWER_TIME = 10.0
"""Seconds for an answer to be taken; it is short, so that only who reads nothing needs longer."""

MAX_ADDRESSES = 16
"""Addresses told with a reservation; more are not worth anyone's dials."""

ADDRESS_BYTES = 3072
"""What they take of a message at the most: the rest is for the voucher."""

_BROKEN = (P2PError, anyio.BrokenResourceError, anyio.ClosedResourceError, anyio.EndOfStream)

logger = logging.getLogger(__name__)


class Owner(Protocol):
    """What a relay needs of the node that it is part of, and whom it tells what happens."""

    def is_known(self, peer: PeerId) -> bool:
        """Say whether the owner knows a peer, so that it is served where not everyone is."""

    def is_standing(self, connection: Connection) -> bool:
        """Say whether a connection takes new streams; `connection_ended` follows if it does."""

    def standing(self, peer: PeerId) -> Sequence[Connection]:
        """Return the connections to a peer that stand, the best first."""

    def hold(self, connection: Connection) -> None:
        """Have a connection stay however little it is used, until `release`."""

    def release(self, connection: Connection) -> None:
        """Take back a `hold`."""

    async def open_on(self, connection: Connection, protocol: str) -> Stream:
        """Open a stream on this connection; raises P2PError."""

    def reserved(self, peer: PeerId, until: float, *, is_new: bool) -> None:
        """Take note of a reservation; `until` in Unix seconds."""

    def reservation_ended(self, peer: PeerId, reason: str) -> None:
        """Take note that a peer has none any more."""

    def refused(self, peer: PeerId, status: Status, reason: str) -> None:
        """Take note of a request that was refused."""

    def circuit_opened(self, circuit: Circuit) -> None:
        """Take note of a circuit."""

    def circuit_ended(self, circuit: Circuit, end: CircuitEnd, duration: float) -> None:
        """Take note of its end, after so many seconds."""


@dataclass(frozen=True, slots=True)
class ReservedPeer:
    """One line of the table: who has a reservation, where, and for how many seconds more."""

    peer: PeerId
    address: Multiaddr
    seconds_left: float


class _Refused(Exception):
    """A request that is not granted, with what to answer."""

    def __init__(self, status: Status, reason: str) -> None:
        self.status = status
        super().__init__(reason)


class RelayServer:
    """Serves the hop protocol; make it in the loop that it runs in.

    `run` keeps its time. The owner calls `connection_ended` for each connection. `allows` may be
    set to a function that says of more peers that they are served.
    """

    def __init__(
        self,
        host: Host,
        config: RelayServerConfig,
        owner: Owner,
        *,
        request_time: float = REQUEST_TIME,
    ) -> None:
        self.config = config
        self.limits = config.limits
        self.refusals: Counter[Status] = Counter()
        self.allows: Callable[[PeerId], bool] = lambda _: False
        self._host = host
        self._owner = owner
        self._request_time = request_time
        self._clock = loop_clock()
        self.meter = Meter(self._clock())
        self._allowed = frozenset(config.allow)
        self._reservations: ReservationTable[Connection] = ReservationTable(self.limits)
        self._circuits = CircuitTable(self.limits)
        self._turns = Turns(self.limits.bandwidth, self._clock)
        self._open: dict[Circuit, None] = {}
        self._offering: dict[PeerId, dict[anyio.CancelScope, Connection]] = {}
        self._news = anyio.Event()
        self._sleeps_until = -inf

    @property
    def circuits(self) -> tuple[Circuit, ...]:
        """The circuits that stand."""
        return tuple(self._open)

    @property
    def reservations(self) -> tuple[ReservedPeer, ...]:
        """Who has a reservation, those that expire first before the others."""
        now = self._clock()
        return tuple(
            ReservedPeer(each.peer, each.connection.remote_addr, each.expires_at - now)
            for each in self._reservations
        )

    @property
    def bytes_per_second(self) -> float:
        """What all circuits have carried lately."""
        return self.meter.rate(self._clock())

    def serves(self, peer: PeerId) -> bool:
        """Say whether a peer may reserve, and dial those who have."""
        return (
            self.config.is_open
            or peer in self._allowed
            or self._owner.is_known(peer)
            or self.allows(peer)
        )

    async def run(self) -> None:
        """Let reservations expire and circuits take turns, for ever."""
        with unwrap_group():
            await self._run()

    async def _run(self) -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._turns.run)
            while True:
                self._news = anyio.Event()
                self._sleeps_until = self._reservations.next_timeout()
                with anyio.move_on_after(self._sleeps_until - self._clock()):
                    await self._news.wait()
                for slot in self._reservations.handle_timeout(self._clock()):
                    self._ended(slot, "it was not renewed")

    async def serve_hop(self, stream: Stream) -> None:
        """Answer one request; of a circuit, carry it to its end."""
        source = stream.connection.remote_peer
        try:
            message = await self._request(stream)
            if message is None:
                return
            if message.peer is not None and message.type is HopType.CONNECT:
                await self._connect(stream, message.peer.id)
                return
            await _answer(stream, self._reserve(stream.connection))
            # Not before it knows that it has reserved: it would refuse.
            for scope, connection in self._offering.get(source, {}).items():
                if connection is not stream.connection:
                    scope.cancel()
            return
        except _Refused as refusal:
            self.refusals[refusal.status] += 1
            logger.debug("refused %s: %s", source, refusal)
            self._owner.refused(source, refusal.status, str(refusal))
            answer = HopMessage(HopType.STATUS, status=refusal.status)
        await _answer(stream, answer)

    async def serve_info(self, stream: Stream) -> None:
        """Tell a peer that is served how busy this relay is."""
        if not self.serves(stream.connection.remote_peer):
            stream.reset(StreamCode.GATED)
            return
        info = RelayInfo.of(
            self.limits,
            reservations=len(self._reservations),
            circuits=len(self._circuits),
            bytes_per_second=self.bytes_per_second,
        )
        with anyio.move_on_after(ANSWER_TIME):
            await stream.send(info.encode())

    def connection_ended(self, connection: Connection) -> None:
        """Take note that a connection takes no more streams.

        A reservation on it moves to another connection to the same peer, where there is one: the
        peer is still there. Else it ends.
        """
        slot = self._reservations.on(connection)
        if slot is None:
            return
        for other in self._direct(slot):
            try:
                self._reservations.move(slot, other, other.remote_addr)
            except LimitExceeded:
                continue
            self._owner.hold(other)
            return
        self._reservations.connection_ended(connection)
        self._ended(slot, "its connection has ended")

    # Requests

    async def _request(self, stream: Stream) -> HopMessage | None:
        """Read what a peer wants; None if it does not say so in time."""
        try:
            with anyio.move_on_after(self._request_time):
                message = await receive_hop(stream)
                if message.type is HopType.STATUS:
                    raise _Refused(Status.UNEXPECTED_MESSAGE, "it sent a status")
                if not _is_direct(stream.connection):
                    raise _Refused(Status.PERMISSION_DENIED, "it came over a circuit")
                if not self.serves(stream.connection.remote_peer):
                    raise _Refused(Status.PERMISSION_DENIED, "this relay does not serve it")
                return message
        except RemoteProtocolError as error:
            raise _Refused(Status.MALFORMED_MESSAGE, str(error)) from error
        stream.reset()
        return None

    def _reserve(self, connection: Connection) -> HopMessage:
        peer, now = connection.remote_peer, self._clock()
        if not self._owner.is_standing(connection):
            raise _Refused(Status.RESERVATION_REFUSED, "its connection is ending")
        try:
            old = self._reservations.reserve(peer, connection, connection.remote_addr, now)
        except LimitExceeded as error:
            raise _Refused(Status.RESERVATION_REFUSED, str(error)) from error
        if old is not None and old.connection is not connection:
            self._owner.release(old.connection)
        self._owner.hold(connection)
        if now + self.limits.reservation_ttl < self._sleeps_until:
            self._news.set()
        until = int(time.time() + self.limits.reservation_ttl)
        self._owner.reserved(peer, until, is_new=old is None)
        voucher = Voucher(self._host.peer_id, peer, until).seal(self._host.key)
        return HopMessage(
            HopType.STATUS,
            reservation=Reservation(until, self._addresses(), voucher),
            limit=self.limits.told,
            status=Status.OK,
        )

    async def _connect(self, stream: Stream, target: PeerId) -> None:
        source = stream.connection.remote_peer
        if source == target:
            raise _Refused(Status.PERMISSION_DENIED, "it asked for a circuit to itself")
        slot = self._reservations.find(target, self._clock())
        if slot is None:
            raise _Refused(Status.NO_RESERVATION, f"{target} has no reservation")
        try:
            self._circuits.enter(source, target)
        except LimitExceeded as error:
            raise _Refused(Status.RESOURCE_LIMIT_EXCEEDED, str(error)) from error
        try:
            far = await self._open_stop_for(stream, slot, source)
            if far is None:
                return
            answer = HopMessage(HopType.STATUS, limit=self.limits.told, status=Status.OK)
            if await _answer(stream, answer):
                await self._carry(stream, far, source, target)
            else:
                far.reset()
        finally:
            self._circuits.leave(source, target)

    async def _open_stop_for(
        self, near: Stream, slot: Slot[Connection], source: PeerId
    ) -> Stream | None:
        """Do so as long as the source waits for it; None if it has gone.

        Else who dials on while a target is silent would soon be at its limits.
        """
        far: Stream | None = None
        with unwrap_group():
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(_cancel_when_gone, near, tasks.cancel_scope)
                far = await self._open_stop(slot, source)
                tasks.cancel_scope.cancel()
        return far

    async def _open_stop(self, slot: Slot[Connection], source: PeerId) -> Stream:
        """Open a stream to the target and have it take the circuit; raises _Refused."""
        peer, why = slot.peer, f"no answer within {STOP_TIME:g} s"
        try:
            with anyio.move_on_after(STOP_TIME):
                while True:
                    with self._until_moved(slot):
                        return await self._offer(slot, source)
                    # It has come back on another connection: this one may lead nowhere any more.
                    slot = self._reservations.find(peer, self._clock()) or slot
        except _BROKEN as error:
            why = f"{peer}: {error or type(error).__name__}"
        raise _Refused(Status.CONNECTION_FAILED, why)

    @contextmanager
    def _until_moved(self, slot: Slot[Connection]) -> Iterator[None]:
        """Cancel what runs in the context if the peer reserves on another connection."""
        peer = slot.peer
        offering = self._offering.setdefault(peer, {})
        with anyio.CancelScope() as scope:
            offering[scope] = slot.connection
            try:
                yield
            finally:
                del offering[scope]
                if not offering:
                    self._offering.pop(peer, None)

    async def _offer(self, slot: Slot[Connection], source: PeerId) -> Stream:
        far: Stream | None = None
        try:
            far = await self._open_far(slot)
            request = StopMessage(StopType.CONNECT, Peer(source), self.limits.told)
            await far.send(request.frame())
            answer = await receive_stop(far)
            if answer.type is StopType.STATUS and answer.status == Status.OK:
                taken, far = far, None
                return taken
            why = f"{slot.peer} answered with {answer.status}"
            raise _Refused(Status.CONNECTION_FAILED, why)
        finally:
            if far is not None:
                far.reset()

    async def _open_far(self, slot: Slot[Connection]) -> Stream:
        try:
            return await self._owner.open_on(slot.connection, STOP_PROTOCOL)
        except ConnectionClosed:
            # It drains, or ends just now; where another one stands, that will have the slot.
            others = self._direct(slot)
            if not others:
                raise
            return await self._owner.open_on(others[0], STOP_PROTOCOL)

    def _direct(self, slot: Slot[Connection]) -> list[Connection]:
        """Return the other connections to a peer that a reservation may belong to."""
        found = self._owner.standing(slot.peer)
        return [each for each in found if each is not slot.connection and _is_direct(each)]

    async def _carry(self, near: Stream, far: Stream, source: PeerId, target: PeerId) -> None:
        began = self._clock()
        circuit = Circuit(source, target, began)
        account = self.meter.begin(source)
        splice = Splice(
            circuit,
            limits=self.limits,
            turns=self._turns,
            clock=self._clock,
            count=partial(self.meter.count, account),
        )
        self._open[circuit] = None
        self._owner.circuit_opened(circuit)
        end = None
        try:
            end = await splice.run(near, far)
        finally:
            del self._open[circuit]
            if end is not None:
                self._owner.circuit_ended(circuit, end, self._clock() - began)

    def _addresses(self) -> tuple[Multiaddr, ...]:
        """Return where this relay is; never nothing if it has any address, since rust needs one."""
        own = self._host.peer_id
        addresses = [each.with_peer(own) for each in self.config.addresses]
        if not addresses:
            direct = [each for each in self._host.addresses if classify(each) not in _NOT_TOLD]
            addresses = [each for each in direct if classify(each) in _PUBLIC] or direct
        told, room = [], ADDRESS_BYTES
        for address in addresses[:MAX_ADDRESSES]:
            room -= len(bytes(address)) + FIELD_BYTES
            if room < 0:
                break
            told.append(address)
        return tuple(told)

    def _ended(self, slot: Slot[Connection], reason: str) -> None:
        self._owner.release(slot.connection)
        self._owner.reservation_ended(slot.peer, reason)


_PUBLIC = (AddressClass.PUBLIC, AddressClass.DNS)
_NOT_TOLD = (AddressClass.RELAYED, AddressClass.PROCESS_LOCAL)


def _is_direct(connection: Connection) -> bool:
    return connection.limit is None and "p2p-circuit" not in connection.remote_addr.names


async def _cancel_when_gone(stream: Stream, scope: anyio.CancelScope) -> None:
    """Cancel if a peer resets its stream; what it says early is left for later."""
    try:
        stream.unread(await stream.receive())
    except anyio.EndOfStream:
        return
    except _BROKEN:
        scope.cancel()


async def _answer(stream: Stream, message: HopMessage) -> bool:
    """Send an answer; False if the peer does not take it."""
    with anyio.move_on_after(ANSWER_TIME):
        try:
            await stream.send(message.frame())
        except _BROKEN as error:
            logger.debug("%s took no answer: %s", stream.connection.remote_peer, error)
        else:
            return True
    stream.reset()
    return False
