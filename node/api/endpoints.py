"""What can be asked for: one line of the table each, and the functions behind it."""

from __future__ import annotations

import os
import platform
import time
from importlib.metadata import version
from typing import TYPE_CHECKING

import anyio

from ...transports.core.errors import AddressError, ControlError
from ...transports.sockets import loop_clock
from ..dialing import parse_target
from ..events import Listening
from ..finding import DEFAULT_FOUND, MAX_FOUND
from ..link import LinkState
from ..protocols.ping import ping
from .routing import Endpoint, Lines

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ...transports.core.interfaces import Connection
    from ...transports.core.peer_id import PeerId
    from ..events import Json
    from ..link import Link
    from ..node import Node
    from .routing import Arguments, Control

API_VERSION = 1
"""The number in every path; it changes when something that a client relies on does."""

KNOWN_LIMIT = 256
"""Peers that are known but not connected, in one answer, unless it asks for more."""

MAX_KNOWN_LIMIT = 1000
"""The most that may be asked for: a megabyte, composed in some ten milliseconds."""

MAX_DIAL_TIMEOUT = 3600.0
"""Seconds that a dial may be given for each address."""
MAX_RELAYS = 32
"""Relays that a status lists; those of the user come first, and are fewer."""

MAX_PINGS = 1000
"""Round trips of one request, whose answer comes after the last."""


async def status(control: Control, arguments: Arguments) -> dict[str, Json]:
    """Say who the node is, where it can be reached, how busy and how full it is."""
    node = control.node
    connections = node.connections
    return {
        "peer_id": str(node.peer_id),
        "addresses": [str(address) for address in node.addresses],
        "protocols": [*node.protocols],
        "pid": os.getpid(),
        "uptime_seconds": round(time.monotonic() - control.started_at, 3),
        "versions": {
            "isthmus": version("isthmus"),
            "python": platform.python_version(),
            "api": API_VERSION,
        },
        "connections": len(connections),
        "peers": len({connection.remote_peer for connection in connections}),
        "streams": sum(map(_open_streams, connections)),
        "known_peers": len(node.peers),
        "reachability": {
            "verdict": node.reachability.value,
            "nat": node.reach.nat_kind().value,
            "addresses": [
                {"address": str(address), "verdict": verdict.value}
                for address, verdict in node.reach.verdicts().items()
            ],
        },
        "relays": [relay.to_json() for relay in node.relays[:MAX_RELAYS]],
        "limits": [
            {"limit": each.name, "used": each.used, "max": each.bound, "setting": each.setting}
            for each in node.usage()
        ],
    }


async def doctor(control: Control, arguments: Arguments) -> dict[str, Json]:
    """Say what hinders the node, as far as that is known by now, and what to change."""
    return (await control.node.diagnose()).to_json()


async def peers(control: Control, arguments: Arguments) -> dict[str, Json]:
    """List the peers that are connected, and the last met of those that are only known."""
    limit = arguments.number("limit", default=KNOWN_LIMIT, low=0, high=MAX_KNOWN_LIMIT)
    node = control.node
    connected: dict[PeerId, list[Connection]] = {}
    for connection in node.connections:
        connected.setdefault(connection.remote_peer, []).append(connection)
    known = [peer for peer in node.peers if peer not in connected]
    known.sort(key=lambda peer: node.peers.info(peer).last_seen, reverse=True)
    shown = [*connected, *known[:limit]]
    return {
        "peers": [_peer(node, peer, connected.get(peer, ())) for peer in shown],
        "known_total": len(known),
    }


async def connect(control: Control, arguments: Arguments) -> dict[str, Json]:
    """Connect to a peer, unless it is connected already."""
    before = control.node.connections
    connection = await control.node.connect(arguments.text_or_texts("to"))
    return {
        "connection": _connection(control.node, connection),
        "is_new": connection not in before,
    }


async def dial(control: Control, arguments: Arguments) -> dict[str, Json]:
    """Dial a peer anew, also if it is connected, and say what happened at every address."""
    to = arguments.text_or_texts("to")
    timeout = arguments.seconds("timeout", high=MAX_DIAL_TIMEOUT)
    node = control.node
    report = await node.examine(to, dial_timeout=timeout)
    return {"dial": report.to_json(), **_way(node, report.peer)}


async def disconnect(control: Control, arguments: Arguments) -> dict[str, Json]:
    """Close every connection to a peer."""
    peer = _peer_id(arguments.text("peer"))
    found = [each for each in control.node.connections if each.remote_peer == peer]
    if not found:
        raise ControlError(f"{peer} is not connected", status=404)
    async with anyio.create_task_group() as closing:
        for connection in found:
            closing.start_soon(connection.aclose)
    return {"peer": str(peer), "closed": len(found)}


async def keep(control: Control, arguments: Arguments) -> dict[str, Json]:
    """Keep a peer connected from now on, and in later runs."""
    return {"link": _link(control.node.keep(arguments.text_or_texts("to")))}


async def forget(control: Control, arguments: Arguments) -> dict[str, Json]:
    """Keep a peer no more, and forget where it is."""
    peer = _peer_id(arguments.text("peer"))
    was_kept = peer in control.node.stores.kept
    control.node.forget(peer)
    return {"peer": str(peer), "was_kept": was_kept}


async def find(control: Control, arguments: Arguments) -> dict[str, Json]:
    """Ask the DHT who offers a service."""
    # Loaded with the DHT's client, which few nodes use.
    from ...relay.kad.wire import service_cid

    service = arguments.text("service")
    limit = arguments.number("limit", default=DEFAULT_FOUND, low=1, high=MAX_FOUND)
    found = await control.node.find_peers(service, limit=limit)
    return {
        "service": service,
        "cid": service_cid(service),
        "peers": [
            {"peer": str(each.peer), "addresses": [str(one) for one in each.addresses]}
            for each in found
        ],
    }


async def links(control: Control, arguments: Arguments) -> dict[str, Json]:
    """List the links, of one peer with its history and the report of the last dial."""
    node = control.node
    text = arguments.optional_text("peer")
    if text is None:
        return {"links": [_link(link) for link in node.links]}
    peer = _peer_id(text)
    found = node.links.get(peer)
    history = _history(node, peer)
    if found is None and (not history or history[-1]["state"] == LinkState.CLOSED.value):
        raise ControlError(f"nothing is known of a link to {peer}", status=404)
    report = node.why(peer)
    return {
        "links": [_link(found) if found is not None else _last_known(peer, history[-1])],
        "history": [*history],
        "last_dial": None if report is None else report.to_json(),
        **_way(node, peer),
    }


async def relay(control: Control, arguments: Arguments) -> dict[str, Json]:
    """Say for whom the node relays, how much, and within which limits."""
    return control.node.relaying.status()


async def events(control: Control, arguments: Arguments) -> Lines:
    """Tell where the node listens, as its first event does, and what happens from now on."""
    node = control.node
    return Lines(Listening(node.peer_id, node.addresses), node.events())


async def ping_peer(control: Control, arguments: Arguments) -> dict[str, Json]:
    """Measure round trips, over the node's own connection to a peer."""
    count = arguments.number("count", default=1, low=1, high=MAX_PINGS)
    connection = await control.node.connect(arguments.text_or_texts("to"))
    times = await ping(connection, count)
    return {
        "peer": str(connection.remote_peer),
        "address": str(connection.remote_addr),
        "rtt_ms": [round(each * 1e3, 4) for each in times],
    }


ENDPOINTS: Sequence[Endpoint] = (
    Endpoint("GET", "/v1/status", status),
    Endpoint("GET", "/v1/doctor", doctor),
    Endpoint("GET", "/v1/peers", peers, takes=("limit",)),
    Endpoint("GET", "/v1/events", events),
    Endpoint("POST", "/v1/connect", connect, takes=("to",)),
    Endpoint("POST", "/v1/dial", dial, takes=("to", "timeout")),
    Endpoint("POST", "/v1/disconnect", disconnect, takes=("peer",)),
    Endpoint("POST", "/v1/ping", ping_peer, takes=("to", "count")),
    Endpoint("POST", "/v1/find", find, takes=("service", "limit")),
    Endpoint("GET", "/v1/links", links, takes=("peer",)),
    Endpoint("GET", "/v1/relay", relay),
    Endpoint("POST", "/v1/keep", keep, takes=("to",)),
    Endpoint("POST", "/v1/forget", forget, takes=("peer",)),
)
"""One line each."""


def _peer_id(text: str) -> PeerId:
    peer = parse_target(text).peer
    if peer is None:
        raise AddressError("an address names a peer only if it ends in /p2p/ID")
    return peer


def _link(link: Link) -> dict[str, Json]:
    return {
        "peer": str(link.peer),
        "state": link.state.value,
        "reason": link.reason,
        "since": link.history[-1].time if link.history else None,
        "kept": link.is_kept,
    }


def _last_known(peer: PeerId, change: dict[str, Json]) -> dict[str, Json]:
    """Say what an earlier run has left of a link that this one has not needed yet."""
    return {
        "peer": str(peer),
        "state": LinkState.DISCONNECTED.value,
        "reason": change["reason"],
        "since": change["time"],
        "kept": False,
    }


def _history(node: Node, peer: PeerId) -> list[dict[str, Json]]:
    found = node.links.get(peer)
    if found is None:
        stored = node.stores.links.history(peer)
        changes = [(each.state, each.time, each.reason) for each in stored]
    else:
        changes = [(each.state.value, each.time, each.reason) for each in found.history]
    return [{"state": state, "time": time, "reason": reason} for state, time, reason in changes]


def _peer(node: Node, peer: PeerId, connections: Sequence[Connection]) -> dict[str, Json]:
    info = node.peers.info(peer)
    return {
        "peer": str(peer),
        "connected": bool(connections),
        "addresses": [str(address) for address in info.addresses],
        "agent": info.agent,
        "last_seen": time.time() if connections else info.last_seen,
        "connections": [_connection(node, connection) for connection in connections],
    }


def _way(node: Node, peer: PeerId | None) -> dict[str, Json]:
    """Say by which connection a peer is reached, and what came of making it a direct one."""
    used = [each for each in node.connections if each.remote_peer == peer and node.is_used(each)]
    return {
        "path": _connection(node, used[0]) if used else None,
        "hole_punching": None if peer is None else node.reach.hole_punching(peer),
    }


def _connection(node: Node, connection: Connection) -> dict[str, Json]:
    counts = connection.statistics()
    rtt = counts.round_trip_time
    return {
        "peer": str(connection.remote_peer),
        "address": str(connection.remote_addr),
        "side": connection.side.name.lower(),
        "rank": node.rank_of(connection).name.lower(),
        "limited": connection.limit is not None,
        "used": node.is_used(connection),
        "suspect": node.is_suspect(connection),
        "age_seconds": round(loop_clock()() - counts.opened_at, 3),
        "rtt_ms": None if rtt is None else round(rtt * 1e3, 4),
        "bytes_sent": counts.bytes_sent,
        "bytes_received": counts.bytes_received,
        "streams": _open_streams(connection),
    }


def _open_streams(connection: Connection) -> int:
    counts = connection.statistics()
    return counts.data_channels_opened - counts.data_channels_closed
