"""The LAN as a transport: `/p2p/<id>` alone is dialled by asking who has that id."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio

from ..core.errors import (
    AddressError,
    DialError,
    DialTimeout,
    FailedAttempt,
    P2PError,
    phase_of,
)
from ..core.interfaces import Side

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..core.interfaces import Connection, ConnectionListener, Host, Transport
    from ..core.multiaddr import Multiaddr
    from ..core.peer_id import PeerId
    from .driver import LanDiscovery

ATTEMPT_TIMEOUT = 3.0
"""Seconds for one address: on a LAN an answer takes milliseconds, a lost packet one second."""


class LanTransport:
    """Finds a peer by its id alone, and lets the transport of its address connect."""

    protocols: Sequence[str] = ("p2p",)

    def __init__(self, discovery: LanDiscovery, transports: Sequence[Transport]) -> None:
        self._discovery = discovery
        self._transports = tuple(transports)

    def attach(self, host: Host) -> None:
        """Learn the owner; the LAN needs nothing of it."""

    def can_dial(self, addr: Multiaddr) -> bool:
        """Say whether this is the id of a peer and nothing else."""
        return addr.names == ("p2p",)

    async def dial(
        self, addr: Multiaddr, *, peer: PeerId | None = None, side: Side = Side.DIALER
    ) -> Connection:
        """Ask the LAN and connect to the first address that answers; see `Transport.dial`."""
        wanted = addr.peer_id
        if wanted is None or not self.can_dial(addr):
            raise DialError(f"{addr} is not the id of a peer alone")
        attempts = []
        for found in await self._discovery.find(peer or wanted):
            started = anyio.current_time()
            try:
                return await self._dial(found.with_peer(wanted), side)
            except (P2PError, OSError) as error:
                duration = anyio.current_time() - started
                attempts.append(FailedAttempt(found, phase_of(error), duration, error))
        if not attempts:
            raise DialError(f"nobody on the LAN says that it is {wanted}", phase="find")
        raise DialError(f"{wanted} was found on the LAN, but not reached", attempts)

    async def listen(self, addr: Multiaddr) -> ConnectionListener:
        """Raise AddressError: a node listens at the addresses that it announces."""
        raise AddressError(f"{addr} is not an address to listen on")

    async def _dial(self, addr: Multiaddr, side: Side) -> Connection:
        for transport in self._transports:
            if addr.last_transport in transport.protocols and transport.can_dial(addr):
                with anyio.move_on_after(ATTEMPT_TIMEOUT):
                    return await transport.dial(addr, side=side)
                raise DialTimeout(f"no connection within {ATTEMPT_TIMEOUT:g} s")
        raise DialError(f"no transport of this node can use {addr}")
