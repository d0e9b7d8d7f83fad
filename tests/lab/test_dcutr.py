"""Two nodes that have met through a relay get a direct connection through their NATs."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from pathlib import Path

import pytest

PROGRAM = Path(__file__).parent / "meeting.py"
DELAY = 20
"""Milliseconds on each host's link, one way: 80 between two of them, there and back."""


class Told:
    """A program that writes JSON lines."""

    def __init__(self, lab, host, *arguments):
        self._lab = lab
        self.lines = []
        self._process = host.popen(
            [sys.executable, str(PROGRAM), *arguments], stdout=subprocess.PIPE, text=True
        )
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self):
        with self._process.stdout as pipe:
            for line in pipe:
                self.lines.append(json.loads(line))

    def wait(self, *names, timeout=20):
        def found():
            return [each for each in tuple(self.lines) if each["event"] in names]

        self._lab.until(found, timeout=timeout, what=" or ".join(names))
        return found()[0]

    def close(self):
        self._process.kill()
        self._process.wait()
        self._reader.join()


@pytest.fixture
def meet(lab):
    programs = []

    def start(*arguments):
        programs.append(Told(lab, *arguments))
        return programs[-1]

    def meet(near, far):
        """Have a host behind a NAT of the kind `near`, or behind none, dial one behind `far`."""
        hosts = {"relay": lab.add_host("relay")}
        for name, kind in (("dialer", near), ("listener", far)):
            place = "public" if kind == "public" else lab.add_nat(f"home-of-{name}", kind)
            hosts[name] = lab.add_host(name, place)
        for host in hosts.values():
            host.link.shape(delay=DELAY)
        ip = hosts["relay"].ip
        relay = start(hosts["relay"], "relay", ip)
        peer = relay.wait("listening")["peer"]
        listener = start(hosts["listener"], "listener", ip, peer)
        listener.wait("waiting")
        other = listener.wait("seen")["peer"]
        return start(hosts["dialer"], "dialer", ip, peer, other), listener

    yield meet
    for program in programs:
        program.close()


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    ("near", "far"),
    [
        ("port-restricted", "port-restricted"),
        ("full-cone", "port-restricted"),
        ("address-restricted", "full-cone"),
        ("public", "port-restricted"),
    ],
)
def test_they_meet(meet, near, far):
    dialer, listener = meet(near, far)
    relayed = dialer.wait("relayed")
    direct = dialer.wait("direct")
    dialer.wait("works")
    assert relayed["seconds"] < 1
    assert direct["seconds"] < 3, direct
    # One that is behind no NAT is simply dialled.
    assert listener.wait("hole_punched")["attempts"] == (near != "public")


@pytest.mark.timeout(60)
def test_behind_symmetric_nats_the_relay_stays(meet):
    dialer, listener = meet("symmetric", "symmetric")
    assert "3 attempts" in listener.wait("hole_punch_failed", timeout=30)["reason"]
    assert not [each for each in dialer.lines if each["event"] == "direct"]
