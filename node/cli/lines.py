"""A node's events as lines for people; every text of a peer passes `printable`."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from ...relay.autonat.reachability import Reachability
from ...transports.core.interfaces import Side
from ..events import (
    AddressesChanged,
    CircuitEnded,
    CircuitOpened,
    ConnectionEnded,
    ConnectionOpened,
    ConnectionRefused,
    DialFailed,
    EventsLost,
    HandlerFailed,
    HolePunched,
    HolePunchFailed,
    LinkChanged,
    Listening,
    MulticastUnavailable,
    PathChanged,
    PeerFound,
    PeerIdentified,
    PeerOffline,
    PeerOnline,
    ProvidingFailed,
    ReachabilityChanged,
    RelayLost,
    RelayRefused,
    RelayReservationEnded,
    RelayReservationMade,
    RelayReserved,
    ServiceProvided,
    StoreDegraded,
    StoreRecovered,
    StreamRefused,
)
from ..link import LinkState
from ..printable import printable
from .output import style
from .sizes import format_size

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..events import NodeEvent

_TOLD_LINKS = (LinkState.RECONNECTING, LinkState.FAILED)

MAX_LINE = 500
"""Characters of an event's line: the reason of a failed dial may name several addresses."""


def describe_event(event: NodeEvent) -> str | None:
    """Return one line on an event; None if another event or the start has told it."""
    if isinstance(event, Listening):
        return None
    if isinstance(event, LinkChanged) and event.state not in _TOLD_LINKS:
        return None
    return printable(_text(event), limit=MAX_LINE)


def event_line(event: NodeEvent) -> str | None:
    """Return the same after the time of day, in a terminal's colours."""
    text = describe_event(event)
    if text is None:
        return None
    return f"{_clock(event.time)} {text}"


def plain_event_line(plain: Mapping[str, object]) -> str:
    """Return one line on an event of which only the JSON is known."""
    shown = [f"{name} {value}" for name, value in plain.items() if name not in ("event", "time")]
    text = printable(", ".join([str(plain.get("event")), *shown]), limit=MAX_LINE)
    seconds = plain.get("time")
    return f"{_clock(seconds)} {text}" if isinstance(seconds, float) else text


def _clock(seconds: float) -> str:
    return style(time.strftime("%H:%M:%S", time.localtime(seconds)), dim=True)


def _text(event: NodeEvent) -> str:  # noqa: C901, PLR0911 - one line per kind of event
    match event:
        case ConnectionOpened(peer=peer, address=address, side=side, limited=limited):
            way = "connected to" if side is Side.DIALER else "connection from"
            return f"{way} {peer} ({address}{', limited' if limited else ''})"
        case ConnectionEnded(peer=peer, reason=reason):
            return f"disconnected from {peer}: {reason}"
        case ConnectionRefused(peer=peer, address=address, reason=reason, count=count):
            whom = peer or address
            return f"turned {whom} away{_times(count)}: {reason}"
        case StreamRefused(peer=peer, reason=reason, count=count):
            return f"refused a stream of {peer}{_times(count)}: {reason}"
        case PeerIdentified(peer=peer, agent=agent):
            return f'{peer} calls itself "{printable(agent)}"'
        case DialFailed(reason=reason):
            return reason
        case HandlerFailed(peer=peer, protocol=protocol, error=error):
            return f"{printable(protocol)} for {peer} failed: {str(error) or type(error).__name__}"
        case PeerFound(peer=peer, addresses=addresses):
            return f"found {peer} on the LAN ({', '.join(map(str, addresses))})"
        case MulticastUnavailable(interfaces=interfaces):
            return f"LAN: no multicast on {', '.join(map(printable, interfaces))}"
        case AddressesChanged(addresses=addresses):
            return f"addresses are now: {', '.join(map(str, addresses))}"
        case EventsLost(count=count):
            return f"{count} events were too many to be shown"
    return _told_by_part(event) or _otherwise(event)


def _told_by_part(event: NodeEvent) -> str | None:
    parts = (_of_link, _of_reach, _of_relays, _of_store, _of_relay, _of_dht)
    return next((text for part in parts if (text := part(event))), None)


def _of_reach(event: NodeEvent) -> str | None:
    match event:
        case ReachabilityChanged(reachability=Reachability.PUBLIC, addresses=addresses):
            return f"others can dial this node at {', '.join(map(str, addresses))}"
        case ReachabilityChanged(reachability=Reachability.PRIVATE):
            return "others cannot dial this node: it is behind a NAT or a firewall"
        case ReachabilityChanged():
            return "whether others can dial this node is not known any more"
        case HolePunched(peer=peer, address=address):
            return f"connected to {peer} without the relay ({address})"
        case HolePunchFailed(peer=peer, reason=reason):
            return f"no connection to {peer} without the relay: {reason}"
    return None


def _of_relays(event: NodeEvent) -> str | None:
    match event:
        case RelayReserved(relay=relay, addresses=addresses):
            return f"reached through the relay {relay} ({', '.join(map(str, addresses))})"
        case RelayRefused(reason=reason):
            return reason
        case RelayLost(relay=relay, reason=reason):
            return f"no longer reached through the relay {relay}: {reason}"
    return None


def _of_store(event: NodeEvent) -> str | None:
    match event:
        case StoreDegraded(path=path, reason=reason):
            return f"what is known of peers is in memory only: {path}: {reason}"
        case StoreRecovered(path=path):
            return f"what is known of peers is kept again: {path}"
    return None


def _of_relay(event: NodeEvent) -> str | None:
    match event:
        case RelayReservationMade(peer=peer):
            return f"relaying for {peer}"
        case RelayReservationEnded(peer=peer, reason=reason):
            return f"relaying for {peer} no more: {reason}"
        case CircuitOpened(source=source, target=target):
            return f"circuit from {source} to {target}"
        case CircuitEnded(source=source, target=target, bytes=count, reason=reason):
            carried = format_size(count)
            return f"circuit from {source} to {target} ended after {carried}: {reason}"
    return None


def _of_dht(event: NodeEvent) -> str | None:
    match event:
        case ServiceProvided(service=service, servers=servers):
            whom = f"{servers} server{'' if servers == 1 else 's'}"
            return f"offers {printable(service)}: {whom} of the DHT took note"
        case ProvidingFailed(service=service, reason=reason):
            return f"could not tell the DHT that this node offers {printable(service)}: {reason}"
    return None


def _of_link(event: NodeEvent) -> str | None:
    match event:
        case LinkChanged(peer=peer, state=LinkState.RECONNECTING, reason=reason):
            return f"reconnecting to {peer}: {reason}"
        case LinkChanged(peer=peer, reason=reason):
            return f"gave up on {peer}: {reason}"
        case PathChanged(peer=peer, address=address, reason=reason):
            return f"{peer} is reached at {address} now: {reason}"
        case PeerOnline(peer=peer):
            return f"{peer} is online"
        case PeerOffline(peer=peer, reason=reason):
            return f"{peer} is offline: {reason}"
    return None


def _otherwise(event: NodeEvent) -> str:
    shown = [f"{name} {value}" for name, value in event.to_json().items() if name != "time"]
    return ", ".join(shown)


def _times(count: int) -> str:
    return f", {count} times" if count > 1 else ""
