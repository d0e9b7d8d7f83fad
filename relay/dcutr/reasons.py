"""Why two peers have not met, as far as one of them can tell."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..autonat.observed import NatKind

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ...transports.core.multiaddr import Multiaddr

OWN_NAT = "this node's NAT gives each destination another port (it is symmetric)"

THEIR_NAT = "the peer is seen at several ports of one address: its NAT seems to be symmetric"

UNCLEAR = "a NAT in between may give each destination another port (be symmetric), or filter more"


def why_not(own: NatKind, theirs: Iterable[Multiaddr]) -> str:
    """Say what kept dials to the addresses of a peer from meeting its dials.

    `theirs` are those that the peer has told: where it is seen, if it is behind a NAT.
    """
    found = []
    if own is NatKind.SYMMETRIC:
        found.append(OWN_NAT)
    places = {(each.ip, each.port) for each in theirs if each.ip is not None}
    if len(places) > len({ip for ip, _ in places}):
        found.append(THEIR_NAT)
    return "; ".join(found) or UNCLEAR
