"""Who has a slot at a relay, and who has circuits there. Sans-IO.

Connections are opaque keys; peers and addresses are only compared, the time is an argument that
never goes back. A peer has one reservation, which belongs to the connection that it was last asked
for on. Call order: `reserve` for each request; `connection_ended` when a connection has ended;
`handle_timeout` at `next_timeout`. Everything takes the same time however many there are.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING, Generic, TypeVar

from ...transports.core.addresses import prefix_of
from ...transports.core.errors import LimitExceeded
from .limits import SECTION

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ...transports.core.addresses import Prefix
    from ...transports.core.multiaddr import Multiaddr
    from ...transports.core.peer_id import PeerId
    from .limits import RelayLimits

Key = TypeVar("Key")


@dataclass(frozen=True, slots=True)
class Slot(Generic[Key]):
    """A peer's reservation: on which connection, and until when."""

    peer: PeerId
    connection: Key
    expires_at: float
    prefix: Prefix | None


class ReservationTable(Generic[Key]):
    """The reservations of a relay; see the module for the call order."""

    def __init__(self, limits: RelayLimits) -> None:
        self._limits = limits
        # A refresh goes to the end and all hold equally long, so that the order is that of expiry.
        self._slots: OrderedDict[PeerId, Slot[Key]] = OrderedDict()
        self._by_connection: dict[Key, PeerId] = {}
        self._of_prefix: Counter[Prefix] = Counter()

    def __len__(self) -> int:
        return len(self._slots)

    def __iter__(self) -> Iterator[Slot[Key]]:
        """Yield the reservations in the order of their expiry."""
        return iter(self._slots.values())

    def reserve(
        self, peer: PeerId, connection: Key, address: Multiaddr, now: float
    ) -> Slot[Key] | None:
        """Reserve for the peer of a connection, or refresh; return the slot that was replaced.

        `find` has the new one. Raises LimitExceeded; then a reservation that stands is left as it
        is.
        """
        old, prefix = self._slots.get(peer), prefix_of(address)
        if old is None and len(self._slots) >= self._limits.reservations:
            bound = self._limits.reservations
            raise _exceeded("reservations", len(self._slots) + 1, bound, "reservations")
        self._check_prefix(prefix, old)
        if old is not None:
            self._remove(old)
        self._add(Slot(peer, connection, now + self._limits.reservation_ttl, prefix))
        return old

    def find(self, peer: PeerId, now: float) -> Slot[Key] | None:
        """Return a peer's reservation, if it holds."""
        slot = self._slots.get(peer)
        return slot if slot is not None and now < slot.expires_at else None

    def on(self, connection: Key) -> Slot[Key] | None:
        """Return the reservation that belongs to a connection, if there is one."""
        peer = self._by_connection.get(connection)
        return None if peer is None else self._slots[peer]

    def move(self, slot: Slot[Key], connection: Key, address: Multiaddr) -> None:
        """Have a reservation belong to another connection of its peer; it ends when it would have.

        Raises LimitExceeded where the peer comes from a place that has too many.
        """
        prefix = prefix_of(address)
        self._check_prefix(prefix, slot)
        self._forget(slot)
        # In its place, since the order is that of expiry.
        self._add(Slot(slot.peer, connection, slot.expires_at, prefix))

    def connection_ended(self, connection: Key) -> Slot[Key] | None:
        """Drop the reservation that belongs to a connection, and return it, if there is one."""
        slot = self.on(connection)
        if slot is not None:
            self._remove(slot)
        return slot

    def next_timeout(self) -> float:
        """Return when `handle_timeout` has something to do; infinite if never."""
        return next((slot.expires_at for slot in self._slots.values()), inf)

    def handle_timeout(self, now: float) -> list[Slot[Key]]:
        """Drop what has expired, and return it."""
        expired = []
        while self._slots:
            slot = next(iter(self._slots.values()))
            if now < slot.expires_at:
                break
            self._remove(slot)
            expired.append(slot)
        return expired

    def _check_prefix(self, prefix: Prefix | None, old: Slot[Key] | None) -> None:
        if prefix is None or (old is not None and old.prefix == prefix):
            return
        count, bound = self._of_prefix[prefix] + 1, self._limits.reservations_per_prefix
        if count > bound:
            which = f"reservations from {prefix}"
            raise _exceeded(which, count, bound, "reservations_per_prefix")

    def _add(self, slot: Slot[Key]) -> None:
        self._slots[slot.peer] = slot
        self._by_connection[slot.connection] = slot.peer
        if slot.prefix is not None:
            self._of_prefix[slot.prefix] += 1

    def _remove(self, slot: Slot[Key]) -> None:
        del self._slots[slot.peer]
        self._forget(slot)

    def _forget(self, slot: Slot[Key]) -> None:
        del self._by_connection[slot.connection]
        if slot.prefix is not None:
            self._of_prefix[slot.prefix] -= 1
            if not self._of_prefix[slot.prefix]:
                del self._of_prefix[slot.prefix]


class CircuitTable:
    """How many circuits there are, from and to whom: `enter` before one is made, then `leave`."""

    def __init__(self, limits: RelayLimits) -> None:
        self._limits = limits
        self._of_peer: Counter[PeerId] = Counter()
        self._total = 0

    def __len__(self) -> int:
        return self._total

    def of(self, peer: PeerId) -> int:
        """Return how many circuits a peer has, from it and to it."""
        return self._of_peer.get(peer, 0)

    def enter(self, source: PeerId, target: PeerId) -> None:
        """Count a circuit; raises LimitExceeded where there may be none."""
        if self._total >= (bound := self._limits.circuits):
            raise _exceeded("circuits", self._total + 1, bound, "circuits")
        for peer in (source, target):
            count, bound = self.of(peer) + 1, self._limits.circuits_per_peer
            if count > bound:
                raise _exceeded(f"circuits of {peer}", count, bound, "circuits_per_peer")
        self._total += 1
        self._of_peer.update((source, target))

    def leave(self, source: PeerId, target: PeerId) -> None:
        """Count a circuit no longer."""
        self._total -= 1
        for peer in (source, target):
            self._of_peer[peer] -= 1
            if not self._of_peer[peer]:
                del self._of_peer[peer]


def _exceeded(which: str, value: int, limit: int, setting: str) -> LimitExceeded:
    return LimitExceeded(which, value=value, limit=limit, setting=f"{SECTION}.{setting}")
