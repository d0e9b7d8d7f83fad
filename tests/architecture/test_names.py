"""What the layout promises: pure machines, doors, docstrings, lazy imports."""

from __future__ import annotations

import ast
import importlib
import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

SANS_IO = re.compile(
    r"(^|/)(machine|wire)\.py$|^transports/(scheduler|inflight)\.py$"
    r"|^node/doctor/(diagnosis|facts|findings|helpers|reaching|words)\.py$"
    r"|^node/(inbound_streams|limits|prefixes|refusals|selection|api/routing)\.py$"
    r"|^relay/autonat/(limits|observed|reachability)\.py$"
    r"|^relay/circuit/(addresses|selection|supervisor)\.py$"
    r"|^relay/kad/table\.py$"
    r"|^transports/yamux/(flow|guard|table|keepalive|events|config|buffer)\.py$"
)
"""Plain objects that are told the time, keys and nonces; import-linter checks what they import."""
DOORS = ("node/top/__init__.py", "node/__init__.py", "transports/__init__.py", "relay/__init__.py")
"""The only places besides transports/core/ that say what is public."""
FOREIGN = "benchmarks/peers/py/"
"""Programs that run in py-libp2p's environment and never import isthmus."""
ABSTRACT = {"ABC", "AsyncResource", "ByteStream", "ObjectStream", "Protocol"}
"""The bases of the classes whose documented methods are a promise that others implement."""


def test_machines_are_synchronous(code):
    found = [
        f"{source.path}:{node.lineno}"
        for source in code
        if SANS_IO.search(source.path)
        for node in ast.walk(source.tree)
        if isinstance(node, ast.AsyncFunctionDef | ast.Await | ast.AsyncFor | ast.AsyncWith)
    ]
    assert found == []


def test_doors(code):
    with_all = {source.path for source in code if names_of_all(source.tree) is not None}
    core = {source.path for source in code if source.path.startswith("transports/core/")}
    assert with_all <= core | set(DOORS)
    assert core - {"transports/core/__init__.py"} <= with_all, "a module of core without __all__"


def test_every_name_of_all_exists(code):
    for source in code:
        names = names_of_all(source.tree)
        if names is None:
            continue
        module = importlib.import_module(module_of(source.path))
        assert [name for name in names if not hasattr(module, name)] == [], source.path


def test_docstrings(code):
    own = [source for source in code if not source.path.startswith(FOREIGN)]
    promised = {name for source in own for name in interface_methods(source.tree)} | anyio_methods()
    bare = [
        f"{source.path}:{line} {name}"
        for source in own
        for line, name in undocumented(source.tree, promised)
    ]
    assert bare == []


def test_future_annotations(everything):
    late = []
    # An example is as short as a reader would write it.
    for source in (source for source in everything if not source.path.startswith("examples/")):
        body = source.tree.body
        rest = body[1:] if ast.get_docstring(source.tree) is not None else body
        if rest and not (isinstance(rest[0], ast.ImportFrom) and rest[0].module == "__future__"):
            late.append(source.path)
    assert late == []


def test_relative_inside_absolute_outside(code):
    # node/top/ installs as `isthmus` itself, so its folder's neighbours are not its package's.
    own = [source for source in code if not source.path.startswith((FOREIGN, "node/top/"))]
    absolute = [
        f"{source.path}:{node.lineno}"
        for source in own
        # A program that is started by its path has no package.
        if Path(source.path).name not in {"isthmus_peer.py", "isthmus_bench.py"}
        for node in ast.walk(source.tree)
        if isinstance(node, ast.ImportFrom) and not node.level
        if (node.module or "").partition(".")[0] == "isthmus"
    ]
    assert absolute == []


def names_of_all(tree: ast.Module) -> list[str] | None:
    for node in tree.body:
        if isinstance(node, ast.Assign) and [ast.unparse(one) for one in node.targets] == [
            "__all__"
        ]:
            return list(ast.literal_eval(node.value))
    return None


def module_of(path: str) -> str:
    inside = path.removeprefix("node/top/") if path.startswith("node/top/") else path
    return ".".join(["isthmus", *Path(inside).with_suffix("").parts]).removesuffix(".__init__")


def interface_methods(tree: ast.Module) -> Iterator[str]:
    """Yield the documented methods of abstract classes: whoever implements them inherits it."""
    for kind in ast.walk(tree):
        if isinstance(kind, ast.ClassDef) and ABSTRACT & {base_name(base) for base in kind.bases}:
            for method in kind.body:
                is_method = isinstance(method, ast.FunctionDef | ast.AsyncFunctionDef)
                if is_method and ast.get_docstring(method):
                    yield method.name


def base_name(base: ast.expr) -> str:
    return ast.unparse(base.value if isinstance(base, ast.Subscript) else base).rpartition(".")[2]


def anyio_methods() -> set[str]:
    import anyio.abc

    kinds = (anyio.abc.ByteStream, anyio.abc.ObjectStream, anyio.abc.Listener)
    return {name for kind in kinds for name in dir(kind) if not name.startswith("_")}


def undocumented(tree: ast.Module, promised: set[str]) -> Iterator[tuple[int, str]]:
    if ast.get_docstring(tree) is None and tree.body:
        yield 1, "(the module)"
    for found in tree.body:
        if isinstance(found, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield from undocumented_in(found, promised)


def undocumented_in(
    node: ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef, promised: set[str]
) -> Iterator[tuple[int, str]]:
    if node.name.startswith("_"):
        return
    decorators = {ast.unparse(one).rpartition(".")[2] for one in node.decorator_list}
    excused = decorators & {"setter", "overload"} or node.name in promised
    if ast.get_docstring(node) is None and not excused:
        yield node.lineno, node.name
    if isinstance(node, ast.ClassDef):
        for inner in node.body:
            if isinstance(inner, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                yield from undocumented_in(inner, promised)
