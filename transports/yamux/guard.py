"""Tells a busy peer from a flooding one: what it may send without exchanging data."""

from __future__ import annotations

from ..core.errors import RemoteProtocolError

# Window updates, pings and empty frames a second, above the data frames exchanged. js-libp2p sends
# one window update for every data frame it receives, which the exchange pays for.
CONTROL_RATE = 1000.0
# Resets a second of streams that the peer itself opened (CVE-2023-44487, rapid reset).
RESET_RATE = 200.0
# Data frames exchanged earlier pay for at most so many control frames that come late.
SAVINGS = 4096.0


class FloodGuard:
    """Two leaky buckets; `check` raises once either has overflowed."""

    __slots__ = ("_checked_at", "_control", "_resets", "control", "exchanged", "resets")

    def __init__(self, now: float) -> None:
        self.control = 0
        self.resets = 0
        self.exchanged = 0
        self._control = 0.0
        self._resets = 0.0
        self._checked_at = now

    def check(self, now: float) -> None:
        """Account for what was counted since the last call; raises RemoteProtocolError."""
        if not (self.control or self.resets):
            return
        elapsed = now - self._checked_at
        self._checked_at = now
        # Time drains the buckets before what is new fills them, and adds nothing to what was saved.
        level = max(self._control - elapsed * CONTROL_RATE, min(self._control, 0.0))
        self._control = max(level - self.exchanged, -SAVINGS) + self.control
        self._resets = max(self._resets - elapsed * RESET_RATE, 0.0) + self.resets
        self.control = self.exchanged = self.resets = 0
        if self._control > CONTROL_RATE:
            raise RemoteProtocolError("the peer floods this side with control frames")
        if self._resets > RESET_RATE:
            raise RemoteProtocolError("the peer opens and resets streams too fast")
