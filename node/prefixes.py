"""Where connections come from, and who may begin a handshake: how fast, and how many at a time.

Sans-IO: told addresses and times. See `prefix_of` for what counts as one source.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from typing import TYPE_CHECKING

from ..transports.core.addresses import prefix_of
from ..transports.core.errors import LimitExceeded

if TYPE_CHECKING:
    from ..transports.core.addresses import Prefix
    from ..transports.core.multiaddr import Multiaddr
    from .config import LimitsConfig

MAX_PREFIXES = 4096
"""Prefixes whose rate is known, the least recently seen forgotten first: about a MiB. Who has more
of them than this gains by being forgotten a burst for each, which new prefixes have anyway."""

_TOLERANCE = 1e-6
"""Seconds by which sums of floats may be off."""


class TokenBuckets:
    """One bucket for each prefix: `burst` at once, then `rate` a second."""

    def __init__(self, *, burst: int, rate: float, max_prefixes: int = MAX_PREFIXES) -> None:
        self._interval = 1 / rate
        self._depth = (burst - 1) * self._interval
        self._max_prefixes = max_prefixes
        self._full_at: OrderedDict[Prefix, float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._full_at)

    def take(self, prefix: Prefix, now: float) -> bool:
        """Take a token, if there is one; a refusal costs none."""
        full_at = max(self._full_at.pop(prefix, now), now)
        is_allowed = full_at - now <= self._depth + _TOLERANCE
        self._full_at[prefix] = full_at + self._interval * is_allowed
        if len(self._full_at) > self._max_prefixes:
            self._full_at.popitem(last=False)
        return is_allowed


class Doorway:
    """Lets connections begin their handshake: call `enter`, and `leave` when it has ended.

    Nobody is known yet here, so that nobody is favoured: what is looked at is the address alone.
    """

    def __init__(self, limits: LimitsConfig) -> None:
        self._limits = limits
        self._buckets = TokenBuckets(burst=limits.connection_burst, rate=limits.connection_rate)
        self._pending_of: Counter[Prefix] = Counter()
        self.pending = 0

    def enter(self, address: Multiaddr, now: float) -> None:
        """Count a handshake that begins; raises LimitExceeded where there may be none."""
        limits, prefix = self._limits, prefix_of(address)
        if self.pending >= limits.pending_inbound:
            count = self.pending + 1
            raise exceeded("handshakes under way", count, limits.pending_inbound, "pending_inbound")
        if prefix is not None:
            count, bound = self._pending_of[prefix] + 1, limits.connections_per_prefix
            if count > bound:
                which = f"handshakes under way with {prefix}"
                raise exceeded(which, count, bound, "connections_per_prefix")
            if not self._buckets.take(prefix, now):
                which, bound = f"connections from {prefix} at once", limits.connection_burst
                raise exceeded(which, bound + 1, bound, "connection_burst")
            self._pending_of[prefix] = count
        self.pending += 1

    def leave(self, address: Multiaddr) -> None:
        """Count a handshake that has ended, either way."""
        self.pending -= 1
        if (prefix := prefix_of(address)) is not None:
            count_down(self._pending_of, prefix)


def count_down(counter: Counter[Prefix], prefix: Prefix) -> None:
    """Count one less, and keep no zero."""
    counter[prefix] -= 1
    if not counter[prefix]:
        del counter[prefix]


def exceeded(which: str, value: int, limit: int, setting: str) -> LimitExceeded:
    """Return the error that says which limit of the node would be passed."""
    return LimitExceeded(which, value=value, limit=limit, setting=f"limits.{setting}")
