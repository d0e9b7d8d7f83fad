"""`isthmus demo`."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click

from .options import Session, backend_option, output_options

if TYPE_CHECKING:
    from .output import Output

MAX_SECONDS = 120.0
"""Every echo's time is kept until its step ends: a thousand a second."""


@click.command()
@click.option(
    "--seconds",
    type=click.FloatRange(1, MAX_SECONDS),
    default=10.0,
    show_default=True,
    help="About how long it takes.",
)
@backend_option
@output_options
def demo(*, seconds: float, backend: str, output: Output) -> None:
    """Show what nodes do: meet through a relay, go direct, and keep urgent messages from waiting.

    Starts a relay and two nodes on this machine, processes that talk over loopback. The nodes meet
    through the relay and move to a direct connection while an echo goes on; there it measures an
    urgent echo alone, bulk alone, and both at once. Nothing is written to disk, and no other
    machine can connect.

    \b
    Examples:
      isthmus demo
      isthmus demo --seconds 3 --json
    """
    from ..demo import STEPS, Stage, perform
    from ..run import run
    from .demo_display import Lines, LiveTable
    from .demo_text import summary_json, summary_lines
    from .interrupts import interruptible

    session = click.get_current_context().find_object(Session)
    is_debugging = session is not None and session.debug
    arguments = ["--json", "--backend", backend, *(["--debug"] if is_debugging else [])]
    cores = usable_cores()

    async def main() -> None:
        async with (
            interruptible() as work,
            Stage(seconds=seconds, arguments=arguments, is_quiet=not is_debugging) as stage,
        ):
            with work, (LiveTable if output.is_live else Lines)(output, STEPS) as display:
                await perform(STEPS, stage, display)
                found = dict(stage.found)
        output.result(summary_json(found, cores=cores, backend=backend))
        for line in ("", *summary_lines(found, cores=cores)):
            output.line(line)

    run(main, backend=backend)


def usable_cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
