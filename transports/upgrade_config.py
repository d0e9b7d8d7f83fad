"""The settings of the way from a byte stream to a connection, without what it takes to go it."""

from __future__ import annotations

from dataclasses import dataclass, field

from .core.errors import ConfigError
from .yamux.config import YamuxConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class UpgradeConfig:
    """Bounds of the way from a byte stream to a connection."""

    dial_timeout: float = 10.0
    """Seconds for connecting, and again for the upgrade; js and rust give up after 10."""

    inbound_timeout: float = 10.0
    """Seconds that a peer which connects to us has for its upgrade (slow loris)."""

    max_pending_inbound: int = 64
    """Upgrades of connections that come in, under way at once; more are closed unanswered."""

    yamux: YamuxConfig = field(default_factory=YamuxConfig)
    """Bounds of the muxer."""

    receive_budget: int = 512 * 2**20
    """Bytes that all connections of the node together hold unread."""

    def __post_init__(self) -> None:
        if min(self.dial_timeout, self.inbound_timeout) <= 0:
            raise ConfigError("upgrade.dial_timeout and inbound_timeout must be positive")
        if self.max_pending_inbound < 1:
            raise ConfigError("upgrade.max_pending_inbound must be at least 1")
