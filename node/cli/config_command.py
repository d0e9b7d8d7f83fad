"""`isthmus config`: what a node's configuration is, and whether a file can be one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from .options import FILE_NAME, data_dir_option, default_data_dir, output_options
from .run_options import origin, run_options

if TYPE_CHECKING:
    from ...transports.core.errors import ConfigProblem
    from .output import Output
    from .run_options import Effective


@click.group()
def config() -> None:
    """Show or check the configuration of 'isthmus run'.

    Nothing is opened, made or started for it but the file itself, which is read.

    \b
    Examples:
      isthmus config show
      isthmus config show --config isthmus.toml --json
      isthmus config check isthmus.toml
    """


@config.command()
@run_options
@output_options
def show(*, effective: Effective, output: Output) -> None:
    """Print every setting that 'isthmus run' would have with the same options.

    What is printed is a configuration file itself: each setting with what it is, its value, and
    where that comes from.

    \b
    Examples:
      isthmus config show > isthmus.toml
      isthmus config show --config isthmus.toml --listen /ip4/127.0.0.1/tcp/4001 --json
    """
    from ..configtext import plain_value, write_toml
    from ..printable import printable
    from ..settings import settings_schema

    schema, layers = settings_schema(), effective.layers
    # What is written must mean the same to who reads it from another directory.
    settings, base = effective.settings, Path.cwd()
    file = None if effective.file is None else effective.file.name
    rows = {
        key.text: {"value": plain_value(key, settings, base), "origin": origin(key, layers)}
        for key in schema.keys.values()
    }
    output.result({"file": file, "settings": rows})
    output.line(f"# What 'isthmus run' uses; configuration file: {printable(file or 'none')}")
    output.line(
        "# Times are in seconds. None, where it is explained, stands for what is not set.\n"
    )
    output.line(write_toml(schema, settings, base=base, origin=lambda key: origin(key, layers)))


@config.command()
@click.argument(
    "file",
    metavar="[FILE]",
    required=False,
    envvar="ISTHMUS_CONFIG",
    type=click.Path(path_type=Path, readable=False),
)
@data_dir_option
@output_options
def check(*, file: Path | None, data_dir: Path | None, output: Output) -> None:
    """Say whether a file can be the configuration of 'isthmus run'.

    FILE is by default the one that ISTHMUS_CONFIG names, else isthmus.toml in the data directory.
    Prints every problem, a line each, and exits with 1 if there is any.

    \b
    Examples:
      isthmus config check isthmus.toml
      isthmus config check --json
    """
    from ...transports.core.errors import ConfigRefused
    from ..configfile import compose
    from ..printable import printable
    from ..sentences import MAX_SENTENCE
    from ..settings import read_settings, settings_schema

    path = file if file is not None else (data_dir or default_data_dir()) / FILE_NAME
    problems: tuple[ConfigProblem, ...] = ()
    try:
        compose(settings_schema(), read_settings(path, is_own=file is None))
    except ConfigRefused as error:
        problems = error.problems
    output.result(
        {
            "file": str(path),
            "problems": [
                {"key": each.key or None, "line": each.line, "why": each.why} for each in problems
            ],
        }
    )
    for each in problems:
        output.line(printable(str(each), limit=MAX_SENTENCE))
    if problems:
        click.get_current_context().exit(1)
    output.line("ok")
