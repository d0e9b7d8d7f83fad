"""What the tests of the command line share: the program, a peer, and machines that lack things."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from .processes import LOOPBACK, Process, Program

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def isthmus(tmp_path) -> Iterator[Program]:
    program = Program(tmp_path / "data")
    yield program
    program.close()


@pytest.fixture(scope="module")
def peer(tmp_path_factory) -> Iterator[str]:
    """The address of a node on loopback that serves all it can."""
    program = Program(tmp_path_factory.mktemp("peer"))
    yield program.start("run", "--listen", LOOPBACK, "--json").address()
    program.close()


@pytest.fixture(scope="module")
def dht() -> Iterator[str]:
    """The address of a server of the DHT on loopback."""
    program = Path(__file__).parents[1] / "sim" / "kad_program.py"
    process = Process([sys.executable, str(program)], dict(os.environ))
    yield process.line("/p2p/")
    process.close()


@pytest.fixture
def offline():
    """Put before a command, what runs it where there is no network but IPv4 on loopback."""
    script = 'echo 1 > /proc/sys/net/ipv6/conf/all/disable_ipv6 && ip link set lo up && exec "$@"'
    prefix = ("unshare", "--user", "--map-root-user", "--net", "sh", "-c", script, "sh")
    try:
        works = subprocess.run([*prefix, "true"], capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        works = False
    if not works:
        pytest.skip("needs unshare(1), ip(8) and user namespaces")
    return prefix
