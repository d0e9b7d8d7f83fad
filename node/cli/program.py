"""The program `isthmus`: finds the command, loads only that, and turns errors into sentences."""

from __future__ import annotations

import importlib
import io
import sys
from difflib import get_close_matches
from typing import TYPE_CHECKING

import click

from .interrupts import INTERRUPTED, raise_keyboard_interrupt
from .options import Session

if TYPE_CHECKING:
    from types import TracebackType

    from click.shell_completion import CompletionItem

NAME = "isthmus"

COMPLETE_VARIABLE = "_ISTHMUS_COMPLETE"
"""By which a shell's script asks what to complete; click makes the name of the program's."""

COMMANDS = {
    "run": ("run_command:run", "Run a node until Ctrl-C."),
    "status": ("status_command:status", "Say how the running node is."),
    "peers": ("peers_command:peers", "List the peers of the running node."),
    "connect": ("connect_command:connect", "Have the running node connect to a peer."),
    "disconnect": ("connect_command:disconnect", "Have it end its connections to a peer."),
    "keep": ("keep_command:keep", "Have it keep a peer connected, from now on."),
    "forget": ("keep_command:forget", "Have it keep a peer no more, and forget it."),
    "relay": ("relay_command:relay", "Show how the running node relays for others."),
    "find": ("find_command:find", "Have it ask the DHT who offers a service."),
    "events": ("events_command:events", "Show what happens in the running node."),
    "ping": ("ping_command:ping", "Measure the round trip to a peer."),
    "why": ("why_command:why", "Say why a peer is connected, or not, address by address."),
    "doctor": ("doctor_command:doctor", "Say what hinders the node, and what to change."),
    "perf": ("perf_command:perf", "Measure the throughput to and from a peer."),
    "demo": ("demo_command:demo", "Show what nodes do, on this machine."),
    "id": ("id_command:show_id", "Print the peer id of this machine's node."),
    "config": ("config_command:config", "Show or check the configuration of a node."),
    "version": ("version_command:version", "Print the versions that matter."),
    "completion": ("completion_command:completion", "Print the script for a shell's completion."),
}
"""Each command's module and function, and its line in the list; loaded when it is called."""

HIDDEN = {"demo-node": "demo_node_command:demo_node"}
"""Commands that other commands call."""

EXAMPLES = {
    "run": "isthmus run --listen /ip4/127.0.0.1/tcp/4001",
    "status": "isthmus status",
    "peers": "isthmus peers --json",
    "connect": "isthmus connect /ip4/192.0.2.7/tcp/4001/p2p/12D3KooW...",
    "disconnect": "isthmus disconnect 12D3KooW...",
    "keep": "isthmus keep /ip4/192.0.2.7/tcp/4001/p2p/12D3KooW...",
    "forget": "isthmus forget 12D3KooW...",
    "relay": "isthmus relay status",
    "find": "isthmus find chat",
    "events": "isthmus events",
    "ping": "isthmus ping /ip4/192.0.2.7/tcp/4001/p2p/12D3KooW... -c 5",
    "why": "isthmus why /dns4/peer.example/tcp/4001/p2p/12D3KooW...",
    "doctor": "isthmus doctor",
    "perf": "isthmus perf /ip4/192.0.2.7/tcp/4001 --upload 200MB --download 1GiB",
    "demo": "isthmus demo",
    "id": "isthmus id --json",
    "config": "isthmus config check isthmus.toml",
    "version": "isthmus version --json",
    "completion": "isthmus completion bash",
    "bench": "isthmus bench --quick --no-lab",
}
"""What the list of commands shows of each; each one's own help has more."""

FAILED = 1
USAGE = 2


class Commands(click.Group):
    """This package's commands and those that others registered; listing them loads none."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names, this package's own first."""
        return list(_described())

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Load one command; raises CommandUnavailable for a plugin that does not load."""
        place = COMMANDS[cmd_name][0] if cmd_name in COMMANDS else HIDDEN.get(cmd_name)
        if place is not None:
            module, _, function = place.partition(":")
            command = getattr(importlib.import_module(f".{module}", __package__), function)
            assert isinstance(command, click.Command)
            return command
        from .plugins import load_plugin, plugin_commands

        entry_point = plugin_commands().get(cmd_name)
        if entry_point is None:
            return None
        command = load_plugin(entry_point)
        # Others' code may put things in order when it is interrupted.
        raise_keyboard_interrupt()
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command that is called; raises UsageError, with the one that was meant."""
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            close = get_close_matches(args[0], _described(), n=1)
            if not close:
                raise
            why = f"No such command {args[0]!r} (did you mean {close[0]!r}?)"
            raise click.UsageError(why, ctx) from error

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Return what a shell may complete; unlike click's own, loads no command for it."""
        from click.shell_completion import CompletionItem

        found = [
            CompletionItem(name, help=text)
            for name, text in _described().items()
            if name.startswith(incomplete)
        ]
        return [*found, *click.Command.shell_complete(self, ctx, incomplete)]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands and an example of each."""
        rows = _described()
        with formatter.section("Commands"):
            formatter.write_dl(list(rows.items()))
        with formatter.section("Examples"):
            for name in rows:
                formatter.write(f"  {EXAMPLES.get(name, f'isthmus {name} --help')}\n")


def _described() -> dict[str, str]:
    """Return each command that is listed and its line; loads none."""
    from .plugins import describe_plugin, plugin_commands

    rows = {name: text for name, (_, text) in COMMANDS.items()}
    for name, entry_point in plugin_commands().items():
        rows.setdefault(name, describe_plugin(entry_point))
    return rows


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


def run() -> int:
    """Run the program on `sys.argv`; return 0 on success, 1 on failure, 2 on wrong usage."""
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
    return _outcome(session)


def _outcome(session: Session) -> int:
    try:
        code = isthmus.main(
            prog_name=NAME,
            standalone_mode=False,
            complete_var=COMPLETE_VARIABLE,
            obj=session,
        )
    except click.UsageError as error:
        where = error.ctx.command_path if error.ctx is not None else NAME
        _complain(f"{error.format_message().rstrip('.')}; see '{where} --help'")
        return error.exit_code
    except click.ClickException as error:
        _complain(error.format_message())
        return error.exit_code
    except click.Abort:
        return INTERRUPTED
    except SystemExit:
        # A shell's completion has been answered; it shall not wait for what else may be imported.
        raise
    except _expected() as error:
        return _fail(session, error)
    except BaseExceptionGroup as group:
        if group.split(_expected())[1] is not None:
            raise
        return _fail(session, group)
    return code if isinstance(code, int) else 0


def _expected() -> tuple[type[BaseException], ...]:
    # Called only when something has been raised: what it imports is not needed otherwise.
    from ..sentences import EXPECTED

    return EXPECTED


def _fail(session: Session, error: BaseException) -> int:
    from ..sentences import describe

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
    from .output import color

    line = printable(text, limit=4000)
    click.echo(click.style("error: ", fg="red") + line, err=True, color=color())
