"""`isthmus find`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from .control import control_options, post
from .options import output_options

if TYPE_CHECKING:
    from pathlib import Path

    from .output import Output

MAX_FOUND = 100
"""What the node finds at most in one search."""


@click.command()
@click.argument("service", metavar="SERVICE")
@click.option(
    "-n",
    "--limit",
    type=click.IntRange(1, MAX_FOUND),
    default=20,
    show_default=True,
    help="How many peers to list at most.",
)
@control_options
@output_options
def find(*, service: str, limit: int, control: Path, output: Output) -> None:
    """Have the running node ask the DHT who offers SERVICE.

    Whoever runs with --provide SERVICE is found, and so is a go- or js-libp2p that provides the
    same name. The node has to be started with --bootstrap, or with dht.bootstrap in its
    configuration. What is found is a claim until a connection has proven it.

    \b
    Examples:
      isthmus find chat
      isthmus find chat --limit 100 --json
    """
    from .control_text import found_lines

    found = post(control, "/v1/find", {"service": service, "limit": limit})
    output.result(found)
    for line in found_lines(found):
        output.line(line)
