"""Options that several commands share, each as a decorator."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TypeAlias

import click

from .output import Output, log_to_stderr
from .sizes import parse_size

Function: TypeAlias = Callable[..., None]


@dataclass(slots=True)
class Session:
    """What one call of the program was asked for, whatever its command."""

    debug: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class StorageOptions:
    """Where the key lies; `data_dir` is None if nothing is to be kept.

    `control` is where a node is to have its control socket; None if nowhere.
    """

    data_dir: Path | None
    identity: Path | None
    control: Path | None = None


def output_options(command: Function) -> Function:
    """Add `--json` and `--debug`; the command is given `output`."""

    @click.option("--json", "as_json", is_flag=True, help="Write JSON, one object a line.")
    @click.option("--debug", is_flag=True, help="Log everything; show tracebacks of errors.")
    @functools.wraps(command)
    def wrapped(*, as_json: bool, debug: bool, **others: object) -> None:
        session = click.get_current_context().find_object(Session)
        if session is not None:
            session.debug = debug = debug or session.debug
        log_to_stderr(debug=debug)
        command(output=Output(as_json=as_json), **others)

    return wrapped


def storage_options(command: Function) -> Function:
    """Add `--data-dir`, `--identity` and `--ephemeral`; the command is given `storage`."""

    @click.option(
        "--data-dir",
        metavar="DIR",
        envvar="ISTHMUS_DATA_DIR",
        show_envvar=True,
        type=click.Path(path_type=Path, readable=False),
        help="Where the key, the port and the lock are kept. Default: the platform's place.",
    )
    @click.option(
        "--identity",
        metavar="FILE",
        type=click.Path(path_type=Path, readable=False),
        help="Use the key in this file.",
    )
    @click.option("--ephemeral", is_flag=True, help="Keep nothing on disk; use a new key.")
    @functools.wraps(command)
    def wrapped(
        *, data_dir: Path | None, identity: Path | None, ephemeral: bool, **others: object
    ) -> None:
        directory = None if ephemeral else data_dir or default_data_dir()
        command(storage=StorageOptions(data_dir=directory, identity=identity), **others)

    return wrapped


@dataclass(frozen=True, slots=True)
class TlsOptions:
    """The files of the certificate that a listener shows, and of its key."""

    cert: Path | None
    key: Path | None


def tls_options(command: Function) -> Function:
    """Add `--tls-cert` and `--tls-key`; the command is given `tls`."""

    @click.option(
        "--tls-cert",
        metavar="FILE",
        type=click.Path(path_type=Path),
        help="The certificate for /tls/ws, in PEM; read again when it has changed. With --tls-key.",
    )
    @click.option(
        "--tls-key",
        metavar="FILE",
        type=click.Path(path_type=Path),
        help="The certificate's key, in PEM and without a password.",
    )
    @functools.wraps(command)
    def wrapped(*, tls_cert: Path | None, tls_key: Path | None, **others: object) -> None:
        command(tls=TlsOptions(tls_cert, tls_key), **others)

    return wrapped


def backend_option(command: Function) -> Function:
    """Add `--backend`, the event loop to run on."""

    @click.option(
        "--backend",
        type=click.Choice(["asyncio", "trio"]),
        default="asyncio",
        show_default=True,
        help="The event loop; asyncio means uvloop where it is installed.",
    )
    @functools.wraps(command)
    def wrapped(*, backend: str, **others: object) -> None:
        if find_spec(backend) is None:
            raise click.ClickException("trio is not installed; run: pip install 'isthmus[trio]'")
        command(backend=backend, **others)

    return wrapped


def size(text: str | int) -> int:
    """Read a size option; as a click type."""
    try:
        return text if isinstance(text, int) else parse_size(text)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


def default_data_dir() -> Path:
    """Return where this platform keeps a user's data of isthmus."""
    from platformdirs import user_data_path

    return user_data_path("isthmus", appauthor=False)
