"""The configuration file as a user meets it: shown, checked, used, overridden, refused."""

from __future__ import annotations

import json
import os
import socket
import tomllib
from pathlib import Path

import click
import pytest
from isthmus.node.cli.program import isthmus as program
from isthmus.node.cli.run_options import KEYS
from isthmus.node.settings import load_settings, settings_schema

from ..transports.websocket.authority import Authority
from .processes import has_loaded, until

LOOPBACK = "/ip4/127.0.0.1/tcp/0"


@pytest.fixture
def file(tmp_path):
    """A function that writes a configuration file, and returns its path as a text."""

    def write(text, name="isthmus.toml"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        path.chmod(0o600)
        return str(path)

    return write


def shown(isthmus, *args, **env):
    """Return each setting's value and origin."""
    settings = isthmus("config", "show", "--json", *args, **env).json()["settings"]
    return {key: (row["value"], row["origin"]) for key, row in settings.items()}


def tree(path):
    return sorted(each.relative_to(path) for each in path.rglob("*"))


def test_without_a_file_everything_is_a_default(isthmus):
    done = isthmus("config", "show", "--json").json()
    assert done["file"] is None
    values = {key: row["value"] for key, row in done["settings"].items()}
    assert set(values) == {key.text for key in settings_schema().keys.values()}
    origins = {key: row["origin"] for key, row in done["settings"].items()}
    assert origins.pop("node.data_dir") == "environment: ISTHMUS_DATA_DIR"
    assert set(origins.values()) == {"default"}
    assert values["limits.connections"] == 512
    assert values["services.echo"] is None
    assert values["node.dial_found"] is True


def test_the_command_line_comes_before_the_environment_the_file_and_the_default(isthmus, file):
    text = '[node]\ndata_dir = "of-file"\nbackend = "trio"\n[lan]\nenabled = true\n'
    config = file(f"{text}[services]\necho = true\n")
    options = ("--config", config, "--no-lan", "--listen", LOOPBACK)
    values = shown(isthmus, *options)
    assert values["lan.enabled"] == (False, "command line: --no-lan")
    assert values["node.listen"] == ([LOOPBACK], "command line: --listen")
    assert values["services.echo"] == (True, "file, line 7")
    assert values["node.backend"] == ("trio", "file, line 3")
    assert values["node.stop_timeout"] == (1.8, "default")
    assert values["node.data_dir"] == (str(isthmus.data_dir), "environment: ISTHMUS_DATA_DIR")
    named = shown(isthmus, *options, "--data-dir", "of-line")["node.data_dir"]
    assert named == (str(Path.cwd() / "of-line"), "command line: --data-dir")
    del isthmus.env["ISTHMUS_DATA_DIR"]
    home = {"HOME": str(Path(config).parent), "XDG_DATA_HOME": ""}
    of_file = str(Path(config).parent / "of-file")
    assert shown(isthmus, *options, **home)["node.data_dir"] == (of_file, "file, line 2")
    default, origin = shown(isthmus, **home)["node.data_dir"]
    assert (default.startswith(home["HOME"]), origin) == (True, "default")


def test_the_environment_can_name_the_file(isthmus, file):
    env = {"ISTHMUS_CONFIG": file("log.level = 'info'", "of-environment.toml")}
    assert shown(isthmus, **env)["log.level"] == ("info", "file, line 1")
    assert shown(isthmus, "--debug", **env)["log.level"] == ("debug", "command line: --debug")
    other = file("log.level = 'error'", "of-line.toml")
    assert shown(isthmus, "--config", other, **env)["log.level"] == ("error", "file, line 1")


def test_the_file_of_the_data_directory_is_used(isthmus, file):
    config = file("limits.connections = 3", "data/isthmus.toml")
    assert Path(config).parent == isthmus.data_dir
    assert isthmus("config", "show", "--json").json()["file"] == config
    assert shown(isthmus)["limits.connections"] == (3, "file, line 1")
    assert shown(isthmus, "--ephemeral")["limits.connections"] == (512, "default")
    other = file("", "other.toml")
    assert shown(isthmus, "--config", other)["limits.connections"] == (512, "default")


def test_every_option_of_run_is_a_setting():
    command = program.get_command(click.Context(program), "run")
    options = {each.name for each in command.params}
    # Which file, and what the output looks like, is for one call to say.
    assert options - {"config", "as_json"} == set(KEYS)
    assert {settings_schema().key(text).text for text in KEYS.values()} == set(KEYS.values())


def test_what_is_shown_is_a_file_that_means_the_same(isthmus, file, tmp_path):
    config = file(
        f"""
        [node]
        listen = ["{LOOPBACK}"]
        identity = "own.key"
        [websocket]
        cert_file = "a.pem"
        key_file = "b.pem"
        """
    )
    done = isthmus("config", "show", "--config", config, "--perf")
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith(f"# What 'isthmus run' uses; configuration file: {config}\n")
    assert "\n# Serve /echo/1.0.0; None means" in done.out
    again = Path(file(done.out, "again/isthmus.toml"))
    settings = load_settings(again)
    assert settings.options.identity == tmp_path / "own.key"
    assert settings.options.config.serve_perf is True
    values = shown(isthmus, "--config", str(again))
    expected = shown(isthmus, "--config", config, "--perf")
    assert {key: row[0] for key, row in values.items()} == {
        key: row[0] for key, row in expected.items()
    }
    # And it may be put to where it is found.
    file(done.out, "data/isthmus.toml")
    assert isthmus("config", "check").out == "ok\n"


def test_neither_shows_nor_checks_anything_into_being(isthmus, file, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        busy = f"/ip4/127.0.0.1/tcp/{taken.getsockname()[1]}"
        text = f'node.listen = ["{busy}"]\nnode.identity = "no.key"\nnode.data_dir = "no"\n'
        config = file(text)
        before = tree(tmp_path)
        assert isthmus("config", "show", "--config", config).code == 0
        assert isthmus("config", "check", config).out == "ok\n"
        assert isthmus("config", "show").code == 0
    assert tree(tmp_path) == before


PROBLEMS = [
    (
        "limits.conections",
        2,
        "limits.conections: there is no such setting; did you mean limits.connections?",
    ),
    ("limits.connections", 3, 'limits.connections: a whole number is needed, not "many"'),
    ("websocket.cert_file", 5, "websocket.cert_file and websocket.key_file go together: name both"),
]
BAD = """[limits]
conections = 3
connections = "many"
[websocket]
cert_file = "a.pem"
"""


def test_check_tells_every_problem_in_a_line(isthmus, file):
    config = file(BAD)
    done = isthmus("config", "check", config)
    assert (done.code, done.err) == (1, "")
    assert done.out.splitlines() == [f"{why} ({config}, line {line})" for _, line, why in PROBLEMS]
    done = isthmus("config", "check", "--json", config)
    assert (done.code, done.err) == (1, "")
    assert json.loads(done.out) == {
        "file": config,
        "problems": [{"key": key, "line": line, "why": why} for key, line, why in PROBLEMS],
    }


def test_check_of_a_good_file(isthmus, file):
    config = file("limits.connections = 3")
    assert isthmus("config", "check", config).out == "ok\n"
    found = {"file": config, "problems": []}
    assert isthmus("config", "check", "--json", config).json() == found
    assert isthmus("config", "check", "--json", ISTHMUS_CONFIG=config).json() == found


def test_check_of_what_is_no_toml(isthmus, file):
    config = file("a = \x1b[2J")
    done = isthmus("config", "check", config)
    assert (done.code, done.err) == (1, "")
    assert done.out.startswith("this is not TOML: ")
    assert "\x1b" not in done.out
    assert (
        json.loads(isthmus("config", "check", "--json", config).out)["problems"][0]["key"] is None
    )


@pytest.mark.parametrize("command", [["config", "check"], ["config", "show", "--config"]])
def test_a_file_that_is_not_there(isthmus, command, tmp_path):
    missing = str(tmp_path / "missing.toml")
    assert isthmus(*command, missing).complaint() == f"error: {missing}: No such file or directory"
    assert "isthmus.toml: No such file" in isthmus("config", "check").complaint()


def test_a_file_that_may_not_be_read(isthmus, file, unprivileged):
    config = file("")
    os.chmod(config, 0o000)
    if os.geteuid() == 0:
        assert unprivileged
    done = isthmus("config", "check", config, prefix=unprivileged)
    assert done.complaint() == f"error: {config}: Permission denied"


@pytest.mark.parametrize(
    "command",
    [
        ["run"],
        pytest.param(["config", "show"], marks=pytest.mark.slow),
        pytest.param(["id"], marks=pytest.mark.slow),
        ["ping", LOOPBACK],
    ],
)
def test_no_command_uses_a_bad_file(isthmus, file, command):
    config = file(BAD)
    complaint = isthmus(*command, "--config", config).complaint()
    assert complaint.startswith("error: 3 settings cannot be used: limits.conections: there is no ")
    assert f'not "many" ({config}, line 3); ' in complaint
    file(BAD, "data/isthmus.toml")
    assert isthmus(*command).complaint().startswith("error: 3 settings cannot be used: ")
    assert not (isthmus.data_dir / "identity.key").exists()


def test_a_file_that_others_can_change_names_no_key(isthmus, file):
    config = file('node.identity = "a.key"')
    os.chmod(config, 0o666)
    complaint = isthmus("run", "--config", config).complaint()
    assert f"{config}: others can change this file, and node.identity" in complaint
    assert complaint.endswith(f"run: chmod go-w {config}")


def test_an_option_that_is_refused_is_named(isthmus):
    complaint = isthmus("run", "--tls-cert", "a.pem").complaint()
    assert complaint.endswith("go together: name both (command line: --tls-cert)")


def test_run_does_what_the_file_says(isthmus, file, tmp_path):
    files = Authority(tmp_path).issue()
    config = file(
        f"""
        [node]
        listen = ["{LOOPBACK}/tls/ws", "{LOOPBACK}"]
        identity = "keys/own.key"
        data_dir = "kept"
        backend = "trio"
        [services]
        echo = false
        perf = true
        [websocket]
        cert_file = "{files.cert_file}"
        key_file = "{files.key_file}"
        [log]
        level = "debug"
        """
    )
    del isthmus.env["ISTHMUS_DATA_DIR"]
    daemon = isthmus.start("run", "--config", config)
    daemon.line("Ctrl-C")
    text = "\n".join(daemon.lines)
    assert "/tls/ws/p2p/" in text
    assert f"{tmp_path}/keys/own.key (new)" in text
    assert "/echo/1.0.0" not in text
    assert "/perf/1.0.0" in text
    assert until((tmp_path / "kept/lock").exists)
    assert not has_loaded(daemon.pid, "uvloop"), "it runs on trio"
    peer_id = isthmus("id", "--config", config).out.strip()
    assert f"peer id    {peer_id}" in text
    address = next(
        line.split()[-1] for line in daemon.lines if "/ws/" not in line and "/p2p/" in line
    )
    # Of the very same key, so that it must take another one.
    assert isthmus("ping", "--config", config, address, "-c", "1").code == 0
    done = daemon.stop()
    assert done.code == 0
    assert " DEBUG isthmus." in done.err


def test_the_limits_of_the_file_hold(isthmus, file):
    config = file(f'node.listen = ["{LOOPBACK}"]\nlimits.connections = 1\n')
    daemon = isthmus.start("run", "--json", "--config", config, "--ephemeral")
    address = daemon.address()
    assert has_loaded(daemon.pid, "uvloop")
    first = isthmus.start("perf", address, "--upload", "100GB", "--ephemeral")
    daemon.event("connection_opened")
    assert isthmus("ping", address, "--ephemeral", "-c", "1").code == 1
    assert daemon.event("connection_refused")["setting"] == "limits.connections"
    first.close()


def test_transports_are_named_in_the_file(isthmus, file):
    config = file(f'node.transports = ["tcp"]\nnode.listen = ["{LOOPBACK}/ws"]')
    complaint = isthmus("run", "--config", config, "--ephemeral").complaint()
    assert "no transport of this node can use" in complaint
    config = file('node.transports = ["carrot"]')
    complaint = isthmus("run", "--config", config, "--ephemeral", "--listen", LOOPBACK).complaint()
    assert "no transport is called 'carrot'" in complaint


def test_the_examples_of_each_command_parse():
    group = program.get_command(click.Context(program), "config")
    for name, command in group.commands.items():
        _, _, examples = command.help.partition("Examples:\n")
        lines = [line.partition(" > ")[0].split() for line in examples.splitlines() if line.strip()]
        assert lines
        for _, called, sub, *arguments in lines:
            assert (called, sub) == ("config", name)
            command.make_context(name, arguments)
        for option in command.params:
            assert isinstance(option, click.Argument) or option.help


def test_what_is_shown_needs_no_terminal_tricks(isthmus, file):
    config = file('[lan]\ntrusted = ["\\u001b[2J", "\\u202e"]\n')
    done = isthmus("config", "show", "--config", config)
    assert 'trusted = ["\\u001b[2J", "\\u202e"]  # file, line 2' in done.out
    assert done.out.replace("\n", "").isprintable()
    assert tomllib.loads(done.out)["lan"]["trusted"] == ["\x1b[2J", "\u202e"]
