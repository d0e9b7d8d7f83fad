"""The table of peers keeps what is of use, and never more than its bounds."""

from __future__ import annotations

from isthmus.node.peerstore import MAX_ADDRESSES, MAX_PROTOCOLS, PeerStore
from isthmus.transports.core.keys import PrivateKey
from isthmus.transports.core.multiaddr import Multiaddr
from isthmus.transports.core.peer_id import PeerId


def peer(number: int) -> PeerId:
    return PeerId.from_public_key(PrivateKey.from_seed(bytes([number]) * 32).public_key)


def address(port: int) -> Multiaddr:
    return Multiaddr.parse(f"/ip4/192.0.2.1/tcp/{port}")


def test_a_stranger_has_nothing():
    peers = PeerStore()
    assert peers.addresses(peer(1)) == ()
    assert peers.protocols(peer(1)) is None
    peers.parted(peer(1))
    assert len(peers) == 0


def test_the_newest_addresses_come_first_each_once_and_bounded():
    peers = PeerStore()
    peers.add_addresses(peer(1), [address(1), address(2)])
    peers.add_addresses(peer(1), [address(3), address(1)])
    assert peers.addresses(peer(1)) == (address(3), address(1), address(2))
    peers.add_addresses(peer(1), map(address, range(100, 200)))
    assert len(peers.addresses(peer(1))) == MAX_ADDRESSES
    long = Multiaddr.parse("/ip4/192.0.2.1/tcp/1/http/http-path/" + "x" * 600)
    peers.set_addresses(peer(1), [long, address(1)])
    assert peers.addresses(peer(1)) == (address(1),)


def test_only_a_newer_record_replaces_addresses():
    peers = PeerStore()
    assert peers.set_addresses(peer(1), [address(1)], seq=5)
    assert not peers.set_addresses(peer(1), [address(2)], seq=5)
    assert peers.addresses(peer(1)) == (address(1),)
    assert peers.set_addresses(peer(1), [address(2)], seq=6)
    assert peers.addresses(peer(1)) == (address(2),)


def test_protocols_are_forgotten_when_the_peer_parts():
    peers = PeerStore()
    peers.set_protocols(peer(1), ["/a", "/b"], agent="x/1")
    peers.set_protocols(peer(1), ["/a"])
    assert peers.protocols(peer(1)) == {"/a"}
    assert peers.info(peer(1)).agent == "x/1"
    peers.parted(peer(1))
    assert peers.protocols(peer(1)) is None
    peers.set_protocols(peer(1), [f"/{number}" for number in range(2000)])
    assert len(peers.protocols(peer(1))) == MAX_PROTOCOLS


def test_the_peer_least_recently_met_is_forgotten_first():
    peers = PeerStore(max_peers=2)
    peers.met(peer(1))
    peers.met(peer(2))
    peers.met(peer(1))
    peers.met(peer(3))
    assert list(peers) == [peer(1), peer(3)]


def test_who_is_forgotten_leaves_nothing_and_is_told_as_changed():
    changed = []
    peers = PeerStore(changed=changed.append)
    peers.add_addresses(peer(1), [address(1)])
    peers.forget(peer(1))
    assert (len(peers), peers.stored(peer(1)), peers.addresses(peer(1))) == (0, None, ())
    peers.parted(peer(1))
    peers.forget(peer(2))
    assert len(peers) == 0
    assert changed == [peer(1), peer(1), peer(2)]
