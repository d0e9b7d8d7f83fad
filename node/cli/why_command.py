"""`isthmus why`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from .options import backend_option, output_options, storage_options

if TYPE_CHECKING:
    from ..api.client import ControlClient
    from ..dialing import Target
    from ..events import Json
    from .options import StorageOptions
    from .output import Output

DIAL_TIMEOUT = 10.0
"""Seconds for each address, where no running node has a setting for it."""

_NO_WAY: dict[str, Json] = {"path": None, "hole_punching": None}
"""What is known of the way to a peer where no node is connected to it."""


@click.command()
@click.argument("to", metavar="TO")
@click.option("--dial", is_flag=True, help="Dial now, whatever the running node knows.")
@click.option("--alone", is_flag=True, help="Ask no running node: dial from a short-lived one.")
@click.option(
    "--timeout",
    type=click.FloatRange(0, 3600, min_open=True),
    help="Seconds to wait for each address."
    f" Default: {DIAL_TIMEOUT:g}, or what the running node has set.",
)
@click.option(
    "--control",
    metavar="SOCKET",
    type=click.Path(path_type=Path, readable=False),
    help="The control socket of the node to ask, if it was started with --control.",
)
@backend_option
@storage_options
@output_options
def why(
    *,
    to: str,
    dial: bool,
    alone: bool,
    timeout: float | None,
    control: Path | None,
    backend: str,
    storage: StorageOptions,
    output: Output,
) -> None:
    """Say why the peer TO is connected, or not: its link, and what a dial met at every address.

    TO is a peer id or an address. Where a node runs in the data directory it is asked: of a peer
    id it tells the link and the last dial, as long as it knows them; everything else it dials now.
    Where none runs, a short-lived node dials, and looks for a mere peer id on the LAN.

    Of a peer that is reached through a relay it tells which, and why there is no direct connection:
    what came of hole punching, and when it is tried again.

    Each address comes with the phase that failed, how long it took, the cause, and what may be
    done about it. Exits with 0 if there is a connection, else with 1.

    \b
    Examples:
      isthmus why 12D3KooW...
      isthmus why 12D3KooW... --dial --json
      isthmus why /dns4/peer.example/tcp/4001/p2p/12D3KooW... --alone
    """
    from .addresses import parse_destination
    from .client import explain
    from .why_text import lines

    target = parse_destination(to)
    found = None
    if not alone and storage.identity is None:
        wants_dial = dial or bool(target.addresses)
        found = _told(control, storage, to, target, wants_dial=wants_dial, timeout=timeout)
    if found is None:
        limit = timeout or DIAL_TIMEOUT
        report = explain(to, storage=storage, backend=backend, timeout=limit).to_json()
        found = {**report, "dialled": True, "link": None, "history": [], **_NO_WAY}
    output.result(found)
    for line in lines(found, now=time.time()):
        output.line(line)
    if not found["connected"]:
        raise click.exceptions.Exit(1)


def _told(
    control: Path | None,
    storage: StorageOptions,
    to: str,
    target: Target,
    *,
    wants_dial: bool,
    timeout: float | None,
) -> dict[str, Json] | None:
    """Return what the running node says; None if none runs where it might."""
    from ...transports.core.errors import ControlError, NotRunning, SelfDial
    from ..api import SOCKET_FILE
    from .control import ask

    place = control
    if place is None and storage.data_dir is not None:
        place = storage.data_dir / SOCKET_FILE
    if place is None:
        return None

    async def use(client: ControlClient) -> dict[str, Json]:
        told = await _known(client, target)
        if not wants_dial and _is_answer(told):
            return _finding(told, told["last_dial"], dialled=False)
        wish: dict[str, Json] = {"to": to} if timeout is None else {"to": to, "timeout": timeout}
        made = await client.post("/v1/dial", wish)
        return _finding({**told, **made}, made["dial"], dialled=True)

    try:
        return ask(place, use)
    except NotRunning:
        if control is not None:
            raise
    except ControlError as error:
        # A node cannot dial itself, but one beside it can.
        if error.kind != SelfDial.__name__:
            raise
    return None


async def _known(client: ControlClient, target: Target) -> dict[str, Json]:
    """Return what the node knows of its link to a peer; nothing if it knows none."""
    from ...transports.core.errors import ControlError

    if target.peer is None:
        return {}
    try:
        return await client.get(f"/v1/links?peer={target.peer}")
    except ControlError as error:
        if error.status != 404:
            raise
        return {}


def _is_answer(told: dict[str, Json]) -> bool:
    """Say whether this tells why: there is a connection, or a dial that failed."""
    return bool(told) and (told["last_dial"] is not None or _is_up(told))


def _is_up(told: dict[str, Json]) -> bool:
    link = _link(told)
    return link is not None and link["state"] == "connected"


def _link(told: dict[str, Json]) -> dict[str, Json] | None:
    links = told.get("links")
    link = links[0] if isinstance(links, list) and links else None
    return link if isinstance(link, dict) else None


def _finding(told: dict[str, Json], dial: Json, *, dialled: bool) -> dict[str, Json]:
    """Put together a link as it was and a dial, which of a peer that came in there may be none."""
    link = _link(told)
    nothing: dict[str, Json] = {
        "time": None,
        "duration_ms": None,
        "error": None,
        "hint": None,
        "steps": [],
    }
    peer = None if link is None else link["peer"]
    report = dial if isinstance(dial, dict) else {"peer_id": peer, "connected": False, **nothing}
    way = {name: told.get(name) for name in _NO_WAY}
    found = {
        **report,
        "dialled": dialled,
        "link": link,
        "history": told.get("history", []),
        **way,
    }
    return found if dialled else {**found, "connected": _is_up(told)}
