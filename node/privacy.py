"""Which of its own addresses a node tells to others; pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from ..transports.core.addresses import AddressClass, classify, classify_ip
from ..transports.core.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ..transports.core.multiaddr import Multiaddr

Told = Literal["all", "public", "relay-only"]

_OPEN = (AddressClass.PUBLIC, AddressClass.DNS)
"""A name is no interface's: it is told only where a person has chosen it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PrivacyConfig:
    """What a node tells of itself."""

    addresses: Told = "all"
    """Own addresses that are told by identify, signed records, the LAN and the DHT: all, public
    ones and those behind public relays, or none but those behind relays. Events show all."""

    def __post_init__(self) -> None:
        if self.addresses not in ("all", "public", "relay-only"):
            raise ConfigError(
                f"privacy.addresses is all, public or relay-only, not {self.addresses!r}"
            )


def told(addresses: Iterable[Multiaddr], policy: Told) -> tuple[Multiaddr, ...]:
    """Return the addresses that peers may learn."""
    return tuple(address for address in addresses if _may_be_told(address, policy))


def _may_be_told(address: Multiaddr, policy: Told) -> bool:
    if policy == "all":
        return True
    kind = classify(address)
    if policy == "relay-only":
        return kind is AddressClass.RELAYED
    if kind is not AddressClass.RELAYED:
        return kind in _OPEN
    # The relay's own place would show the network that both are in.
    return address.ip is None or classify_ip(address.ip) in _OPEN
