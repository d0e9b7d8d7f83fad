"""Which connection is best, and which one this side closes, and when."""

from __future__ import annotations

import pytest
from isthmus.node.selection import CLOSE_AFTER, RECHECK_AFTER, Rank, Selection, rank_of
from isthmus.transports.core.multiaddr import Multiaddr

RELAY = "/ip4/192.0.2.1/tcp/1/p2p/12D3KooWK99VoVxNE7XzyBwXEzW7xhK7Gpv85r9F3V3fyKSUKPH5"


def never(_: str) -> bool:
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
    assert rank_of(Multiaddr.parse(address)) is rank


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
