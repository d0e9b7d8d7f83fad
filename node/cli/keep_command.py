"""`isthmus keep` and `isthmus forget`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from .control import control_options, post
from .options import output_options

if TYPE_CHECKING:
    from pathlib import Path

    from .output import Output


@click.command()
@click.argument("to", metavar="TO")
@control_options
@output_options
def keep(*, to: str, control: Path, output: Output) -> None:
    """Have the running node keep a peer connected, from now on and after restarts.

    TO is a peer id, or an address that ends in one. The peer is dialled at once, and again whenever
    it is lost.

    \b
    Examples:
      isthmus keep /ip4/192.0.2.7/tcp/4001/p2p/12D3KooW...
      isthmus keep 12D3KooW... --json
    """
    from .addresses import parse_destination
    from .control_text import kept_line

    parse_destination(to)
    found = post(control, "/v1/keep", {"to": to})
    output.result(found)
    output.line(kept_line(found))


@click.command()
@click.argument("peer", metavar="PEER")
@control_options
@output_options
def forget(*, peer: str, control: Path, output: Output) -> None:
    """Have the running node keep PEER no more, and forget where it is.

    Connections that stand are left as they are.

    \b
    Examples:
      isthmus forget 12D3KooW...
    """
    from .addresses import parse_destination
    from .control_text import forgotten_line

    parse_destination(peer)
    found = post(control, "/v1/forget", {"peer": peer})
    output.result(found)
    output.line(forgotten_line(found))
