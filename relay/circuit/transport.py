"""Circuits as a transport: dialled through a relay, and accepted from those that hold a slot.

A circuit is a raw byte stream, so that `upgrade.Upgraded` makes a connection of it as it does of
a TCP socket.
"""

from __future__ import annotations

import errno
import logging
from typing import TYPE_CHECKING, Protocol

import anyio
from anyio import CancelScope

from ...transports.core.errors import (
    AddressError,
    CircuitRefused,
    DialError,
    LocalProtocolError,
    NegotiationError,
    P2PError,
    RemoteProtocolError,
    SelfDial,
)
from ...transports.core.interfaces import AddressesChanged, Doorkeeper, RawListener
from ...transports.sockets import loop_clock
from .addresses import ANY_RELAY, CIRCUIT, CircuitAddress, behind
from .circuit import CircuitLimit, CircuitStream, circuit_stream
from .exchange import receive_stop
from .reserving import connect
from .wire import HOP_PROTOCOL, STOP_PROTOCOL, Status, StopMessage, StopType

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence

    from anyio.abc import ByteStream

    from ...transports.core.interfaces import Host, Stream
    from ...transports.core.multiaddr import Multiaddr
    from ...transports.core.peer_id import PeerId
    from .wire import Limit

STOP_TIME = 10.0
"""Seconds for a relay to say who wants a circuit; what go allows."""

logger = logging.getLogger(__name__)


class Reservations(Protocol):
    """What a listener needs to know: where reservations stand."""

    def attach(self, host: Host) -> None:
        """Learn the owner."""

    def use(self, relay: PeerId, addresses: Iterable[Multiaddr]) -> None:
        """Hold a reservation at this relay from now on; raises LimitExceeded."""

    def holds(self, relay: PeerId) -> bool:
        """Say whether a reservation stands at a relay."""

    def asks(self, relay: PeerId) -> bool:
        """Say whether a relay is being asked for a reservation now."""

    def announced(self, relay: PeerId | None = None) -> tuple[Multiaddr, ...]:
        """Return the addresses to be reached at behind a relay, or behind all."""

    async def wait_changed(self) -> None:
        """Wait until what `announced` returns may have changed."""


class CircuitTransport:
    """Circuit relay v2 as a raw transport."""

    protocols: Sequence[str] = (CIRCUIT,)

    def __init__(self, reservations: Reservations) -> None:
        self._reservations = reservations
        self._listeners: list[CircuitListener] = []
        self._host: Host | None = None
        self._serves_stop = False

    def attach(self, host: Host) -> None:
        """Learn the owner, whose streams to relays become circuits."""
        self._host = host
        self._reservations.attach(host)

    def can_dial(self, addr: Multiaddr) -> bool:
        """Say whether this leads through one relay, with or without a peer at its end."""
        try:
            CircuitAddress.of(addr)
        except AddressError:
            return False
        return True

    async def dial_raw(self, addr: Multiaddr) -> ByteStream:
        """Ask the relay for a circuit to the peer at the address's end.

        Raises CircuitRefused if the relay says no, SelfDial if this node is the relay, DialError
        if the relay is not reached, or if no peer is named.
        """
        circuit = CircuitAddress.of(addr)
        host = self._owner()
        if circuit.target is None:
            raise DialError(
                f"{addr} does not say whom to reach: it needs .../p2p/ID", phase="relay"
            )
        if circuit.relay == host.peer_id:
            raise SelfDial(f"{addr} leads through this very node")
        return await self._dial(host, circuit, circuit.target)

    async def listen_raw(self, addr: Multiaddr) -> CircuitListener:
        """Listen behind a relay, or, at /p2p-circuit, behind every one that is used.

        The addresses come and go with the reservations. Raises AddressError if it is no such
        address, LimitExceeded for too many relays, OSError if it is listened on there already.
        """
        relay = None
        if addr != ANY_RELAY:
            circuit = CircuitAddress.of(addr)
            relay = circuit.relay
            self._check_free(relay, addr)
            places = () if circuit.place is None else (circuit.place,)
            self._reservations.use(relay, places)
        else:
            self._check_free(None, addr)
        if not self._serves_stop:
            self._serves_stop = True
            self._owner().handle(STOP_PROTOCOL, self._serve_stop)
        listener = CircuitListener(self._reservations, relay, self._listeners.remove)
        self._listeners.append(listener)
        return listener

    def _check_free(self, relay: PeerId | None, addr: Multiaddr) -> None:
        if any(each.takes(relay) for each in self._listeners):
            raise OSError(errno.EADDRINUSE, f"cannot listen on {addr}: it is listened on already")

    async def _dial(self, host: Host, circuit: CircuitAddress, target: PeerId) -> ByteStream:
        stream: Stream | None = None
        is_made = False
        try:
            stream = await host.open_stream(circuit.destination, HOP_PROTOCOL)
            limit = await connect(stream, target=target)
            is_made = True
        except CircuitRefused:
            raise
        except NegotiationError as error:
            why = f"{circuit.relay} is no relay: it does not speak circuit relay v2"
            raise DialError(why, phase="relay") from error
        except (P2PError, anyio.BrokenResourceError, anyio.ClosedResourceError) as error:
            why = f"no circuit through the relay {circuit.relay}: {error}"
            raise DialError(why, phase="relay") from error
        finally:
            if stream is not None and not is_made:
                stream.reset()
        return circuit_stream(stream, _counted(limit))

    async def _serve_stop(self, stream: Stream) -> None:
        """Take a circuit that a relay offers, and stay until it has ended."""
        relay = stream.connection.remote_peer
        try:
            with anyio.fail_after(STOP_TIME):
                message = await receive_stop(stream)
        except RemoteProtocolError as error:
            await _answer(stream, error.code)
            return
        except TimeoutError:
            stream.reset()
            return
        if message.type is not StopType.CONNECT or message.peer is None:
            await _answer(stream, Status.UNEXPECTED_MESSAGE)
            return
        with anyio.move_on_after(STOP_TIME):
            # A relay may lead somebody here before its answer to the reservation was read.
            while not self._reservations.holds(relay) and self._reservations.asks(relay):
                await self._reservations.wait_changed()
        listener = self._listener_for(relay)
        if listener is None:
            # Nobody is to be led here by a relay that was not asked to.
            await _answer(stream, Status.PERMISSION_DENIED)
            return
        address = behind(stream.connection.remote_addr, relay)
        door = self._host if isinstance(self._host, Doorkeeper) else None
        if door is not None and not door.begin_upgrade(address):
            await _answer(stream, Status.RESOURCE_LIMIT_EXCEEDED)
            return
        circuit = circuit_stream(stream, _counted(message.limit), peer=message.peer.id)
        try:
            await _answer(stream, Status.OK)
            await listener.take(circuit, address)
        finally:
            if door is not None:
                door.end_upgrade(address)
        await circuit.wait_closed()

    def _listener_for(self, relay: PeerId) -> CircuitListener | None:
        if not self._reservations.holds(relay):
            return None
        return next((each for each in self._listeners if each.serves(relay)), None)

    def _owner(self) -> Host:
        if self._host is None:
            raise LocalProtocolError("attach the transport to its owner first")
        return self._host


class CircuitListener(RawListener):
    """Where circuits come in; its addresses come and go with the reservations."""

    def __init__(
        self,
        reservations: Reservations,
        relay: PeerId | None,
        on_close: Callable[[CircuitListener], None],
    ) -> None:
        self._reservations = reservations
        self._relay = relay
        self._on_close = on_close
        self._serving = CancelScope()
        self._waiting = CancelScope()
        self._handler: Callable[[ByteStream, Multiaddr], Awaitable[None]] | None = None
        self._is_closed = False

    @property
    def addresses(self) -> tuple[Multiaddr, ...]:
        """The addresses behind the relays that have given a reservation."""
        return () if self._is_closed else self._reservations.announced(self._relay)

    async def changes(self) -> AsyncIterator[AddressesChanged]:
        """Yield each change of `addresses` until the listener is closed."""
        before = self.addresses
        while not self._is_closed:
            if (now := self.addresses) != before:
                before = now
                yield AddressesChanged(now)
                continue
            with CancelScope() as self._waiting:
                await self._reservations.wait_changed()

    def takes(self, relay: PeerId | None) -> bool:
        """Say whether this is where circuits through a relay come in; None: through any."""
        return self._relay in (None, relay)

    def serves(self, relay: PeerId) -> bool:
        """Say whether circuits through this relay are taken now."""
        return self._handler is not None and self.takes(relay)

    async def take(self, circuit: CircuitStream, address: Multiaddr) -> None:
        """Have a circuit upgraded; returns when that has ended, either way."""
        if self._handler is None:
            await circuit.aclose()
        else:
            await self._handler(circuit, address)

    async def serve(self, handler: Callable[[ByteStream, Multiaddr], Awaitable[None]]) -> None:
        """Have `handler(stream, remote_addr)` run for every circuit, until closed.

        It runs in the task of the stream that the circuit is.
        """
        self._handler = handler
        try:
            with self._serving:
                await anyio.sleep_forever()
        finally:
            self._handler = None

    async def aclose(self) -> None:
        """Stop listening; circuits that came in stay."""
        if not self._is_closed:
            self._is_closed = True
            self._on_close(self)
            self._serving.cancel()
            self._waiting.cancel()


def _counted(limit: Limit | None) -> CircuitLimit | None:
    return None if limit is None else CircuitLimit(limit, loop_clock())


async def _answer(stream: Stream, status: int) -> None:
    await stream.send(StopMessage(StopType.STATUS, status=status).frame())
