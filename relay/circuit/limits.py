"""What a relay gives, and to whom: presets, and the settings that change them."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Literal

from ...transports.core.errors import ConfigError
from .wire import Limit

if TYPE_CHECKING:
    from typing import Final

    from ...transports.core.multiaddr import Multiaddr
    from ...transports.core.peer_id import PeerId

Preset = Literal["off", "default", "public", "generous"]

MIN_RATE = 16_384
"""Bytes a second: below it a handshake inside a circuit takes seconds, and nobody is served."""

MAX_DURATION = 2**32 - 1
"""Seconds, as the protocol can tell them."""

SECTION = "relay"
"""The section of a file that errors name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RelayLimits:
    """What a relay gives; `None` where there is no bound."""

    reservations: int
    reservations_per_prefix: int
    reservation_ttl: float
    circuits: int
    circuits_per_peer: int
    circuit_duration: float | None
    circuit_bytes: int | None
    circuit_rate: float | None
    bandwidth: float | None

    @property
    def told(self) -> Limit | None:
        """What a peer is told of the limits of its circuit; None if it has none."""
        if self.circuit_duration is None and self.circuit_bytes is None:
            return None
        return Limit(int(self.circuit_duration or 0), self.circuit_bytes or 0)


PRESETS: Final[dict[str, RelayLimits]] = {
    "default": RelayLimits(
        reservations=128,
        reservations_per_prefix=32,
        reservation_ttl=3600.0,
        circuits=1024,
        circuits_per_peer=16,
        circuit_duration=3600.0,
        circuit_bytes=128 * 2**20,
        circuit_rate=None,
        bandwidth=None,
    ),
    "public": RelayLimits(
        reservations=128,
        reservations_per_prefix=8,
        reservation_ttl=3600.0,
        circuits=1024,
        circuits_per_peer=16,
        circuit_duration=120.0,
        circuit_bytes=128 * 1024,
        circuit_rate=None,
        bandwidth=None,
    ),
    "generous": RelayLimits(
        reservations=128,
        reservations_per_prefix=32,
        reservation_ttl=3600.0,
        circuits=1024,
        circuits_per_peer=8,
        circuit_duration=4 * 3600.0,
        circuit_bytes=2**30,
        circuit_rate=None,
        bandwidth=None,
    ),
}
"""`default`: for peers that the owner knows, so that a file or a call passes. `public`: the limits
of go-libp2p, for anyone. `generous`: for a list of peers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RelayServerConfig:
    """How this node relays for others; what is not set is the preset's. Bytes count each way."""

    preset: Preset = "off"
    """Relay for nobody (off), for the peers that are kept or in `allow` (default), for anyone, with
    the limits of go-libp2p (public), or for those in `allow` with high limits (generous)."""

    allow: tuple[PeerId, ...] = ()
    """Peers that are served whatever is known of them."""

    addresses: tuple[Multiaddr, ...] = ()
    """Where this relay is, as told to those who reserve. Default: its public addresses; all, if it
    has none."""

    reservations: int | None = None
    """Reservations at a time."""

    reservations_per_prefix: int | None = None
    """Reservations from one IPv4 address or IPv6 /56."""

    reservation_ttl: float | None = None
    """Seconds that a reservation holds; its peer renews it in time."""

    circuits: int | None = None
    """Circuits at a time, all together."""

    circuits_per_peer: int | None = None
    """Circuits of one peer, from it and to it."""

    circuit_duration: float | None = None
    """Seconds that a circuit lasts; 0: no limit."""

    circuit_bytes: int | None = None
    """Bytes that a circuit carries in each direction; 0: no limit."""

    circuit_rate: float | None = None
    """Bytes a second of a circuit in each direction; 0: no limit."""

    bandwidth: float | None = None
    """Bytes a second of all circuits together, shared evenly among the peers that use them; a
    little less than what the line carries keeps its queues short. 0: no limit."""

    def __post_init__(self) -> None:
        for item in fields(self):
            if item.name in _LEAST and (value := getattr(self, item.name)) is not None:
                self._check(item.name, value)
        if self.preset == "generous" and not self.allow:
            raise ConfigError(
                f"{SECTION}.preset generous relays for a list of peers: put their ids into"
                f" {SECTION}.allow"
            )

    @property
    def is_on(self) -> bool:
        """Whether this node relays."""
        return self.preset != "off"

    @property
    def is_open(self) -> bool:
        """Whether anyone is served."""
        return self.preset == "public"

    @property
    def limits(self) -> RelayLimits:
        """The preset's limits, as changed by what is set; those of `default` if it is off."""
        preset = PRESETS["default" if self.preset == "off" else self.preset]
        values = {}
        for item in fields(preset):
            value = getattr(self, item.name)
            if value is None:
                value = getattr(preset, item.name)
            elif item.name in _ZERO_IS_NONE and not value:
                value = None
            values[item.name] = value
        return RelayLimits(**values)

    def _check(self, name: str, value: float) -> None:
        if name in _ZERO_IS_NONE and value == 0:
            return
        least = _LEAST[name]
        if not least <= value <= _MOST.get(name, value):
            most = f" and at most {_MOST[name]:g}" if name in _MOST else ""
            zero = ", or 0 for no limit" if name in _ZERO_IS_NONE else ""
            raise ConfigError(f"{SECTION}.{name} must be at least {least:g}{most}{zero}")


_ZERO_IS_NONE = frozenset({"circuit_duration", "circuit_bytes", "circuit_rate", "bandwidth"})

_LEAST: dict[str, float] = {
    "reservations": 1,
    "reservations_per_prefix": 1,
    # Clients renew half a minute ahead at the least.
    "reservation_ttl": 60,
    "circuits": 1,
    "circuits_per_peer": 1,
    "circuit_duration": 1,
    "circuit_bytes": 4096,
    "circuit_rate": MIN_RATE,
    "bandwidth": MIN_RATE,
}

_MOST: dict[str, float] = {"circuit_duration": MAX_DURATION, "reservation_ttl": 30 * 86_400}


class Allowance:
    """How many bytes of one direction may still pass, and how fast: a token bucket. Sans-IO.

    It is paid for afterwards: `take` says how much may be moved now, `spend` what was moved, and
    `ready_at` when the next move may begin.
    """

    BURST_TIME = 0.25
    """Seconds of the rate that may pass at once: ten seconds carry 2.5 % more at the most."""

    def __init__(self, *, total: int | None, rate: float | None, now: float) -> None:
        self._left = total
        self._rate = rate
        self._burst = 0.0 if rate is None else rate * self.BURST_TIME
        self._free_at = now - self.BURST_TIME
        self.moved = 0

    @property
    def is_spent(self) -> bool:
        """Whether nothing may pass any more."""
        return self._left is not None and self._left <= 0

    def most(self, size: int) -> int:
        """Return how many of `size` bytes may be moved in one go."""
        if self._left is not None:
            size = min(size, self._left)
        return size if self._rate is None else min(size, int(self._burst))

    def spend(self, size: int, now: float) -> None:
        """Count bytes that were moved."""
        self.moved += size
        if self._left is not None:
            self._left -= size
        if self._rate is not None:
            self._free_at = max(self._free_at, now - self.BURST_TIME) + size / self._rate

    def ready_at(self, now: float) -> float:
        """Return when the next move may begin; `now` or before: at once."""
        return now if self._rate is None else self._free_at
