"""What a virtual link does to what it carries."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite

from ..core.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkSettings:
    """One link's properties, the same in both directions; raises ConfigError."""

    delay: float = 0.0
    """Seconds from one end to the other."""

    jitter: float = 0.0
    """Seconds added to `delay`, drawn evenly from nothing to this for each segment or message."""

    rate: float | None = None
    """Bytes a second; None is no limit."""

    loss: float = 0.0
    """The part of segments and messages that is lost: 0 to 0.99. What is reliable is sent anew."""

    reorder: float = 0.0
    """The part of segments and messages that is held back, so that later ones overtake it."""

    queue: int = 262_144
    """Bytes that one direction holds: under way, and not taken by the receiver. Senders wait."""

    def __post_init__(self) -> None:
        for name in ("delay", "jitter"):
            value = getattr(self, name)
            if not (isfinite(value) and value >= 0):
                raise ConfigError(f"link.{name} must be at least 0 seconds")
        if self.rate is not None and not self.rate > 0:
            raise ConfigError("link.rate must be above 0 bytes a second, or None")
        for name in ("loss", "reorder"):
            if not 0 <= getattr(self, name) <= 0.99:
                raise ConfigError(f"link.{name} must be within 0 and 0.99")
        if self.queue < 1:
            raise ConfigError("link.queue must be at least 1 byte")

    @property
    def is_even(self) -> bool:
        """Whether every segment fares alike, so that their size does not matter."""
        return not (self.jitter or self.loss or self.reorder)
