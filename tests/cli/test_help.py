"""What a person reads or types before anything runs: help, its examples, a shell's completion."""

from __future__ import annotations

import inspect
import re
import shlex
import shutil
import subprocess
import sys

import click
import pytest
from isthmus.node.cli.completion_command import SHELLS
from isthmus.node.cli.program import COMMANDS, EXAMPLES, HIDDEN
from isthmus.node.cli.program import isthmus as program

from .processes import COMMAND

OWN = [*COMMANDS, "bench"]
CALL = re.compile(r"isthmus [^)>|#\n]+")


def command_of(name):
    command = program.get_command(click.Context(program), name)
    assert command is not None
    return command


def calls(text):
    """Return the calls of the program in a text, each as its arguments."""
    return [shlex.split(call)[1:] for call in CALL.findall(text)]


@pytest.mark.parametrize("name", [*OWN, *HIDDEN])
def test_every_help_has_examples_that_parse(name):
    command = command_of(name)
    text, found, examples = inspect.cleandoc(command.help).partition("\n\b\nExamples:\n")
    assert found, "its help has no part of examples"
    assert text.strip()
    for line in examples.splitlines():
        ((called, *arguments),) = calls(line)
        assert called == name
        # Raises if an option does not exist, or takes no such value.
        command.make_context(name, arguments)


def test_the_list_of_commands_has_one_example_of_each():
    assert set(EXAMPLES) == set(OWN)
    for name, line in EXAMPLES.items():
        ((called, *arguments),) = calls(line)
        assert called == name
        if "--help" not in arguments:
            command_of(name).make_context(name, arguments)


@pytest.mark.parametrize("name", OWN)
def test_every_option_is_explained(name):
    for option in command_of(name).params:
        assert isinstance(option, click.Argument) or option.help, f"{option.name} has no help"


@pytest.fixture
def installed(isthmus, tmp_path):
    """The program by its name, on the path of a shell."""
    place = tmp_path / "bin"
    place.mkdir()
    script = place / "isthmus"
    script.write_text(f'#!/bin/sh\nexec {shlex.join(COMMAND)} "$@"\n')
    script.chmod(0o755)
    isthmus.env["PATH"] = f"{place}:{isthmus.env['PATH']}"
    return isthmus


COMPLETE_IN_BASH = """
eval "$(isthmus completion bash)"
COMP_WORDS=("$@")
COMP_CWORD=$(($# - 1))
complete -p isthmus | grep -q -- "-F _isthmus_completion" || exit 3
_isthmus_completion isthmus
echo "${COMPREPLY[@]}"
"""


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        (["isthmus", ""], [*OWN]),
        (["isthmus", "p"], ["peers", "ping", "perf"]),
        (["isthmus", "demo"], ["demo"]),
        (["isthmus", "--v"], ["--version"]),
        (["isthmus", "ping", "--b"], ["--backend"]),
        (["isthmus", "ping", "--backend", "t"], ["trio"]),
        (["isthmus", "bench", "--pro"], ["--profile"]),
        (["isthmus", "completion", ""], [*SHELLS]),
        (["isthmus", "ping", "--nonsense"], []),
    ],
)
def test_bash_completes_commands_options_and_values(installed, typed, offered):
    done = subprocess.run(
        ["bash", "-c", COMPLETE_IN_BASH, "bash", *typed],
        env=installed.env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.split() == offered


@pytest.mark.parametrize("shell", SHELLS)
def test_each_shell_is_given_its_script(isthmus, shell):
    done = isthmus("completion", shell)
    assert done.code == 0
    assert f"_ISTHMUS_COMPLETE={shell}_complete" in done.out
    word = "de" if shell == "fish" else "1"
    asked = isthmus(_ISTHMUS_COMPLETE=f"{shell}_complete", COMP_WORDS="isthmus de", COMP_CWORD=word)
    assert (asked.code, asked.err) == (0, "")
    assert "demo" in asked.out
    assert "demo-node" not in asked.out
    checker = shutil.which(shell)
    if checker is not None:
        option = "--no-execute" if shell == "fish" else "-n"
        subprocess.run([checker, option], input=done.out.encode(), check=True)


def test_another_shell_is_refused(isthmus):
    assert "'csh' is not one of 'bash', 'zsh', 'fish'" in isthmus("completion", "csh").complaint(2)


def test_completing_loads_no_command(isthmus):
    script = (
        "import sys; from isthmus.node.cli.main import main\n"
        "try: main()\n"
        "finally: print([name for name in sys.modules if name.endswith('_command')"
        " or name in ('anyio', 'rich', 'isthmus.benchmarks')])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=isthmus.env
        | {"_ISTHMUS_COMPLETE": "bash_complete", "COMP_WORDS": "isthmus ", "COMP_CWORD": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines()[-1] == "[]"
    assert "plain,bench" in done.stdout
