"""`isthmus doctor` says what was built: NATs of two kinds, and a public host."""

from __future__ import annotations

import json
import os
import subprocess

import pytest

from .conftest import COMMAND

PUBLIC = ("--no-lan", "--relay=public")


@pytest.fixture
def relays(lab, start):
    """Two public nodes, each a relay, and able to say what they see, and to try."""
    # Of another network than the others: AutoNAT's servers never knock in their own.
    lab.add_network("elsewhere", "11.0.2.0/24")
    hosts = [lab.add_host(name, "elsewhere") for name in ("first", "second")]
    running = [start(host, *PUBLIC, "--listen", f"/ip4/{host.ip}/tcp/4001") for host in hosts]
    return [each.event("listening")["addresses"][0] for each in running]


def via(relays):
    return [part for each in relays for part in ("--relay-via", each)]


def checks(found):
    return {each["check"]: each for each in found["checks"]}


def works(found):
    return {each["path"]: each["works"] for each in found["paths"]}


def doctor(program, code):
    """Ask the node that runs, from outside its host."""
    argv = [*COMMAND, "doctor", "--json", "--data-dir", str(program.directory)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stderr) == (code, "")
    return json.loads(done.stdout)


@pytest.mark.timeout(40)
def test_behind_a_port_restricted_nat(lab, start, relays):
    # One that refuses, since a server waits ten seconds for one that is silent.
    home = lab.add_nat("home", "port-restricted", unsolicited="reject")
    node = start(lab.add_host("node", home), "--no-lan", *via(relays))
    for each in relays:
        node.event("relay_reserved", relay=each.rpartition("/")[2])
    node.event("reachability_changed", reachability="private")
    found = doctor(node, 0)
    seen = checks(found)
    assert found["running"] is True
    assert seen["nat"]["state"] == "ok"
    assert "endpoint-independent" in seen["nat"]["finding"]
    assert "only what was asked for" in seen["nat"]["finding"]
    assert f"/ip4/{home.ip}/tcp/" in seen["nat"]["details"][0]
    assert "by 2 networks" in seen["nat"]["details"][0]
    assert seen["reachable"]["finding"].startswith("others cannot dial it, as 2 peers found")
    assert seen["reachable"]["finding"].endswith("they reach it through a relay")
    by = "".join(seen["reachable"]["details"])
    assert all(each.rpartition("/")[2] in by for each in relays)
    assert seen["relays"]["finding"] == "reached through 2 relays, one of which may be lost"
    (relay,) = [each for name, each in seen.items() if name == f"relay {relays[0][-8:]}"]
    assert relay["finding"].startswith("in use: you have named it; ")
    assert "a circuit carries 128 KiB each way and 2 min" in relay["finding"]
    assert works(found) == {
        "lan": False,
        "out": True,
        "in": False,
        "punched": True,
        "relay": True,
    }


@pytest.mark.timeout(40)
def test_behind_a_symmetric_nat_without_a_reservation(lab, start, relays):
    home = lab.add_nat("home", "symmetric", unsolicited="reject")
    host = lab.add_host("node", home)
    node = start(host, "--no-lan")
    node.event("listening")
    for each in relays:
        node.ask("connect", each)
    lab.until(lambda: checks(doctor_of(node))["nat"]["state"] != "unknown", timeout=10, what="nat")
    found = doctor_of(node)
    seen = checks(found)
    assert seen["nat"]["state"] == "note"
    assert "symmetric" in seen["nat"]["finding"]
    assert "--relay-via" in seen["nat"]["advice"]
    assert len(seen["nat"]["details"]) == 2
    assert (seen["relays"]["state"], seen["relays"]["advice"]) == ("note", seen["nat"]["advice"])
    assert works(found)["punched"] is False
    assert works(found)["relay"] is False


def doctor_of(program):
    """Ask at once, whatever comes of it."""
    argv = [*COMMAND, "doctor", "--json", "--wait", "0", "--data-dir", str(program.directory)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=30, check=False)
    assert done.stderr == ""
    return json.loads(done.stdout)


@pytest.mark.timeout(40)
def test_a_short_lived_node_on_a_public_host(lab, relays, tmp_path):
    host, place = lab.add_host("node"), tmp_path / "unused"
    argv = [*COMMAND, "doctor", "--json", "--no-lan", "--data-dir", str(place), *via(relays)]
    done = host.run(argv, env={**os.environ}, timeout=30)
    found = json.loads(done.stdout)
    seen = checks(found)
    assert found["running"] is False
    assert not place.exists()
    assert seen["nat"]["finding"] == "none: others see it where it is"
    assert seen["reachable"]["state"] == "ok"
    assert f"/ip4/{host.ip}/tcp/" in seen["reachable"]["finding"]
    assert seen["reachable"]["finding"].endswith("as 2 peers found")
    assert works(found)["in"] is True
    assert found["state"] in ("ok", "note")
