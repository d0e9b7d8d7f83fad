"""Commands that other packages add, by entry points of the group `isthmus.commands`."""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points

import click

from ..printable import printable

GROUP = "isthmus.commands"

DESCRIPTIONS = {"bench": "Measure isthmus on this machine, beside other implementations."}
"""What the list of commands says of plugins of our own, so that `--help` need not load them."""


class CommandUnavailable(click.ClickException):
    """A command that is registered but does not load."""

    def __init__(self, name: str, value: str, why: str) -> None:
        super().__init__(f"the command {name!r} ({value}) cannot be loaded: {why}")


def plugin_commands() -> dict[str, EntryPoint]:
    """Return the registered commands by name; nothing is loaded."""
    return {each.name: each for each in sorted(entry_points(group=GROUP))}


def describe_plugin(entry_point: EntryPoint) -> str:
    """Return the line for the list of commands."""
    package = entry_point.value.partition(":")[0].partition(".")[0]
    return DESCRIPTIONS.get(entry_point.name, f"A command of the package {package}.")


def load_plugin(entry_point: EntryPoint) -> click.Command:
    """Load one command; raises CommandUnavailable, saying why, if it does not load."""
    name, value = entry_point.name, entry_point.value
    try:
        loaded = entry_point.load()
    except (Exception, SystemExit) as error:  # boundary: others' code, which may raise anything
        why = printable(f"{type(error).__name__}: {error}")
        raise CommandUnavailable(name, value, why) from error
    if not isinstance(loaded, click.Command):
        raise CommandUnavailable(name, value, "it is not a click command")
    return loaded
