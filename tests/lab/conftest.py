"""The lab for tests: a fixture, the marker, and what happens where namespaces cannot be had."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

_HERE = Path(__file__).parent

if sys.platform == "linux":
    sys.path.insert(0, str(_HERE))
    import natlab
else:
    collect_ignore_glob = ["test_*.py"]


@pytest.hookimpl(tryfirst=True)  # before -m selects by markers
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if _HERE in item.path.parents:
            item.add_marker(pytest.mark.lab)


def pytest_collection_finish(session: pytest.Session) -> None:
    """Without root, move the whole run into namespaces where it is root, if lab tests will run."""
    wanted = any(_HERE in item.path.parents for item in session.items)
    wanted = wanted and not session.config.option.collectonly
    if wanted and os.geteuid() and natlab.can_become_root():
        try:
            natlab.become_root()
        except OSError as error:  # more than one thread; the tests say what is missing
            sys.stderr.write(f"not root: {error}; try python {_HERE} rootless pytest ...\n")


@pytest.fixture(scope="session")
def _namespaces() -> None:
    reason = natlab.missing()
    if reason is None:
        return
    message = f"the lab needs {reason}"
    if os.environ.get("CI") == "true":
        pytest.fail(message)
    pytest.skip(message)


@pytest.fixture
def lab(_namespaces: None) -> Iterator[natlab.Lab]:
    """An empty lab: the network `public` and its gateway; nothing of it outlives the test."""
    with natlab.Lab() as lab:
        yield lab


COMMAND = (sys.executable, "-m", "isthmus")


class Program:
    """A program of a host: what it wrote, line by line, and when it was started."""

    def __init__(self, lab, host, command, *, directory):
        environment = {**os.environ, "ISTHMUS_DATA_DIR": str(directory), "PYTHONWARNINGS": "error"}
        self.directory = directory
        self.lab = lab
        self.started = time.time()
        self._process = host.popen(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.lines, self.errors = [], []
        self._readers = [
            threading.Thread(target=self._read, args=(pipe, lines))
            for pipe, lines in (
                (self._process.stdout, self.lines),
                (self._process.stderr, self.errors),
            )
        ]
        for reader in self._readers:
            reader.start()

    @staticmethod
    def _read(pipe, lines):
        with pipe:
            for line in pipe:
                lines.append(line.rstrip())

    def events(self, name, **fields):
        found = [json.loads(line) for line in tuple(self.lines)]
        return [each for each in found if each["event"] == name and fields.items() <= each.items()]

    def event(self, name, timeout=10, **fields):
        what = f"{name} {fields}"
        self.lab.until(lambda: self.events(name, **fields), timeout=timeout, what=what)
        return self.events(name, **fields)[0]

    @property
    def peer_id(self):
        return self.event("listening")["peer_id"]

    def ask(self, command, *arguments):
        """Run a command that asks this node, from outside its host; return what it says."""
        done = subprocess.run(
            [*COMMAND, command, *arguments, "--json", "--data-dir", str(self.directory)],
            capture_output=True,
            text=True,
            timeout=15,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def send_signal(self, number):
        self._process.send_signal(number)

    def stop(self, sig=signal.SIGINT):
        self._process.send_signal(sig)
        code = self._process.wait(10)
        for reader in self._readers:
            reader.join(10)
        return code


@pytest.fixture
def start(lab, tmp_path):
    """Start a node, by default one without any option but the form of its output."""
    running = []

    def start(host, *arguments, command="run", json_lines=True, directory=None):
        more = ("--json",) if json_lines else ()
        return start_program(host, [*COMMAND, command, *arguments, *more], directory=directory)

    def start_program(host, command, *, directory=None):
        directory = directory or tmp_path / f"{host.name}-{len(running)}"
        program = Program(lab, host, command, directory=directory)
        running.append(program)
        return program

    start.program = start_program
    yield start
    for program in running:
        program._process.kill()
        program._process.wait(10)
        for reader in program._readers:
            reader.join(10)


@pytest.fixture
def home(lab):
    return lab.add_nat("home")


@pytest.fixture
def pair(lab, home):
    return lab.add_host("a", home), lab.add_host("b", home)
