"""Two nodes that meet through a relay get a direct connection through their NATs."""

from __future__ import annotations

import json
import math
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path

import anyio
import pytest
from isthmus.node.api import SOCKET_FILE
from isthmus.node.api.client import ControlClient
from isthmus.relay.dcutr.reasons import OWN_NAT, THEIR_NAT

PROGRAM = Path(__file__).parent / "puncher.py"
DELAY = 20
"""Milliseconds on each host's link, one way: 80 between two of them, there and back."""

PORT = 4001
ROUNDS = 20
CONNECTED = 1.0
DIRECT = 3.0
"""Seconds from the call to the first answer through the relay, and to the direct connection."""

PAIRS = [
    ("port-restricted", "port-restricted"),
    *(("full-cone", far) for far in ("full-cone", "address-restricted", "port-restricted")),
    *((near, "full-cone") for near in ("address-restricted", "port-restricted")),
]
BOTH = [(*pair, backend) for pair in PAIRS for backend in ("asyncio", "trio")]
FEW = [BOTH[0], BOTH[3], BOTH[6], BOTH[9]]


class Puncher:
    """The program of one host, which lives from one line to the next."""

    def __init__(self, lab, host, backend, role):
        self._lab = lab
        self._process = host.popen(
            [sys.executable, str(PROGRAM), backend, role],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONWARNINGS": "error"},
            text=True,
        )
        self.lines = []
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def begin(self, *words):
        self.lines.clear()
        self._say(" ".join(words))

    def end(self):
        self._say("")
        self.event("ended")

    def events(self, *names):
        return [each for each in tuple(self.lines) if each["event"] in names]

    def event(self, *names, timeout=20):
        self._lab.until(lambda: self.events(*names), timeout=timeout, what=" or ".join(names))
        return self.events(*names)[0]

    def close(self):
        self._process.kill()
        self._process.wait()
        self._reader.join()
        self._process.stdin.close()

    def _say(self, line):
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()

    def _read(self):
        with self._process.stdout as pipe:
            for line in pipe:
                self.lines.append(json.loads(line))


@pytest.fixture
def relay(lab, start):
    """A relay for anyone, as `isthmus run` makes one, in the middle of the network."""

    def make(name="relay"):
        host = lab.add_host(name)
        host.link.shape(delay=DELAY)
        place = f"/ip4/{host.ip}/tcp/{PORT}"
        node = start(host, "--ephemeral", "--no-lan", "--relay=public", "--listen", place)
        return f"{place}/p2p/{node.peer_id}", host

    return make


@pytest.fixture
def behind(lab):
    """Make a host behind a NAT of a kind."""

    def make(name, kind):
        host = lab.add_host(name, lab.add_nat(f"home-of-{name}", kind))
        host.link.shape(delay=DELAY)
        return host

    return make


@pytest.fixture
def punchers(lab, relay, behind):
    """Make a dialer and a listener behind NATs, and the address of their relay."""
    running = []

    def make(near, far, backend):
        address, host = relay()
        for role, kind in (("dialer", near), ("listener", far)):
            place = behind(role, kind)
            # The lab's own first steps, ARP on each link, are not what is measured.
            with place.socket(socket.SOCK_STREAM) as first:
                first.settimeout(5)
                first.connect((host.ip, PORT))
            running.append(Puncher(lab, place, backend, role))
        return address, *running

    yield make
    for puncher in running:
        puncher.close()


def meet(relay, dialer, listener):
    """Have the two meet once; return the seconds to the relayed and to the direct path, or none."""
    listener.begin(relay)
    ready = listener.event("ready")
    dialer.begin(ready["addresses"][0])
    relayed = dialer.event("relayed")
    assert relayed["limited"]
    assert relayed["seconds"] < CONNECTED
    told = listener.event("hole_punched", "hole_punch_failed", timeout=30)
    if told["event"] == "hole_punch_failed":
        dialer.end()
        listener.end()
        return None
    assert told["attempts"] <= 3
    direct = dialer.event("direct")
    assert "p2p-circuit" not in direct["address"]
    (moved,) = dialer.events("path_changed")
    assert (moved["address"], "p2p-circuit" in moved["previous"]) == (direct["address"], True)
    # Both have moved, and of what was said all the time, on either path, nothing was lost.
    listener.event("path_changed")
    dialer.event("talked")
    dialer.end()
    left = dialer.event("left")
    assert left["lost"] == 0
    assert left["relayed"] > 0 < left["direct"]
    listener.end()
    return direct["seconds"]


def meet_often(made, rounds):
    seconds = [meet(*made) for _ in range(rounds)]
    direct = sorted(each for each in seconds if each is not None)
    assert len(direct) >= math.ceil(0.9 * rounds), seconds
    assert direct[math.ceil(0.95 * len(direct)) - 1] < DIRECT, seconds


@pytest.mark.timeout(60)
@pytest.mark.parametrize(("near", "far", "backend"), FEW)
def test_they_meet(punchers, scaled, near, far, backend):
    rounds = ROUNDS if near == far == "port-restricted" else ROUNDS // 2
    meet_often(punchers(near, far, backend), min(scaled(rounds), 4))


@pytest.mark.slow
@pytest.mark.timeout(200)
@pytest.mark.parametrize(("near", "far", "backend"), BOTH)
def test_they_meet_often(punchers, near, far, backend):
    meet_often(punchers(near, far, backend), ROUNDS)


@pytest.mark.slow
@pytest.mark.timeout(120)
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_the_relayed_connection_drains(punchers, backend):
    """It is closed when it has not been the best for 30 s, and nobody talks on it any more."""
    relay, dialer, listener = punchers("port-restricted", "port-restricted", backend)
    listener.begin(relay)
    dialer.begin(listener.event("ready")["addresses"][0])
    direct = dialer.event("direct")["address"]
    dialer.event("talked")
    for puncher in (dialer, listener):
        ended = puncher.event("connection_ended", timeout=50)
        assert "p2p-circuit" in ended["address"]
    assert dialer.events("direct")[0]["address"] == direct
    dialer.end()
    assert dialer.event("left")["lost"] == 0
    listener.end()


@pytest.mark.timeout(90)
@pytest.mark.parametrize(
    ("near", "far", "backend", "seconds"),
    [
        ("symmetric", "port-restricted", "asyncio", 1),
        pytest.param("symmetric", "port-restricted", "trio", 5, marks=pytest.mark.slow),
        pytest.param("port-restricted", "symmetric", "asyncio", 5, marks=pytest.mark.slow),
        pytest.param("symmetric", "symmetric", "trio", 5, marks=pytest.mark.slow),
    ],
)
def test_behind_a_symmetric_nat_the_relay_stays_and_it_is_told_why(
    start, relay, behind, tmp_path, near, far, backend, seconds
):
    """Two relays see the NAT at work; `seconds` is the time of each of the three meetings."""
    config = tmp_path / "isthmus.toml"
    config.write_text(f"[dcutr]\nattempt_timeout = {seconds}\n", "utf-8")
    relays = [relay("one")[0], relay("two")[0]]
    options = [each for address in relays for each in ("--relay-via", address)]
    options += ["--no-lan", "--backend", backend, "--config", str(config)]
    dialer = start(behind("dialer", near), *options)
    listener = start(behind("listener", far), *options)
    for node in (dialer, listener):
        for address in relays:
            peer = address.rpartition("/")[2]
            node.event("relay_reserved", relay=peer)
            node.event("peer_identified", peer=peer)
    dialer.ask("connect", f"{relays[0]}/p2p-circuit/p2p/{listener.peer_id}")
    failed = listener.event("hole_punch_failed", timeout=40, peer=dialer.peer_id)
    assert 59 < failed["next_at"] - failed["time"] < 61
    assert f"none of 3 attempts met the peer's: {_reason(far, near)}" == failed["reason"]
    # Who has begun it says so, and so does who took part.
    stays(listener, dialer, failed["reason"], by_peer=False)
    stays(dialer, listener, f"the meeting has failed: {_reason(near, far)}", by_peer=True)


def stays(node, other, reason, *, by_peer):
    """See that a node is connected through the relay, talks, and says why it is not direct."""
    found = node.ask("why", other.peer_id)
    assert found["connected"]
    assert (found["path"]["rank"], found["path"]["limited"]) == ("relay", True)
    punching = found["hole_punching"]
    told = (punching["outcome"], punching["reason"], punching["begun_by_peer"])
    assert told == ("failed", reason, by_peer)
    assert (punching["next"] is None) is by_peer
    assert not node.events("path_changed", peer=other.peer_id)
    client = ControlClient(node.directory / SOCKET_FILE)
    pinged = anyio.run(client.post, "/v1/ping", {"to": other.peer_id, "count": 2})
    assert len(pinged["rtt_ms"]) == 2
    assert "p2p-circuit" in pinged["address"]


def _reason(own, theirs):
    reasons = [OWN_NAT] if own == "symmetric" else []
    reasons += [THEIR_NAT] if theirs == "symmetric" else []
    return "; ".join(reasons)
