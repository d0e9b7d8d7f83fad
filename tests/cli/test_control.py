"""The commands that ask a running node: `status`, `peers`, `connect`, `disconnect`, `events`."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import signal
import socket
import stat
import subprocess
from pathlib import Path

import pytest
from isthmus import Multiaddr, PeerId
from isthmus.node.cli.control_text import (
    connected_line,
    duration,
    found_lines,
    peers_lines,
    relay_lines,
    status_lines,
)

from .processes import EACH_BACKEND, LOOPBACK, Program

STRANGER = "12D3KooWGJAmQyRkvK6Cf7Jr3zhMmtLX2Q8d2hKS9sMLUFWEPTpo"
HOSTILE = "a\x1b[2Jb\r\nc\u202ed"
COMMANDS = [("status",), ("peers",), ("connect", STRANGER), ("disconnect", STRANGER), ("events",)]
PAGE = (Path(__file__).parents[2] / "docs" / "control-api.md").read_text("utf-8")


@pytest.fixture
def running(isthmus, dht):
    """The program, beside a node that runs with its data directory, and that knows a DHT."""
    isthmus.daemon = isthmus.start("run", "--json", "--listen", LOOPBACK, "--bootstrap", dht)
    isthmus.address = isthmus.daemon.address()
    return isthmus


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    """The address of another node."""
    program = Program(tmp_path_factory.mktemp("other"))
    yield program.start("run", "--json", "--listen", LOOPBACK).address()
    program.close()


def id_of(address):
    return address.rpartition("/")[2]


@pytest.mark.parametrize("backend", EACH_BACKEND)
def test_a_session(isthmus, other, backend):
    daemon = isthmus.start("run", "--json", "--listen", LOOPBACK, "--backend", backend)
    address = daemon.address()
    peer = id_of(other)
    status = isthmus("status", "--json").json()
    assert (status["peer_id"], status["addresses"]) == (id_of(address), [address])
    assert (status["pid"], status["connections"]) == (daemon.pid, 0)
    told = isthmus.start("events", "--json")
    first = json.loads(told.line())
    assert (first["event"], first["addresses"]) == ("listening", [address])
    assert isthmus("peers", "--json").json() == {"peers": [], "known_total": 0}
    made = isthmus("connect", other, "--json").json()
    assert (made["is_new"], made["connection"]["peer"]) == (True, peer)
    assert told.event("connection_opened") == daemon.event("connection_opened")
    assert told.event("peer_identified") == daemon.event("peer_identified")
    assert isthmus("connect", peer).out.startswith(f"connected already, to {peer} (/ip4/")
    (found,) = isthmus("peers", "--json").json()["peers"]
    assert (found["peer"], len(found["connections"])) == (peer, 1)
    done = isthmus("disconnect", peer)
    assert (done.code, done.out, done.err) == (0, f"disconnected from {peer} (1 connection)\n", "")
    assert told.event("connection_ended") == daemon.event("connection_ended")
    assert isthmus("disconnect", peer).complaint() == f"error: {peer} is not connected"
    assert daemon.stop().code == 0
    done = told.finish()
    assert (done.code, done.err) == (0, "isthmus: the node has stopped\n")


def test_what_people_are_shown(running, other):
    peer = id_of(other)
    lines = running("status").out.splitlines()
    assert lines[0] == f"peer id    {id_of(running.address)}"
    assert lines[1] == f"addresses  {running.address}"
    assert re.fullmatch(
        rf"running    \d+ s, as process {running.daemon.pid}, isthmus \S+", lines[2]
    )
    assert "busy       0 connections to 0 peers, 0 open streams, 0 known peers" in lines
    assert [re.sub(" {2,}", "  ", line) for line in lines[-5:]] == [
        "limits  connections  0 of 512  limits.connections",
        "  inbound connections of strangers  0 of 384  limits.outbound_share",
        "  connections of one peer  0 of 4  limits.connections_per_peer",
        "  dials under way  0 of 512  limits.connections",
        "  dials that wait  0 of 256  limits.waiting_dials",
    ]
    assert running("peers").out == "0 peers connected, 0 more known\n"
    events = running.start("events")
    assert events.line().endswith("; Ctrl-C ends this")
    assert running("connect", other).out == f"connected to {peer} ({other.partition('/p2p')[0]})\n"
    assert f" connected to {peer} (" in events.line()
    assert f'{peer} calls itself "isthmus/' in events.line()
    lines = running("peers").out.splitlines()
    assert lines[0] == "1 peer connected, 0 more known"
    assert lines[2].startswith(f"{peer}  isthmus/")
    assert re.match(
        r"  direct  dialer  \S+( ms)?  sent [\d.]+ k?B  received [\d.]+ k?B  for \d+ s  /ip4/",
        lines[3],
    )
    running("disconnect", peer)
    lines = running("peers").out.splitlines()
    assert lines[0] == "0 peers connected, 1 more known"
    assert re.match(rf"{peer}  seen \d+ s ago  isthmus/", lines[3])
    assert running("peers", "--known", "0").out == "0 peers connected, 1 more known\n"


def test_a_connection_that_cannot_be(running):
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"/ip4/127.0.0.1/tcp/{free.getsockname()[1]}"
    assert running("connect", address, "--json").complaint() == (
        f"error: cannot connect to {address}: Connection refused: nothing listens there"
    )
    assert "did you mean /ip4/192.0.2.7/tcp/1?" in running("connect", "192.0.2.7:1").complaint()
    assert "this very node" in running("connect", running.address).complaint()
    assert "needs no keeping" in running("keep", id_of(running.address)).complaint()
    assert running("status").code == 0


@pytest.mark.parametrize(
    "command",
    [*COMMANDS[:2], *(pytest.param(each, marks=pytest.mark.slow) for each in COMMANDS[2:])],
)
def test_where_no_node_runs(isthmus, command):
    assert isthmus(*command).complaint() == (
        f"error: no isthmus runs in {isthmus.data_dir}: start one with `isthmus run`"
    )
    done = isthmus(*command, "--json", "--data-dir", "elsewhere")
    assert "no isthmus runs in elsewhere: start one with" in done.complaint()
    place = str(isthmus.data_dir / "x.sock")
    assert f"isthmus run --control {place}`" in isthmus(*command, "--control", place).complaint()
    assert not isthmus.data_dir.exists()


@pytest.mark.parametrize("sig", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_the_way_to_stop_events(running, sig):
    for option in ("--json", "--data-dir=" + str(running.data_dir)):
        told = running.start("events", option)
        told.line()
        done = told.stop(sig)
        assert (done.code, done.err) == (0, "")
    assert running("status").code == 0


def test_ctrl_c_gives_a_dial_up(running):
    with socket.create_server(("127.0.0.1", 0)) as mute:
        address = f"/ip4/127.0.0.1/tcp/{mute.getsockname()[1]}"
        call = running.start("connect", address)
        connection, _ = mute.accept()
        with connection:
            done = call.stop()
        assert (done.code, done.out, done.err) == (130, "", "")
        while busy(running)["dials under way"]:
            pass


def busy(program):
    limits = program("status", "--json").json()["limits"]
    return {each["limit"]: each["used"] for each in limits}


def test_only_its_user_can_reach_it(running):
    path = running.data_dir / "control.sock"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(running.data_dir.stat().st_mode) == 0o700
    assert running.daemon.stop().code == 0
    assert not path.exists()


def test_what_a_killed_node_has_left_is_replaced(running):
    told = running.start("events")
    told.line()
    running.daemon.stop(signal.SIGKILL)
    assert told.finish().complaint() == "error: the node has ended"
    assert (running.data_dir / "control.sock").exists()
    assert "no isthmus runs in" in running("status").complaint()
    again = running.start("run", "--json", "--listen", LOOPBACK)
    again.address()
    assert running("status", "--json").json()["pid"] == again.pid


def test_two_nodes_of_one_directory_are_refused_as_before(running):
    assert "already running as PID" in running("run", "--listen", LOOPBACK).complaint()
    assert running("status", "--json").json()["pid"] == running.daemon.pid


def test_off(isthmus):
    isthmus.start("run", "--json", "--listen", LOOPBACK, "--control", "off").address()
    assert not (isthmus.data_dir / "control.sock").exists()
    assert "no isthmus runs in" in isthmus("status").complaint()


def test_a_node_that_keeps_nothing_is_reached_where_it_was_told_to(isthmus, tmp_path):
    isthmus.start("run", "--json", "--listen", LOOPBACK, "--ephemeral").address()
    assert not isthmus.data_dir.exists()
    path = str(tmp_path / "here.sock")
    daemon = isthmus.start("run", "--json", "--listen", LOOPBACK, "--ephemeral", "--control", path)
    peer_id = id_of(daemon.address())
    assert isthmus("status", "--control", path, "--json").json()["peer_id"] == peer_id
    complaint = isthmus("run", "--ephemeral", "--listen", LOOPBACK, "--control", path).complaint()
    assert f"{path}: another program listens there; name another place" in complaint
    assert daemon.stop().code == 0
    assert not Path(path).exists()
    (tmp_path / "file").write_text("mine")
    for place, why in (("file", "something else than a socket"), ("no/x.sock", "No such file")):
        path = str(tmp_path / place)
        complaint = isthmus(
            "run", "--ephemeral", "--listen", LOOPBACK, "--control", path
        ).complaint()
        assert why in complaint
        assert complaint.endswith("name another place with --control, or do without: --control off")


def test_a_data_directory_with_a_long_path(isthmus):
    isthmus.data_dir = isthmus.data_dir / ("x" * 100)
    isthmus.env["ISTHMUS_DATA_DIR"] = str(isthmus.data_dir)
    daemon = isthmus.start("run", "--json", "--listen", LOOPBACK)
    daemon.address()
    assert isthmus("status", "--json").json()["pid"] == daemon.pid


def test_a_socket_that_this_user_may_not_use(running, unprivileged):
    path = running.data_dir / "control.sock"
    path.chmod(0)
    complaint = running("status", prefix=unprivileged).complaint()
    assert complaint == f"error: {path}: Permission denied"


# What the page shows.

CALLS = re.findall(r"^\$ (curl .*)$", PAGE, re.MULTILINE)


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_every_call_of_the_page_works(running, other):
    assert {re.search(r"/v1/\w+", call)[0] for call in CALLS} == {
        "/v1/status",
        "/v1/doctor",
        "/v1/peers",
        "/v1/events",
        "/v1/connect",
        "/v1/dial",
        "/v1/disconnect",
        "/v1/ping",
        "/v1/links",
        "/v1/relay",
        "/v1/keep",
        "/v1/forget",
        "/v1/find",
    }
    for call in CALLS:
        argv = shlex.split(call)
        argv = [each.replace("12D3KooW...", id_of(other)) for each in argv]
        argv = [each.replace("/ip4/192.0.2.7/tcp/4001/p2p/" + id_of(other), other) for each in argv]
        argv = ["--max-time", "1", *argv[1:]] if "/v1/events" in call else argv[1:]
        done = subprocess.run(
            ["curl", "--silent", "--show-error", "--write-out", "%{http_code}", *argv],
            cwd=running.data_dir,
            capture_output=True,
            text=True,
            check=False,
            timeout=10,
        )
        assert done.stdout.endswith("200"), (call, done.stdout, done.stderr)
        *_, line = done.stdout.removesuffix("200").splitlines()
        assert isinstance(json.loads(line), dict)


# Texts


def test_durations():
    texts = [duration(each) for each in (-1, 0.4, 59, 60, 3599, 3600, 86_399, 86_400, 10**6)]
    assert texts == ["0 s", "0 s", "59 s", "1 min", "59 min", "1 h", "23 h", "1 d", "11 d"]


def test_a_peers_text_steers_no_terminal():
    peer = str(PeerId.parse(STRANGER))
    connection = {
        "peer": peer,
        "address": str(Multiaddr.parse("/dns4/x/tcp/1")) + HOSTILE,
        "side": "dialer",
        "rank": "relay",
        "limited": True,
        "used": True,
        "suspect": True,
        "age_seconds": 61.0,
        "rtt_ms": None,
        "bytes_sent": 10,
        "bytes_received": 2_000_000,
    }
    known = {"peer": peer, "agent": HOSTILE * 100, "addresses": [HOSTILE] * 5, "last_seen": 0.0}
    found = {
        "known_total": 1,
        "peers": [
            known | {"connected": True, "connections": [connection, connection]},
            known | {"connected": False, "connections": []},
        ],
    }
    lines = peers_lines(found, now=120.0)
    assert all(line.isprintable() for line in lines)
    assert all(len(line) <= 500 for line in lines)
    assert lines[3].startswith(
        "  relay, limited, suspect  dialer  -  sent 10 B  received 2 MB  for 1 min  "
    )
    assert "seen 2 min ago" in lines[7]
    assert lines[-1] == "  and 2 more"
    status = {
        "peer_id": peer,
        "addresses": [],
        "protocols": [HOSTILE],
        "pid": 1,
        "uptime_seconds": 7200.0,
        "versions": {"isthmus": HOSTILE},
        "connections": 1,
        "peers": 1,
        "streams": 2,
        "known_peers": 3,
        "reachability": {"verdict": "unknown", "nat": "unknown", "addresses": []},
        "limits": [{"limit": HOSTILE, "used": 1, "max": 2, "setting": "x"}],
    }
    lines = status_lines(status)
    assert all(line.isprintable() for line in lines)
    assert lines[1] == "addresses  none: it does not listen, or no interface is up"
    assert "2 open streams" in lines[4]
    found = {"service": HOSTILE, "peers": [{"peer": peer, "addresses": [HOSTILE] * 5}]}
    lines = found_lines(found)
    assert all(line.isprintable() for line in lines)
    assert lines[-1] == "  and 2 more"
    line = connected_line({"is_new": True, "connection": connection})
    assert line.isprintable()


def test_a_relay_says_whom_it_serves(isthmus):
    daemon = isthmus.start("run", "--json", "--listen", LOOPBACK, "--relay=public")
    daemon.address()
    status = isthmus("relay", "status", "--json").json()
    assert (status["preset"], status["reservations"]["used"]) == ("public", 0)
    shown = isthmus("relay", "status").out.splitlines()
    assert shown[:3] == ["serves     anyone", "reserved   0 of 128", "circuits   0 of 1024"]
    assert shown[4] == "limits     16 circuits a peer, 131.1 kB each way, 2 min a circuit"


def test_a_flag_alone_opens_no_relay(isthmus):
    daemon = isthmus.start("run", "--json", "--listen", LOOPBACK, "--relay")
    daemon.address()
    assert isthmus("relay", "status").out.startswith(
        "serves     kept peers, and those in relay.all"
    )
    daemon.stop()
    daemon = isthmus.start("run", "--json", "--listen", LOOPBACK)
    daemon.address()
    assert isthmus("relay", "status").out.startswith("serves     nobody: 'isthmus run --relay'")
    refused = isthmus("run", "--ephemeral", "--relay=generous")
    assert refused.code == 1
    assert "relay.allow" in refused.err


def test_what_a_relay_shows():
    status = {
        "preset": "default",
        "bytes": 3000,
        "bytes_per_second": 1500.0,
        "reservations": {
            "used": 1,
            "max": 128,
            "peers": [{"peer": STRANGER, "address": "/ip4/192.0.2.7/tcp/4001", "expires": 700.0}],
        },
        "circuits": {
            "used": 1,
            "max": 1024,
            "open": [
                {"source": "A", "target": "B", "bytes_to_target": 1000, "bytes_to_source": 2000}
            ],
        },
        "sources": [{"peer": "A", "circuits": 2, "bytes": 3000}],
        "refused": {"NO_RESERVATION": 3},
        "limits": {
            "circuits_per_peer": 16,
            "circuit_bytes": None,
            "circuit_duration": None,
            "circuit_rate": 50_000.0,
            "bandwidth": 1e6,
        },
    }
    assert relay_lines(status, now=100.0) == [
        "serves     kept peers, and those in relay.allow",
        "reserved   1 of 128",
        "circuits   1 of 1024",
        "carried    3 kB, now 1.5 kB/s",
        "limits     16 circuits a peer, 50 kB/s each way, 1 MB/s in all",
        "refused    NO_RESERVATION 3",
        "",
        "reservations",
        f"  {STRANGER}  for 10 min more  /ip4/192.0.2.7/tcp/4001",
        "",
        "circuits",
        "  A to B  1 kB there, 2 kB back",
        "",
        "used by",
        "  A  2 circuits  3 kB",
    ]
