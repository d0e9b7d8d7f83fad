"""What `isthmus why` has found out, in words; every line passes `printable`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..printable import printable
from .control_text import aligned, duration

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import TypeAlias

    # The edge where JSON is decoded: the node that runs says what it likes.
    Told: TypeAlias = Mapping[str, Any]

MAX_LINE = 1000
"""Characters of a line; a cause may be a library's own text."""

MAX_CHANGES = 10
"""Changes of a link that are shown: what a screen has room for beside the addresses."""


def lines(found: Told, *, now: float) -> Iterator[str]:
    """Return what was found: the link if there is one, the dial, and what it comes to.

    `now` is in seconds since 1970.
    """
    if found["link"] is not None:
        yield from _link_lines(found, now)
    yield from map(_shown, _way_lines(found, now))
    if not found["dialled"] and found["time"] is not None:
        yield f"last dial  {duration(now - found['time'])} ago"
    for step in found["steps"]:
        yield from _step_lines(step)
    yield from map(_shown, _end_lines(found))


def _link_lines(found: Told, now: float) -> Iterator[str]:
    link = found["link"]
    state = link["state"]
    if link["since"] is not None:
        state += f" for {duration(now - link['since'])}"
    yield _shown(f"link       {state}{', kept' if link['kept'] else ''}")
    last = found["history"][-MAX_CHANGES:]
    rows = [(each["state"], f"{duration(now - each['time'])} ago", each["reason"]) for each in last]
    for number, line in enumerate(aligned(rows)):
        yield f"{'' if number else 'history':<10} {line}"


def _way_lines(found: Told, now: float) -> Iterator[str]:
    """Say by which path the peer is reached, and of a relayed one why it is no direct one."""
    path = found.get("path")
    if path is not None:
        limited = ", which sets limits" if path["limited"] else ""
        yield f"path       {path['rank']}, {path['address']}{limited}"
    punching = found.get("hole_punching")
    if punching is None or (path is not None and path["rank"] != "relay"):
        return
    whose = " that the peer has begun" if punching["begun_by_peer"] else ""
    when = "" if punching["time"] is None else f" {duration(now - punching['time'])} ago"
    match punching["outcome"]:
        case "failed":
            yield f"direct     hole punching{whose} has failed{when}: {punching['reason']}"
        case "succeeded":
            yield f"direct     hole punching{whose} worked{when}, and the connection has ended"
        case _:
            yield f"direct     hole punching is {punching['outcome']}"
    if punching["next"] is not None:
        yield f"           it is tried again in {duration(punching['next'] - now)}"
    elif punching["begun_by_peer"] and path is not None:
        yield "           the peer decides when it is tried again"


def _step_lines(step: Told) -> Iterator[str]:
    yield _shown(step["address"])
    yield _shown(f"  {_outcome(step)}")
    if step["cause"]:
        yield _shown(f"  {step['cause']}")
    if step["hint"]:
        yield _shown(f"  hint: {step['hint']}")


def _end_lines(found: Told) -> Iterator[str]:
    if found["connected"]:
        path = found.get("path")
        is_relayed = path is not None and path["rank"] == "relay"
        through = " through a relay" if is_relayed and not found["dialled"] else ""
        connected = f"connected to {found['peer_id']}{through}"
        if found["dialled"]:
            yield f"{connected} in {found['duration_ms']:.1f} ms"
        elif found["time"] is None:
            yield f"{connected}, which connected to this node by itself"
        else:
            yield connected
        return
    if found["error"]:
        tried = sum(step["started_ms"] is not None for step in found["steps"])
        yield f"no connection after {found['duration_ms'] / 1e3:.1f} s and {tried} addresses"
    else:
        yield "no connection now"
    if found["error"] and not found["steps"]:
        yield f"  {found['error']}"
    if found["hint"]:
        yield f"  hint: {found['hint']}"
    if not found["dialled"]:
        yield "  hint: --dial tries it now"


def _outcome(step: Told) -> str:
    phase = f" in the phase {step['phase']!r}" if step["phase"] else ""
    text = f"{step['outcome']}{phase}"
    if step["duration_ms"] is not None:
        text += f" after {step['duration_ms']:.1f} ms"
    return f"{text}, rank {step['rank']}"


def _shown(line: str) -> str:
    return printable(line, limit=MAX_LINE)
