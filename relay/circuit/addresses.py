"""Addresses that lead through a relay: taken apart, and put together; pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ...transports.core.addresses import AddressClass, classify
from ...transports.core.errors import AddressError
from ...transports.core.multiaddr import Component, Multiaddr
from ...transports.core.peer_id import PeerId

if TYPE_CHECKING:
    from collections.abc import Iterable

CIRCUIT = "p2p-circuit"

ANY_RELAY = Multiaddr((Component(CIRCUIT),))
"""To listen on: behind every relay that gives a reservation."""

MAX_ANNOUNCED = 4
"""Addresses told of one relay: identify messages end at 4 KiB, and have each of them twice."""

_EVERYWHERE = (AddressClass.PUBLIC, AddressClass.DNS)


@dataclass(frozen=True, slots=True)
class CircuitAddress:
    """A relay, where it is, if that is said, and the peer behind it, if one is named.

    `place` has no /p2p at its end.
    """

    relay: PeerId
    place: Multiaddr | None
    target: PeerId | None

    @classmethod
    def of(cls, address: Multiaddr) -> CircuitAddress:
        """Take an address apart; raises AddressError if it does not lead through one relay."""
        names = address.names
        if names.count(CIRCUIT) != 1 or names[-1] not in (CIRCUIT, "p2p"):
            raise AddressError(f"{address} is no address behind one relay")
        split = names.index(CIRCUIT)
        if not split or names[split - 1] != "p2p" or len(names) > split + 2:
            raise AddressError(f"{address} does not name its relay: .../p2p/ID/p2p-circuit")
        components = address.components
        relay = PeerId.from_bytes(components[split - 1].data)
        before = components[: split - 1]
        return cls(relay, Multiaddr(before) if before else None, address.peer_id)

    @property
    def destination(self) -> Multiaddr:
        """The address of the relay itself."""
        last = Component("p2p", bytes(self.relay))
        return Multiaddr((last,)) if self.place is None else self.place.with_peer(self.relay)


def behind(place: Multiaddr, relay: PeerId) -> Multiaddr:
    """Return the address of whoever has a reservation at a relay that is at `place`."""
    return place.with_peer(relay).encapsulate(ANY_RELAY)


def announced(
    relay: PeerId,
    *,
    dialled: Multiaddr | None,
    told: Iterable[Multiaddr],
    known: Iterable[Multiaddr],
) -> tuple[Multiaddr, ...]:
    """Return the addresses to be reached at behind a relay.

    `dialled` is where this side has reached it, `told` what it says of itself, which may be
    nothing, or repeat its /p2p; then what else is `known` of it counts.
    """
    near = None if dialled is None else classify(dialled)
    places = [] if dialled is None else [dialled]
    places += [
        place
        for place in map(_bare, told)
        # What only means something near the relay is of use to those who are as near as we are.
        if (kind := classify(place)) in _EVERYWHERE or kind is near
    ]
    if not places:
        places = list(map(_bare, known))
    # One that is relayed itself leads nowhere.
    usable = [place for place in places if CIRCUIT not in place.names and place.names[-1] != "p2p"]
    return tuple(behind(place, relay) for place in list(dict.fromkeys(usable))[:MAX_ANNOUNCED])


def _bare(address: Multiaddr) -> Multiaddr:
    """Return a relay's address without its /p2p, which old peers give twice."""
    while (shorter := address.without_peer()) is not address:
        address = shorter
    return address
