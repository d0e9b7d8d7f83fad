"""Yamux's settings."""

from __future__ import annotations

from dataclasses import dataclass

from ..core.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class YamuxConfig:
    """Bounds of one session; raises ConfigError where they contradict each other."""

    max_inbound_streams: int = 1000
    """Streams of the peer's making open at once; what exceeds them is reset. go allows more only
    by its resource manager, js and rust less."""

    accept_backlog: int = 256
    """Streams of the peer's making that wait to be accepted; go's and rust's number."""

    max_unacknowledged: int = 256
    """Streams of our making that the peer has not acknowledged; beyond it rust drops them."""

    receive_budget: int = 32 * 2**20
    """Bytes of a connection that wait unread beyond every stream's first 256 KiB."""

    keepalive_interval: float = 30.0
    """Seconds of silence after which the peer is asked for a sign of life."""

    keepalive_timeout: float = 10.0
    """Seconds it has to give one; go's number."""

    def __post_init__(self) -> None:
        for name in ("max_inbound_streams", "accept_backlog", "max_unacknowledged"):
            if getattr(self, name) < 1:
                raise ConfigError(f"yamux.{name} must be at least 1")
        if self.receive_budget < 0:
            raise ConfigError("yamux.receive_budget cannot be negative")
        if min(self.keepalive_interval, self.keepalive_timeout) <= 0:
            raise ConfigError("yamux.keepalive_interval and keepalive_timeout must be positive")
