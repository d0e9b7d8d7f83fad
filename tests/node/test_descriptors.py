"""The limit of open files of a process: raised to what the connections may need, and no further."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytest.importorskip("resource")

ASK = """
import resource, sys
from isthmus import LimitsConfig
from isthmus.node.descriptors import make_room

soft, hard, connections = map(int, sys.argv[1:])
resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
print(make_room(LimitsConfig(connections=connections)))
print(*resource.getrlimit(resource.RLIMIT_NOFILE))
"""


def asked(*limits):
    """Return what is said, and the limits then, in a process that begins with some."""
    command = [sys.executable, "-c", ASK, *map(str, limits)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=15)
    said, limits = done.stdout.splitlines()
    return said, tuple(map(int, limits.split()))


@pytest.mark.parametrize(
    ("soft", "hard", "connections", "then"),
    [
        # The table, those that leave, handshakes under way, and what else there is.
        (256, 4096, 512, 512 + 64 + 64 + 128),
        (256, 2442, 2000, 2000 + 250 + 64 + 128),
        (1024, 4096, 512, 1024),
        (4096, 4096, 2000, 4096),
    ],
)
def test_it_is_raised_to_what_is_needed(soft, hard, connections, then):
    assert asked(soft, hard, connections) == ("None", (then, hard))


def test_where_the_system_allows_less_a_person_is_told_what_to_do():
    said, then = asked(256, 1000, 5000)
    assert then == (1000, 1000)
    assert said == (
        "the system allows this process 1000 open files, and limits.connections 5000 may need 5817:"
        " allow more (ulimit -n 5817, or LimitNOFILE=5817 for systemd), or lower limits.connections"
    )
