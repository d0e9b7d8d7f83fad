"""Two pairs of peers and their relay, whose link is the narrow one: what one leaves to the other."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

import pytest

PROGRAM = Path(__file__).with_name("circuits.py")

LINK = 50e6 / 8
"""Bytes a second of the relay's link, each way."""

DELAY = 10
"""Milliseconds on it, one way: 40 from one peer of a circuit to the other and back."""

BACKENDS = pytest.mark.parametrize("backend", ["asyncio", "trio"])


class Scene:
    def __init__(self, lab, start, backend, directory, settings):
        self.lab = lab
        self._start = start
        self._backend = backend
        host = lab.add_host("relay")
        host.link.shape(delay=DELAY, rate=settings.pop("rate", "50mbit"))
        (directory / "relay").mkdir()
        settings = {"circuit_bytes": 0, "circuit_duration": 0, **settings}
        text = "".join(f"{key} = {value}\n" for key, value in settings.items())
        (directory / "relay" / "isthmus.toml").write_text(f"[relay]\n{text}")
        listen = ("--no-lan", "--listen", f"/ip4/{host.ip}/tcp/4001", "--backend", backend)
        self.relay = start(host, "--relay=public", *listen, directory=directory / "relay")
        self._place = self.relay.event("listening")["addresses"][0]

    def run(self, host, *arguments):
        role, *rest = arguments
        return self._start.program(
            host, (sys.executable, str(PROGRAM), role, self._backend, *rest)
        )

    def pair(self, name):
        target = self.run(self.lab.add_host(f"{name}-far"), "target", self._place)
        address = target.event("reserved")["address"]
        return self.lab.add_host(f"{name}-near"), target, address


def quantile(times, part):
    return sorted(times)[int(len(times) * part)]


def rate(target, since, until):
    """Bytes a second that a sink has taken between two times."""
    told = [each for each in target.events("taken") if since <= each["time"] <= until]
    first, last = told[0], told[-1]
    return (last["bytes"] - first["bytes"]) / (last["time"] - first["time"])


@pytest.mark.parametrize("setting", json.loads(os.environ.get("RELAY", "[]")))
@pytest.mark.timeout(170)
def test_dbg(lab, start, tmp_path, setting):
    backend = setting.pop("backend", "asyncio")
    print("\n", setting)
    rate_ = setting.get("rate")
    if rate_:
        setting["rate"] = tuple(rate_)
    cc = setting.pop("cc", None)
    scene = Scene(lab, start, backend, tmp_path, setting)
    n1, t1, a1 = scene.pair("one")
    n2, t2, a2 = scene.pair("two")
    for h in lab.hosts.values():
        if cc and h.links:
            h.congestion(cc)

    def echo(count):
        p = scene.run(n2, "echo", a2, str(count))
        return p.event("echoes", timeout=60)["times"]

    idle = echo(100)
    print("\n", backend, setting, "idle", quantile(idle, 0.5), quantile(idle, 0.99))
    f1 = scene.run(n1, "flood", a1, "60")
    f1.event("flooding")
    began = time.monotonic()
    early = echo(50)
    print("early", [round(x * 1e3) for x in early])
    st0 = lab.hosts["relay"].link.statistics()
    busy = echo(200)
    st1 = lab.hosts["relay"].link.statistics()
    print("mean waits ms", [(b.waited - a.waited) / (b.sent - a.sent) * 1e3 for a, b in zip(st0, st1)])
    print("flooded", [round(quantile(busy, q), 3) for q in (0.5, 0.9, 0.95, 0.98, 0.99)], max(busy))
    print([round(x * 1e3) for x in busy[:50]])
    now = time.monotonic()
    print("alone", rate(t1, began + 2, now) / LINK, "of the link")
    f2 = scene.run(n2, "flood", a2, "20")
    f2.event("flooding")
    began = time.monotonic()
    lab.wait(6)
    now = time.monotonic()
    print("both", rate(t1, began + 1, now) / LINK, rate(t2, began + 1, now) / LINK)
    print("from the start", rate(t1, began, began + 3) / LINK, rate(t2, began, began + 3) / LINK)
    print(host_stats := lab.hosts["relay"].link.statistics())
