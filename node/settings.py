"""All that `isthmus run` can be told, and the file that tells it."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Literal

from ..transports.core.errors import ConfigError, ConfigProblem, ConfigRefused
from .configfile import FileLayer, Schema, compose, read_toml
from .daemon import DaemonOptions

if TYPE_CHECKING:
    from pathlib import Path

MAX_FILE_BYTES = 1024 * 1024
"""A file with every setting explained has some 20 KiB."""

Backend = Literal["asyncio", "trio"]
LogLevel = Literal["debug", "info", "warning", "error"]

PLACES = {
    "backend": "node.backend",
    "log_level": "log.level",
    "options": "node",
    "options.echo": "services.echo",
    "options.lan": "lan.enabled",
    "options.serve_control": "control.enabled",
    "options.control": "control.socket",
    "options.config": "node",
    "options.config.serve_perf": "services.perf",
    "options.config.relay_server": "relay",
    "options.config.upgrade.yamux": "yamux",
}
"""Where a setting stands in a file if its place does not follow from its dataclass."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What a file can say, and the options of `isthmus run` with it."""

    options: DaemonOptions = field(default_factory=DaemonOptions)
    """What the daemon is to do."""

    backend: Backend = "asyncio"
    """The event loop; asyncio means uvloop where it is installed."""

    log_level: LogLevel = "warning"
    """What the standard error shows of the log: this and what is graver."""


@cache
def settings_schema() -> Schema[Settings]:
    """Return the schema of a file."""
    return Schema(Settings, home="node", places=PLACES)


def load_settings(path: Path) -> Settings:
    """Read a file and return what it says, over the defaults.

    `load_settings(path).options.config` is a `NodeConfig` for a node that is embedded. Raises
    ConfigRefused with every problem, ConfigError for a file that cannot be read or trusted.
    """
    return compose(settings_schema(), read_settings(path))


def read_settings(path: Path, *, is_own: bool = False) -> FileLayer:
    """Return what a file says, as a layer to be composed with others.

    Relative paths in it are meant from its directory. `is_own`: it was found in the data directory
    that is used, and so cannot name another. Raises ConfigError for a file that cannot be read, is
    larger than MAX_FILE_BYTES, or names paths and can be changed by others.
    """
    text, mode = _read(path)
    base = path.absolute().parent
    layer = read_toml(settings_schema(), text, name=str(path), base=base)
    paths = [key for key in layer.values if key.kind.is_path]
    if paths and mode & (stat.S_IWGRP | stat.S_IWOTH):
        # Whoever can change which key or certificate is used can be this peer.
        raise ConfigError(
            f"{path}: others can change this file, and {paths[0].text} in it is a path that must"
            f" be yours alone to choose; run: chmod go-w {path}"
        )
    if is_own:
        _refuse_another_directory(layer, base)
    return layer


def _refuse_another_directory(layer: FileLayer, base: Path) -> None:
    key = settings_schema().key("node.data_dir")
    named = layer.values.get(key)
    if named is not None and named.resolve() != base.resolve():
        layer.complain(
            key.place,
            f"{key.text}: a file that was found in the data directory cannot name another one;"
            " name the file with --config",
        )


def _read(path: Path) -> tuple[str, int]:
    """Return the text of a file and its mode."""
    try:
        # Without waiting for whoever would write to a pipe.
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error
    try:
        mode = os.fstat(file).st_mode
        if not stat.S_ISREG(mode):
            raise ConfigError(f"{path}: a configuration file must be a regular file")
        with os.fdopen(file, "rb", closefd=False) as opened:
            data = opened.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error
    finally:
        os.close(file)
    if len(data) > MAX_FILE_BYTES:
        raise ConfigError(f"{path}: a configuration file has at most {MAX_FILE_BYTES} bytes")
    try:
        return data.decode("utf-8"), mode
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        problem = ConfigProblem("", "this is not UTF-8", where=f"{path}, line {line}", line=line)
        raise ConfigRefused([problem]) from error
