"""The settings of AutoNAT."""

from __future__ import annotations

from dataclasses import dataclass

from ...transports.core.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class AutonatConfig:
    """How a node learns from others whether it can be reached, and helps them to learn it."""

    enabled: bool = True
    """Ask peers that serve AutoNAT v2 to dial this node's addresses, if it listens."""

    serve: bool = True
    """Dial addresses for peers that ask, within the limits of go; if this node listens on other
    addresses than loopback ones, and does not hide its own (privacy)."""

    confidence: int = 2
    """Servers in different networks that must agree on an address, more than disagree."""

    allow_private: bool = False
    """Ask for, and dial, addresses that are not public, too, down to loopback ones. For tests and
    networks of one's own: peers can then have this node knock at what only it can reach."""

    def __post_init__(self) -> None:
        if not 1 <= self.confidence <= 8:
            raise ConfigError("autonat.confidence is from 1 to 8")
