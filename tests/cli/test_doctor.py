"""`isthmus doctor`: of the node that runs, and of one that is started for it."""

from __future__ import annotations

import socket
import stat

import click
import pytest
from isthmus.node.cli.doctor_text import lines

from .processes import EACH_BACKEND, LOOPBACK, Program

HOSTILE = "a\x1b[2Jb\r\nc\u202ed"
STRANGER = "12D3KooWGJAmQyRkvK6Cf7Jr3zhMmtLX2Q8d2hKS9sMLUFWEPTpo"
ALONE = ("--listen", LOOPBACK)


def checks(found):
    return {each["check"]: each for each in found["checks"]}


@pytest.fixture(scope="module")
def relay(tmp_path_factory):
    """The address of a node that relays for anyone."""
    program = Program(tmp_path_factory.mktemp("relay"))
    yield program.start("run", "--json", "--listen", LOOPBACK, "--relay=public").address()
    program.close()


def test_the_running_node_is_asked(isthmus):
    isthmus.start("run", "--json", *ALONE).address()
    found = isthmus("doctor", "--json").json()
    assert found["running"] is True
    assert found["state"] == "note"
    seen = checks(found)
    assert seen["listening"]["state"] == "note"
    assert seen["data"]["finding"] == f"{isthmus.data_dir} is written"
    done = isthmus("doctor")
    assert (done.code, done.err) == (0, "")
    assert "\x1b" not in done.out
    shown = done.out.splitlines()
    assert shown[0] == f"{found['peer_id']}, the running node"
    assert shown[2].startswith("note     listening       on loopback only: ")
    assert shown[3].startswith("                         -> listen on all interfaces: ")
    assert "yes      dialled by this node  it dials whoever can be dialled" in shown
    assert shown[-1] == "1 note"


@pytest.mark.parametrize("backend", EACH_BACKEND)
def test_without_one_a_short_lived_node_looks_and_keeps_nothing(isthmus, relay, backend):
    options = (*ALONE, "--relay-via", relay, "--backend", backend)
    found = isthmus("doctor", "--json", *options).json()
    assert (found["running"], found["settled"]) == (False, True)
    seen = checks(found)
    assert seen["relays"]["finding"].startswith("reached through 1 relay")
    assert seen[f"relay {relay[-8:]}"]["finding"].startswith("in use: you have named it; ")
    assert seen["data"]["finding"] == f"{isthmus.data_dir} is written"
    assert not isthmus.data_dir.exists()


def test_it_is_the_node_of_the_data_directory_with_its_key_and_port(isthmus):
    isthmus("id")
    peer = isthmus("id", "--json").json()["peer_id"]
    with socket.create_server(("0.0.0.0", 0), reuse_port=False) as free:
        port = free.getsockname()[1]
    (isthmus.data_dir / "port").write_text(f"{port}\n")
    before = sorted(isthmus.data_dir.iterdir())
    arguments = ("doctor", "--json", "--no-lan", "--wait", "0")
    found = isthmus(*arguments).json()
    assert found["peer_id"] == peer
    assert f"/tcp/{port}  " in checks(found)["listening"]["details"][0]
    assert sorted(isthmus.data_dir.iterdir()) == before
    # Whoever has the port may be this node, with its control socket elsewhere: it is let be.
    with socket.create_server(("0.0.0.0", port)):
        found = isthmus(*arguments).json()
        assert found["peer_id"] != peer
        assert f"/tcp/{port}  " not in checks(found)["listening"]["details"][0]


def test_a_problem_is_an_exit_code(isthmus, tmp_path):
    program = Program(tmp_path / "relay")
    try:
        # It serves those whom its owner knows, and this is nobody.
        closed = program.start("run", "--json", *ALONE, "--relay").address()
        done = isthmus("doctor", *ALONE, "--relay-via", closed)
        assert (done.code, done.err) == (1, "")
        assert done.out.startswith(f"no node runs in {isthmus.data_dir}: a short-lived one looks")
        assert "problem  relays          reached through none of 1 relay" in done.out
        assert "it does not serve this peer" in done.out
        assert "-> have its owner allow 12D3KooW" in done.out
        assert "1 problem, " in done.out.splitlines()[-1]
    finally:
        program.close()


def test_a_data_directory_that_is_none(isthmus, tmp_path):
    file = tmp_path / "file"
    file.touch()
    short = (*ALONE, "--json", "--wait", "0")
    done = isthmus("doctor", *short, "--ephemeral", "--data-dir", str(file))
    assert checks(done.json())["data"]["finding"] == "in memory: nothing is kept on disk"
    complaint = isthmus("doctor", *short, "--data-dir", str(file / "data")).complaint()
    assert f"{file}/data/port: Not a directory" in complaint
    assert stat.S_ISREG(file.stat().st_mode)


def test_servers_of_the_dht_are_connected_to(isthmus, dht):
    found = isthmus("doctor", "--json", *ALONE, "--bootstrap", dht).json()
    assert checks(found)["peers"]["finding"] == "1 connection to 1 peer"
    nobody = f"/ip4/127.0.0.1/tcp/9/p2p/{STRANGER}"
    found = isthmus("doctor", "--json", *ALONE, "--wait", "0.5", "--bootstrap", nobody).json()
    assert checks(found)["peers"]["finding"] == "nobody is connected"


def test_ctrl_c_ends_it_in_order(isthmus):
    nobody = f"/ip4/127.0.0.1/tcp/9/p2p/{STRANGER}"
    doctor = isthmus.start("doctor", *ALONE, "--bootstrap", nobody)
    doctor.line("a short-lived one looks")
    done = doctor.stop()
    assert done.code in (130, -2)
    assert done.err == ""


@pytest.mark.parametrize(
    ("arguments", "code", "complaint"),
    [
        (("--wait", "x"), 2, "'--wait'"),
        (("--wait", "1000"), 2, "'--wait'"),
        (("--relay-via", "/ip4/192.0.2.7/tcp/1"), 1, "does not end in the relay's id"),
        (("--listen", "/ip4/198.51.100.1/tcp/0"), 1, "no interface of this machine has this"),
    ],
)
def test_what_cannot_be_asked(isthmus, arguments, code, complaint):
    assert complaint in isthmus("doctor", *arguments).complaint(code)


def test_on_a_terminal_lines_are_broken_and_coloured(isthmus):
    code, drawn = isthmus.on_terminal("doctor", *ALONE, "--wait", "0", TERM="xterm", COLUMNS="80")
    assert code == 0
    assert "\x1b[33mnote" in drawn
    shown = drawn.replace("\r", "").splitlines()
    broken = next(number for number, line in enumerate(shown) if "-> listen on all" in line)
    assert shown[broken + 1].startswith(" " * 28)
    assert "/ip4/0.0.0.0/tcp/4001" in shown[broken] + shown[broken + 1]


def test_what_a_node_says_steers_no_terminal():
    check = {"check": HOSTILE, "state": HOSTILE, "finding": HOSTILE * 900, "advice": HOSTILE}
    check |= {"details": [HOSTILE, HOSTILE]}
    found = {"peer_id": HOSTILE, "state": HOSTILE, "settled": False, "checks": [check]}
    found |= {"paths": [{"path": HOSTILE, "works": None, "why": HOSTILE}]}
    shown = [*lines(found, is_running=True)]
    plain = [click.unstyle(line) for line in shown]
    assert all(line.isprintable() for line in plain)
    assert all(len(line) <= 1100 for line in plain)
    assert shown[-1] == "all is well; some is still being found out"
