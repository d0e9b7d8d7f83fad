"""What a running node answers, in words; every line passes `printable`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..printable import printable
from .sizes import format_size

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from typing import TypeAlias

    # The edge where JSON is decoded: the node that runs says what it likes.
    Told: TypeAlias = Mapping[str, Any]

MAX_LINE = 500
"""Characters of a line; the longest address takes some 400."""

MAX_ADDRESSES = 3
"""Addresses that are shown of a peer that is not connected."""

_UNITS = ((86_400, "d"), (3600, "h"), (60, "min"))


def status_lines(status: Told) -> list[str]:
    """Return what `isthmus status` says."""
    versions = status["versions"]
    lines = [_field("peer id", status["peer_id"])]
    for number, address in enumerate(status["addresses"]):
        lines.append(_field("" if number else "addresses", address))
    if not status["addresses"]:
        lines.append(_field("addresses", "none: it does not listen, or no interface is up"))
    running = f"{duration(status['uptime_seconds'])}, as process {status['pid']}"
    lines += [
        _field("running", f"{running}, isthmus {versions['isthmus']}"),
        _field("serves", ", ".join(status["protocols"])),
        _field(
            "busy",
            f"{_count(status['connections'], 'connection')} to {_count(status['peers'], 'peer')},"
            f" {_count(status['streams'], 'open stream')}, {status['known_peers']} known peers",
        ),
    ]
    lines.append(_field("reachable", _reachable(status["reachability"])))
    for number, line in enumerate(aligned(map(_relay, status.get("relays", ())))):
        lines.append(_field("" if number else "relays", line))
    rows = [
        (each["limit"], f"{each['used']} of {each['max']}", each["setting"])
        for each in status["limits"]
    ]
    for number, line in enumerate(aligned(rows)):
        lines.append(_field("" if number else "limits", line))
    return [printable(line, limit=MAX_LINE) for line in lines]


_REACHABLE = {
    "public": "others can dial it",
    "private": "others cannot dial it: behind a NAT or a firewall",
    "unknown": "not known: too few peers have tried, or said so",
}

_NATS = {
    "none": "no NAT",
    "endpoint-independent": "the NAT keeps one address for all, so holes can be punched",
    "symmetric": "the NAT shows each peer another address, so relays are needed",
}


def _reachable(found: Told) -> str:
    text = _REACHABLE.get(found["verdict"], str(found["verdict"]))
    return f"{text}; {nat}" if (nat := _NATS.get(found["nat"])) else text


def peers_lines(found: Told, *, now: float) -> list[str]:
    """Return what `isthmus peers` says: each connection, then who is only known.

    `now` is in seconds since 1970.
    """
    connected = [peer for peer in found["peers"] if peer["connected"]]
    known = [peer for peer in found["peers"] if not peer["connected"]]
    lines = [f"{_count(len(connected), 'peer')} connected, {found['known_total']} more known"]
    for peer in connected:
        lines += ["", f"{peer['peer']}  {peer['agent']}".rstrip()]
        lines += [f"  {line}" for line in aligned(map(_connection, peer["connections"]))]
    if known:
        lines += ["", "known"]
    for peer in known:
        seen = duration(now - peer["last_seen"])
        lines.append(f"{peer['peer']}  seen {seen} ago  {peer['agent']}".rstrip())
        lines += [f"  {address}" for address in peer["addresses"][:MAX_ADDRESSES]]
        if (more := len(peer["addresses"]) - MAX_ADDRESSES) > 0:
            lines.append(f"  and {more} more")
    return [printable(line, limit=MAX_LINE) for line in lines]


def relay_lines(found: Told, *, now: float) -> list[str]:
    """Return what `isthmus relay status` says; `now` is in seconds since 1970."""
    if found["preset"] == "off":
        return [_field("serves", "nobody: 'isthmus run --relay' starts a node that relays")]
    reservations, circuits = found["reservations"], found["circuits"]
    rate, refused = format_size(int(found["bytes_per_second"])), found["refused"]
    lines = [
        _field("serves", str(_SERVED.get(found["preset"], found["preset"]))),
        _field("reserved", f"{reservations['used']} of {reservations['max']}"),
        _field("circuits", f"{circuits['used']} of {circuits['max']}"),
        _field("carried", f"{format_size(found['bytes'])}, now {rate}/s"),
        _field("limits", _relay_limits(found["limits"])),
    ]
    if refused:
        counts = ", ".join(f"{name} {count}" for name, count in refused.items())
        lines.append(_field("refused", counts))
    for title, rows in (
        ("reservations", [_reservation(each, now) for each in reservations["peers"]]),
        ("circuits", [_circuit(each) for each in circuits["open"]]),
        ("used by", [_source(each) for each in found["sources"]]),
    ):
        if rows:
            lines += ["", title, *(f"  {line}" for line in aligned(rows))]
    return [printable(line, limit=MAX_LINE) for line in lines]


def connected_line(found: Told) -> str:
    """Return what `isthmus connect` says."""
    connection = found["connection"]
    way = "connected to" if found["is_new"] else "connected already, to"
    line = f"{way} {connection['peer']} ({connection['address']})"
    return printable(line, limit=MAX_LINE)


def disconnected_line(found: Told) -> str:
    """Return what `isthmus disconnect` says."""
    line = f"disconnected from {found['peer']} ({_count(found['closed'], 'connection')})"
    return printable(line, limit=MAX_LINE)


def kept_line(found: Told) -> str:
    """Return what `isthmus keep` says."""
    link = found["link"]
    return printable(f"keeping {link['peer']} from now on ({link['state']})", limit=MAX_LINE)


def forgotten_line(found: Told) -> str:
    """Return what `isthmus forget` says."""
    was = "kept no more" if found["was_kept"] else "was not kept"
    return printable(f"{found['peer']}: {was}; its addresses are forgotten", limit=MAX_LINE)


def found_lines(found: Told) -> list[str]:
    """Return what `isthmus find` says: each peer, then where it is said to be."""
    peers = found["peers"]
    if not peers:
        return [printable(f"nobody offers {found['service']}", limit=MAX_LINE)]
    lines = [f"{_count(len(peers), 'peer')} said to offer {found['service']}"]
    for peer in peers:
        lines.append(peer["peer"])
        lines += [f"  {address}" for address in peer["addresses"][:MAX_ADDRESSES]]
        if (more := len(peer["addresses"]) - MAX_ADDRESSES) > 0:
            lines.append(f"  and {more} more")
        if not peer["addresses"]:
            lines.append("  nobody says where")
    return [printable(line, limit=MAX_LINE) for line in lines]


def duration(seconds: float) -> str:
    """Return a time in the largest unit of which there is at least one, as `12 min`."""
    for unit, name in _UNITS:
        if seconds >= unit:
            return f"{seconds // unit:.0f} {name}"
    return f"{max(seconds, 0):.0f} s"


def aligned(rows: Iterable[Sequence[str]]) -> list[str]:
    """Return rows of as many cells each as lines whose columns begin at the same place."""
    cells = [[printable(str(cell), limit=MAX_LINE) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in cells
    ]


_MARKS = ("limited", "suspect")
_SERVED = {
    "default": "kept peers, and those in relay.allow",
    "public": "anyone",
    "generous": "the peers in relay.allow, and kept ones",
}


def _relay_limits(limits: Told) -> str:
    most, time, rate = (limits[f"circuit_{name}"] for name in ("bytes", "duration", "rate"))
    parts = [f"{limits['circuits_per_peer']} circuits a peer"]
    if most is not None:
        parts.append(f"{format_size(most)} each way")
    if rate is not None:
        parts.append(f"{format_size(int(rate))}/s each way")
    if time is not None:
        parts.append(f"{duration(time)} a circuit")
    if limits["bandwidth"] is not None:
        parts.append(f"{format_size(int(limits['bandwidth']))}/s in all")
    return ", ".join(parts)


def _reservation(reserved: Told, now: float) -> tuple[str, ...]:
    left = duration(reserved["expires"] - now)
    return reserved["peer"], f"for {left} more", reserved["address"]


def _circuit(circuit: Told) -> tuple[str, ...]:
    there, back = circuit["bytes_to_target"], circuit["bytes_to_source"]
    carried = f"{format_size(there)} there, {format_size(back)} back"
    return f"{circuit['source']} to {circuit['target']}", carried


def _source(source: Told) -> tuple[str, ...]:
    return source["peer"], _count(source["circuits"], "circuit"), format_size(source["bytes"])


def _relay(relay: Told) -> tuple[str, ...]:
    rtt, reason = relay["rtt_ms"], relay["reason"]
    return (
        str(relay["relay"]),
        str(relay["state"]),
        "-" if rtt is None else f"{rtt:.3g} ms",
        "yours" if relay["configured"] else "discovered",
        str(reason or ""),
    )


def _connection(connection: Told) -> tuple[str, ...]:
    rtt = connection["rtt_ms"]
    return (
        ", ".join([connection["rank"], *(each for each in _MARKS if connection[each])]),
        connection["side"],
        "-" if rtt is None else f"{rtt:.3g} ms",
        f"sent {format_size(connection['bytes_sent'])}",
        f"received {format_size(connection['bytes_received'])}",
        f"for {duration(connection['age_seconds'])}",
        connection["address"],
    )


def _field(name: str, value: str) -> str:
    return f"{name:<10} {value}"


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
