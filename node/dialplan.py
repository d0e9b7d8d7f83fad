"""When which address of a peer is dialled.

Sans-IO: `add` addresses, start what `take` returns, say `failed` for each that does, and come back
at `next_timeout`. The first connection that authenticates wins; whoever drives the plan then drops
it. It follows RFC 8305 (Happy Eyeballs) with ranks for families. An address is tried once, but for
two cases: who joins a dial has those tried again that have failed, and of several relays each may
come back while another one fails.
"""

from __future__ import annotations

from bisect import insort
from dataclasses import dataclass, field
from math import inf
from typing import TYPE_CHECKING

from .path import Rank

if TYPE_CHECKING:
    from ..transports.core.multiaddr import Multiaddr

STAGGER = 0.25
"""Seconds after which the next address is tried beside one that does not answer (RFC 8305, 5)."""

LAN_STAGGER = 0.03
"""The same after an address of the LAN, where who is there answers within a millisecond."""

LATE = {Rank.RELAY: 0.5, Rank.WEBRTC: 1.0, Rank.TURN: 1.0}
"""Seconds that paths with a price wait while better ones are tried: a relay's bytes are another's,
and WebRTC has signalling, candidates and two handshakes to pay for. Of two relays the second one
waits for the first as any other address does."""

MAX_ADDRESSES = 16
"""Addresses tried in one dial; addresses are claims, and each may cost its full timeout."""

MAX_RUNNING = 8
"""Attempts at one time, each a socket and a handshake; what go allows itself for one peer."""

SECOND_LOOK = 1.0
"""Seconds of a dial within which relays are asked a second time: they are restarted one after the
other, and one that did not lead to the peer may do so by the time the next has failed. Later,
whoever waits has waited for long enough."""


@dataclass(frozen=True, slots=True, order=True)
class _Candidate:
    delay: float
    rank: Rank
    number: int
    address: Multiaddr = field(compare=False)


class DialPlan:
    """The order and the times of one dial's attempts; `now` is when it begins."""

    def __init__(self, now: float) -> None:
        self._began = now
        self._due = now
        self._seen: dict[Multiaddr, _Candidate] = {}
        self._failed: dict[Multiaddr, None] = {}
        self._has_looked_again = False
        self._waiting: list[_Candidate] = []
        self._running: dict[Multiaddr, float] = {}

    @property
    def is_exhausted(self) -> bool:
        """Say whether nothing runs and nothing is left to try."""
        return not self._waiting and not self._running

    @property
    def has_several(self) -> bool:
        """Say whether more than one attempt runs, or has not failed."""
        return len(self._running) > 1

    @property
    def waiting(self) -> tuple[Multiaddr, ...]:
        """The addresses that were not tried yet, best first."""
        return tuple(each.address for each in self._waiting)

    def add(self, address: Multiaddr, rank: Rank) -> bool:
        """Add an address, up to the bound; of one rank the first added is tried first.

        One that is added again is tried again if it has failed meanwhile.
        """
        candidate = self._seen.get(address)
        if candidate is None:
            if len(self._seen) >= MAX_ADDRESSES:
                return False
            candidate = _Candidate(LATE.get(rank, 0.0), rank, len(self._seen), address)
            self._seen[address] = candidate
        elif address not in self._failed:
            return False
        self._failed.pop(address, None)
        insort(self._waiting, candidate)
        return True

    def take(self, now: float) -> tuple[Multiaddr, ...]:
        """Return the addresses whose attempts begin now."""
        taken = []
        while now >= self.next_timeout():
            candidate = self._waiting.pop(0)
            self._running[candidate.address] = candidate.delay
            self._due = now + (LAN_STAGGER if candidate.rank is Rank.LAN else STAGGER)
            taken.append(candidate.address)
        return tuple(taken)

    def failed(self, address: Multiaddr, now: float) -> None:
        """Note that an attempt has failed: the next one begins at once."""
        self.ended(address, now)
        self._failed[address] = None
        if self.is_exhausted and now - self._began < SECOND_LOOK:
            self._look_again(address)

    def ended(self, address: Multiaddr, now: float) -> None:
        """Note that an attempt is over without having failed, and more are wanted."""
        self._running.pop(address, None)
        self._due = now

    def next_timeout(self) -> float:
        """When `take` has something to return; infinite if that depends on what fails."""
        if not self._waiting or len(self._running) >= MAX_RUNNING:
            return inf
        first = self._waiting[0]
        if all(delay >= first.delay for delay in self._running.values()):
            # All that it has to wait for has failed, or there was nothing.
            return self._due
        return max(self._due, self._began + first.delay)

    def _look_again(self, last: Multiaddr) -> None:
        """Have the relays that failed before the last one asked once more, in the same order."""
        if self._has_looked_again or self._seen[last].rank is not Rank.RELAY:
            return
        self._has_looked_again = True
        for address in tuple(self._failed):
            if address != last and self._seen[address].rank is Rank.RELAY:
                self.add(address, Rank.RELAY)
