"""isthmus: a peer-to-peer networking node that speaks libp2p, on asyncio and trio."""

from __future__ import annotations

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
