"""What README.md shows and what examples/ holds works as written, on both backends."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.usefixtures("untraced")

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text("utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
EXAMPLES = {file.name: file.read_text("utf-8") for file in sorted(ROOT.glob("examples/*.py"))}
PROGRAMS = {f"README {number}": text for number, text in enumerate(BLOCKS, 1)} | EXAMPLES

# `run` takes the backend as an argument; here a program that names none gets the one under test.
START = """
import functools, runpy, sys, isthmus
isthmus.run = functools.partial(isthmus.run, backend=sys.argv[2])
runpy.run_path(sys.argv[1], run_name="__main__")
"""


def backends(text: str) -> list[str]:
    """Return the backends that a program can run on: the one that it starts itself, or both."""
    own = [name for name in ("asyncio", "trio") if f"{name}.run(" in text]
    return own or ["asyncio", "trio"]


CASES = [(name, backend) for name, text in PROGRAMS.items() for backend in backends(text)]


@pytest.mark.parametrize(("name", "backend"), CASES)
def test_program(name, backend, tmp_path):
    file = tmp_path / "program.py"
    file.write_text(PROGRAMS[name], "utf-8")
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", START, str(file), backend],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=15,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert list(tmp_path.iterdir()) == [file], "embedding is silent: it leaves no file"
    for expected in re.findall(r"# prints (.*)", PROGRAMS[name]):
        assert expected in done.stdout


def test_the_readme_shows_the_echo_example():
    assert BLOCKS
    assert BLOCKS[0] == EXAMPLES["echo.py"]


def test_the_echo_is_short():
    lines = [line for line in EXAMPLES["echo.py"].splitlines() if line.strip()]
    assert len(lines) == 8
