"""The chat of examples/, as people use it: one process each, on either backend."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from isthmus import Multiaddr

STRANGER = "12D3KooWGJAmQyRkvK6Cf7Jr3zhMmtLX2Q8d2hKS9sMLUFWEPTpo"
FILE = Path(__file__).resolve().parents[2] / "examples" / "chat.py"
# As tests/test_readme.py does: `run` takes the backend as an argument.
START = """
import functools, runpy, sys, isthmus
isthmus.run = functools.partial(isthmus.run, backend=sys.argv.pop(1))
del sys.argv[0]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
PIPE = subprocess.PIPE


@pytest.fixture
def start():
    """Return what starts a chat; each is ended with the test."""
    started = []

    def start(backend, *arguments):
        argv = [sys.executable, "-W", "error", "-c", START, backend, str(FILE), *arguments]
        started.append(subprocess.Popen(argv, stdin=PIPE, stdout=PIPE, stderr=PIPE, text=True))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def say(process, line):
    process.stdin.write(f"{line}\n")
    process.stdin.flush()


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_two_people_talk(start, backend):
    host = start(backend, "/ip4/0.0.0.0/tcp/0")
    invitation = host.stdout.readline()
    assert invitation.startswith("The others run: chat.py /ip4/")
    address = Multiaddr.parse(invitation.split()[-1])
    guest = start(backend, f"/ip4/127.0.0.1/tcp/{address.port}/p2p/{address.peer_id}")
    assert guest.stdout.readline().endswith(" is here\n")
    say(guest, "hello\x1b[2J you")
    assert host.stdout.readline().endswith(" is here\n")
    assert host.stdout.readline()[6:] == ": hello[2J you\n"
    say(host, "hello yourself")
    assert guest.stdout.readline()[6:] == ": hello yourself\n"
    out, err = guest.communicate()  # it closes the input, as Ctrl-D does
    assert (guest.returncode, err) == (0, "")
    assert out.endswith(" has left\n")
    assert host.stdout.readline().endswith(" has left\n")
    host.send_signal(signal.SIGINT)
    assert host.wait(5) == 0
    assert host.stderr.read() == ""


def test_nobody_there(start):
    address = f"/ip4/127.0.0.1/tcp/1/p2p/{STRANGER}"
    out, err = start("asyncio", address).communicate()
    assert out == ""
    assert err.startswith(f"error: cannot connect to {STRANGER}; {address}: ")
    assert err.count("\n") == 1
