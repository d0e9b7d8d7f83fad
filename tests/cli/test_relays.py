"""`isthmus run --relay-via`: reached through a relay, and what people see of it."""

from __future__ import annotations

import json

import pytest
from isthmus.node.cli.control_text import status_lines

from .processes import EACH_BACKEND, LOOPBACK, Program


@pytest.fixture(scope="module")
def relay(tmp_path_factory):
    """The address of a node that relays for anyone."""
    program = Program(tmp_path_factory.mktemp("relay"))
    yield program.start("run", "--json", "--listen", LOOPBACK, "--relay=public").address()
    program.close()


@pytest.mark.parametrize("backend", EACH_BACKEND)
def test_a_node_is_reached_through_a_relay(isthmus, relay, tmp_path, backend):
    options = ("--listen", LOOPBACK, "--relay-via", relay, "--backend", backend)
    daemon = isthmus.start("run", "--json", *options)
    address = daemon.address()
    told = daemon.event("relay_reserved")
    peer, relay_id = address.rpartition("/")[2], relay.rpartition("/")[2]
    assert told["addresses"] == [f"{relay}/p2p-circuit"]
    assert told["relay"] == relay_id
    daemon.event("addresses_changed")
    status = isthmus("status", "--json").json()
    assert status["addresses"] == [address, f"{relay}/p2p-circuit/p2p/{peer}"]
    (shown,) = status["relays"]
    assert (shown["relay"], shown["state"], shown["configured"]) == (relay_id, "reserved", True)
    line = next(each for each in isthmus("status").out.splitlines() if each.startswith("relays"))
    assert f"{relay_id}  reserved" in line
    assert line.endswith("yours")
    other = Program(tmp_path / "other")
    try:
        circuit = f"{relay}/p2p-circuit/p2p/{peer}"
        pinged = other("ping", circuit, "--count", "1", "--json")
        assert pinged.code == 0
        report = other("why", circuit, "--json").json()
        (step,) = report["steps"]
        assert (step["rank"], step["outcome"]) == ("relay", "connected")
        nobody = f"{relay}/p2p-circuit/p2p/{relay_id[:-1]}{'A' if relay_id[-1] != 'A' else 'B'}"
        away = other("why", f"{relay}/p2p-circuit/p2p/{ABSENT}", "--json")
        (step,) = json.loads(away.out)["steps"]
        assert (step["phase"], step["outcome"]) == ("relay", "failed")
        assert step["hint"] == "does the peer run, and with this relay?"
        assert other("why", nobody).code
    finally:
        other.close()


ABSENT = "12D3KooWGJAmQyRkvK6Cf7Jr3zhMmtLX2Q8d2hKS9sMLUFWEPTpo"


def test_a_relay_that_refuses_is_told_in_a_line(isthmus, tmp_path):
    program = Program(tmp_path / "relay")
    try:
        # It serves those whom its owner knows, and this is nobody.
        closed = program.start("run", "--json", "--listen", LOOPBACK, "--relay").address()
        daemon = isthmus.start("run", "--listen", LOOPBACK, "--relay-via", closed)
        line = daemon.line("gives no reservation")
        assert line.endswith("it does not serve this peer")
        shown = next(each for each in isthmus("status").out.splitlines() if "refused" in each)
        assert "it does not serve this peer" in shown
    finally:
        program.close()


@pytest.mark.parametrize(
    ("option", "complaint"),
    [
        ("/ip4/192.0.2.7/tcp/1", "does not end in the relay's id"),
        (f"/ip4/192.0.2.7/tcp/1/p2p/{ABSENT}/p2p-circuit", "does not end in the relay's id"),
        ("relay.example", "is no multiaddr; an address looks like /ip4/192.0.2.7/tcp/4001/p2p/"),
    ],
)
def test_what_is_no_relay(isthmus, option, complaint):
    assert complaint in isthmus("run", "--ephemeral", "--relay-via", option).complaint()


def test_the_file_and_the_options_say_the_same(isthmus, relay, tmp_path):
    file = tmp_path / "isthmus.toml"
    file.write_text(f'[relays]\nvia = ["{relay}"]\ndiscover = true\n', "utf-8")
    shown = isthmus("config", "show", "--config", str(file), "--no-discover-relays").out
    assert f'via = ["{relay}"]' in shown
    assert "discover = false" in shown
    file.write_text("[relays]\nwanted = 9\n", "utf-8")
    assert "from 1 to 4" in isthmus("config", "check", str(file)).out


def test_what_is_shown_of_relays_steers_no_terminal():
    relay = {
        "relay": ABSENT,
        "state": "waiting",
        "configured": False,
        "reason": "a\x1b[2Jb\nc",
        "addresses": [],
        "until": None,
        "rtt_ms": 12.34,
    }
    status = {
        "peer_id": ABSENT,
        "addresses": [],
        "protocols": [],
        "pid": 1,
        "uptime_seconds": 1,
        "versions": {"isthmus": "1"},
        "connections": 0,
        "peers": 0,
        "streams": 0,
        "known_peers": 0,
        "relays": [relay, relay],
        "reachability": {"verdict": "unknown", "nat": "unknown", "addresses": []},
        "limits": [{"limit": "x", "used": 1, "max": 2, "setting": "x"}],
    }
    lines = [line for line in status_lines(status) if ABSENT in line][1:]
    assert len(lines) == 2
    assert all(line.isprintable() for line in lines)
    assert "12.3 ms  discovered  a" in lines[0]


def test_no_flag_alone_opens_a_relay(isthmus, tmp_path):
    complaint = isthmus("run", "--relay=generous", "--listen", LOOPBACK).complaint()
    assert "put their ids into relay.allow" in complaint
    daemon = isthmus.start("run", "--json", "--listen", LOOPBACK, "--relay")
    stranger = Program(tmp_path / "stranger")
    arguments = ("--listen", LOOPBACK, "--relay-via", daemon.address())
    try:
        refused = stranger.start("run", "--json", *arguments).event("relay_refused")
    finally:
        stranger.close()
    assert "it does not serve this peer" in refused["reason"]
    status = isthmus("relay", "status", "--json").json()
    assert (status["reservations"]["used"], status["refused"]) == (0, {"PERMISSION_DENIED": 1})
