"""Whoever catches everything says so on the line, and there are few places that may."""

from __future__ import annotations

import ast
import re

GUARDED = re.compile(r"#\s*noqa(?!:)|#\s*noqa:[^#]*\b(BLE\d*|E722|S110|S112|SIM105)\b")
BOUNDARY = "# boundary"
PLACES = {
    "node/router.py": 1,  # a handler of the user: its stream is reset
    "node/cli/plugins.py": 1,  # a command of another package: why it does not load is told
    "node/swarm.py": 1,  # one dial attempt among several: it becomes part of the report
    "node/api/driver.py": 1,  # a control request: it becomes the answer
    "transports/yamux/nested.py": 1,  # the connection above: raised where that one reads
    "transports/portal.py": 1,  # callbacks of asyncio-only libraries
    "benchmarks/peers/py/peer.py": 1,  # py-libp2p's program: a command, which becomes the answer
    "benchmarks/peers/py/protocols.py": 1,  # py-libp2p's program: one stream among several
}
"""How many places of each file may catch everything, and on whose behalf."""


def test_only_boundaries_silence_the_rules(everything):
    silenced = [
        f"{source.path}:{number} {line.strip()}"
        for source in everything
        for number, line in enumerate(source.lines, 1)
        if GUARDED.search(line) and BOUNDARY not in line and not line.strip().startswith("GUARDED")
    ]
    assert silenced == []


def test_places(code):
    found: dict[str, int] = {}
    for source in code:
        for handler in ast.walk(source.tree):
            if isinstance(handler, ast.ExceptHandler) and swallows(handler):
                found[source.path] = found.get(source.path, 0) + 1
                assert BOUNDARY in source.lines[handler.lineno - 1], (
                    f"{source.path}:{handler.lineno} catches everything and is not marked"
                )
    assert {path: count for path, count in found.items() if count > PLACES.get(path, 0)} == {}


def swallows(handler: ast.ExceptHandler) -> bool:
    """Say whether the handler catches every exception and does not raise it again as it was."""
    caught = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
    broad = {"Exception", "BaseException"}
    if not any(one is None or (isinstance(one, ast.Name) and one.id in broad) for one in caught):
        return False
    last = handler.body[-1]
    return not (isinstance(last, ast.Raise) and last.exc is None)
