"""`isthmus why`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from .options import backend_option, output_options, storage_options

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ...transports.core.interfaces import Connection
    from ..dialreport import DialReport, DialStep
    from .options import StorageOptions
    from .output import Output


@click.command()
@click.argument("address", metavar="ADDR")
@click.option(
    "--timeout",
    type=click.FloatRange(0, 3600, min_open=True),
    default=10.0,
    show_default=True,
    help="Seconds to wait for each address.",
)
@backend_option
@storage_options
@output_options
def why(
    *,
    address: str,
    timeout: float,
    backend: str,
    storage: StorageOptions,
    output: Output,
) -> None:
    """Dial the peer at ADDR, and say what happened at every address of it.

    ADDR is an address or a peer id, which is then looked for on the LAN. Each line names the
    address, the phase that failed, how long it took, the cause, and what may be done about it.
    Exits with 0 if a connection was made, else with 1.

    \b
    Examples:
      isthmus why /dns4/peer.example/tcp/4001/p2p/12D3KooW...
      isthmus why 12D3KooW... --json
    """
    from .client import explain

    report = explain(address, _linger, storage=storage, backend=backend, timeout=timeout)
    output.result(report.to_json())
    for line in lines(report):
        output.line(line)
    if report.error:
        raise click.exceptions.Exit(1)


async def _linger(connection: Connection) -> None:
    """Stay for a round trip: a peer that is full closes what it has just taken."""
    await connection.probe()


def lines(report: DialReport) -> Iterator[str]:
    """Return a report for people: a line for each address, then what it comes to."""
    from ..printable import printable

    for step in report.steps:
        yield printable(f"{step.address}", limit=600)
        yield f"  {_outcome(step)}"
        if step.cause:
            yield printable(f"  {step.cause}", limit=1000)
        if step.hint:
            yield f"  hint: {step.hint}"
    if not report.error:
        yield f"connected to {report.peer} in {report.duration * 1e3:.1f} ms"
        return
    tried = sum(step.started is not None for step in report.steps)
    yield f"no connection after {report.duration:.1f} s and {tried} addresses"
    if not report.steps:
        yield printable(f"  {report.error}", limit=1000)
    if report.hint:
        yield f"  hint: {report.hint}"


def _outcome(step: DialStep) -> str:
    phase = f" in the phase {step.phase!r}" if step.phase else ""
    text = f"{step.outcome.value}{phase}"
    if step.duration is not None:
        text += f" after {step.duration * 1e3:.1f} ms"
    return f"{text}, rank {step.rank.name.lower()}"
