"""What the commands that ask a running node share: where it is, and how it is asked."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..api import SOCKET_FILE
from .options import default_data_dir

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from ..api.client import ControlClient
    from ..events import Json
    from .options import Function


def control_options(command: Function) -> Function:
    """Add `--data-dir` and `--control`; the command is given `control`, the socket."""

    @click.option(
        "--data-dir",
        metavar="DIR",
        envvar="ISTHMUS_DATA_DIR",
        show_envvar=True,
        type=click.Path(path_type=Path, readable=False),
        help="The data directory of the node to ask. Default: the platform's place.",
    )
    @click.option(
        "--control",
        metavar="SOCKET",
        type=click.Path(path_type=Path, readable=False),
        help="The control socket of the node to ask, if it was started with --control.",
    )
    @functools.wraps(command)
    def wrapped(*, data_dir: Path | None, control: Path | None, **others: object) -> None:
        directory = data_dir or default_data_dir()
        command(control=control or directory / SOCKET_FILE, **others)

    return wrapped


def get(control: Path, target: str) -> dict[str, Json]:
    """Return what the node says; raises what `ControlClient` does, and click's Exit."""
    return ask(control, lambda client: client.get(target))


def post(control: Path, target: str, values: Mapping[str, Json]) -> dict[str, Json]:
    """Have the node do something; raises what `ControlClient` does, and click's Exit."""
    return ask(control, lambda client: client.post(target, values))


def ask(
    control: Path, use: Callable[[ControlClient], Awaitable[dict[str, Json]]]
) -> dict[str, Json]:
    """Return what `use(client)` does, in an event loop; Ctrl-C cancels it."""
    from ..api.client import ControlClient
    from ..run import run
    from .interrupts import interruptible

    async def main() -> dict[str, Json]:
        async with interruptible() as work:
            with work:
                return await use(ControlClient(control))
        raise AssertionError("unreachable: whoever is interrupted raises Exit")

    return run(main)
