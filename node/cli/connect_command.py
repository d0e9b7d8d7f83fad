"""`isthmus connect` and `isthmus disconnect`."""

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
def connect(*, to: str, control: Path, output: Output) -> None:
    """Have the running node connect to TO, a peer id or an address.

    Ctrl-C gives it up, unless somebody else in the node waits for the same peer.

    \b
    Examples:
      isthmus connect /ip4/192.0.2.7/tcp/4001/p2p/12D3KooW...
      isthmus connect 12D3KooW... --json
    """
    from .addresses import parse_destination
    from .control_text import connected_line

    parse_destination(to)
    found = post(control, "/v1/connect", {"to": to})
    output.result(found)
    output.line(connected_line(found))


@click.command()
@click.argument("peer", metavar="PEER")
@control_options
@output_options
def disconnect(*, peer: str, control: Path, output: Output) -> None:
    """Have the running node end its connections to PEER, a peer id.

    Nothing keeps the two from connecting again: peers of one LAN soon do.

    \b
    Examples:
      isthmus disconnect 12D3KooW...
    """
    from .addresses import parse_destination
    from .control_text import disconnected_line

    parse_destination(peer)
    found = post(control, "/v1/disconnect", {"peer": peer})
    output.result(found)
    output.line(disconnected_line(found))
