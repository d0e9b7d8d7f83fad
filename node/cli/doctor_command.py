"""`isthmus doctor`."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

import click

from .options import output_options, require_backend
from .output import log_from
from .run_options import run_options

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from ...transports.core.multiaddr import Multiaddr
    from ..events import Json
    from ..node import Node
    from ..settings import Settings
    from .output import Output
    from .run_options import Effective

WAIT = 30.0
"""Seconds at most: two peers that try an address behind a NAT in vain take ten each."""

LOOK_INTERVAL = 0.5
"""Seconds between two looks while something is being found out."""

CALM_TIME = 2.0
"""Seconds for which a node that has just been started must find out nothing more: a connection, who
is there, and the next question to it follow each other within one."""

MAX_BOOTSTRAP = 4
"""Servers of the DHT that a short-lived node connects to, to be told what they see."""


@click.command()
@click.option(
    "--wait",
    type=click.FloatRange(0, 600),
    default=WAIT,
    show_default=True,
    help="Seconds to wait, at most, for what is still being found out.",
)
@run_options
@output_options
def doctor(*, effective: Effective, wait: float, output: Output) -> None:
    """Say what hinders the node, and what to change: NAT, paths, relays, LAN, this machine.

    Where a node runs with this data directory, it is asked. Where none runs, a short-lived one is
    started as 'isthmus run' would with the same options, connects to the relays and DHT servers of
    the configuration, and looks from there; it keeps nothing. Exits with 1 if there is a problem.

    \b
    Examples:
      isthmus doctor
      isthmus doctor --json
      isthmus doctor --relay-via /dns4/relay.example.org/tcp/4001/p2p/12D3KooW...
    """
    from ..printable import printable
    from .doctor_text import lines

    settings = effective.settings
    require_backend(settings.backend)
    log_from(settings.log_level)
    place = settings.options.control_socket
    found = None if place is None else _ask_running(place, wait)
    is_running = found is not None
    if found is None:
        where = "here" if place is None else f"in {printable(str(place.parent))}"
        notice = f"no node runs {where}: a short-lived one looks around"
        found = _look_alone(settings, wait, begin=lambda: output.line(notice))
    output.result({**found, "running": is_running})
    for line in lines(found, is_running=is_running):
        output.line(line)
    if found["state"] == "problem":
        raise click.exceptions.Exit(1)


def _ask_running(place: Path, wait: float) -> dict[str, Json] | None:
    """Return what the running node says; None if none runs there."""
    from ...transports.core.errors import NotRunning
    from ..api.client import ControlClient
    from ..run import run
    from .interrupts import interruptible

    async def main() -> dict[str, Json]:
        client = ControlClient(place)
        async with interruptible() as work:
            with work:
                return await _settled(lambda: client.get("/v1/doctor"), wait, calm=0.0)
        raise AssertionError("unreachable: whoever is interrupted raises Exit")

    try:
        return run(main)
    except NotRunning:
        return None


def _look_alone(settings: Settings, wait: float, *, begin: Callable[[], None]) -> dict[str, Json]:
    """Return what a short-lived node says; `begin` is called when there is one."""
    import anyio

    from ..daemon import short_lived
    from ..doctor.gathering import look_at_directory
    from ..run import run
    from .interrupts import interruptible

    directory = settings.options.data_dir

    async def look_around(node: Node) -> dict[str, Json]:
        async def look() -> dict[str, Json]:
            diagnosis = await node.diagnose()
            if directory is not None:
                diagnosis = diagnosis.with_check(await look_at_directory(directory))
            return diagnosis.to_json()

        async with anyio.create_task_group() as tasks:
            for address in settings.options.config.dht.bootstrap[:MAX_BOOTSTRAP]:
                tasks.start_soon(_connect, node, address)
            found = await _settled(look, wait, calm=CALM_TIME)
            tasks.cancel_scope.cancel()
        return found

    async def main() -> dict[str, Json]:
        async with interruptible() as work, short_lived(settings.options) as node:
            with work:
                begin()
                return await look_around(node)
        raise AssertionError("unreachable: whoever is interrupted raises Exit")

    return run(main, backend=settings.backend)


async def _connect(node: Node, address: Multiaddr) -> None:
    from ...transports.core.errors import P2PError

    # Whoever is not reached tells nothing; the findings say what is missing.
    with suppress(P2PError):
        await node.connect(address)


async def _settled(
    look: Callable[[], Awaitable[dict[str, Json]]], wait: float, *, calm: float
) -> dict[str, Json]:
    """Look until nothing has been found out for `calm` seconds, or until `wait` is over."""
    import anyio

    deadline = anyio.current_time() + wait
    calm_since = None
    while True:
        found = await look()
        now = anyio.current_time()
        if not found["settled"]:
            calm_since = None
        elif calm_since is None:
            calm_since = now
        is_calm = calm_since is not None and now - calm_since >= calm
        if is_calm or now >= deadline:
            return found
        await anyio.sleep(min(LOOK_INTERVAL, deadline - now))
