"""`isthmus events`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from .control import control_options
from .options import output_options

if TYPE_CHECKING:
    from pathlib import Path

    from ..events import Json
    from .output import Output


@click.command()
@control_options
@output_options
def events(*, control: Path, output: Output) -> None:
    """Show what happens in the running node, until Ctrl-C or until it stops.

    As `isthmus run` does, and with --json in the same form; the first is "listening".

    \b
    Examples:
      isthmus events
      isthmus events --json
    """
    from ..run import run
    from .interrupts import end_at_once

    try:
        run(_show, control, output)
    except click.exceptions.Exit:
        # As for `run`, a signal is the way to stop it.
        end_at_once()
        return
    output.notice("the node has stopped")


async def _show(control: Path, output: Output) -> None:
    from ..api.client import ControlClient
    from .interrupts import interruptible

    async with interruptible() as work:
        with work:
            async with ControlClient(control).lines("/v1/events") as told:
                async for plain in told:
                    output.result(plain)
                    _write(plain, output)


def _write(plain: dict[str, Json], output: Output) -> None:
    if output.as_json:
        return
    from ..api.reading import read_event
    from ..events import Listening
    from .lines import event_line, plain_event_line

    event = read_event(plain)
    if isinstance(event, Listening):
        output.line(f"what happens at {event.peer_id}; Ctrl-C ends this")
        return
    line = plain_event_line(plain) if event is None else event_line(event)
    if line is not None:
        output.line(line)
