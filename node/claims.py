"""Which of the addresses that a peer claims are worth remembering.

An address is a claim: dialling it costs this machine a connection to whatever is there. What only
means something near the peer is believed if the peer itself is near.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..transports.core.addresses import AddressClass, classify
from ..transports.core.multiaddr import Multiaddr

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

_ANYWHERE = Multiaddr.parse("/dns/relay")
"""What stands for a relay of which nobody says where it is."""

_NEVER = {AddressClass.UNSPECIFIED, AddressClass.MULTICAST, AddressClass.UNKNOWN}

_NEAR = {
    AddressClass.PROCESS_LOCAL: 3,
    AddressClass.LOOPBACK: 2,
    AddressClass.LINK_LOCAL: 1,
    AddressClass.PRIVATE: 1,
    AddressClass.SHARED: 1,
}
"""How near one has to be for an address to lead to the peer: 3 process, 2 machine, 1 network."""


def believable(
    claimed: Iterable[Multiaddr], seen_at: Multiaddr, is_on_link: Callable[[Multiaddr], bool]
) -> tuple[Multiaddr, ...]:
    """Return those of the claimed addresses that fit where the peer was seen, in their order.

    A private one is believed of a peer on a private network or our own link, one of loopback only
    of a peer on this machine. Names and public and on-link addresses always are; for a relayed one
    the relay's place counts, also for where the peer was seen.
    """
    nearness = _nearness(seen_at, is_on_link)
    # Of a circuit's peer nothing but its relay has been seen.
    relayed = _nearness(_relay_of(seen_at), is_on_link)
    return tuple(
        each
        for each in claimed
        if _is_near(each, nearness, is_on_link)
        or ("p2p-circuit" in each.names and _is_near(_relay_of(each), relayed, is_on_link))
    )


def _nearness(seen_at: Multiaddr, is_on_link: Callable[[Multiaddr], bool]) -> int:
    return _NEAR.get(classify(seen_at), 0) or int(is_on_link(seen_at))


def _is_near(address: Multiaddr, nearness: int, is_on_link: Callable[[Multiaddr], bool]) -> bool:
    kind = classify(address)
    if kind is AddressClass.RELAYED or kind in _NEVER:
        return False
    return _NEAR.get(kind, 0) <= nearness or (kind is AddressClass.PRIVATE and is_on_link(address))


def _relay_of(address: Multiaddr) -> Multiaddr:
    """Return where the relay of an address is; the address itself if it leads through none.

    A relay that is named by its id alone is somewhere: dialling it takes a connection that stands.
    """
    if "p2p-circuit" not in address.names[1:]:
        return address
    place = address.decapsulate_at("p2p-circuit")
    return _ANYWHERE if place.names == ("p2p",) else place
