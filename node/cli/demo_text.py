"""The demonstration in words and figures, for a person who has never seen two nodes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..demo import Connected, Measured, Moved, NodesStarted, RelayStarted
from .sizes import format_size

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..demo import Outcome
    from ..events import Json

COLUMNS = ("", "bulk", "carried", "of its own speed", "echo p50", "echo p99")

ROWS = {
    "relayed": "echo through relay",
    "echo": "urgent echo alone",
    "bulk": "bulk alone",
    "both": "both at once",
}
"""What the table calls the steps that measure."""

TRY_NEXT = (
    ("two machines:", "isthmus run"),
    ("", "isthmus ping ADDR      on the other one, with the line that run prints"),
    ("", "isthmus perf ADDR      the same, for the throughput"),
    ("your program:", "from isthmus import Node, run      see examples/echo.py"),
    ("to read:", "docs/start.md for two machines, docs/embed.md for a program of your own"),
)


def outcome_lines(outcome: Outcome) -> list[str]:
    """Return what came of a step: a line, or one for each node."""
    match outcome:
        case RelayStarted():
            where = outcome.address.without_peer()
            return [f"{outcome.peer}, process {outcome.pid}, at {where}"]
        case NodesStarted():
            return [
                f"{outcome.own_peer}, this process",
                f"{outcome.other_peer}, process {outcome.other_pid}, behind the relay",
            ]
        case Connected():
            lines = [f"connected to {outcome.peer} in {milliseconds(outcome.seconds)}, encrypted"]
            if outcome.limit_bytes and outcome.limit_seconds:
                most, time = outcome.limit_bytes / 1024, outcome.limit_seconds
                lines.append(f"the relay lets {most:.0f} KiB pass, for {time:.0f} s at most")
            return lines
        case Moved():
            return _moved(outcome)
        case Measured():
            return [", ".join(_measured(outcome))]


def table_row(name: str, measured: Measured | None) -> tuple[str, ...]:
    """Return the cells of a step's row, below COLUMNS; empty where nothing was measured."""
    title = ROWS.get(name, name)
    if measured is None:
        return (title, *[""] * (len(COLUMNS) - 1))
    return (
        title,
        _or_empty(megabytes(measured.bulk_rate)),
        "" if measured.bulk_bytes is None else format_size(measured.bulk_bytes),
        _or_empty(percent(measured.bulk_share)),
        _or_empty(milliseconds(measured.echo_p50)),
        _or_empty(milliseconds(measured.echo_p99)),
    )


def summary_lines(found: Mapping[str, Outcome], *, cores: int) -> list[str]:
    """Return what has been seen, in sentences, and what to try next."""
    lines = ["What you have seen", *(f"  {line}" for line in _sentences(found, cores)), ""]
    return [*lines, "Try next", *(f"  {name:<14}{what}" for name, what in TRY_NEXT)]


def summary_json(found: Mapping[str, Outcome], *, cores: int, backend: str) -> dict[str, Json]:
    """Return the figures of all steps in one object, each under its step's name."""
    steps: dict[str, Json] = {name: outcome.to_json() for name, outcome in found.items()}
    return {"step": "summary", "backend": backend, "cores": cores, **steps}


def milliseconds(seconds: float | None) -> str | None:
    """Return a time, as `0.123 ms` or `12.3 ms`."""
    if seconds is None:
        return None
    value = seconds * 1e3
    return f"{value:.3f} ms" if value < 1 else f"{value:.1f} ms"


def megabytes(rate: float | None) -> str | None:
    """Return a rate in 10^6 bytes a second, as `1234 MB/s`."""
    return None if rate is None else f"{rate / 1e6:.0f} MB/s"


def percent(share: float | None) -> str | None:
    """Return a share as `75 %`."""
    return None if share is None else f"{share:.0%}".replace("%", " %")


def _moved(moved: Moved) -> list[str]:
    gone = "has ended" if moved.ended is not None else "still stands"
    return [
        f"direct {milliseconds(moved.seconds)} after the relayed connection, at {moved.address}",
        f"{moved.echoes} echoes on both in turn, none lost; the relayed connection {gone}",
    ]


def _or_empty(text: str | None) -> str:
    return text or ""


def _measured(measured: Measured) -> list[str]:
    parts = []
    if measured.echoes is not None:
        half, most = milliseconds(measured.echo_p50), milliseconds(measured.echo_p99)
        parts.append(f"echo p50 {half or '-'}, p99 {most or '-'} ({measured.echoes} echoes)")
    if measured.bulk_bytes is not None:
        carried = f"{format_size(measured.bulk_bytes)} in {measured.seconds:.1f} s"
        parts.append(f"bulk {megabytes(measured.bulk_rate)} ({carried})")
    if measured.bulk_share is not None:
        parts.append(f"{percent(measured.bulk_share)} of its own speed")
    return parts


def _sentences(found: Mapping[str, Outcome], cores: int) -> list[str]:
    lines = []
    match found.get("connect"):
        case Connected(seconds=seconds):
            lines += [
                f"The nodes met through a relay in {milliseconds(seconds)}: each proved which key",
                "it holds, and whatever they have said since is encrypted.",
            ]
    match found.get("direct"):
        case Moved(seconds=seconds, echoes=echoes):
            lines += [
                f"{milliseconds(seconds)} later they were connected directly. The echo went on,",
                f"{echoes} times on both connections in turn, and the relay was needed no more.",
            ]
    match found.get("echo"):
        case Measured(echo_p50=float() as half, echo_p99=float() as most):
            lines += [
                f"By itself, a small message is there and back in {milliseconds(half)};",
                f"99 of 100 within {milliseconds(most)}.",
            ]
    match found.get("bulk"):
        case Measured(bulk_rate=float() as rate):
            lines.append(f"By itself, bulk goes at {megabytes(rate)}.")
    match found.get("both"):
        case (
            Measured(
                echo_p50=float() as half, echo_p99=float() as most, bulk_share=float() as share
            ) as both
        ):
            rate = (both.echoes or 0) / both.seconds
            lines += [
                "With both on one connection, the urgent message goes ahead of the bulk: it is",
                f"back in {milliseconds(half)}, 99 of 100 within {milliseconds(most)}.",
                # Two measurements differ by some percent whatever is beside them.
                f"Bulk keeps {percent(min(share, 1.0))} of its speed beside {rate:.0f} messages"
                " a second.",
            ]
    if cores == 1:
        lines.append("(This machine has one core, for which the two nodes compete.)")
    return lines
