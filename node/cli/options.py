"""Options that several commands share, each as a decorator."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import click

from .output import Output, log_to_stderr
from .sizes import parse_size

if TYPE_CHECKING:
    from ..configfile import FileLayer

Function: TypeAlias = Callable[..., None]

BACKENDS = ("asyncio", "trio")

FILE_NAME = "isthmus.toml"
"""What the configuration file is called in a data directory."""


@dataclass(slots=True)
class Session:
    """What one call of the program was asked for, whatever its command."""

    debug: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class StorageOptions:
    """Where the key lies; `data_dir` is None if nothing is to be kept.

    `identity` is a key file that was named, `configured` one that the configuration names.
    """

    data_dir: Path | None
    identity: Path | None
    configured: Path | None = None


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


data_dir_option = click.option(
    "--data-dir",
    metavar="DIR",
    envvar="ISTHMUS_DATA_DIR",
    show_envvar=True,
    type=click.Path(path_type=Path, readable=False),
    help="Where the key, the port, the lock and what is known of peers are kept."
    " Default: the platform's place.",
)

identity_option = click.option(
    "--identity",
    metavar="FILE",
    type=click.Path(path_type=Path, readable=False),
    help="Use the key in this file.",
)

ephemeral_option = click.option(
    "--ephemeral", is_flag=True, help="Keep nothing on disk; use a new key."
)


config_option = click.option(
    "--config",
    metavar="FILE",
    envvar="ISTHMUS_CONFIG",
    show_envvar=True,
    type=click.Path(path_type=Path, readable=False),
    help=f"The configuration file. Default: {FILE_NAME} in the data directory, if it is there.",
)


def storage_options(command: Function) -> Function:
    """Add `--config`, `--data-dir`, `--identity` and `--ephemeral`; the command gets `storage`."""

    @config_option
    @data_dir_option
    @identity_option
    @ephemeral_option
    @functools.wraps(command)
    def wrapped(
        *,
        config: Path | None,
        data_dir: Path | None,
        identity: Path | None,
        ephemeral: bool,
        **others: object,
    ) -> None:
        directory = None if ephemeral else data_dir or default_data_dir()
        storage = StorageOptions(data_dir=directory, identity=identity)
        file = configuration_file(config, directory)
        if file is not None:
            storage = _configured(storage, file, takes_directory=not (data_dir or ephemeral))
        command(storage=storage, **others)

    return wrapped


def configuration_file(config: Path | None, data_dir: Path | None) -> FileLayer | None:
    """Read the file that is named, else the one in the data directory, if there is one.

    Raises ConfigError for a file that cannot be used.
    """
    found = None if data_dir is None else data_dir / FILE_NAME
    if config is None and (found is None or not _is_there(found)):
        return None
    # Loaded only if there is a file: it brings the node.
    from ..settings import read_settings

    if config is not None:
        return read_settings(config)
    assert found is not None
    return read_settings(found, is_own=True)


def _is_there(path: Path) -> bool:
    try:
        path.lstat()
    except OSError:
        # What is wrong with the directory is told by who uses it.
        return False
    return True


def _configured(
    storage: StorageOptions, file: FileLayer, *, takes_directory: bool
) -> StorageOptions:
    """Add what the file says of the key's place, which options come before."""
    from ..configfile import compose
    from ..settings import settings_schema

    said = compose(settings_schema(), file).options
    directory = storage.data_dir
    if takes_directory and (said.data_dir or said.ephemeral):
        directory = said.data_dir
    configured = None if storage.identity else said.identity
    return StorageOptions(data_dir=directory, identity=storage.identity, configured=configured)


def backend_option(command: Function) -> Function:
    """Add `--backend`, the event loop to run on."""

    @click.option(
        "--backend",
        type=click.Choice(BACKENDS),
        default="asyncio",
        show_default=True,
        help="The event loop; asyncio means uvloop where it is installed.",
    )
    @functools.wraps(command)
    def wrapped(*, backend: str, **others: object) -> None:
        require_backend(backend)
        command(backend=backend, **others)

    return wrapped


def require_backend(backend: str) -> None:
    """Raise ClickException, with what to do, if an event loop is not installed."""
    if find_spec(backend) is None:
        raise click.ClickException("trio is not installed; run: pip install 'isthmus[trio]'")


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
