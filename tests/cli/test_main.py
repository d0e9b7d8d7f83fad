"""The program around the commands: help, plugins, exit codes, colours."""

from __future__ import annotations

import platform
import re
import subprocess
import sys
from importlib.metadata import requires, version

import pytest
from click.testing import CliRunner
from isthmus.node.cli.program import COMMANDS
from isthmus.node.cli.program import isthmus as program

WITH_JSON = [name for name in COMMANDS if name != "completion"]

PLUGIN = """
import click

@click.command()
def hello():
    click.echo("hello from a plugin")

@click.command()
def bug():
    raise ZeroDivisionError("a bug")

nothing = None
"""
ENTRY_POINTS = """[isthmus.commands]
hello = toy_plugin:hello
bug = toy_plugin:bug
nothing = toy_plugin:nothing
missing = toy_plugin_that_is_not_there:hello
broken = toy_broken:hello
"""


@pytest.fixture
def plugins(isthmus, tmp_path):
    """The program where other packages have registered commands."""
    place = tmp_path / "site"
    info = place / "toy-1.0.dist-info"
    info.mkdir(parents=True)
    (place / "toy_plugin.py").write_text(PLUGIN)
    (place / "toy_broken.py").write_text("raise ValueError('not\\n\\x1b[2Jtoday')")
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: toy\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(ENTRY_POINTS)
    isthmus.env["PYTHONPATH"] = str(place)
    return isthmus


def test_help_lists_each_command_with_an_example(isthmus):
    done = isthmus("--help")
    assert (done.code, done.err) == (0, "")
    for name in (*COMMANDS, "bench"):
        assert done.out.count(f"\n  {name} ") == 1
        assert re.search(rf"\n  isthmus {name}\b", done.out)
    none = isthmus()
    assert (none.code, none.out) == (2, "")
    assert none.err == done.out


@pytest.mark.parametrize("name", WITH_JSON)
def test_each_command_writes_json_if_asked(name):
    done = CliRunner().invoke(program, [name, "--help"], prog_name="isthmus")
    assert done.exit_code == 0
    assert f"Usage: isthmus {name} [OPTIONS]" in done.output
    assert "--json" in done.output


def test_help_loads_nothing_that_it_does_not_need(isthmus):
    script = (
        "import sys; from isthmus.node.cli.main import main\n"
        "try: main()\n"
        "finally: print([name for name in ('anyio', 'rich', 'cryptography', 'trio', 'uvloop',"
        " 'isthmus.node.node', 'isthmus.benchmarks') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, "--help"], env=isthmus.env, capture_output=True, check=True
    )
    assert done.stdout.splitlines()[-1] == b"[]"


def test_the_daemon_needs_neither_click_nor_rich(isthmus):
    script = (
        "import sys, isthmus.node.daemon\n"
        "print([name for name in ('click', 'rich', 'platformdirs') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], env=isthmus.env, capture_output=True, check=True
    )
    assert done.stdout == b"[]\n"


def test_version_names_all_that_isthmus_runs_on(isthmus):
    versions = isthmus("version", "--json").json()
    needed = {
        re.match(r"[\w-]+", text)[0] for text in requires("isthmus") if "extra ==" not in text
    }
    assert {"isthmus", "python", "platform", "libc", "trio", "openssl", "plugins"} <= set(versions)
    assert needed <= set(versions), "a dependency that `version` does not name"
    for name in needed:
        assert versions[name] == version(name)
    assert versions["python"] == f"{platform.python_implementation()} {platform.python_version()}"
    assert versions["openssl"].startswith("OpenSSL ")
    assert isthmus("--version").out == f"isthmus {versions['isthmus']}\n"
    lines = isthmus("version").out.splitlines()
    del versions["plugins"]
    assert [line.split()[0] for line in lines] == list(versions)
    assert lines[0] == f"isthmus      {versions['isthmus']}"


def test_version_names_the_packages_that_add_to_it(plugins):
    assert plugins("version", "--json").json()["plugins"] == {"toy": "1.0"}
    assert plugins("version").out.endswith("\nplugin       toy 1.0\n")


def test_a_plugin_is_a_command(plugins):
    assert "A command of the package toy_plugin." in plugins("--help").out
    assert plugins("hello").out == "hello from a plugin\n"


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("missing", "ModuleNotFoundError: No module named 'toy_plugin_that_is_not_there'"),
        ("broken", "ValueError: not [2Jtoday"),
        ("nothing", "it is not a click command"),
    ],
)
def test_a_plugin_that_does_not_load_says_why_when_it_is_called(plugins, name, why):
    complaint = plugins(name).complaint()
    assert f"the command '{name}' (toy_" in complaint
    assert complaint.endswith(f"cannot be loaded: {why}")


def test_a_bug_is_one_line_unless_debugging(plugins):
    assert plugins("bug").complaint() == (
        "error: internal error: ZeroDivisionError: a bug; 'isthmus --debug ...' shows where"
    )
    done = plugins("--debug", "bug")
    assert done.code == 1
    assert done.err.startswith("Traceback")


def test_debug_shows_the_traceback_of_an_error(isthmus):
    done = isthmus("ping", "nonsense", "--debug")
    assert done.code == 1
    assert "Traceback" in done.err
    assert done.err.splitlines()[-1].startswith("error: ")


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["nonsense"], "No such command 'nonsense'; see"),
        (["pign"], "No such command 'pign' (did you mean 'ping'?); see"),
        (["ping"], "Missing argument 'ADDR'"),
        (["ping", "x", "-c", "0"], "Invalid value for '-c'"),
        (["ping", "x", "--backend", "curio"], "Invalid value for '--backend'"),
        (["perf", "x", "--upload", "3XB"], "'3XB' is not a size; write 65536, 200MB or 1GiB"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_code_2(isthmus, arguments, why):
    complaint = isthmus(*arguments).complaint(code=2)
    assert why in complaint
    assert "--help'" in complaint


def test_output_that_goes_nowhere_is_an_error(isthmus):
    full = ("sh", "-c", 'exec "$@" > /dev/full', "sh")
    complaint = isthmus("version", prefix=full).complaint()
    assert complaint == "error: cannot write the output: No space left on device"


def test_colours_are_for_terminals_that_want_them(isthmus):
    assert "\x1b[31m" in isthmus.on_terminal("ping", "nonsense", TERM="xterm")[1]
    for wish in ({"TERM": "xterm", "NO_COLOR": "1"}, {"TERM": "dumb"}):
        code, drawn = isthmus.on_terminal("ping", "nonsense", **wish)
        assert code == 1
        assert drawn.startswith("error: ")
        assert "\x1b" not in drawn
    assert "\x1b" not in isthmus("ping", "nonsense").err


@pytest.mark.parametrize(
    ("wish", "colour"),
    [({"TERM": "xterm"}, True), ({"TERM": "xterm", "NO_COLOR": "1"}, False)],
)
def test_what_is_drawn_has_colours_only_if_they_are_wanted(isthmus, peer, wish, colour):
    # A bar and a table move the cursor all the same; the colours are 30 to 37 and 90 to 97.
    sizes = ("--upload", "4MB", "--download", "0")
    drawn = isthmus.on_terminal("perf", peer, *sizes, **wish)[1]
    drawn += isthmus.on_terminal("id", "--help", **wish)[1]
    found = re.findall(r"\x1b\[[0-9;]*m", drawn)
    coloured = [each for each in found if re.search(r"(^|;|\[)(3|9)[0-7](;|m)|[34]8;5", each)]
    assert bool(coloured) is colour
