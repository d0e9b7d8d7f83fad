"""A node behind a NAT and its two relays, which fail in turn, as those see it who dial it."""

from __future__ import annotations

import itertools
import json
import signal
import sys
import time
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

import pytest

PROBER = Path(__file__).with_name("prober.py")

ALLOWED = 1.0
"""Seconds from a dial to its echo."""

BACK = 2.0
"""Seconds from the time when a relay listens again to the first echo through it."""

NOTICED = 20.0
"""Seconds until both relays lead to the node again, whatever has happened to one of them: that a
path is cut is noticed by a check every ten seconds, which has three."""

TTL = 60
"""Seconds of a reservation; the least that a relay may give."""

BACKENDS = pytest.mark.parametrize("backend", ["asyncio", "trio"])


class Relay:
    """`isthmus run --relay=public` on a host of its own, with one key and one port."""

    def __init__(self, start, host, backend, directory):
        self._start = start
        self._backend = backend
        self._directory = directory
        self._program = None
        self.host = host
        directory.mkdir()
        (directory / "isthmus.toml").write_text(f"[relay]\nreservation_ttl = {TTL}\n")

    @property
    def peer_id(self):
        return self._program.peer_id

    def start(self, preset="--relay=public"):
        """Start it; return at what time it listened."""
        listen = ("--no-lan", "--listen", "/ip4/0.0.0.0/tcp/4001", "--backend", self._backend)
        self._program = self._start(self.host, preset, *listen, directory=self._directory)
        return self._program.event("listening")["time"]

    def stop(self, number=signal.SIGKILL):
        self._program.stop(number)

    def send_signal(self, number):
        self._program.send_signal(number)


class Scene:
    """Two relays, a node behind a NAT that has reserved at both, and a host to dial from."""

    def __init__(self, lab, start, backend, directory):
        self.lab = lab
        self._start = start
        self._backend = backend
        self._read = 0
        self._standing = set()
        self._losses = Counter()
        self._refusals = 0
        self._outside = lab.add_host("outside")
        self.relays = [
            Relay(start, lab.add_host(name), backend, directory / name)
            for name in ("relay-a", "relay-b")
        ]
        for relay in self.relays:
            relay.start()
        self.places = [
            f"/dns4/{relay.host.name}/tcp/4001/p2p/{relay.peer_id}" for relay in self.relays
        ]
        via = [each for place in self.places for each in ("--relay-via", place)]
        inside = lab.add_host("inside", lab.add_nat("home"))
        self._node = start(inside, *via, "--no-lan", "--backend", backend)
        self.wait_both()

    def probe(self, *places):
        """Begin to dial the node by relays at these places, for as long as the test lasts."""
        addresses = [f"{each}/p2p-circuit/p2p/{self._node.peer_id}" for each in places]
        command = (sys.executable, str(PROBER), self._backend, *addresses)
        return self._start.program(self._outside, command)

    def wait_both(self):
        """Wait until both relays lead to the node, as it sees it."""
        self._until(lambda: len(self._standing) == 2, "two reservations")

    @contextmanager
    def losing(self, relay):
        """Wait until the node has seen that it lost a relay by what is done in the context.

        It may have it back so soon after that only a count shows it.
        """
        self._look()
        peer = relay.peer_id
        count = self._losses[peer]
        yield
        self._until(lambda: self._losses[peer] > count, "the loss of a relay")

    @property
    def refusals(self):
        """How many new reasons the relays had to refuse the node."""
        self._look()
        return self._refusals

    def wait_refusal(self, count):
        self._until(lambda: self._refusals > count, "a refusal")

    def _until(self, condition, what):
        def is_so():
            self._look()
            return condition()

        self.lab.until(is_so, timeout=NOTICED, what=what)

    def _look(self):
        """Take the node's new events; looking at all of them each time would take a core."""
        lines = self._node.lines
        while self._read < len(lines):
            line = json.loads(lines[self._read])
            self._read += 1
            if line["event"] == "relay_reserved":
                self._standing.add(line["relay"])
            elif line["event"] == "relay_lost":
                self._standing.discard(line["relay"])
                self._losses[line["relay"]] += 1
            elif line["event"] == "relay_refused":
                self._refusals += 1


def restarted(scene, relay):
    with scene.losing(relay):
        relay.stop(signal.SIGTERM)
    relay.start()


def killed(scene, relay):
    with scene.losing(relay):
        relay.stop()
    relay.start()


def refusing(scene, relay):
    count = scene.refusals
    with scene.losing(relay):
        relay.stop()
    # It serves those whom its owner knows, and this node is nobody.
    relay.start("--relay")
    scene.wait_refusal(count)
    relay.stop(signal.SIGTERM)
    relay.start()


def hanging(scene, relay, seconds=1):
    relay.send_signal(signal.SIGSTOP)
    scene.lab.wait(seconds)
    relay.send_signal(signal.SIGCONT)


def moved(scene, relay):
    with scene.losing(relay):
        relay.host.move("public")


def expired(scene, relay):
    with scene.losing(relay):
        hanging(scene, relay, TTL + 5)


def judged(prober, backend):
    """Say what became of the dials, and that none failed or was slow."""
    echoes, failures = prober.events("echo"), prober.events("failed")
    times = sorted(each["seconds"] for each in echoes)
    p50, p99 = (times[int(len(times) * part)] for part in (0.5, 0.99))
    print(  # noqa: T201
        f"\n{backend}: {len(times)} echoes, p50 {p50 * 1e3:.0f} ms, p99 {p99 * 1e3:.0f} ms,"
        f" at most {times[-1] * 1e3:.0f} ms"
    )
    assert failures == [], json.dumps(failures, indent=1)
    assert [each for each in echoes if each["seconds"] >= ALLOWED] == []
    assert prober.errors == []
    return len(times)


@pytest.fixture
def scene(lab, start, tmp_path, backend):
    return Scene(lab, start, backend, tmp_path)


@pytest.mark.timeout(60)
@BACKENDS
def test_every_dial_ends_in_an_echo(scene, backend):
    prober = scene.probe(*scene.places)
    prober.event("echo")
    for disturb, relay in zip((killed, restarted, refusing), scene.relays * 2, strict=False):
        disturb(scene, relay)
        scene.wait_both()
    assert judged(prober, backend) > 10


@pytest.mark.slow
@pytest.mark.timeout(400)
@BACKENDS
def test_two_minutes_of_it(scene, backend):
    prober = scene.probe(*scene.places)
    prober.event("echo")
    began = time.monotonic()
    near, far = scene.relays
    rounds = itertools.cycle(
        [
            (what, relay)
            for what in (killed, moved, refusing, hanging, restarted)
            for relay in (near, far)
        ]
    )
    expired(scene, near)
    scene.wait_both()
    while time.monotonic() < began + 120:
        disturb, relay = next(rounds)
        print(f"{time.time():.1f}: {relay.host.name} {disturb.__name__}")  # noqa: T201
        disturb(scene, relay)
        scene.wait_both()
    assert judged(prober, backend) > 500


@pytest.mark.timeout(600)
@BACKENDS
@pytest.mark.parametrize(
    "seconds", [1, *(pytest.param(each, marks=pytest.mark.slow) for each in (5, 20, 60))]
)
def test_a_relay_that_was_gone(scene, backend, seconds):
    relay, place = scene.relays[0], scene.places[0]
    relay.stop()
    scene.lab.wait(seconds)
    # Before the return, so that it is not its own start that is measured.
    prober = scene.probe(place)
    prober.event("failed")
    back = relay.start()
    prober.event("echo")
    first = min(each["began"] + each["seconds"] for each in prober.events("echo"))
    print(f"\n{backend}: after {seconds} s, an echo {first - back:.2f} s after it listened")  # noqa: T201
    assert first - back < BACK
