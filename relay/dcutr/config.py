"""The settings of DCUtR."""

from __future__ import annotations

from dataclasses import dataclass

from ...transports.core.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class DcutrConfig:
    """How relayed connections are turned into direct ones."""

    enabled: bool = True
    """Try it on each relayed connection, and help peers that try; if this node listens on TCP."""

    attempt_timeout: float = 5.0
    """Seconds for one of three attempts, as js: a way that opens does so in some round trips."""

    allow_private: bool = False
    """Tell, and dial, addresses that are not public, too, down to loopback ones. For tests and
    networks of one's own: peers can then have this node knock at what only it can reach."""

    def __post_init__(self) -> None:
        if not 0 < self.attempt_timeout <= 60:
            raise ConfigError("dcutr.attempt_timeout is above 0 and at most 60 seconds")
