"""`isthmus relay`: what the running node does as a relay."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click

from .control import control_options, get
from .options import output_options

if TYPE_CHECKING:
    from pathlib import Path

    from .output import Output


@click.group()
def relay() -> None:
    """Show how the running node relays for others; 'isthmus run --relay' starts one that does.

    \b
    Examples:
      isthmus relay status
      isthmus relay status --json
    """


@relay.command()
@control_options
@output_options
def status(*, control: Path, output: Output) -> None:
    """Say for whom the running node relays, how much, and within which limits.

    \b
    Examples:
      isthmus relay status
      isthmus relay status --data-dir other-node --json
    """
    from .control_text import relay_lines

    found = get(control, "/v1/relay")
    output.result(found)
    for line in relay_lines(found, now=time.time()):
        output.line(line)
