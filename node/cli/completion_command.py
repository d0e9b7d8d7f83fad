"""`isthmus completion`."""

from __future__ import annotations

import click

SHELLS = ("bash", "zsh", "fish")


@click.command()
@click.argument("shell", type=click.Choice(SHELLS))
def completion(*, shell: str) -> None:
    """Print the script by which SHELL completes commands, options and files.

    \b
    Examples:
      eval "$(isthmus completion bash)"
      isthmus completion zsh > "${fpath[1]}/_isthmus"
      isthmus completion fish > ~/.config/fish/completions/isthmus.fish
    """
    from click.shell_completion import get_completion_class

    from .output import Output
    from .program import COMPLETE_VARIABLE, NAME, isthmus

    kind = get_completion_class(shell)
    assert kind is not None
    script = kind(isthmus, {}, NAME, COMPLETE_VARIABLE).source()
    Output(as_json=False).line(script.strip())
