"""The settings of a node that is to be reached through relays."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ...transports.core.errors import ConfigError

if TYPE_CHECKING:
    from ...transports.core.multiaddr import Multiaddr

MAX_WANTED = 4
"""Relays at a time: each is a connection that stands, and a place less for others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RelaysConfig:
    """By which relays a node can be reached."""

    via: tuple[Multiaddr, ...] = ()
    """Addresses of relays that the user trusts with it, each with the relay's /p2p at its end;
    none is ever given up."""

    discover: bool = False
    """Use relays that are met by chance, too: where those named are not enough."""

    wanted: int = 2
    """Relays to be reached through at a time: with two, one may be lost without a gap."""

    def __post_init__(self) -> None:
        if not 1 <= self.wanted <= MAX_WANTED:
            raise ConfigError(f"relays.wanted must be from 1 to {MAX_WANTED}")
        for address in self.via:
            if address.peer_id is None or "p2p-circuit" in address.names:
                raise ConfigError(
                    f"relays.via: {address} does not end in the relay's id:"
                    " /ip4/192.0.2.7/tcp/4001/p2p/12D3KooW..."
                )
