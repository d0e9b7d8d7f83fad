"""`isthmus peers`."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click

from .control import control_options, get
from .options import output_options

if TYPE_CHECKING:
    from pathlib import Path

    from .output import Output

MAX_KNOWN = 1000
"""What the node tells at most of peers that are not connected."""


@click.command()
@click.option(
    "-n",
    "--known",
    type=click.IntRange(0, MAX_KNOWN),
    default=20,
    show_default=True,
    help="How many peers to list that are known, but not connected; the last seen first.",
)
@control_options
@output_options
def peers(*, known: int, control: Path, output: Output) -> None:
    """List the peers of the running node, with each connection to them.

    \b
    Examples:
      isthmus peers
      isthmus peers --known 1000 --json
    """
    from .control_text import peers_lines

    found = get(control, f"/v1/peers?limit={known}")
    output.result(found)
    for line in peers_lines(found, now=time.time()):
        output.line(line)
