"""Which connection is best, and which one this side closes, and when."""

from __future__ import annotations

from ipaddress import ip_interface

import pytest
from isthmus.node.networks import MAX_AGE, LocalNetworks
from isthmus.node.path import Rank
from isthmus.node.selection import CLOSE_AFTER, RECHECK_AFTER, Selection, rank_of
from isthmus.transports.core.multiaddr import Multiaddr
from isthmus.transports.lan.interfaces import Interface

RELAY = "/ip4/192.0.2.1/tcp/1/p2p/12D3KooWK99VoVxNE7XzyBwXEzW7xhK7Gpv85r9F3V3fyKSUKPH5"


def never(_: object) -> bool:
    return False


@pytest.mark.parametrize(
    ("address", "rank"),
    [
        ("/ip4/192.0.2.1/tcp/1", Rank.DIRECT),
        ("/ip4/192.0.2.1/tcp/1/ws", Rank.WEBSOCKET),
        ("/ip4/192.0.2.1/udp/1/webrtc-direct", Rank.WEBRTC),
        (f"{RELAY}/p2p-circuit", Rank.RELAY),
        (f"{RELAY}/p2p-circuit/webrtc", Rank.WEBRTC),
    ],
)
def test_the_kind_of_a_path_is_read_from_its_address(address, rank):
    assert rank_of(Multiaddr.parse(address), never) is rank


@pytest.mark.parametrize(
    ("address", "rank"),
    [
        ("/ip4/10.1.2.3/tcp/1", Rank.LAN),
        ("/ip4/10.1.2.3/tcp/1/ws", Rank.LAN),
        ("/ip4/10.1.3.3/tcp/1", Rank.DIRECT),
        ("/ip6/fd00::7/tcp/1", Rank.LAN),
        ("/dns4/peer.example/tcp/1", Rank.DIRECT),
        ("/ip4/127.0.0.1/tcp/1", Rank.DIRECT),
        (f"{RELAY.replace('192.0.2.1', '10.1.2.3')}/p2p-circuit", Rank.RELAY),
    ],
)
def test_the_lan_is_what_an_interface_is_on(address, rank):
    own = ("10.1.2.1/24", "fd00::1/64", "192.168.0.1/32")
    interface = Interface("eth0", tuple(map(ip_interface, own)))
    networks = LocalNetworks(lambda: 0.0, lambda: [interface])
    assert rank_of(Multiaddr.parse(address), networks.holds) is rank


def test_interfaces_are_read_again_after_a_while():
    now, found = 0.0, [Interface("eth0", (ip_interface("10.1.2.1/24"),))]
    networks = LocalNetworks(lambda: now, lambda: found)
    address = Multiaddr.parse("/ip4/10.1.2.3/tcp/1")
    assert networks.holds(address)
    found.clear()
    assert networks.holds(address)
    now = MAX_AGE
    assert not networks.holds(address)


def test_the_lower_rank_wins_then_the_older():
    selection: Selection[str] = Selection(is_local_lower=True)
    assert selection.best() is None
    selection.add("relay", Rank.RELAY, dialled=True, limited=True, now=0)
    assert selection.best() == "relay"
    assert selection.best(allow_limited=False) is None
    selection.add("tcp", Rank.DIRECT, dialled=True, limited=False, now=1)
    selection.add("later", Rank.DIRECT, dialled=True, limited=False, now=2)
    assert selection.best() == selection.best(allow_limited=False) == "tcp"
    selection.remove("tcp", 3)
    selection.remove("tcp", 3)
    assert selection.best() == "later"
    assert len(selection) == 2


@pytest.mark.parametrize("order", [("mine", "theirs"), ("theirs", "mine")])
def test_both_sides_of_crossed_dials_choose_what_the_lower_id_dialled(order):
    for is_lower, winner in ((True, "mine"), (False, "theirs")):
        selection: Selection[str] = Selection(is_local_lower=is_lower)
        for key in order:
            selection.add(key, Rank.DIRECT, dialled=key == "mine", limited=False, now=0)
        assert selection.best() == winner


def test_of_what_is_left_that_which_both_sides_prefer_is_taken():
    selection: Selection[str] = Selection(is_local_lower=True)
    selection.add("lan", Rank.LAN, dialled=True, limited=False, now=0)
    for key in ("theirs", "mine"):
        selection.add(key, Rank.DIRECT, dialled=key == "mine", limited=False, now=0)
    selection.remove("lan", 1)
    assert selection.best() == "mine"


def test_only_what_this_side_dialled_is_closed():
    selection: Selection[str] = Selection(is_local_lower=False)
    selection.add("mine", Rank.DIRECT, dialled=True, limited=False, now=0)
    assert selection.next_timeout() is None
    selection.add("theirs", Rank.DIRECT, dialled=False, limited=False, now=10)
    assert selection.next_timeout() == 10 + CLOSE_AFTER
    assert selection.handle_timeout(39.9, never) == []
    assert selection.handle_timeout(40, never) == ["mine"]
    assert selection.next_timeout() is None
    assert selection.best() == "theirs"
    selection.remove("mine", 41)

    other: Selection[str] = Selection(is_local_lower=True)
    other.add("theirs", Rank.DIRECT, dialled=False, limited=False, now=0)
    other.add("mine", Rank.DIRECT, dialled=True, limited=False, now=0)
    assert other.next_timeout() is None


def test_a_path_that_becomes_best_again_starts_anew():
    selection: Selection[str] = Selection(is_local_lower=True)
    selection.add("relay", Rank.RELAY, dialled=True, limited=True, now=0)
    selection.add("tcp", Rank.DIRECT, dialled=True, limited=False, now=0)
    selection.remove("tcp", 20)
    assert selection.next_timeout() is None
    selection.add("tcp", Rank.DIRECT, dialled=True, limited=False, now=25)
    assert selection.next_timeout() == 25 + CLOSE_AFTER


def test_a_busy_path_is_looked_at_again():
    selection: Selection[str] = Selection(is_local_lower=True)
    selection.add("relay", Rank.RELAY, dialled=True, limited=True, now=0)
    selection.add("tcp", Rank.DIRECT, dialled=True, limited=False, now=0)
    assert selection.handle_timeout(30, lambda _: True) == []
    assert selection.next_timeout() == 30 + RECHECK_AFTER
    assert selection.handle_timeout(35, never) == ["relay"]
