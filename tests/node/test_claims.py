"""What a peer says of its own addresses is believed as far as it fits where the peer is."""

from __future__ import annotations

import pytest
from isthmus.node.claims import believable
from isthmus.transports.core.multiaddr import Multiaddr

RELAYED = "/ip4/8.8.8.8/tcp/1/p2p/12D3KooWK99VoVxNE7XzyBwXEzW7xhK7Gpv85r9F3V3fyKSUKPH5/p2p-circuit"
CLAIMED = {
    "process": "/memory/1",
    "loopback": "/ip4/127.0.0.1/tcp/1",
    "localhost": "/dns4/localhost/tcp/1",
    "private": "/ip4/10.0.0.1/tcp/1",
    "on-link": "/ip4/192.168.7.1/tcp/1",
    "link-local": "/ip4/169.254.1.1/tcp/1",
    "carrier": "/ip4/100.64.0.1/tcp/1",
    "public": "/ip4/8.8.8.8/tcp/1",
    "name": "/dns4/peer.example/tcp/1",
    "relayed": RELAYED,
    "nowhere": "/ip4/0.0.0.0/tcp/1",
    "multicast": "/ip4/224.0.0.251/tcp/1",
}
ALWAYS = {"on-link", "public", "name", "relayed"}
NEAR = ALWAYS | {"private", "link-local", "carrier"}
HERE = NEAR | {"loopback", "localhost"}


def is_on_link(address: Multiaddr) -> bool:
    return str(address).startswith(("/ip4/192.168.7.", "/ip4/8.8.4."))


@pytest.mark.parametrize(
    ("seen_at", "believed"),
    [
        ("/ip4/1.1.1.1/tcp/5", ALWAYS),
        (RELAYED, ALWAYS),
        ("/dns4/peer.example/tcp/1", ALWAYS),
        ("/ip4/10.9.9.9/tcp/5", NEAR),
        ("/ip4/192.168.7.9/tcp/5", NEAR),
        # A public address on our own link: a network without a NAT.
        ("/ip4/8.8.4.4/tcp/5", NEAR),
        ("/ip6/fe80::1/tcp/5", NEAR),
        ("/ip6/::1/tcp/5", HERE),
        ("/memory/7", HERE | {"process"}),
    ],
)
def test_an_address_is_believed_of_who_is_near_enough(seen_at, believed):
    claimed = {name: Multiaddr.parse(text) for name, text in CLAIMED.items()}
    found = believable(claimed.values(), Multiaddr.parse(seen_at), is_on_link)
    assert list(found) == [claimed[name] for name in CLAIMED if name in believed]


PEER = "/p2p/12D3KooWK99VoVxNE7XzyBwXEzW7xhK7Gpv85r9F3V3fyKSUKPH5/p2p-circuit"


@pytest.mark.parametrize(
    ("relay", "seen_at", "is_believed"),
    [
        # A relay's place is dialled like any other.
        ("/ip4/127.0.0.1/tcp/22", "/ip4/1.1.1.1/tcp/5", False),
        ("/ip4/10.0.0.1/tcp/22", "/ip4/1.1.1.1/tcp/5", False),
        ("/ip4/0.0.0.0/tcp/22", "/ip6/::1/tcp/5", False),
        ("/ip4/10.0.0.1/tcp/22", f"/ip4/8.8.8.8/tcp/1{PEER}", False),
        ("/ip4/127.0.0.1/tcp/22", f"/ip4/10.0.0.1/tcp/1{PEER}", False),
        ("/ip4/10.0.0.1/tcp/22", "/ip4/10.9.9.9/tcp/5", True),
        ("/ip4/127.0.0.1/tcp/22", "/ip6/::1/tcp/5", True),
        # Who comes through a relay next to us may name it.
        ("/ip4/127.0.0.1/tcp/22", f"/ip4/127.0.0.1/tcp/1{PEER}", True),
        ("/dns4/relay.example/tcp/22", f"/ip4/8.8.8.8/tcp/1{PEER}", True),
        ("", "/ip4/1.1.1.1/tcp/5", True),
    ],
)
def test_a_relayed_address_is_believed_as_its_relay_is(relay, seen_at, is_believed):
    claimed = Multiaddr.parse(f"{relay}{PEER}")
    found = believable([claimed], Multiaddr.parse(seen_at), is_on_link)
    assert found == ((claimed,) if is_believed else ())


def test_who_comes_through_a_relay_near_us_need_not_be_near_itself():
    claimed = Multiaddr.parse("/ip4/127.0.0.1/tcp/22")
    seen_at = Multiaddr.parse(f"/ip4/127.0.0.1/tcp/1{PEER}")
    assert believable([claimed], seen_at, is_on_link) == ()
