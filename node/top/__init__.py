"""isthmus: a peer-to-peer networking node that speaks libp2p, on asyncio and trio.

This file and `__main__` are written so that an old Python can read them and say what is missing.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from isthmus.node.config import LimitsConfig, NodeConfig
    from isthmus.node.node import Node
    from isthmus.node.run import run
    from isthmus.transports.core.interfaces import Priority
    from isthmus.transports.core.keys import PrivateKey
    from isthmus.transports.core.multiaddr import Multiaddr
    from isthmus.transports.core.peer_id import PeerId

    __version__: str

__all__ = [
    "LimitsConfig",
    "Multiaddr",
    "Node",
    "NodeConfig",
    "PeerId",
    "Priority",
    "PrivateKey",
    "__version__",
    "run",
]

_OLDEST_PYTHON = (3, 11)


def _python_refusal(version: tuple[int, ...]) -> str | None:
    """Return why a version of Python will not do, in one sentence, or None if it will."""
    if tuple(version[:2]) >= _OLDEST_PYTHON:
        return None
    needed, found = (".".join(map(str, each[:3])) for each in (_OLDEST_PYTHON, version))
    return f"isthmus needs Python {needed} or newer, and this is Python {found}"


def _require_python(version: tuple[int, ...], program: str) -> None:
    """Raise ImportError if a version of Python will not do; end the program `-m isthmus`."""
    refusal = _python_refusal(version)
    if refusal is None:
        return
    # So Python calls a program while it is looking for the module that it was asked to run.
    if program == "-m":
        raise SystemExit(f"error: {refusal}")
    raise ImportError(refusal)


_require_python(sys.version_info[:3], sys.argv[0] if getattr(sys, "argv", None) else "")

_HOMES = {
    "LimitsConfig": "isthmus.node.config",
    "Multiaddr": "isthmus.transports.core.multiaddr",
    "Node": "isthmus.node.node",
    "NodeConfig": "isthmus.node.config",
    "PeerId": "isthmus.transports.core.peer_id",
    "Priority": "isthmus.transports.core.interfaces",
    "PrivateKey": "isthmus.transports.core.keys",
    "run": "isthmus.node.run",
}


def __getattr__(name: str) -> object:
    """Load a public name when it is first asked for, so that the import itself costs nothing."""
    if name == "__version__":
        from importlib.metadata import version

        value: object = version("isthmus")
    elif name in _HOMES:
        from importlib import import_module

        value = getattr(import_module(_HOMES[name]), name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
