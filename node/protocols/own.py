"""The protocols that every node serves."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...transports.core.interfaces import Priority
from ..router import Registration
from .identify import ID_PROTOCOL, PUSH_PROTOCOL
from .ping import MAX_INBOUND_PINGS, PING_PROTOCOL, serve_ping

if TYPE_CHECKING:
    from .identify_service import Identify


def own_protocols(identify: Identify) -> dict[str, Registration]:
    """Return how identify and ping are served: on every path, and as upkeep of a connection."""
    return {
        ID_PROTOCOL: Registration(identify.serve, allow_limited=True, is_upkeep=True),
        PUSH_PROTOCOL: Registration(identify.serve_push, allow_limited=True, is_upkeep=True),
        PING_PROTOCOL: Registration(
            serve_ping,
            Priority.HIGH,
            allow_limited=True,
            max_streams=MAX_INBOUND_PINGS,
            is_upkeep=True,
        ),
    }
