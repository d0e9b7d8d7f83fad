"""How many streams each peer may have open on this node, over all its connections; sans-IO."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from .limits import Standing
from .prefixes import exceeded

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..transports.core.peer_id import PeerId
    from .config import LimitsConfig


class InboundStreams:
    """Counts the streams that peers have opened: `enter` before one is served, `leave` after it."""

    def __init__(self, limits: LimitsConfig, standing: Callable[[PeerId], Standing]) -> None:
        self._limits = limits
        self._standing = standing
        self._least = min(limits.inbound_streams, limits.inbound_streams_unknown)
        self._open: Counter[PeerId] = Counter()

    def enter(self, peer: PeerId) -> None:
        """Count a stream; raises LimitExceeded where the peer may have no more."""
        count = self._open[peer] + 1
        # Whose limit it is matters only beyond the least of them.
        if count > self._least:
            self._check(peer, count)
        self._open[peer] = count

    def leave(self, peer: PeerId) -> None:
        """Count a stream that has ended."""
        self._open[peer] -= 1
        if not self._open[peer]:
            del self._open[peer]

    def _check(self, peer: PeerId, count: int) -> None:
        limits = self._limits
        bound, setting = limits.inbound_streams, "inbound_streams"
        if self._standing(peer) is Standing.UNKNOWN:
            bound, setting = limits.inbound_streams_unknown, "inbound_streams_unknown"
        if count > bound:
            raise exceeded("streams of one peer", count, bound, setting)
