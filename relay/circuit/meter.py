"""What a relay has carried: for whom, and how fast. Sans-IO."""

from __future__ import annotations

from collections import OrderedDict, deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ...transports.core.peer_id import PeerId

SPAN = 10
"""Seconds that the rate is taken over: what it was just now, without every jump."""

MAX_SOURCES = 256
"""Peers whose account is kept, those that used the relay last; a line each in what people read."""


@dataclass(slots=True)
class Account:
    """What one peer's circuits have carried, both ways."""

    circuits: int = 0
    bytes: int = 0


class Meter:
    """Counts bytes; times are the loop's clock."""

    def __init__(self, now: float) -> None:
        self.bytes = 0
        self.accounts: OrderedDict[PeerId, Account] = OrderedDict()
        self._since = now
        self._second = int(now)
        self._current = 0
        self._past: deque[int] = deque([0] * SPAN, maxlen=SPAN)

    def begin(self, source: PeerId) -> Account:
        """Return the account of a peer that has a new circuit, and count the circuit."""
        account = self.accounts.setdefault(source, Account())
        self.accounts.move_to_end(source)
        if len(self.accounts) > MAX_SOURCES:
            self.accounts.popitem(last=False)
        account.circuits += 1
        return account

    def count(self, account: Account, size: int, now: float) -> None:
        """Count bytes that a circuit has carried."""
        account.bytes += size
        self.bytes += size
        if int(now) != self._second:
            self._advance(now)
        self._current += size

    def rate(self, now: float) -> float:
        """Return the bytes a second of the last ten full seconds, or of all if there are fewer."""
        self._advance(now)
        return sum(self._past) / max(min(now - self._since, SPAN), 1.0)

    def _advance(self, now: float) -> None:
        passed = int(now) - self._second
        if passed > 0:
            self._past.append(self._current)
            self._past.extend([0] * min(passed - 1, SPAN))
            self._second, self._current = int(now), 0
