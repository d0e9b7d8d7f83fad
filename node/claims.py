"""Which of the addresses that a peer claims are worth remembering.

An address is a claim: dialling it costs this machine a connection to whatever is there. What only
means something near the peer is believed if the peer itself is near.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..transports.core.addresses import AddressClass, classify

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from ..transports.core.multiaddr import Multiaddr

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
    of a peer on this machine. Names and public, relayed and on-link addresses always are.
    """
    nearness = _NEAR.get(classify(seen_at), 0) or int(is_on_link(seen_at))
    return tuple(
        each
        for each in claimed
        if (kind := classify(each)) not in _NEVER
        and (_NEAR.get(kind, 0) <= nearness or (kind is AddressClass.PRIVATE and is_on_link(each)))
    )
