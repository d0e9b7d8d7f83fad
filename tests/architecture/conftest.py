"""The source tree as the architecture tests see it."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CODE = ("benchmarks", "node", "relay", "transports")
"""The folders that are installed."""


@dataclass(frozen=True)
class Source:
    """One Python file: its path below the root, its text and its syntax tree."""

    path: str
    text: str

    @cached_property
    def lines(self) -> list[str]:
        return self.text.splitlines()

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text, self.path)


def _sources(*folders: str) -> list[Source]:
    files = [file for folder in folders for file in (ROOT / folder).rglob("*.py")]
    kept = [file for file in sorted(files) if not {"node_modules", ".venv"} & set(file.parts)]
    return [_source(file) for file in kept]


@cache  # a file is of several of the fixtures, and is parsed once
def _source(file: Path) -> Source:
    return Source(file.relative_to(ROOT).as_posix(), file.read_text("utf-8"))


@pytest.fixture(scope="session")
def root() -> Path:
    """The root of the repository."""
    return ROOT


@pytest.fixture(scope="session")
def code() -> list[Source]:
    """Every file that is installed, also the programs that run foreign peers."""
    return _sources(*CODE)


@pytest.fixture(scope="session")
def tests() -> list[Source]:
    """Every file below tests/."""
    return _sources("tests")


@pytest.fixture(scope="session")
def everything() -> list[Source]:
    """Every Python file of the repository."""
    return _sources(*CODE, "tests", "examples", ".ci")
