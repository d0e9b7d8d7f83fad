"""Tests wait for conditions, not for time, and meet real objects, not mocks."""

from __future__ import annotations

import ast

MOCKS = {"Mock", "MagicMock", "AsyncMock", "mock", "mocker", "patch"}
WAITING = ("tests/lab/",)
"""Where real networks are waited for, through `lab.wait` and `lab.until` only. Elsewhere a test
sleeps only by a virtual clock (trio's MockClock), which takes no time."""


def test_no_sleeps(tests):
    found = [
        f"{source.path}:{call.lineno} {ast.unparse(call)}"
        for source in tests
        if not source.path.startswith(WAITING) and "MockClock" not in source.text
        for call in calls(source.tree, "sleep")
        if [ast.unparse(argument) for argument in call.args] != ["0"]
    ]
    assert found == []


def test_no_mocks(tests):
    found = []
    for source in tests:
        for node in ast.walk(source.tree):
            if isinstance(node, ast.ImportFrom | ast.Import):
                names = {part for alias in node.names for part in alias.name.split(".")}
                names |= set((getattr(node, "module", None) or "").split("."))
                if names & MOCKS:
                    found.append(f"{source.path}:{node.lineno}")
        found += [
            f"{source.path}:{call.lineno}"
            for call in calls(source.tree, "setattr")
            if isinstance(call.func, ast.Attribute) and "monkeypatch" in ast.unparse(call.func)
        ]
    assert found == []


def calls(tree: ast.Module, name: str) -> list[ast.Call]:
    """Return the calls of a function or method of that name."""
    return [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] == name
    ]
