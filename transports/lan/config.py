"""The settings of the LAN, without what it takes to use it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ..core.errors import ConfigError

Announce = Literal["private", "trusted", "never"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LanConfig:
    """Where a node looks for peers by mDNS, and whether it shows itself there."""

    announce: Announce = "private"
    """On broadcast interfaces with private addresses; only on those that `trusted` names; never."""

    trusted: tuple[str, ...] = ()
    """Interfaces, by name, to be used whatever their addresses are."""

    peers_per_minute: int = 60
    """New peers a minute that are taken note of; a LAN party has that many, a flood has more."""

    max_peers: int = 256
    """Peers remembered, with six addresses each: a full /24 network."""

    def __post_init__(self) -> None:
        if self.announce not in ("private", "trusted", "never"):
            raise ConfigError(f"lan.announce is private, trusted or never, not {self.announce!r}")
        if self.peers_per_minute < 1 or self.max_peers < 1:
            raise ConfigError("lan.peers_per_minute and lan.max_peers must be at least 1")
