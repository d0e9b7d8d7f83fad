"""The program `isthmus`: finds the command, loads only that, and turns errors into sentences."""

from __future__ import annotations

import importlib
import io
import os
import sys
from typing import TYPE_CHECKING, NoReturn

import click

from .options import Session

if TYPE_CHECKING:
    from types import TracebackType

COMMANDS = {
    "run": ("run_command:run", "Run a node until Ctrl-C."),
    "ping": ("ping_command:ping", "Measure the round trip to a peer."),
    "perf": ("perf_command:perf", "Measure the throughput to and from a peer."),
    "id": ("id_command:show_id", "Print the peer id of this machine's node."),
    "version": ("version_command:version", "Print the versions that matter."),
}
"""Each command's module and function, and its line in the list; loaded when it is called."""

EXAMPLES = {
    "run": "isthmus run --listen /ip4/127.0.0.1/tcp/4001",
    "ping": "isthmus ping /ip4/192.0.2.7/tcp/4001/p2p/12D3KooW... -c 5",
    "perf": "isthmus perf /ip4/192.0.2.7/tcp/4001 --upload 200MB --download 1GiB",
    "id": "isthmus id --json",
    "version": "isthmus version --json",
    "bench": "isthmus bench --help",
}

FAILED = 1
USAGE = 2
INTERRUPTED = 130


class Commands(click.Group):
    """This package's commands and those that others registered; listing them loads none."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names, this package's own first."""
        from .plugins import plugin_commands

        return [*COMMANDS, *(name for name in plugin_commands() if name not in COMMANDS)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Load one command; raises CommandUnavailable for a plugin that does not load."""
        if cmd_name in COMMANDS:
            module, _, function = COMMANDS[cmd_name][0].partition(":")
            command = getattr(importlib.import_module(f".{module}", __package__), function)
            assert isinstance(command, click.Command)
            return command
        from .plugins import load_plugin, plugin_commands

        entry_point = plugin_commands().get(cmd_name)
        return None if entry_point is None else load_plugin(entry_point)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands and an example of each."""
        from .plugins import describe_plugin, plugin_commands

        rows = {name: text for name, (_, text) in COMMANDS.items()}
        for name, entry_point in plugin_commands().items():
            rows.setdefault(name, describe_plugin(entry_point))
        with formatter.section("Commands"):
            formatter.write_dl(list(rows.items()))
        with formatter.section("Examples"):
            for name in rows:
                formatter.write(f"  {EXAMPLES.get(name, f'isthmus {name} --help')}\n")


def _print_version(ctx: click.Context, parameter: click.Parameter, value: object) -> None:
    del parameter
    if value and not ctx.resilient_parsing:
        from importlib.metadata import version

        click.echo(f"isthmus {version('isthmus')}")
        ctx.exit()


@click.group(
    cls=Commands,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_version,
    help="Print the version and exit.",
)
@click.option("--debug", is_flag=True, help="Log everything; show tracebacks of errors.")
@click.pass_context
def isthmus(ctx: click.Context, *, debug: bool) -> None:
    """A peer-to-peer node that speaks libp2p.

    Start one with `isthmus run`, paste the line that it prints on another machine, and the two
    are connected. `isthmus COMMAND --help` tells more about each command.
    """
    ctx.ensure_object(Session).debug = debug
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help(), err=True)
        ctx.exit(USAGE)


def main() -> NoReturn:
    """Run the program on `sys.argv` and exit: 0 on success, 1 on failure, 2 on wrong usage."""
    session = Session()

    def report_bug(
        kind: type[BaseException], error: BaseException, traceback: TracebackType | None
    ) -> None:
        del traceback
        if issubclass(kind, KeyboardInterrupt):
            return
        if session.debug:
            _trace(error)
        else:
            _complain(
                f"internal error: {kind.__name__}: {error}; 'isthmus --debug ...' shows where"
            )

    sys.excepthook = report_bug
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # What the terminal's character set cannot show must not end the program.
            stream.reconfigure(errors="backslashreplace")
    sys.exit(_run(session))


def _run(session: Session) -> int:
    try:
        code = isthmus.main(prog_name="isthmus", standalone_mode=False, obj=session)
    except click.UsageError as error:
        where = error.ctx.command_path if error.ctx is not None else "isthmus"
        _complain(f"{error.format_message().rstrip('.')}; see '{where} --help'")
        return error.exit_code
    except click.ClickException as error:
        _complain(error.format_message())
        return error.exit_code
    except click.Abort:
        return INTERRUPTED
    except _expected() as error:
        return _fail(session, error)
    except BaseExceptionGroup as group:
        if group.split(_expected())[1] is not None:
            raise
        return _fail(session, group)
    return code if isinstance(code, int) else 0


def _expected() -> tuple[type[BaseException], ...]:
    # Called only when something has been raised: what it imports is not needed otherwise.
    from .errors import EXPECTED

    return EXPECTED


def _fail(session: Session, error: BaseException) -> int:
    from .errors import describe

    if session.debug:
        _trace(error)
    _complain(describe(error))
    return FAILED


def _trace(error: BaseException) -> None:
    import traceback

    from .output import printable_lines

    click.echo(printable_lines("".join(traceback.format_exception(error))), err=True)


def _complain(text: str) -> None:
    from ..printable import printable

    color = False if os.environ.get("NO_COLOR") else None
    line = printable(text, limit=4000)
    click.echo(click.style("error: ", fg="red") + line, err=True, color=color)
