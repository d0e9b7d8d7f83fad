"""`isthmus why`: each way in which a dial can fail names phase, duration, cause and hint."""

from __future__ import annotations

import json
import os
import re
import socket
import sys
from contextlib import contextmanager

import anyio
import pytest
from isthmus import Node, NodeConfig
from isthmus.node.cli.why_text import lines
from isthmus.node.config import LimitsConfig
from isthmus.node.run import run

from ..transports.websocket.authority import Authority
from .processes import EACH_BACKEND, Program

LOOPBACK = "/ip4/127.0.0.1/tcp/0"
HOSTILE = "a\x1b[2Jb\r\nc\u202ed"
STRANGER = "12D3KooWGJAmQyRkvK6Cf7Jr3zhMmtLX2Q8d2hKS9sMLUFWEPTpo"


def ask(isthmus, *arguments, **options):
    """Return the report, and the only step of it."""
    done = isthmus("why", *arguments, "--json", **options)
    assert (done.code, done.err) == (1, "")
    report = json.loads(done.out)
    assert report["connected"] is False
    assert report["error"]
    (step,) = report["steps"]
    assert step["outcome"] == "failed"
    assert 0 <= step["started_ms"] <= report["duration_ms"]
    assert 0 <= step["duration_ms"] <= report["duration_ms"]
    return report, step


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


@contextmanager
def black_hole():
    """A port whose backlog is full, so that the kernel drops whatever else comes."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(0)
        waiting = [socket.socket() for _ in range(4)]
        for each in waiting:
            each.setblocking(False)
            each.connect_ex(server.getsockname())
        try:
            yield f"/ip4/127.0.0.1/tcp/{server.getsockname()[1]}"
        finally:
            for each in waiting:
                each.close()


@pytest.mark.parametrize("backend", EACH_BACKEND)
def test_a_peer_that_is_reached(isthmus, peer, backend):
    report = isthmus("why", peer, "--json", "--backend", backend).json()
    assert report["connected"] is True
    assert report["error"] is report["hint"] is None
    assert report["peer_id"] == peer.rpartition("/")[2]
    (step,) = report["steps"]
    assert step["outcome"] == "connected"
    assert step["rank"] == "direct"
    lines = isthmus("why", peer).out.splitlines()
    assert lines[0] == peer
    assert lines[1].startswith("  connected after ")
    assert lines[2].startswith(f"connected to {report['peer_id']} in ")


def test_a_refused_port(isthmus):
    address = f"/ip4/127.0.0.1/tcp/{free_port()}"
    _, step = ask(isthmus, address)
    assert step["address"] == address
    assert step["phase"] == "connect"
    assert "Connection refused" in step["cause"]
    assert step["hint"] == "nothing listens there"
    done = isthmus("why", address)
    assert (done.code, done.err) == (1, "")
    assert "failed in the phase 'connect' after " in done.out
    assert "  hint: nothing listens there" in done.out
    assert done.out.splitlines()[-1].startswith("no connection after ")


def test_a_black_hole(isthmus):
    with black_hole() as address:
        report, step = ask(isthmus, address, "--timeout", "0.3")
    assert step["phase"] == "connect"
    assert "no connection within 0.3 s" in step["cause"]
    assert "firewall" in step["hint"]
    assert 300 <= step["duration_ms"] <= report["duration_ms"]


def test_another_peer_id(isthmus, peer):
    address, _, actual = peer.rpartition("/p2p/")
    _, step = ask(isthmus, f"{address}/p2p/{STRANGER}")
    assert step["phase"] == "handshake"
    assert step["cause"] == f"expected peer {STRANGER}, but {actual} answered"
    assert "is the address old?" in step["hint"]


def test_a_certificate_that_nobody_vouches_for(isthmus, tmp_path):
    files = Authority(tmp_path).issue()
    tls = ("--tls-cert", str(files.cert_file), "--tls-key", str(files.key_file))
    served = isthmus.start("run", "--json", "--ephemeral", "--listen", f"{LOOPBACK}/tls/ws", *tls)
    _, step = ask(isthmus, served.address())
    assert step["phase"] == "tls"
    assert "certificate is refused" in step["cause"]
    assert step["hint"]


def test_no_libp2p_there(isthmus):
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"/ip4/127.0.0.1/tcp/{server.getsockname()[1]}"
        call = isthmus.start("why", address, "--json")
        accepted, _ = server.accept()
        with accepted:
            accepted.sendall(b"SSH-2.0-OpenSSH_9.2\r\n")
            accepted.recv(1024)
        done = call.finish()
    (step,) = json.loads(done.out)["steps"]
    assert step["phase"] != "connect"
    assert "libp2p" in step["hint"]


def test_no_transport(isthmus):
    _, step = ask(isthmus, "/ip4/127.0.0.1/udp/4001")
    assert step["phase"] == "address"
    assert "no transport of this node" in step["cause"]
    assert "looks like /ip4/" in step["hint"]


def test_a_name_that_is_none(isthmus, offline):
    _, step = ask(isthmus, "/dns4/nobody.invalid/tcp/4001", prefix=offline)
    assert step["phase"] == "resolve"
    assert step["hint"]


def test_a_peer_that_is_full(tmp_path):
    async def call():
        config = NodeConfig(limits=LimitsConfig(connections=1))
        async with Node(listen=LOOPBACK, config=config) as full, Node() as first:
            await first.connect(full.addresses)
            argv = [sys.executable, "-m", "isthmus", "why", str(full.addresses[0]), "--json"]
            environment = os.environ | {"ISTHMUS_DATA_DIR": str(tmp_path)}
            with anyio.fail_after(10):
                return await anyio.run_process(argv, env=environment, check=False)

    done = run(call)
    report = json.loads(done.stdout)
    assert done.returncode == 1
    assert "as soon as it stood" in report["error"]
    assert "limits.connections" in report["hint"]


def test_a_peer_that_is_offline(isthmus, offline):
    report, step = ask(isthmus, STRANGER, "--timeout", "5", prefix=offline)
    assert report["peer_id"] == STRANGER
    assert step["address"] == f"/p2p/{STRANGER}"
    assert "nobody on the LAN says that it is" in step["cause"]
    assert step["hint"]


# Where a node runs, it is asked.


@pytest.fixture
def running(isthmus):
    """The program, beside a node that runs with its data directory."""
    daemon = isthmus.start("run", "--json", "--no-lan", "--listen", LOOPBACK)
    isthmus.daemon, isthmus.address = daemon, daemon.address()
    return isthmus


def failed(done):
    assert (done.code, done.err) == (1, "")
    return done


def test_the_running_node_tells_of_a_peer_that_it_knows(running, peer):
    whom = peer.rpartition("/")[2]
    running("connect", peer)
    found = running("why", whom, "--json").json()
    assert (found["peer_id"], found["connected"], found["dialled"]) == (whom, True, False)
    assert (found["link"]["state"], found["link"]["kept"]) == ("connected", False)
    assert [each["state"] for each in found["history"]] == ["connecting", "connected"]
    assert [step["outcome"] for step in found["steps"]] == ["connected"]
    assert (found["path"]["rank"], found["path"]["used"]) == ("direct", True)
    assert found["hole_punching"] is None
    lines = running("why", whom).out.splitlines()
    assert re.fullmatch(r"link       connected for \d+ s", lines[0])
    assert re.fullmatch(r"history    connecting  \d+ s ago", lines[1])
    assert re.fullmatch(r"           connected   \d+ s ago  /ip4/127.0.0.1/tcp/\d+", lines[2])
    assert re.fullmatch(r"path       direct, /ip4/127.0.0.1/tcp/\d+", lines[3])
    assert re.fullmatch(r"last dial  \d+ s ago", lines[4])
    assert lines[-1] == f"connected to {whom}"
    running("disconnect", whom)
    done = failed(running("why", whom))
    assert done.out.startswith("link       disconnected for ")
    assert done.out.endswith("no connection now\n  hint: --dial tries it now\n")


def test_the_running_node_dials_where_it_is_told_to(running, peer):
    place, _, whom = peer.rpartition("/p2p/")
    found = running("why", place, "--json").json()
    assert (found["peer_id"], found["dialled"], found["link"]) == (whom, True, None)
    assert running.daemon.event("connection_opened")["peer"] == whom
    # Again and again beside the connection that stands, which is left alone.
    for _ in range(5):
        found = running("why", whom, "--dial", "--json").json()
        assert (found["connected"], found["dialled"]) == (True, True)
        assert found["link"]["state"] == "connected"
    assert running("why", whom, "--dial").out.splitlines()[-1].startswith(f"connected to {whom} in")
    assert running("status", "--json").json()["peers"] == 1


def test_the_running_node_dials_who_it_does_not_know(running):
    found = json.loads(failed(running("why", STRANGER, "--json")).out)
    assert (found["peer_id"], found["dialled"], found["link"]) == (STRANGER, True, None)
    assert found["error"] == f"no address of {STRANGER} is known"
    # From now on it knows that it failed.
    found = json.loads(failed(running("why", STRANGER, "--json")).out)
    assert (found["dialled"], found["link"]["state"]) == (False, "failed")
    out = failed(running("why", STRANGER)).out
    assert f"\n  no address of {STRANGER} is known\n" in out
    assert out.endswith("\n  hint: --dial tries it now\n")


def test_a_peer_that_came_in_by_itself(running, tmp_path):
    program = Program(tmp_path / "other")
    whom = program.start("run", "--json", "--no-lan", "--listen", LOOPBACK).address()
    program("connect", running.address)
    whom = whom.rpartition("/")[2]
    try:
        found = running("why", whom, "--json").json()
        assert (found["dialled"], found["connected"], found["time"]) == (False, True, None)
        last = running("why", whom).out.splitlines()[-1]
        assert last == f"connected to {whom}, which connected to this node by itself"
    finally:
        program.close()


def test_the_timeout_goes_with_the_question(running):
    with black_hole() as address:
        report, step = ask(running, address, "--timeout", "0.3")
        assert report["dialled"] is True
        assert "no connection within 0.3 s" in step["cause"]
        assert running.daemon.event("dial_failed")["peer"] is None


def test_another_node_than_the_running_one_dials(running, peer, tmp_path):
    whom = running.address.rpartition("/")[2]
    found = running("why", running.address, "--json").json()
    assert (found["peer_id"], found["link"]) == (whom, None)
    running("id", "--identity", str(tmp_path / "key"))
    for option in (("--alone",), ("--identity", str(tmp_path / "key")), ("--ephemeral",)):
        assert running("why", peer, *option, "--json").json()["connected"] is True
    assert running("status", "--json").json()["connections"] == 0


def test_a_control_socket_that_is_named_must_be_there(isthmus, peer, tmp_path):
    place = str(tmp_path / "here.sock")
    assert "no isthmus runs" in isthmus("why", peer, "--control", place).complaint()
    isthmus.start(
        "run", "--json", "--no-lan", "--listen", LOOPBACK, "--ephemeral", "--control", place
    ).address()
    found = isthmus("why", peer, "--control", place, "--json").json()
    assert found["connected"] is True
    assert isthmus("status", "--control", place, "--json").json()["connections"] == 1


def test_what_a_node_says_steers_no_terminal():
    step = {"address": HOSTILE, "outcome": HOSTILE, "phase": HOSTILE, "duration_ms": 1.0}
    step |= {"rank": HOSTILE, "cause": HOSTILE * 1000, "hint": HOSTILE, "started_ms": 0.0}
    change = {"state": HOSTILE, "time": 0.0, "reason": HOSTILE}
    found = {"peer_id": HOSTILE, "connected": False, "dialled": False, "time": 0.0}
    found |= {"duration_ms": 5.0, "error": HOSTILE, "hint": HOSTILE, "steps": [step]}
    found |= {"link": {"state": HOSTILE, "since": 0.0, "kept": True}, "history": [change] * 50}
    found["path"] = {"rank": HOSTILE, "address": HOSTILE * 1000, "limited": True}
    found["hole_punching"] = None
    shown = [*lines(found, now=60.0), *lines({**found, "steps": [], "connected": True}, now=60.0)]
    assert len([line for line in shown if "1 min ago" in line and "last" not in line]) == 20
    assert all(line.isprintable() for line in shown)
    assert all(len(line) <= 1000 for line in shown)


def relayed(**punching):
    """Return what is said of a peer that is reached through a relay."""
    attempt = {"outcome": "failed", "reason": "no luck", "begun_by_peer": False, "tries": 1}
    path = {"rank": "relay", "address": "/ip4/192.0.2.7/tcp/1/p2p-circuit", "limited": True}
    found = {"peer_id": "P", "connected": True, "dialled": False, "time": None, "steps": []}
    found |= {"link": None, "history": [], "path": path}
    return {**found, "hole_punching": {**attempt, "time": 40.0, "next": 100.0, **punching}}


@pytest.mark.parametrize(
    ("punching", "told"),
    [
        (
            {},
            [
                "direct     hole punching has failed 20 s ago: no luck",
                "           it is tried again in 40 s",
            ],
        ),
        (
            {"begun_by_peer": True, "next": None},
            [
                "direct     hole punching that the peer has begun has failed 20 s ago: no luck",
                "           the peer decides when it is tried again",
            ],
        ),
        ({"outcome": "running", "next": None}, ["direct     hole punching is running"]),
        (
            {"outcome": "succeeded", "next": None},
            ["direct     hole punching worked 20 s ago, and the connection has ended"],
        ),
    ],
)
def test_of_a_relayed_peer_it_is_told_why_it_is_not_direct(punching, told):
    path, *rest = lines(relayed(**punching), now=60.0)
    assert path == "path       relay, /ip4/192.0.2.7/tcp/1/p2p-circuit, which sets limits"
    assert rest == [*told, "connected to P through a relay, which connected to this node by itself"]


def test_of_a_direct_peer_old_hole_punching_is_not_told():
    found = relayed()
    found["path"] = {"rank": "direct", "address": "/ip4/192.0.2.7/tcp/1", "limited": False}
    path, end = lines(found, now=60.0)
    assert path == "path       direct, /ip4/192.0.2.7/tcp/1"
    assert end == "connected to P, which connected to this node by itself"
