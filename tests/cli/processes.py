"""The program as its users meet it: in processes of its own, waited for by what they write."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

PATIENCE = 15.0
LOOPBACK = "/ip4/127.0.0.1/tcp/0"
COMMAND = (sys.executable, "-m", "isthmus")
EACH_BACKEND = (pytest.param("asyncio", marks=pytest.mark.slow), "trio")
"""Where the process is what is looked at, whatever loop it runs; asyncio, the default, is what most
other tests of the command line start."""
INTERRUPTED = (130, -signal.SIGINT)
"""What Ctrl-C leaves behind: the exit code of a program that ends in order, or, before it works
and after, the signal itself. A shell shows 130 for both."""


def until(condition, patience=PATIENCE):
    """Wait for what no event tells of, such as the state of another process; return it."""
    deadline = time.monotonic() + patience
    while not (found := condition()):
        assert time.monotonic() < deadline, "it did not happen in time"
        os.sched_yield()
    return found


def has_loaded(pid, library):
    """Say whether a process has begun to load a library, by a part of its name."""
    return library in Path(f"/proc/{pid}/maps").read_text("utf-8")


def children(pid, word="demo-node"):
    """Return the processes that a process has started, by a word of their command line."""
    found = []
    # Of each thread: trio starts a process from one that is not the first.
    for thread in Path(f"/proc/{pid}/task").glob("*/children"):
        found += [int(each) for each in _read(thread).split()]
    return [each for each in found if word in _read(Path(f"/proc/{each}/cmdline"))]


def _read(file):
    """Return what /proc says of a process or thread; nothing if it has ended meanwhile."""
    try:
        return file.read_text("utf-8")
    except (FileNotFoundError, ProcessLookupError):
        return ""


@contextmanager
def watched(pid):
    """Give a function that waits until a process has ended, whoever is its parent."""
    file = os.pidfd_open(pid)

    def wait():
        ended, _, _ = select.select([file], [], [], PATIENCE)
        assert ended, f"the process {pid} was left behind"

    try:
        yield wait
    finally:
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(file, signal.SIGKILL)
        os.close(file)


@dataclass(frozen=True)
class Finished:
    """What a process left: its exit code and its texts."""

    code: int
    out: str
    err: str

    def json(self):
        """Return the one object that it wrote, and check that all went well."""
        assert (self.code, self.err) == (0, "")
        assert self.out.count("\n") == 1
        return json.loads(self.out)

    def complaint(self, code=1, out=""):
        """Return the one line that it failed with."""
        assert self.code == code
        assert self.out == out
        assert self.err.count("\n") == 1
        assert self.err.startswith("error: ")
        assert "Traceback" not in self.err
        return self.err.strip()


class Process:
    """A process that goes on until it is told to stop."""

    def __init__(self, argv, env):
        self._process = subprocess.Popen(
            argv, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        self._buffer = b""
        self.lines = []

    @property
    def pid(self):
        return self._process.pid

    def line(self, containing=""):
        """Wait for the next line that contains a text, and return it."""
        deadline = time.monotonic() + PATIENCE
        while True:
            while b"\n" in self._buffer:
                line, self._buffer = self._buffer.split(b"\n", 1)
                self.lines.append(line.decode())
                if containing in self.lines[-1]:
                    return self.lines[-1]
            left = deadline - time.monotonic()
            ready, _, _ = select.select([self._process.stdout], [], [], max(left, 0))
            data = os.read(self._process.stdout.fileno(), 65536) if ready else b""
            assert data, (
                f"no line with {containing!r}: {self.lines} {self.stop().err if ready else ''}"
            )
            self._buffer += data

    def event(self, name):
        """Wait for the next event of a name, and return it."""
        return json.loads(self.line(f'"event": "{name}"'))

    def address(self):
        """Wait until the node listens, and return its first address."""
        return self.event("listening")["addresses"][0]

    def close_stdout(self):
        """Go away as a reader."""
        self._process.stdout.close()

    def send_signal(self, sig):
        """Send a signal."""
        self._process.send_signal(sig)

    def stop(self, sig=signal.SIGINT):
        """Send a signal and return what is left."""
        self.send_signal(sig)
        return self.finish()

    def finish(self):
        """Wait for the end; the output is what `line` has not returned yet."""
        if self._process.stdout.closed:
            err = self._process.stderr.read()
            self._process.stderr.close()
            return Finished(self._process.wait(PATIENCE), "", err.decode())
        out, err = self._process.communicate(timeout=PATIENCE)
        return Finished(self._process.returncode, (self._buffer + out).decode(), err.decode())

    def close(self):
        """End it whatever it does."""
        if self._process.poll() is None:
            self._process.kill()
        for pipe in (self._process.stdout, self._process.stderr):
            pipe.close()
        self._process.wait(PATIENCE)


class Program:
    """Calls the program with a data directory of one's own."""

    def __init__(self, data_dir: Path):
        self.data_dir = data_dir
        self.env = {
            key: value
            for key, value in os.environ.items()
            if key not in {"NO_COLOR", "FORCE_COLOR", "PYTHONPATH"}
        }
        self.env |= {"ISTHMUS_DATA_DIR": str(data_dir), "PYTHONWARNINGS": "error", "COLUMNS": "100"}
        self._started: list[Process] = []

    def __call__(self, *args, prefix=(), **env):
        """Run a command to its end."""
        done = subprocess.run(
            [*prefix, *COMMAND, *args],
            env=self.env | env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=PATIENCE,
            check=False,
        )
        return Finished(done.returncode, done.stdout.decode(), done.stderr.decode())

    def on_terminal(self, *args, on_drawn=None, **env):
        """Run a command on a terminal to its end; return its exit code and all that it drew.

        `on_drawn(process, drawn)` is called with all that it has drawn, whenever there is more.
        """
        ours, theirs = pty.openpty()
        child = subprocess.Popen(
            [*COMMAND, *args], env=self.env | env, stdin=theirs, stdout=theirs, stderr=theirs
        )
        os.close(theirs)
        drawn = b""
        try:
            while select.select([ours], [], [], PATIENCE)[0]:
                try:
                    data = os.read(ours, 65536)
                except OSError:
                    data = b""  # Linux's way to say that the other side has gone
                if not data:
                    break
                drawn += data
                if on_drawn is not None:
                    on_drawn(child, drawn.decode(errors="replace"))
        finally:
            os.close(ours)
            child.kill()
            child.wait(PATIENCE)
        return child.returncode, drawn.decode()

    def start(self, *args, prefix=(), **env):
        """Start a command that goes on."""
        process = Process([*prefix, *COMMAND, *args], self.env | env)
        self._started.append(process)
        return process

    def close(self):
        for process in self._started:
            process.close()
