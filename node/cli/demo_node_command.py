"""`isthmus demo-node`, by which `isthmus demo` starts the nodes that it needs; listed nowhere."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from .options import backend_option, output_options

if TYPE_CHECKING:
    from .output import Output


@click.command(hidden=True)
@click.argument("role")
@click.option(
    "--relay-via", metavar="MULTIADDR", multiple=True, help="Be reached through this relay only."
)
@backend_option
@output_options
def demo_node(*, role: str, relay_via: tuple[str, ...], backend: str, output: Output) -> None:
    """Run a node of ROLE until the standard input closes.

    \b
    Examples:
      isthmus demo-node peer --json
    """
    from ..demo_nodes import ROLES, serve
    from ..run import run

    if role not in ROLES:
        raise click.BadParameter(f"{role!r} is none of {', '.join(ROLES)}", param_hint="ROLE")
    run(serve, role, relay_via, output.result, backend=backend)
