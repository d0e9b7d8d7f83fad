"""Importing isthmus is quick and brings nothing heavy along."""

from __future__ import annotations

import os
import subprocess
import sys
from time import perf_counter

import isthmus.node.node
import pytest

MAX_IMPORT = 0.25
"""Seconds over a bare interpreter."""
RUNS = 5
HEAVY = (
    *("aiortc", "av", "click", "h11", "matplotlib", "rich", "sqlite3", "trio", "websockets"),
    "zeroconf",
)
"""What a node loads only when it is used."""


STATEMENTS = (
    "import isthmus",
    "import isthmus.node",
    "from isthmus import Node, run",
    "from isthmus.node import Node",
)
"""Names come when they are asked for, so that an import without any says little."""


@pytest.mark.parametrize("statement", STATEMENTS)
def test_import_time(statement):
    over = min(seconds(statement) for _ in range(RUNS)) - min(seconds("pass") for _ in range(RUNS))
    assert over < MAX_IMPORT


@pytest.mark.slow
@pytest.mark.parametrize("statement", STATEMENTS)
def test_import_time_by_the_clock(statement):
    def waited(program: str) -> float:
        start = perf_counter()
        python(program)
        return perf_counter() - start

    over = min(waited(statement) for _ in range(RUNS)) - min(waited("pass") for _ in range(RUNS))
    assert over < MAX_IMPORT


@pytest.mark.parametrize("statement", STATEMENTS)
def test_nothing_heavy(statement):
    program = f"import sys; {statement}; print(*sorted(sys.modules.keys() & set({HEAVY!r})))"
    assert python(program).split() == []


@pytest.mark.parametrize("package", [isthmus, isthmus.node], ids=["isthmus", "isthmus.node"])
def test_each_public_name_is_there(package):
    assert set(package.__all__) <= set(dir(package))
    assert all(getattr(package, name) for name in package.__all__)
    assert package.Node is isthmus.node.node.Node
    with pytest.raises(AttributeError, match="nothing_of_this_name"):
        _ = package.nothing_of_this_name


def test_a_node_loads_no_websocket_library_before_it_is_used():
    program = "import sys, isthmus; isthmus.Node(); print('websockets' in sys.modules)"
    assert python(program).split() == ["False"]


def test_top_is_lazy():
    program = "import sys, isthmus; print(*(m for m in sys.modules if m.startswith('isthmus.')))"
    assert python(program).split() == []


def seconds(statement: str) -> float:
    """Return the processor time of a run, which other tests beside this one do not lengthen."""
    before = os.times()
    python(statement)
    after = os.times()
    return sum(after[2:4]) - sum(before[2:4])


def python(program: str) -> str:
    # A measuring of the coverage would measure itself.
    environment = {name: text for name, text in os.environ.items() if "COV" not in name}
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=15,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
