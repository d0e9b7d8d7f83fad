"""DCUtR at work: from a connection through a relay to a direct one, on the streams of the former.

What a node must offer comes as callables: this knows no sockets and no table of connections.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

import anyio

from ...transports.core.errors import (
    NegotiationError,
    P2PError,
    RemoteProtocolError,
    StreamReset,
)
from ...transports.core.interfaces import Side
from ...transports.multistream import negotiate_dialer
from .machine import Initiator, Responder
from .reasons import why_not
from .schedule import Schedule
from .wire import DCUTR_PROTOCOL

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from ...transports.core.interfaces import Connection, Host, Stream
    from ...transports.core.multiaddr import Multiaddr
    from ...transports.core.peer_id import PeerId
    from ..autonat.observed import NatKind
    from .machine import Punch
    from .schedule import Attempt

STREAM_TIME = 10.0
"""Seconds for the messages of one attempt; the worst relay takes some round trips of a second."""

MAX_SERVED = 32
"""Peers that are met at one time because they have asked for it: as many bursts of up to sixteen
dials, beside those of `schedule.AT_ONCE`."""

NO_ADDRESS = "this node knows no address of its own that it could be dialled at"
"""Nobody has said yet from where he sees it, or what they say may not be told."""

_FAILURES = (
    *(P2PError, OSError, TimeoutError),
    *(anyio.BrokenResourceError, anyio.ClosedResourceError, anyio.EndOfStream),
)

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ways:
    """What the owner offers.

    `addresses`: its own, to be told, external ones first. `nat`: what others see of its NAT.
    `may_dial`: which of a peer's are dialled. `punch`: as `Puncher.punch`, with the connection not
    in the table yet. `adopt`: put it there; raises P2PError if it is not wanted. `circuit`: a
    circuit that a peer has dialled, if one stands; `direct`: a direct connection to it, likewise;
    `wait_direct`: wait for one. `dial_direct`: dial the public addresses that a peer has told by
    identify, if there are any; raises DialError. `succeeded` is told the meetings that it took, and
    `failed` why not and when it is tried again: what this side has begun.
    """

    addresses: Callable[[], Sequence[Multiaddr]]
    nat: Callable[[], NatKind]
    may_dial: Callable[[Multiaddr], bool]
    punch: Callable[[Multiaddr, PeerId, Side], Awaitable[Connection]]
    adopt: Callable[[Connection], None]
    circuit: Callable[[PeerId], Connection | None]
    direct: Callable[[PeerId], Connection | None]
    wait_direct: Callable[[PeerId], Awaitable[Connection]]
    dial_direct: Callable[[PeerId], Awaitable[Connection | None]]
    succeeded: Callable[[Connection, int], None]
    failed: Callable[[PeerId, str, float | None], None]


class Dcutr:
    """Upgrades circuits that came in, and takes part where the peer upgrades ours."""

    def __init__(self, ways: Ways, *, attempt_timeout: float = 5.0) -> None:
        self._ways = ways
        self._attempt_timeout = attempt_timeout
        self._schedule = Schedule()
        self._active: set[PeerId] = set()
        self._serving: set[PeerId] = set()
        self._poke = anyio.Event()

    def register(self, host: Host) -> None:
        """Take part where a peer upgrades a circuit that we dialled."""
        host.handle(DCUTR_PROTOCOL, self.serve, allow_limited=True)

    def attempt(self, peer: PeerId) -> Attempt | None:
        """Return what is known of punching for a peer; None if it was never an issue."""
        return self._schedule.attempt(peer)

    def look(self, peer: PeerId) -> None:
        """See whether there is something to do for a peer: its connections have changed."""
        if self._ways.direct(peer) is None and self._ways.circuit(peer) is not None:
            self._schedule.relayed(peer, anyio.current_time())
            self._poke.set()
        else:
            self._schedule.rest(peer)

    def news(self) -> None:
        """Try again soon where it has failed: the network has changed, or how others see it."""
        self._schedule.news(anyio.current_time())
        self._poke.set()

    async def run(self) -> None:
        """Punch for whoever is reached only through a relay, again and again, until cancelled."""
        async with anyio.create_task_group() as tasks:
            while True:
                self._poke = anyio.Event()
                for peer in self._schedule.take(anyio.current_time()):
                    tasks.start_soon(self._try, peer)
                with anyio.CancelScope(deadline=self._schedule.next_timeout()):
                    await self._poke.wait()

    async def serve(self, stream: Stream) -> None:
        """Take part in one attempt of a peer; raises RemoteProtocolError, TimeoutError."""
        circuit, ways = stream.connection, self._ways
        if circuit.side is not Side.DIALER or not is_relayed(circuit):
            raise RemoteProtocolError("DCUtR is for circuits, and begun by who accepted them")
        peer, addresses = circuit.remote_peer, ways.addresses()
        if not addresses or len(self._serving) >= MAX_SERVED:
            # As go: an empty list would be a breach.
            stream.reset()
            if not addresses:
                self._served(peer, NO_ADDRESS)
            return
        machine = Responder(addresses)
        punch = None
        with anyio.fail_after(STREAM_TIME):
            while punch is None:
                punch = machine.receive_data(await stream.receive(), anyio.current_time())
                if data := machine.data_to_send():
                    await stream.send(data)
        await stream.aclose()
        if peer in self._active or peer in self._serving or ways.direct(peer) is not None:
            return
        self._serving.add(peer)
        try:
            met = await self._punch(peer, punch)
            why = why_not(ways.nat(), punch.addresses)
            self._served(peer, "" if met else f"the meeting has failed: {why}")
        finally:
            self._serving.discard(peer)
            # It may have dialled a circuit, too, for which it is this side that begins.
            self.look(peer)

    async def _try(self, peer: PeerId) -> None:
        """Try to make a direct connection to a peer, and note what came of it."""
        circuit = self._ways.circuit(peer)
        if circuit is None or peer in self._serving or self._ways.direct(peer) is not None:
            self._schedule.skipped(peer)
            return
        self._active.add(peer)
        try:
            reason = await self._upgrade(circuit)
        except _FAILURES as error:
            logger.debug("no direct connection to %s: %r", peer, error)
            reason = _explained(error)
        finally:
            self._active.discard(peer)
        now = anyio.current_time()
        if reason:
            due: float | None = self._schedule.failed(peer, now, reason)
            if self._ways.circuit(peer) is None:
                # It has left, and is tried when it comes again.
                self._schedule.rest(peer)
                due = None
            self._ways.failed(peer, reason, due)
        else:
            self._schedule.succeeded(peer, now)
        self._poke.set()

    def _served(self, peer: PeerId, reason: str) -> None:
        self._schedule.served(peer, anyio.current_time(), reason)

    async def _upgrade(self, circuit: Connection) -> str:
        """Return nothing once there is a direct connection, or why there is none."""
        peer, ways = circuit.remote_peer, self._ways
        if await self._reverse(peer):
            return ""
        machine = Initiator(ways.addresses())
        if not machine.addresses:
            return NO_ADDRESS
        theirs: tuple[Multiaddr, ...] = ()
        while machine.may_begin:
            punch = await self._agree(circuit, machine)
            theirs = punch.addresses
            with anyio.CancelScope(deadline=punch.at):
                # The peer may be quicker, and need no help.
                await ways.wait_direct(peer)
            if (connection := await self._punch(peer, punch)) is not None:
                ways.succeeded(connection, machine.attempts)
                return ""
        why = why_not(ways.nat(), theirs)
        return f"none of {machine.attempts} attempts met the peer's: {why}"

    async def _reverse(self, peer: PeerId) -> bool:
        """Dial the peer's public addresses, if it has told any: it may be behind no NAT."""
        try:
            with anyio.move_on_after(self._attempt_timeout):
                if (connection := await self._ways.dial_direct(peer)) is not None:
                    self._ways.succeeded(connection, 0)
                    return True
        except _FAILURES as error:
            logger.debug("%s cannot be dialled directly: %r", peer, error)
        return False

    async def _agree(self, circuit: Connection, machine: Initiator) -> Punch:
        with anyio.fail_after(STREAM_TIME):
            async with await circuit.open_stream() as stream:
                _, trailing = await negotiate_dialer(stream, (DCUTR_PROTOCOL,))
                machine.begin(anyio.current_time())
                await stream.send(machine.data_to_send())
                data = trailing
                while True:
                    punch = machine.receive_data(data, anyio.current_time())
                    if punch is not None:
                        break
                    data = await stream.receive()
                await stream.send(machine.data_to_send())
        return punch

    async def _punch(self, peer: PeerId, punch: Punch) -> Connection | None:
        """Dial every address at once; return the first connection, whoever made it."""
        addresses = [each for each in punch.addresses if self._ways.may_dial(each)]
        found: list[Connection] = []
        async with anyio.create_task_group() as attempts:

            async def attempt(address: Multiaddr) -> None:
                if (connection := await self._attempt(address, peer, punch.side)) is not None:
                    found.append(connection)
                    attempts.cancel_scope.cancel()

            async def watch() -> None:
                found.append(await self._ways.wait_direct(peer))
                attempts.cancel_scope.cancel()

            attempts.cancel_scope.deadline = anyio.current_time() + self._attempt_timeout
            attempts.start_soon(watch)
            for address in addresses:
                attempts.start_soon(attempt, address)
        return found[0] if found else self._ways.direct(peer)

    async def _attempt(self, address: Multiaddr, peer: PeerId, side: Side) -> Connection | None:
        try:
            connection = await self._ways.punch(address, peer, side)
        except _FAILURES as error:
            logger.debug("punching %s failed: %r", address, error)
            return None
        try:
            self._ways.adopt(connection)
        except P2PError as error:
            logger.debug("a punched connection is not wanted: %s", error)
            with anyio.CancelScope(shield=True):
                await connection.aclose()
            return None
        return connection


def _explained(error: BaseException) -> str:
    if isinstance(error, NegotiationError):
        return "the peer does not speak DCUtR, or knows no address of its own yet"
    if isinstance(error, StreamReset):
        return "the peer does not take part: it knows no address of its own yet, or has no time"
    if isinstance(error, TimeoutError):
        return f"the peer has not answered within {STREAM_TIME:g} s"
    return str(error) or type(error).__name__


def is_relayed(connection: Connection) -> bool:
    """Say whether a connection goes through a relay, which may set limits or not."""
    return connection.limit is not None or "p2p-circuit" in connection.remote_addr.names
