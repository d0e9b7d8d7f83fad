"""A node's events as lines for people; every text of a peer passes `printable`."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from ...transports.core.interfaces import Side
from ..events import (
    AddressesChanged,
    ConnectionEnded,
    ConnectionOpened,
    ConnectionRefused,
    DialFailed,
    EventsLost,
    HandlerFailed,
    LinkChanged,
    Listening,
    MulticastUnavailable,
    PeerFound,
    PeerIdentified,
    PeerOffline,
    PeerOnline,
    ProvidingFailed,
    ServiceProvided,
    StoreDegraded,
    StoreRecovered,
    StreamRefused,
)
from ..link import LinkState
from ..printable import printable
from .output import style

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
    return _of_link(event) or _of_store(event) or _of_dht(event) or _otherwise(event)


def _of_store(event: NodeEvent) -> str | None:
    match event:
        case StoreDegraded(path=path, reason=reason):
            return f"what is known of peers is in memory only: {path}: {reason}"
        case StoreRecovered(path=path):
            return f"what is known of peers is kept again: {path}"
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
