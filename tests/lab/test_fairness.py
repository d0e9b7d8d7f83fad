"""Two pairs of peers and their relay, whose link is narrow: what one leaves to the other."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).with_name("circuits.py")

LINK = 50e6 / 8
"""Bytes a second of the relay's link, each way."""

BANDWIDTH = 5_600_000
"""What the relay is told to use of it: nine tenths, as docs/relay.md has it. TCP and IP take 5 %
of the link for themselves, and the acknowledgements of the other direction 2 %."""

DELAY = 10
"""Milliseconds on the link, one way: 40 from one peer of a circuit to the other and back."""

WAITS = 0.02
"""Seconds that an echo may take longer beside a flood."""

SHARE = 0.45
"""Of the relay's link, for a peer that wants as much as another."""

SETTLED = 2.0
"""Seconds after which a flood is looked at: its first window comes at once, whatever is wanted."""

RATE = 500_000
"""Bytes a second of one circuit, where these are limited."""

CONGESTION = pytest.mark.parametrize(
    "congestion", [None, pytest.param("cubic", marks=pytest.mark.slow)]
)
"""What TCP does about a full queue: the kernel's default, which is bbr or cubic, and cubic."""

BACKENDS = pytest.mark.parametrize(
    "backend", ["asyncio", pytest.param("trio", marks=pytest.mark.slow)]
)


class Scene:
    """A relay behind a narrow link; what its peers are told does not limit their circuits."""

    def __init__(self, lab, start, backend, directory, congestion):
        self.lab = lab
        self.congestion = congestion
        self._start = start
        self._backend = backend
        self._directory = directory / "relay"
        self._place = ""

    def relay(self, **settings):
        host = self._host("relay")
        host.link.shape(delay=DELAY, rate=LINK * 8)
        self._directory.mkdir()
        settings = {"circuit_bytes": 0, "circuit_duration": 0, **settings}
        lines = ["[relay]", *(f"{key} = {value}" for key, value in settings.items()), ""]
        (self._directory / "isthmus.toml").write_text("\n".join(lines))
        listen = ("--no-lan", "--listen", f"/ip4/{host.ip}/tcp/4001", "--backend", self._backend)
        relay = self._start(host, "--relay=public", *listen, directory=self._directory)
        self._place = relay.event("listening")["addresses"][0]

    def pair(self, name):
        """Return what of a new pair of peers sends, and what is sent to."""
        target = self._run(self._host(f"{name}-far"), "target", self._place)
        address = target.event("reserved")["address"]
        return Near(self._run, self._host(f"{name}-near"), address), target

    def taken(self, targets, seconds):
        """Return the bytes a second that each target takes in the time that begins now."""
        counts = [len(each.events("taken")) for each in targets]
        self.lab.wait(seconds)
        rates = []
        for target, count in zip(targets, counts, strict=True):
            first, *_, last = target.events("taken")[count:]
            rates.append((last["bytes"] - first["bytes"]) / (last["time"] - first["time"]))
        return rates

    def _host(self, name):
        host = self.lab.add_host(name)
        if self.congestion is not None:
            host.congestion(self.congestion)
        return host

    def _run(self, host, role, *arguments):
        command = (sys.executable, str(PROGRAM), role, self._backend, *arguments)
        return self._start.program(host, command)


class Near:
    """The peer of a pair that dials the other."""

    def __init__(self, run, host, address):
        self._run = run
        self._host = host
        self._address = address

    def flood(self):
        self._run(self._host, "flood", self._address).event("flooding")

    def echoes(self, count):
        """Return the times of so many echoes, ascending."""
        program = self._run(self._host, "echo", self._address, str(count))
        return sorted(program.event("echoes", timeout=60)["times"])


def quantile(times, part):
    return times[min(int(len(times) * part), len(times) - 1)]


@pytest.fixture
def scene(lab, start, tmp_path, backend, congestion):
    return Scene(lab, start, backend, tmp_path, congestion)


@pytest.mark.slow
@BACKENDS
@CONGESTION
@pytest.mark.timeout(120)
def test_a_flood_leaves_the_other_its_echo_and_its_half(scene, scaled, backend):
    scene.relay(bandwidth=BANDWIDTH)
    (loud, sink), (quiet, other) = scene.pair("loud"), scene.pair("quiet")
    count = scaled(1000)
    idle = quiet.echoes(count)
    loud.flood()
    scene.lab.wait(SETTLED)
    beside = quiet.echoes(count)
    quiet.flood()
    scene.lab.wait(SETTLED)
    rates = scene.taken((sink, other), 2 + scaled(8))
    shares = [each / LINK for each in rates]
    print(  # noqa: T201
        f"\n{backend}, {scene.congestion}: idle p99 {quantile(idle, 0.99) * 1e3:.1f} ms,"
        f" beside a flood p50 {quantile(beside, 0.5) * 1e3:.1f} ms,"
        f" p99 {quantile(beside, 0.99) * 1e3:.1f} ms;"
        f" shares of the link {shares[0]:.3f} and {shares[1]:.3f}"
    )
    assert quantile(beside, 0.99) <= quantile(idle, 0.99) + WAITS
    assert shares[1] >= SHARE


@pytest.mark.slow
@BACKENDS
@CONGESTION
@pytest.mark.timeout(60)
def test_the_rate_of_a_circuit_holds(scene, backend):
    scene.relay(circuit_rate=RATE)
    loud, sink = scene.pair("loud")
    loud.flood()
    (rate,) = scene.taken((sink,), 10)
    print(f"\n{backend}: {rate / RATE:.3f} of the rate of a circuit")  # noqa: T201
    assert rate == pytest.approx(RATE, rel=0.1)
