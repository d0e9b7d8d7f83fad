"""The tables in memory: what they answer, their bounds, and what they take from an earlier run."""

from __future__ import annotations

import pytest
from isthmus.node.peerstore import MAX_ADDRESSES, PeerStore
from isthmus.node.store.kept import MAX_KEPT, KeptPeers
from isthmus.node.store.links import MAX_HISTORY, LinkHistories
from isthmus.node.store.records import KeptPeer, StoredLink, StoredPeer
from isthmus.transports.core.errors import ConfigError

from .values import address, change, kept, link, peer, stored


class Told:
    """What a table said of its entries."""

    def __init__(self):
        self.changed = []
        self.dropped = []

    def hooks(self):
        return {"changed": self.changed.append, "dropped": self.dropped.append}


@pytest.fixture
def told():
    return Told()


def test_peers_tell_what_changes_and_what_is_forgotten(told):
    peers = PeerStore(max_peers=2, **told.hooks())
    peers.met(peer(1))
    peers.add_addresses(peer(2), [address(2)])
    peers.set_addresses(peer(1), [address(1)])
    peers.set_protocols(peer(2), ["/x"], agent="a/1")
    peers.parted(peer(1))
    peers.parted(peer(9))
    assert told.changed == [peer(1), peer(2), peer(1), peer(2), peer(1)]
    assert told.dropped == []
    peers.met(peer(3))
    assert told.dropped == [peer(1)]
    assert peers.stored(peer(1)) is None
    assert peers.stored(peer(2)).addresses == (address(2),)
    assert peers.stored(peer(2)).agent == "a/1"


def test_peers_come_back_in_the_order_in_which_they_were_met(told):
    peers = PeerStore(max_peers=3, **told.hooks())
    peers.restore([stored(4), stored(3), stored(2), stored(1)])
    assert list(peers) == [peer(2), peer(3), peer(4)]
    assert told.changed == []
    assert peers.stored(peer(3)) == stored(3)
    assert peers.protocols(peer(3)) is None
    peers.met(peer(5))
    assert told.dropped == [peer(2)]


def test_peers_that_are_known_already_stay_first_and_learn_what_was_known(told):
    peers = PeerStore(**told.hooks())
    peers.set_addresses(peer(1), [address(10)], seq=7)
    peers.met(peer(2))
    before = peers.info(peer(1)).last_seen
    told.changed.clear()
    old = StoredPeer(peer(1), (address(20), address(10)), "old/1", 5, 1.0)
    peers.restore([stored(3), old, stored(4)])
    assert told.changed == [peer(1), peer(2)]
    assert list(peers) == [peer(4), peer(3), peer(1), peer(2)]
    assert peers.stored(peer(1)) == StoredPeer(
        peer(1), (address(10), address(20)), "old/1", 7, before
    )
    many = StoredPeer(peer(1), tuple(map(address, range(100, 200))), "x", 9, 1.0)
    peers.restore([many])
    assert len(peers.addresses(peer(1))) == MAX_ADDRESSES
    assert peers.info(peer(1)).agent == "old/1"
    assert not peers.set_addresses(peer(1), [], seq=9)


def test_a_peer_is_kept_until_it_is_forgotten(told):
    table = KeptPeers(changed=told.changed.append)
    assert table.info(peer(1)) is None
    first = table.keep(peer(1), now=5.0, addresses=[address(1)], alias="one")
    assert first == KeptPeer(peer(1), (address(1),), "one", 5.0)
    again = table.keep(peer(1), now=9.0, addresses=[address(2)])
    assert again == KeptPeer(peer(1), (address(2), address(1)), "one", 5.0)
    assert table.info(peer(1)) == table.named("one") == again
    assert list(table) == [again]
    assert peer(1) in table
    assert table.keep(peer(1), now=9.0, alias="uno").alias == "uno"
    assert table.named("one") is None
    assert table.named("") is None
    assert table.forget(peer(1))
    assert not table.forget(peer(1))
    assert peer(1) not in table
    assert told.changed == [peer(1)] * 5


def test_kept_peers_are_bounded_and_their_aliases_unambiguous(told):
    table = KeptPeers(changed=told.changed.append)
    table.keep(peer(0), now=0.0, alias="zero")
    with pytest.raises(ConfigError, match=f"'zero' is {peer(0)}'s; choose another"):
        table.keep(peer(1), now=0.0, alias="zero")
    with pytest.raises(ConfigError, match="256 characters"):
        table.keep(peer(1), now=0.0, alias="x" * 257)
    for number in range(1, MAX_KEPT):
        table.keep(peer(number), now=0.0)
    told.changed.clear()
    with pytest.raises(ConfigError, match="1024 peers are kept, which is all; forget one first"):
        table.keep(peer(5000), now=0.0)
    table.restore([kept(6000)])
    assert len(table) == MAX_KEPT
    assert len(told.changed) == MAX_KEPT
    table.forget(peer(0))
    table.restore([kept(5), kept(6000)])
    assert peer(6000) in table
    assert table.info(peer(5)).since == 0.0


def test_a_link_has_a_last_change_and_a_bounded_history(told):
    table = LinkHistories(**told.hooks())
    assert table.last(peer(1)) is None
    assert table.history(peer(1)) == ()
    assert table.unsaved(peer(1)) is None
    for number in range(MAX_HISTORY + 10):
        added = table.add(peer(1), "connected", now=float(number), reason=f"reason {number}")
        assert added == change(number)
    assert table.last(peer(1)) == change(MAX_HISTORY + 9)
    assert table.history(peer(1)) == tuple(map(change, range(10, MAX_HISTORY + 10)))
    long = table.add(peer(1), "s" * 1000, now=0.0, reason="r" * 1000)
    assert len(long.state) == len(long.reason) == 256
    assert set(told.changed) == {peer(1)}


def test_the_link_least_recently_changed_is_forgotten_first(told):
    table = LinkHistories(max_links=2, **told.hooks())
    for number in (1, 2, 1, 3):
        table.add(peer(number), "connected", now=0.0)
    assert list(table) == [peer(1), peer(3)]
    assert len(table) == 2
    assert told.dropped == [peer(2)]


def test_a_history_that_was_dropped_while_it_was_written_is_not_taken_for_saved(told):
    table = LinkHistories(max_links=1, **told.hooks())
    table.add(peer(1), "connected", now=0.0)
    table.add(peer(1), "connected", now=1.0)
    under_way = table.unsaved(peer(1))
    table.add(peer(2), "connected", now=2.0)
    table.saved(under_way)
    again = table.add(peer(1), "connected", now=3.0)
    table.saved(under_way)
    assert table.unsaved(peer(1)) == StoredLink(peer(1), 0, (again,))


def test_only_changes_that_are_in_no_file_are_to_be_written(told):
    table = LinkHistories(**told.hooks())
    for number in range(3):
        table.add(peer(1), "connected", now=float(number), reason=f"reason {number}")
    unsaved = table.unsaved(peer(1))
    assert unsaved == link(1, count=3)
    table.add(peer(1), "connected", now=3.0, reason="reason 3")
    table.saved(unsaved)
    assert table.unsaved(peer(1)) == link(1, first=3, count=1)
    for number in range(4, 4 + MAX_HISTORY):
        table.add(peer(1), "connected", now=float(number), reason=f"reason {number}")
    assert table.unsaved(peer(1)) == link(1, first=4, count=MAX_HISTORY)
    table.saved(table.unsaved(peer(1)))
    assert table.unsaved(peer(1)) is None


def test_a_history_goes_on_where_the_last_run_ended(told):
    table = LinkHistories(max_links=2, **told.hooks())
    table.restore([link(2, first=40, count=5), link(1), link(3)])
    assert list(table) == [peer(1), peer(2)]
    assert told.changed == []
    assert table.unsaved(peer(2)) is None
    assert table.last(peer(2)) == change(44)
    table.add(peer(2), "connected", now=45.0, reason="reason 45")
    assert table.unsaved(peer(2)) == link(2, first=45, count=1)


def test_a_file_that_comes_late_is_put_in_order_with_what_happened_meanwhile(told):
    table = LinkHistories(**told.hooks())
    table.add(peer(1), "connected", now=2.0, reason="reason 2")
    table.add(peer(1), "connected", now=9.0, reason="reason 9")
    table.add(peer(2), "connected", now=1.0, reason="reason 1")
    for number in (1, 2):
        table.saved(table.unsaved(peer(number)))
    told.changed.clear()
    table.restore([link(3), link(1, first=7, count=0), link(1, count=3)])
    assert told.changed == [peer(1), peer(2)]
    whole = (change(0), change(1), change(2), change(9))
    assert table.history(peer(1)) == whole
    assert table.unsaved(peer(1)) == StoredLink(peer(1), 0, whole)
    assert table.unsaved(peer(2)) == StoredLink(peer(2), 0, (change(1),))
    assert list(table) == [peer(3), peer(1), peer(2)]
