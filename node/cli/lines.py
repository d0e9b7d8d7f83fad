"""A node's events as lines for people; every text of a peer passes `printable`."""

from __future__ import annotations

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
    Listening,
    MulticastUnavailable,
    PeerFound,
    PeerIdentified,
    StreamRefused,
)
from ..printable import printable

if TYPE_CHECKING:
    from ..events import NodeEvent

MAX_LINE = 500
"""Characters of an event's line: the reason of a failed dial may name several addresses."""


def describe_event(event: NodeEvent) -> str | None:
    """Return one line on an event; None if it has been told already."""
    if isinstance(event, Listening):
        return None
    return printable(_text(event), limit=MAX_LINE)


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
    shown = [f"{name} {value}" for name, value in event.to_json().items() if name != "time"]
    return ", ".join(shown)


def _times(count: int) -> str:
    return f", {count} times" if count > 1 else ""
