"""Files, functions and nesting stay small: who needs more has two of them."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_FILE = 600
MAX_FUNCTION = 60
MAX_NESTING = 4

Function = ast.FunctionDef | ast.AsyncFunctionDef
BLOCKS = (
    ast.If | ast.For | ast.AsyncFor | ast.While | ast.With | ast.AsyncWith | ast.Try | ast.Match
)


def test_files(everything):
    sizes = {source.path: len(source.lines) for source in everything}
    assert {path: size for path, size in sizes.items() if size > MAX_FILE} == {}


def test_functions(code):
    long = {
        f"{source.path}:{function.lineno} {function.name}": length
        for source in code
        for function in functions(source.tree)
        if (length := function.end_lineno - function.lineno + 1) > MAX_FUNCTION
    }
    assert long == {}


def test_nesting(code):
    deep = {
        f"{source.path}:{function.lineno} {function.name}": depth
        for source in code
        for function in functions(source.tree)
        if (depth := nesting(function)) > MAX_NESTING
    }
    assert deep == {}


def test_nesting_is_measured():
    elif_chain = "def f():\n if a: pass\n elif b: pass\n elif c: pass\n else:\n  pass"
    assert nesting(ast.parse(elif_chain).body[0]) == 1
    nested = "def f():\n for a in b:\n  with c:\n   try: pass\n   except E:\n    if d: pass"
    assert nesting(ast.parse(nested).body[0]) == 4


def functions(tree: ast.AST) -> Iterator[Function]:
    return (found for found in ast.walk(tree) if isinstance(found, Function))


def nesting(node: ast.AST) -> int:
    """Return how many blocks lie inside each other below `node`; an `elif` is not deeper."""
    deepest = 0
    for child in ast.iter_child_nodes(node):
        if isinstance(child, Function | ast.ClassDef):
            continue  # measured by itself
        below = nesting(child)
        if isinstance(child, BLOCKS):
            below += not (isinstance(node, ast.If) and node.orelse == [child])
        deepest = max(deepest, below)
    return deepest
