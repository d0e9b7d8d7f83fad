# mypy: ignore-errors
"""Reaching a peer through a relay, with py-libp2p's circuit relay v2.

It has no AutoNAT v2. Its hole punching is left out.
"""

from __future__ import annotations

import json
import resource
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import trio
from libp2p.peer.peerinfo import info_from_p2p_addr
from libp2p.relay.circuit_v2 import CircuitV2Protocol, CircuitV2Transport, RelayLimits
from libp2p.relay.circuit_v2.config import RelayConfig, RelayRole
from libp2p.relay.circuit_v2.protocol import PROTOCOL_ID as HOP
from libp2p.tools.anyio_service import background_trio_service
from multiaddr import Multiaddr
from streams import PeerError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from libp2p.abc import IHost
    from libp2p.peer.id import ID

CIRCUIT = "/p2p-circuit"
LIMITS = {"seconds": 120, "bytes": 1 << 17, "circuits": 16, "reservations": 128, "ttl": 3600}
"""Those of a relay that is told none; the others have these defaults, or similar ones."""
MOST_BYTES = 1 << 62
"""For no limit: py-libp2p says that 0 is, but then takes the first byte for too much."""
LOOK = 0.02
"""Seconds between two looks for a direct connection."""


class Reach:
    """Circuits of one host: the relay, if it is one, and the transport that dials."""

    def __init__(self, host: IHost, limits: str | None) -> None:
        given = LIMITS | json.loads(limits or "{}")
        self.host = host
        self.serves = limits is not None
        self.protocol = CircuitV2Protocol(
            host,
            limits=RelayLimits(
                duration=given["seconds"],
                data=given["bytes"] or MOST_BYTES,
                max_circuit_conns=given["circuits"],
                max_reservations=given["reservations"],
                reservation_ttl=given["ttl"],
            ),
            allow_hop=self.serves,
        )
        # Without CLIENT, which would have it reserve whenever it dials.
        config = RelayConfig(roles=RelayRole.STOP)
        self.transport = CircuitV2Transport(host, self.protocol, config)
        self.nursery: trio.Nursery

    @asynccontextmanager
    async def run(self) -> AsyncIterator[None]:
        """Serve STOP, and HOP as a relay, for the time of the block."""
        async with background_trio_service(self.protocol), trio.open_nursery() as self.nursery:
            await self.protocol.event_started.wait()
            yield
            self.nursery.cancel_scope.cancel()

    async def dial(self, address: Multiaddr) -> None:
        """Connect through the relay of the address, unless there is a connection."""
        peer = info_from_p2p_addr(address).peer_id
        if not self.host.get_network().get_connections(peer):
            await self.transport.dial(address)

    async def reserve(self, host: IHost, *, address: str) -> dict[str, Any]:
        """Reserve on the relay at the address; py-libp2p renews it by itself."""
        relay = info_from_p2p_addr(Multiaddr(address))
        await host.connect(relay)
        stream = await host.new_stream(relay.peer_id, [HOP])
        if not await self.transport.reserve(stream, relay.peer_id, self.nursery):
            raise PeerError("NoReservation", f"{relay.peer_id} gave none")
        await stream.close()
        return {
            "addresses": [f"{address}{CIRCUIT}/p2p/{host.get_id()}"],
            "expires": held_until(self.transport)[relay.peer_id],
            # py-libp2p forgets what the relay said of limits.
            "limit": None,
        }

    async def reservations(self, host: IHost) -> dict[str, Any]:
        """As a relay: how many reservations and circuits there are, and who holds one."""
        if not self.serves:
            raise PeerError("NoRelay", "the program needs --relay")
        held = holders(self.protocol)
        return {
            "reservations": len(held),
            "circuits": sum(each.active_connections for each in held.values()),
            "peers": [str(peer) for peer in held],
        }


def held_until(transport: CircuitV2Transport) -> dict[ID, int]:
    """Return the ends of a client's reservations, by relay; py-libp2p tells them to nobody."""
    return transport._reservations  # noqa: SLF001 - nothing public has it


def holders(protocol: CircuitV2Protocol) -> dict[ID, Any]:
    """Return a relay's reservations, by peer."""
    return protocol.resource_manager._reservations  # noqa: SLF001 - nothing public has it


async def connections(host: IHost, *, address: str) -> dict[str, Any]:
    """Tell the connections to a peer."""
    peer = info_from_p2p_addr(Multiaddr(address)).peer_id
    return {"connections": described(host, peer)}


async def upgraded(host: IHost, *, address: str) -> dict[str, Any]:
    """Wait until there is a direct connection to the peer."""
    peer = info_from_p2p_addr(Multiaddr(address)).peer_id
    while True:
        for each in described(host, peer):
            if not each["relayed"]:
                return {**each, "how": None}
        await trio.sleep(LOOK)


def described(host: IHost, peer: ID) -> list[dict[str, Any]]:
    """Describe the connections to the peer."""
    found = []
    for connection in host.get_network().get_connections(peer):
        addresses = [str(each) for each in connection.get_transport_addresses()]
        found.append(
            {
                "address": addresses[0].removesuffix(f"/p2p/{peer}") if addresses else None,
                "dialled": connection.muxed_conn.is_initiator,
                "relayed": any(CIRCUIT in each for each in addresses),
                "limited": None,
            }
        )
    return found


async def census(host: IHost) -> dict[str, Any]:
    """Tell what this process holds; Linux only."""
    statm = await trio.Path("/proc/self/statm").read_text("ascii")
    return {"rss": int(statm.split()[1]) * resource.getpagesize()}
