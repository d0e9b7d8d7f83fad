"""The settings of a node: one frozen value per layer, checked where it is made."""

from __future__ import annotations

from dataclasses import dataclass, field, fields

from ..transports.core.errors import ConfigError
from ..transports.lan.config import LanConfig
from ..transports.upgrade_config import UpgradeConfig
from ..transports.websocket.config import WebSocketConfig
from .privacy import PrivacyConfig
from .reconnect import ReconnectPolicy


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitsConfig:
    """How much of this machine peers may take; an error that names a limit names its field."""

    connections: int = 512
    """Connections at most, in both directions; one costs some ten KiB and a file descriptor."""

    outbound_share: float = 0.25
    """The part of `connections` that inbound ones never take, so that this node can still dial."""

    connections_per_peer: int = 4
    """Inbound connections of one peer; one per kind of path is all that is of use."""

    waiting_dials: int = 256
    """Dials under way at one time; each holds a socket and a handshake."""

    def __post_init__(self) -> None:
        for name in ("connections", "connections_per_peer", "waiting_dials"):
            if getattr(self, name) < 1:
                raise ConfigError(f"limits.{name} must be at least 1")
        if not 0 <= self.outbound_share < 1:
            raise ConfigError("limits.outbound_share must be at least 0 and below 1")

    @property
    def inbound_connections(self) -> int:
        """Connections that peers may open."""
        return max(1, self.connections - int(self.connections * self.outbound_share))


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeConfig:
    """The settings of a node; times are in seconds."""

    limits: LimitsConfig = field(default_factory=LimitsConfig)
    """How much of this machine peers may take."""

    reconnect: ReconnectPolicy = field(default_factory=ReconnectPolicy)
    """How peers that were lost are dialled again."""

    lan: LanConfig = field(default_factory=LanConfig)
    """How the LAN is used, by nodes that use it."""

    websocket: WebSocketConfig = field(default_factory=WebSocketConfig)
    """For the WebSocket transport, unless the node is given one as an object."""

    upgrade: UpgradeConfig = field(default_factory=UpgradeConfig)
    """For raw transports, which get Noise and Yamux on top."""

    privacy: PrivacyConfig = field(default_factory=PrivacyConfig)
    """What the node tells of itself."""

    dial_found: bool = False
    """Connect to every peer that the LAN shows."""

    dial_timeout: float = 10.0
    """For one address, from the first packet to the muxer; go, js and rust allow as much."""

    negotiation_timeout: float = 10.0
    """For a stream to agree on its protocol, either way; what go and js allow."""

    stop_timeout: float = 1.8
    """For what waits to be flushed when the node stops, all connections together."""

    serve_perf: bool | None = None
    """Serve /perf/1.0.0, which lets any peer make this node send as much as it asks for. None
    means no; `isthmus run` serves it then if every address listened on is a loopback one."""

    raise_handler_errors: bool = False
    """Raise the first exception of a stream handler when the node is left; for tests."""

    def __post_init__(self) -> None:
        for item in fields(self):
            if item.name.endswith("_timeout") and not getattr(self, item.name) > 0:
                raise ConfigError(f"{item.name} must be above 0 seconds")
