"""What a user holds: the node, its protocols and its commands."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .config import LimitsConfig, NodeConfig
    from .node import Node

__all__ = ["LimitsConfig", "Node", "NodeConfig"]

_HOMES = {"LimitsConfig": "config", "Node": "node", "NodeConfig": "config"}


def __getattr__(name: str) -> object:
    """Load a public name when it is first asked for: modules of this package need but some."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value: object = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
