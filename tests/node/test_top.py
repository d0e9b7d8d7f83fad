"""`import isthmus`: its names, its cost, the way into a loop, and the example of the front page."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import anyio
import isthmus
import pytest
from isthmus import run

ECHO = Path(__file__).parents[2] / "examples" / "echo.py"
HEAVY = {"aiortc", "h11", "matplotlib", "rich", "trio", "zeroconf"}


def python(*args: str) -> str:
    return subprocess.run(
        [sys.executable, *args], capture_output=True, text=True, check=True
    ).stdout


def test_public_names_load_when_they_are_asked_for():
    for name in isthmus.__all__:
        assert getattr(isthmus, name) is not None
        assert name in dir(isthmus)
    assert isthmus.__version__ == version("isthmus")
    with pytest.raises(AttributeError, match="nothing"):
        _ = isthmus.nothing


def test_the_import_is_light():
    loaded = python("-c", "import isthmus, sys; print(*sys.modules)").split()
    assert not {"anyio", "asyncio"} & set(loaded)
    script = "import sys, isthmus.node.node, isthmus.node.run; print(*sys.modules)"
    assert not HEAVY & set(python("-c", script).split())


@pytest.mark.slow
def test_the_import_is_fast():
    timed = (
        "import time; start = time.perf_counter();"
        "import isthmus.node.node; print(time.perf_counter() - start)"
    )
    assert min(float(python("-c", timed)) for _ in range(5)) < 0.25


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_the_echo_example_runs(backend):
    source = ECHO.read_text()
    assert source.endswith("\n\n\nrun(main)\n")
    assert len([line for line in source.splitlines() if line.strip()]) == 8
    script = source.replace("run(main)", f"run(main, backend={backend!r})")
    assert python("-c", script) == "b'hello'\n"


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_run_returns_and_raises_what_the_main_function_does(backend):
    async def main(fails: bool) -> str:
        async with anyio.create_task_group():
            if fails:
                raise KeyError("mine")
        return "done"

    assert run(main, False, backend=backend) == "done"
    with pytest.raises(KeyError, match="mine"):
        run(main, True, backend=backend)


def test_run_uses_uvloop_where_it_exists():
    uvloop = pytest.importorskip("uvloop")

    async def main() -> bool:
        import asyncio

        return isinstance(asyncio.get_running_loop(), uvloop.Loop)

    assert run(main)
