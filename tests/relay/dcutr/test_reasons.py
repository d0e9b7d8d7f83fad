"""Why two peers have not met, in words, from what one of them knows."""

from __future__ import annotations

import pytest
from isthmus.relay.autonat.observed import NatKind
from isthmus.relay.dcutr.reasons import OWN_NAT, THEIR_NAT, UNCLEAR, why_not
from isthmus.transports.core.multiaddr import Multiaddr

ONE = "/ip4/1.2.3.4/tcp/4001"


@pytest.mark.parametrize(
    ("nat", "addresses", "reason"),
    [
        (NatKind.SYMMETRIC, [ONE], OWN_NAT),
        (NatKind.ENDPOINT_INDEPENDENT, [ONE, "/ip4/1.2.3.4/tcp/9"], THEIR_NAT),
        (NatKind.SYMMETRIC, [ONE, "/ip4/1.2.3.4/tcp/9"], f"{OWN_NAT}; {THEIR_NAT}"),
        (NatKind.UNKNOWN, [ONE, ONE, "/ip4/5.6.7.8/tcp/9", "/dns4/x.example/tcp/1"], UNCLEAR),
        (NatKind.NONE, [], UNCLEAR),
    ],
)
def test_the_reason_is_what_the_addresses_show(nat, addresses, reason):
    assert why_not(nat, map(Multiaddr.parse, addresses)) == reason
