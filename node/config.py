"""The settings of a node: one frozen value per layer, checked where it is made."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace

from ..relay.autonat.config import AutonatConfig
from ..relay.circuit.client_config import RelaysConfig
from ..relay.circuit.limits import RelayServerConfig
from ..relay.dcutr.config import DcutrConfig
from ..relay.kad.config import KadConfig
from ..transports.core.errors import ConfigError
from ..transports.lan.config import LanConfig
from ..transports.upgrade_config import UpgradeConfig
from ..transports.websocket.config import WebSocketConfig
from .privacy import PrivacyConfig
from .reconnect import ReconnectPolicy


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitsConfig:
    """How much of this machine peers may take; an error that names a limit names its field.

    Times are in seconds. None of the limits makes an exception for an address, also not for
    loopback: a proxy or a forwarded port brings strangers from there.
    """

    connections: int = 512
    """Connections at most, in both directions; one costs some forty KiB and an open
    file, and `isthmus run` has the system allow as many files, as far as it may."""

    outbound_share: float = 0.25
    """The part of `connections` that strangers who connect never take: it is for what this node
    dials, and for peers that its user knows."""

    connections_per_peer: int = 4
    """Inbound connections of one peer; one per kind of path is all that is of use."""

    connections_per_prefix: int = 16
    """Inbound connections of strangers from one IPv4 address or IPv6 /56, and as many more under
    way: an office or a household behind one address, and a fraction of what there is."""

    pending_inbound: int = 64
    """Connections whose handshake is under way, over all listeners; each may take ten seconds."""

    connection_burst: int = 64
    """Inbound connections that one prefix may open at once: four times what may stand, so that
    all behind one address can come back together, also after a failure or two."""

    connection_rate: float = 8.0
    """Inbound connections a second that one prefix may open after such a burst: a handshake costs
    half a millisecond, so that one prefix takes half a percent of a core."""

    inbound_streams_unknown: int = 128
    """Streams that one stranger may have open; HTTP/2 asks servers for at least 100 (RFC 9113)."""

    inbound_streams: int = 1000
    """Streams that any other peer may have open, and at most on one connection; js allows as
    many, rust fewer."""

    waiting_dials: int = 256
    """Dials that wait for a place while the table is full, the urgent first."""

    dial_wait: float = 30.0
    """How long each waits: as long as a person would; 0 fails it at once."""

    minimum_age: float = 60.0
    """Before a connection may have to make room: long enough to be of some use to both sides."""

    eviction_pause: float = 600.0
    """For which a stranger that had to make room is turned away: it was of least use, and would
    only push out the next one."""

    idle_timeout: float = 600.0
    """After which a connection without streams ends, unless its peer is wanted; dialling again
    costs less than keeping it. Infinite: never."""

    def __post_init__(self) -> None:
        for item in fields(self):
            least = _LEAST.get(item.name, 1)
            if not getattr(self, item.name) >= least:
                raise ConfigError(f"limits.{item.name} must be at least {least:g}")
        if self.outbound_share >= 1:
            raise ConfigError("limits.outbound_share must be below 1")

    @property
    def inbound_connections(self) -> int:
        """Connections that strangers may open."""
        return max(1, self.connections - int(self.connections * self.outbound_share))


_LEAST = {
    "outbound_share": 0,
    "connection_rate": 0.001,
    "dial_wait": 0,
    "minimum_age": 0,
    "eviction_pause": 0,
    "idle_timeout": 1,
}
"""The least value of each limit that may be below 1, or that is no count."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeConfig:
    """The settings of a node; times are in seconds."""

    limits: LimitsConfig = field(default_factory=LimitsConfig)
    """How much of this machine peers may take."""

    reconnect: ReconnectPolicy = field(default_factory=ReconnectPolicy)
    """How peers that were lost are dialled again."""

    lan: LanConfig = field(default_factory=LanConfig)
    """How the LAN is used, by nodes that use it."""

    dht: KadConfig = field(default_factory=KadConfig)
    """The DHT that services are found by, and offered on."""

    websocket: WebSocketConfig = field(default_factory=WebSocketConfig)
    """For the WebSocket transport, unless the node is given one as an object."""

    upgrade: UpgradeConfig = field(default_factory=UpgradeConfig)
    """For raw transports, which get Noise and Yamux on top."""

    relays: RelaysConfig = field(default_factory=RelaysConfig)
    """By which relays the node can be reached."""

    privacy: PrivacyConfig = field(default_factory=PrivacyConfig)
    """What the node tells of itself."""

    autonat: AutonatConfig = field(default_factory=AutonatConfig)
    """Whether and how it is found out at which addresses the node can be reached."""

    dcutr: DcutrConfig = field(default_factory=DcutrConfig)
    """How relayed connections become direct ones."""
    relay_server: RelayServerConfig = field(default_factory=RelayServerConfig)
    """How this node relays for others."""

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


SPARE_STREAMS = 256
"""Streams beyond a peer's limit that the muxer lets in: as many as it lets wait, for the router to
refuse, and such as have been served and that the peer has not ended."""


def upgrade_config(upgrade: UpgradeConfig, limits: LimitsConfig) -> UpgradeConfig:
    """Return the settings of the upgrade as the table of limits wants them."""
    # The router refuses first, since it knows the peer and tells of it; this is the second line.
    most = max(limits.inbound_streams, limits.inbound_streams_unknown) + SPARE_STREAMS
    yamux = replace(upgrade.yamux, max_inbound_streams=most)
    return replace(upgrade, max_pending_inbound=limits.pending_inbound, yamux=yamux)
