"""What others say our addresses are; sans-IO, the time is an argument.

A peer tells, by identify, from where it sees us. Of the connections that left from a port listened
on, that is where a NAT has mapped this port to. Call `add` for each connection whose peer has said
so, `remove` when it has ended, `keep_locals` when the addresses listened on have changed.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from dataclasses import dataclass
from enum import Enum
from math import inf
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable

    from ...transports.core.multiaddr import Multiaddr

MIN_OBSERVERS = 4
"""Observers in different networks after whom an address is claimed without a test: one that lies
has to have addresses in four of them. As go."""

LIFETIME = 1800.0
"""Seconds that an observation counts after its connection has ended; a mapping lasts as long as
there is a connection, and a router's lease for days."""

MAX_OBSERVATIONS = 512
"""As many as there are connections by default; the oldest is forgotten."""

MAX_CANDIDATES = 8
"""External addresses of one local one that are worth a test: a symmetric NAT makes any number."""


class NatKind(Enum):
    """How the path to others changes our address."""

    UNKNOWN = "unknown"
    """Fewer than two observers."""
    NONE = "none"
    """It does not."""
    ENDPOINT_INDEPENDENT = "endpoint-independent"
    """All see the same one, which others may be told: hole punching can work."""
    SYMMETRIC = "symmetric"
    """Each sees another one: nobody can know in advance which."""


@dataclass(slots=True)
class _Observation:
    local: Multiaddr
    external: Multiaddr
    observer: Hashable
    ends_at: float = inf


class ObservedAddresses:
    """External addresses, by the addresses that this node listens on."""

    def __init__(self) -> None:
        self._observations: OrderedDict[Hashable, _Observation] = OrderedDict()
        self._ended = 0

    def __len__(self) -> int:
        return len(self._observations)

    def add(
        self, key: Hashable, *, local: Multiaddr, external: Multiaddr, observer: Hashable
    ) -> None:
        """Note what the peer of the connection `key` sees.

        `local` is the address listened on from whose port it was dialled, `observer` the network
        of the peer: those of one count once. An address of another kind than `local` is no mapping
        of it, and is left out.
        """
        if external.names != local.names:
            return
        self._observations[key] = _Observation(local, external, observer)
        self._observations.move_to_end(key)
        if len(self._observations) > MAX_OBSERVATIONS:
            self._observations.popitem(last=False)

    def remove(self, key: Hashable, now: float) -> bool:
        """Note that a connection has ended: what was seen on it counts for a while only.

        Return whether anything was.
        """
        if (found := self._observations.pop(key, None)) is not None:
            found.ends_at = now + LIFETIME
            self._ended += 1
            self._observations["ended", self._ended] = found
        return found is not None

    def keep_locals(self, addresses: Iterable[Multiaddr]) -> None:
        """Forget what was seen of other addresses than these, which are listened on now."""
        kept = set(addresses)
        for key in [key for key, each in self._observations.items() if each.local not in kept]:
            del self._observations[key]

    def candidates(self, now: float) -> tuple[Multiaddr, ...]:
        """Return the external addresses that differ from ours, that of most observers first."""
        found = []
        for local in dict.fromkeys(each.local for each in self._observations.values()):
            counted = self._counts(local, now).most_common(MAX_CANDIDATES)
            found += [(count, address) for address, count in counted if address != local]
        found.sort(key=lambda pair: -pair[0])
        return tuple(dict.fromkeys(address for _, address in found))

    def claimed(self, now: float) -> tuple[Multiaddr, ...]:
        """Return those that so many have seen that they need no test."""
        found = []
        for local in dict.fromkeys(each.local for each in self._observations.values()):
            counted = self._counts(local, now).most_common(MAX_CANDIDATES)
            found += [
                address for address, count in counted if count >= MIN_OBSERVERS and address != local
            ]
        return tuple(dict.fromkeys(found))

    def mappings(self, now: float) -> dict[Multiaddr, Counter[Multiaddr]]:
        """Return, by our address, how many observers see each external one of it."""
        ours = dict.fromkeys(each.local for each in self._observations.values())
        return {local: counts for local in ours if (counts := self._counts(local, now))}

    def nat_kind(self, now: float) -> NatKind:
        """Return what the observations of the local address that has most of them show."""
        self._forget(now)
        observers: dict[Multiaddr, set[Hashable]] = {}
        for each in self._observations.values():
            observers.setdefault(each.local, set()).add(each.observer)
        local = max(observers, key=lambda address: len(observers[address]), default=None)
        if local is None or len(observers[local]) < 2:
            return NatKind.UNKNOWN
        seen = self._counts(local, now)
        if seen[local]:
            return NatKind.NONE
        # One that stands out may be a proxy, or a lie; what half of the observers see is ours.
        (_, most) = seen.most_common(1)[0]
        if most >= 2 and 2 * most > sum(seen.values()):
            return NatKind.ENDPOINT_INDEPENDENT
        return NatKind.SYMMETRIC

    def _counts(self, local: Multiaddr, now: float) -> Counter[Multiaddr]:
        """Return how many observers see each external address of a local one."""
        self._forget(now)
        pairs = {
            (each.external, each.observer)
            for each in self._observations.values()
            if each.local == local
        }
        return Counter(external for external, _ in pairs)

    def _forget(self, now: float) -> None:
        for key in [key for key, each in self._observations.items() if each.ends_at <= now]:
            del self._observations[key]
