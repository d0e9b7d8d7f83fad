"""`isthmus status`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from .control import control_options, get
from .options import output_options

if TYPE_CHECKING:
    from pathlib import Path

    from .output import Output


@click.command()
@control_options
@output_options
def status(*, control: Path, output: Output) -> None:
    """Say how the running node is: who, where, how long, how busy, how full.

    \b
    Examples:
      isthmus status
      isthmus status --data-dir other-node --json
    """
    from .control_text import status_lines

    found = get(control, "/v1/status")
    output.result(found)
    for line in status_lines(found):
        output.line(line)
