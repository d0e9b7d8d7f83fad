"""The settings of the DHT, without what it takes to use it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ...transports.core.errors import ConfigError

if TYPE_CHECKING:
    from ...transports.core.multiaddr import Multiaddr

MAX_SERVICES = 64
"""Services that one node offers: each costs some fifty requests every 22 hours."""

MAX_SERVICE_BYTES = 512
"""Bytes of a service's name, which only its hash leaves the machine of."""

MAX_BOOTSTRAP = 64
"""Addresses to begin with; a few are enough."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KadConfig:
    """Which DHT a node asks; without `bootstrap` it asks none. Times are in seconds."""

    bootstrap: tuple[Multiaddr, ...] = ()
    """Servers to begin with, each address ending in /p2p/ID; the DHT is not used without any."""

    protocol: str = "/ipfs/kad/1.0.0"
    """What its servers speak: this is the public one of IPFS, /ipfs/lan/kad/1.0.0 that of a LAN."""

    provide: tuple[str, ...] = ()
    """Services that others shall find this node by, announced while it runs."""

    parallel: int = 3
    """Requests of one lookup at a time, as in Kademlia's paper; go and js allow ten."""

    request_timeout: float = 10.0
    """For one peer, from the dial to its answer, as in go and js."""

    lookup_timeout: float = 60.0
    """For a whole lookup, as in rust; what has been found by then counts."""

    provide_interval: float = 79_200.0
    """Until a service is announced again: 22 hours, since servers forget it after 24 or 48."""

    def __post_init__(self) -> None:
        if any(each.peer_id is None for each in self.bootstrap):
            raise ConfigError("dht.bootstrap: each address must end in /p2p/ID")
        if len(self.bootstrap) > MAX_BOOTSTRAP:
            raise ConfigError(f"dht.bootstrap has at most {MAX_BOOTSTRAP} addresses")
        if not self.protocol.startswith("/"):
            raise ConfigError("dht.protocol must begin with /, as /ipfs/kad/1.0.0 does")
        if len(self.provide) > MAX_SERVICES:
            raise ConfigError(f"dht.provide has at most {MAX_SERVICES} services")
        for service in self.provide:
            check_service(service)
        if self.provide and not self.bootstrap:
            raise ConfigError("dht.provide needs dht.bootstrap: servers of a DHT to announce it at")
        if not 1 <= self.parallel <= 10:
            raise ConfigError("dht.parallel must be between 1 and 10")
        if not (self.request_timeout > 0 and self.lookup_timeout > 0):
            raise ConfigError("dht.request_timeout and dht.lookup_timeout must be above 0 seconds")
        if not self.provide_interval >= 60:
            raise ConfigError("dht.provide_interval must be at least 60 seconds")


def check_service(service: str) -> None:
    """Raise ConfigError for what cannot be a service's name."""
    size = len(service.encode("utf-8", "surrogatepass"))
    if not 0 < size <= MAX_SERVICE_BYTES or not service.isprintable():
        raise ConfigError(
            f"the name of a service has between 1 and {MAX_SERVICE_BYTES} bytes, all printable"
        )
