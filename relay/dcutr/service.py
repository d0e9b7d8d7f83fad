"""DCUtR at work: from a connection through a relay to a direct one, on the streams of the former.

What a node must offer comes as callables: this knows no sockets and no table of connections.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

import anyio

from ...transports.core.errors import P2PError, RemoteProtocolError
from ...transports.core.interfaces import Side
from ...transports.multistream import negotiate_dialer
from .machine import Initiator, Responder
from .wire import DCUTR_PROTOCOL

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from ...transports.core.interfaces import Connection, Host, Stream
    from ...transports.core.multiaddr import Multiaddr
    from ...transports.core.peer_id import PeerId
    from .machine import Punch

STREAM_TIME = 10.0
"""Seconds for the messages of one attempt; the worst relay takes some round trips of a second."""

MAX_AT_ONCE = 32
"""Peers that are punched for at one time: as many bursts of up to sixteen dials."""

_FAILURES = (
    *(P2PError, OSError, TimeoutError),
    *(anyio.BrokenResourceError, anyio.ClosedResourceError, anyio.EndOfStream),
)

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ways:
    """What the owner offers.

    `addresses`: its own, to be told, external ones first. `may_dial`: which of a peer's are
    dialled. `punch`: as `Puncher.punch`, with the connection not in the table yet. `adopt`: put it
    there; raises P2PError if it is not wanted. `direct`: a direct connection to a peer, if one
    stands; `wait_direct`: wait for one. `dial_direct`: dial the public addresses that a peer has
    told by identify, if there are any; raises DialError. `succeeded` and `failed` are told once
    for each circuit.
    """

    addresses: Callable[[], Sequence[Multiaddr]]
    may_dial: Callable[[Multiaddr], bool]
    punch: Callable[[Multiaddr, PeerId, Side], Awaitable[Connection]]
    adopt: Callable[[Connection], None]
    direct: Callable[[PeerId], Connection | None]
    wait_direct: Callable[[PeerId], Awaitable[Connection]]
    dial_direct: Callable[[PeerId], Awaitable[Connection | None]]
    succeeded: Callable[[Connection, int], None]
    failed: Callable[[PeerId, str], None]


class Dcutr:
    """Upgrades circuits that came in, and takes part where the peer upgrades ours."""

    def __init__(self, ways: Ways, *, attempt_timeout: float = 5.0) -> None:
        self._ways = ways
        self._attempt_timeout = attempt_timeout
        self._active: set[PeerId] = set()

    def register(self, host: Host) -> None:
        """Take part where a peer upgrades a circuit that we dialled."""
        host.handle(DCUTR_PROTOCOL, self.serve, allow_limited=True)

    async def upgrade(self, circuit: Connection) -> None:
        """Try to make a direct connection beside a circuit that the peer has dialled.

        Returns when there is one, or after the last attempt; what goes wrong is told, not raised.
        """
        peer = circuit.remote_peer
        if circuit.side is not Side.LISTENER or peer in self._active:
            return
        if len(self._active) >= MAX_AT_ONCE:
            logger.debug("no time to punch for %s", peer)
            return
        self._active.add(peer)
        try:
            await self._upgrade(circuit)
        except _FAILURES as error:
            logger.debug("no direct connection to %s: %r", peer, error)
            self._ways.failed(peer, str(error) or type(error).__name__)
        finally:
            self._active.discard(peer)

    async def serve(self, stream: Stream) -> None:
        """Take part in one attempt of a peer; raises RemoteProtocolError, TimeoutError."""
        circuit, ways = stream.connection, self._ways
        if circuit.side is not Side.DIALER or not is_relayed(circuit):
            raise RemoteProtocolError("DCUtR is for circuits, and begun by who accepted them")
        addresses = ways.addresses()
        if not addresses or len(self._active) >= MAX_AT_ONCE:
            # As go: an empty list would be a breach.
            stream.reset()
            return
        machine = Responder(addresses)
        punch = None
        with anyio.fail_after(STREAM_TIME):
            while punch is None:
                punch = machine.receive_data(await stream.receive(), anyio.current_time())
                if data := machine.data_to_send():
                    await stream.send(data)
        await stream.aclose()
        peer = circuit.remote_peer
        if peer in self._active or ways.direct(peer) is not None:
            return
        self._active.add(peer)
        try:
            await self._punch(peer, punch)
        finally:
            self._active.discard(peer)

    async def _upgrade(self, circuit: Connection) -> None:
        peer, ways = circuit.remote_peer, self._ways
        if ways.direct(peer) is not None:
            return
        if await self._reverse(peer):
            return
        machine = Initiator(ways.addresses())
        if not machine.addresses:
            ways.failed(peer, "this node knows no address of its own that it could be dialled at")
            return
        while machine.may_begin:
            punch = await self._agree(circuit, machine)
            with anyio.CancelScope(deadline=punch.at):
                # The peer may be quicker, and need no help.
                await ways.wait_direct(peer)
            if (connection := await self._punch(peer, punch)) is not None:
                ways.succeeded(connection, machine.attempts)
                return
        ways.failed(peer, f"none of {machine.attempts} attempts met the peer's")

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


def is_relayed(connection: Connection) -> bool:
    """Say whether a connection goes through a relay, which may set limits or not."""
    return connection.limit is not None or "p2p-circuit" in connection.remote_addr.names
