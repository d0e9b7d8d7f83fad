"""`/isthmus/relay-info/1`: how busy a relay is, for those who choose among several.

Whoever opens a stream is sent one map in msgpack, and nothing is read.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from math import inf
from typing import TYPE_CHECKING, Any

from ...transports.core.errors import RemoteProtocolError

if TYPE_CHECKING:
    from .limits import RelayLimits

INFO_PROTOCOL = "/isthmus/relay-info/1"

MAX_INFO = 1024
"""Bytes of the map: it has nine numbers under short names."""

MAX_KEYS = 32
"""Keys of it, so that later versions can tell more; unknown ones are ignored."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RelayInfo:
    """What a relay tells of its load; a limit that is None is none."""

    reservations: int
    reservations_limit: int
    circuits: int
    circuits_limit: int
    bytes_per_second: float
    circuits_per_peer: int
    circuit_duration: float | None
    circuit_bytes: int | None
    circuit_rate: float | None

    @property
    def load(self) -> float:
        """The part of its places that is taken, from 0 to 1: of reservations or of circuits."""
        parts = (
            (self.reservations, self.reservations_limit),
            (self.circuits, self.circuits_limit),
        )
        return max(min(used / bound, 1.0) if bound else 1.0 for used, bound in parts)

    @classmethod
    def of(
        cls, limits: RelayLimits, *, reservations: int, circuits: int, bytes_per_second: float
    ) -> RelayInfo:
        """Put together what a relay with these limits tells."""
        return cls(
            reservations=reservations,
            reservations_limit=limits.reservations,
            circuits=circuits,
            circuits_limit=limits.circuits,
            bytes_per_second=bytes_per_second,
            circuits_per_peer=limits.circuits_per_peer,
            circuit_duration=limits.circuit_duration,
            circuit_bytes=limits.circuit_bytes,
            circuit_rate=limits.circuit_rate,
        )

    def encode(self) -> bytes:
        """Return the map."""
        import msgpack

        data: bytes = msgpack.packb(asdict(self))
        return data

    @classmethod
    def decode(cls, data: bytes) -> RelayInfo:
        """Read a map; raises RemoteProtocolError for anything else."""
        values = _unpack(data)
        found: dict[str, Any] = {}
        for item in fields(cls):
            value, is_optional = values.get(item.name), "None" in str(item.type)
            if value is None and is_optional:
                found[item.name] = None
                continue
            kinds: tuple[type, ...] = (int, float) if "float" in str(item.type) else (int,)
            if value is None or type(value) not in kinds or not 0 <= value < inf:
                raise RemoteProtocolError(f"a relay's info whose {item.name} is no such number")
            found[item.name] = value
        return cls(**found)


def _unpack(data: bytes) -> dict[str, Any]:
    # Loaded only where it is used.
    import msgpack

    if len(data) > MAX_INFO:
        raise RemoteProtocolError(f"a relay's info of {len(data)} bytes")
    try:
        values = msgpack.unpackb(
            data,
            strict_map_key=True,
            max_str_len=64,
            max_bin_len=0,
            max_array_len=0,
            max_map_len=MAX_KEYS,
            max_ext_len=0,
        )
    except (ValueError, msgpack.UnpackException) as error:
        raise RemoteProtocolError("a relay's info that is no msgpack") from error
    if not isinstance(values, dict):
        raise RemoteProtocolError("a relay's info that is no map")
    return values
