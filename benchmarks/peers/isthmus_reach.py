"""Reaching a peer by the help of a third, with isthmus: circuit relay v2, AutoNAT v2, DCUtR."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import anyio

from ...node.events import HolePunched
from ...relay.autonat.config import AutonatConfig
from ...relay.autonat.reachability import Question, Server
from ...relay.circuit.addresses import ANY_RELAY
from ...relay.circuit.limits import RelayServerConfig
from ...relay.circuit.wire import STOP_PROTOCOL
from ...relay.dcutr.config import DcutrConfig
from ...relay.dcutr.service import is_relayed
from ...relay.dcutr.wire import DCUTR_PROTOCOL
from ...transports.core.errors import P2PError
from ...transports.core.interfaces import Side
from ...transports.core.multiaddr import Multiaddr
from ...transports.core.peer_id import PeerId

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace
    from collections.abc import Awaitable, Callable

    from ...node.node import Node
    from ...relay.circuit.client import Held
    from ...transports.core.interfaces import Connection

MANY = 1 << 16
LOOK = 0.02
"""Seconds between two looks at what nobody tells of."""
SETTLING = 0.5
"""Seconds after a connection in which it may be told how it was made."""
MAX_PUNCHED = 1024
"""Peers of which that is kept: more than any test has."""
LIMITS = {
    "reservations": "reservations",
    "circuits": "circuits_per_peer",
    "ttl": "reservation_ttl",
    "seconds": "circuit_duration",
    "bytes": "circuit_bytes",
}
"""The limits of the command line, and what they are called here."""


class PeerError(P2PError):
    """A command that this program was not started for."""


def add_options(parser: ArgumentParser) -> None:
    """Add what `Reach.of` reads."""
    parser.add_argument("--relay", metavar="LIMITS", help="be a relay; JSON, see control.py")
    parser.add_argument("--circuits", action="store_true", help="be able to reserve")
    parser.add_argument("--autonat", action="store_true", help="serve AutoNAT v2, and ask it")
    parser.add_argument("--dcutr", action="store_true", help="punch holes")
    parser.add_argument("--private", action="store_true", help="for addresses of any kind")


@dataclass(frozen=True, slots=True)
class Reach:
    """What the command line asked for."""

    relay: RelayServerConfig
    autonat: AutonatConfig
    dcutr: DcutrConfig
    listen: tuple[Multiaddr, ...]

    @classmethod
    def of(cls, options: Namespace) -> Reach:
        """Read the options; raises ConfigError, ValueError, KeyError."""
        return cls(
            RelayServerConfig() if options.relay is None else _relay(json.loads(options.relay)),
            AutonatConfig(enabled=options.autonat, allow_private=options.private),
            DcutrConfig(enabled=options.dcutr, allow_private=options.private),
            (ANY_RELAY,) if options.circuits else (),
        )


def _relay(given: dict[str, Any]) -> RelayServerConfig:
    # All peers of a test have one address, and are strangers unless they are named.
    allow = given.pop("allow", None)
    limits = {LIMITS[name]: value for name, value in given.items()}
    return RelayServerConfig(
        preset="public" if allow is None else "default",
        allow=tuple(map(PeerId.parse, allow or ())),
        reservations_per_prefix=MANY,
        circuits=MANY,
        **limits,
    )


async def reserve(node: Node, *, address: str) -> dict[str, Any]:
    """Hold a reservation at the relay of the address; it is renewed, and made again."""
    relay, place = _split(address)
    client = node.relayed.client
    if STOP_PROTOCOL not in node.protocols:
        raise PeerError("the program needs --circuits")
    client.use(relay, [place])
    return _told(await _held(node, relay, 0), node)


async def renewed(node: Node, *, address: str, expires: float) -> dict[str, Any]:
    """Wait until a reservation ends later: ours at that relay, or that of this peer here."""
    peer, _ = _split(address)
    if not node.relaying.config.is_on:
        return _told(await _held(node, peer, expires), node)
    while True:
        status: dict[str, Any] = node.relaying.status()
        for each in status["reservations"]["peers"]:
            if each["peer"] == str(peer) and each["expires"] > expires:
                return {"expires": each["expires"]}
        await anyio.sleep(LOOK)


async def _held(node: Node, relay: PeerId, after: float) -> Held:
    while True:
        for held in node.relayed.client.held:
            if held.relay == relay and _unix(held.until) > after:
                return held
        status = next(each for each in node.relays if each.relay == relay)
        if status.state in {"refused", "waiting"}:
            raise PeerError(status.reason)
        await anyio.sleep(LOOK)


def _told(held: Held, node: Node) -> dict[str, Any]:
    limit = held.limit
    return {
        "addresses": [str(each.with_peer(node.peer_id)) for each in held.addresses],
        "expires": _unix(held.until),
        "limit": None
        if limit is None
        else {"seconds": limit.duration or 0, "bytes": limit.data or 0},
    }


def _unix(loop_time: float) -> int:
    return round(time.time() + loop_time - anyio.current_time())


async def reservations(node: Node) -> dict[str, Any]:
    """Count, as a relay: reservations, circuits, and who holds a reservation."""
    status: dict[str, Any] = node.relaying.status()
    if status["preset"] == "off":
        raise PeerError("the program needs --relay")
    held = status["reservations"]
    return {
        "reservations": held["used"],
        "circuits": status["circuits"]["used"],
        "peers": [each["peer"] for each in held["peers"]],
    }


async def connections(node: Node, *, address: str) -> dict[str, Any]:
    """Describe the connections to a peer."""
    return {"connections": [_described(each) for each in _to(node, address)]}


async def can_punch(node: Node) -> dict[str, Any]:
    """Wait until there is an address to be punched at."""
    if DCUTR_PROTOCOL not in node.protocols:
        raise PeerError("the program needs --dcutr, and an address that it is for")
    while True:
        if node.reach.punchable():
            return {"ready": True}
        await anyio.sleep(LOOK)


async def autonat(
    node: Node, *, address: str, addresses: list[str] | None = None, seconds: float = 5
) -> dict[str, Any]:
    """Ask a server for each address by itself."""
    if not node.config.autonat.enabled:
        raise PeerError("the program needs --autonat")
    server = (await node.connect(address)).remote_peer
    own = [str(each.without_peer()) for each in node.addresses]
    asked = own if addresses is None else addresses
    return {"verdicts": [await _verdict(node, server, each, seconds) for each in asked]}


async def _verdict(node: Node, server: PeerId, address: str, seconds: float) -> dict[str, Any]:
    question = Question(Server(server, server), (Multiaddr.parse(address),))
    reachable: bool | None = None
    why: str | None = "no verdict in time"
    with anyio.move_on_after(seconds):
        try:
            told = await node.reach.client.ask(question)
        except P2PError as error:
            why = str(error)
        else:
            reachable, why = (None, "refused") if told is None else (told[1], None)
    return {"address": address, "reachable": reachable, "why": why}


def _to(node: Node, address: str) -> list[Connection]:
    peer, _ = _split(address)
    return [each for each in node.connections if each.remote_peer == peer]


def _split(address: str) -> tuple[PeerId, Multiaddr]:
    whole = Multiaddr.parse(address)
    if whole.peer_id is None:
        raise PeerError(f"{address} names no peer")
    return whole.peer_id, whole.without_peer()


def _described(connection: Connection) -> dict[str, Any]:
    return {
        "address": str(connection.remote_addr.without_peer()),
        "dialled": connection.side is Side.DIALER,
        "relayed": is_relayed(connection),
        "limited": connection.limit is not None,
    }


class Punches:
    """Remembers how direct connections were made, and waits for them."""

    def __init__(self) -> None:
        self._made: dict[PeerId, str] = {}

    async def run(self, node: Node) -> None:
        """Listen to the node."""
        async for event in node.events():
            if isinstance(event, HolePunched) and len(self._made) < MAX_PUNCHED:
                self._made[event.peer] = "punch" if event.attempts else "reversal"

    async def upgraded(self, node: Node, *, address: str) -> dict[str, Any]:
        """Wait until there is a direct connection to a peer."""
        while True:
            for each in _to(node, address):
                if not is_relayed(each):
                    return {**_described(each), "how": await self._how(each.remote_peer)}
            await anyio.sleep(LOOK)

    async def _how(self, peer: PeerId) -> str | None:
        for _ in range(int(SETTLING / LOOK)):
            if peer in self._made:
                break
            await anyio.sleep(LOOK)
        return self._made.get(peer)


COMMANDS: dict[str, Callable[..., Awaitable[dict[str, Any]]]] = {
    "reserve": reserve,
    "renewed": renewed,
    "reservations": reservations,
    "connections": connections,
    "can_punch": can_punch,
    "autonat": autonat,
}
