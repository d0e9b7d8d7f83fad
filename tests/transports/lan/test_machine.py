"""What a node announces, what it believes, and how much of it."""

from __future__ import annotations

import random
from ipaddress import ip_interface
from itertools import count

import pytest
from isthmus.transports.core.errors import ConfigError
from isthmus.transports.core.keys import PrivateKey
from isthmus.transports.core.multiaddr import Multiaddr
from isthmus.transports.core.peer_id import PeerId
from isthmus.transports.lan.config import LanConfig
from isthmus.transports.lan.interfaces import Interface, lan_interfaces
from isthmus.transports.lan.machine import (
    HEARD_INTERVAL,
    MAX_ADDRESSES,
    MAX_ANNOUNCED,
    MAX_CHANGES,
    MAX_TTL,
    MINUTE,
    QUESTION_INTERVAL,
    LanMachine,
    PeerHeard,
)
from isthmus.transports.lan.wire import decode_text, encode_text

_SEEDS = count(1)  # the same peers in every process that collects the tests


def peer_id():
    seed = next(_SEEDS).to_bytes(32, "big")
    return PeerId.from_public_key(PrivateKey.from_seed(seed).public_key)


def address(text, peer=None):
    found = Multiaddr.parse(text)
    return found if peer is None else found.with_peer(peer)


def interface(name, *ips, **more):
    return Interface(name, tuple(map(ip_interface, ips)), **more)


OWN, A, B = peer_id(), peer_id(), peer_id()
HOME = interface("eth0", "192.168.1.7/24", "fe80::7/64")
HERE = address("/ip4/192.168.1.7/tcp/4001")
NEAR = address("/ip4/192.168.1.9/tcp/4001")
ALSO = address("/ip4/192.168.1.10/tcp/4001")
NOW = 1000.0


def machine(*interfaces, addresses=(HERE,), **config):
    made = LanMachine(OWN, LanConfig(**config))
    made.set_network(interfaces or (HOME,), addresses, NOW)
    return made


def says(peer, *addresses):
    return encode_text([each.with_peer(peer) for each in addresses])


def test_it_announces_what_can_be_dialled_on_the_lan():
    made = machine(
        addresses=(
            address("/ip4/127.0.0.1/tcp/4001"),
            address("/ip6/fe80::7/tcp/4001"),
            address("/ip4/192.168.1.7/tcp/4001/ws"),
            address("/ip4/11.0.0.1/tcp/4001"),
            HERE,
        )
    )
    announcement = made.announcement
    assert (announcement.port, announcement.addresses) == (4001, ("192.168.1.7",))
    assert decode_text(announcement.text) == [HERE.with_peer(OWN)]
    assert made.interfaces == (HOME,)


def test_it_announces_a_few_addresses_ipv4_first():
    ips = [f"fd00::{number}/64" for number in range(1, 9)] + ["10.0.0.1/8"]
    addresses = [address(f"/ip{4 if '.' in ip else 6}/{ip.split('/')[0]}/tcp/9") for ip in ips]
    announcement = machine(interface("eth0", *ips), addresses=addresses).announcement
    found = decode_text(announcement.text)
    assert len(found) == len(announcement.addresses) == MAX_ANNOUNCED
    assert found[0] == address("/ip4/10.0.0.1/tcp/9", OWN)


@pytest.mark.parametrize(
    ("announce", "trusted", "used", "told"),
    [
        ("private", (), {"home"}, {"192.168.1.7"}),
        ("private", ("cafe",), {"home", "cafe"}, {"192.168.1.7", "11.0.0.7"}),
        ("trusted", (), set(), set()),
        ("trusted", ("cafe",), {"cafe"}, {"11.0.0.7"}),
        ("never", (), {"home"}, set()),
    ],
)
def test_where_it_shows_itself(announce, trusted, used, told):
    made = machine(
        interface("home", "192.168.1.7/24"),
        interface("cafe", "11.0.0.7/24"),
        addresses=(HERE, address("/ip4/11.0.0.7/tcp/4001")),
        announce=announce,
        trusted=trusted,
    )
    assert {each.name for each in made.interfaces} == used
    assert set(made.announcement.addresses if made.announcement else ()) == told


def test_config():
    for wrong in ({"announce": "loudly"}, {"peers_per_minute": 0}, {"max_peers": 0}):
        with pytest.raises(ConfigError):
            LanConfig(**wrong)


def test_it_tells_what_changes_and_asks_again_when_the_interfaces_do():
    made = machine()
    assert not made.set_network((HOME,), (HERE,), NOW)
    assert made.set_network((HOME,), (), NOW + 9)
    assert made.announcement is None
    assert made.next_timeout() == NOW
    for _ in range(4):
        assert made.handle_timeout(made.next_timeout())
    assert made.next_timeout() == NOW + 7 + QUESTION_INTERVAL
    other = interface("eth1", "10.0.0.1/8")
    assert made.set_network((HOME, other), (), NOW + 30)
    assert made.next_timeout() == NOW + 30


def test_the_questions():
    made = machine()
    asked = []
    for _ in range(6):
        asked.append(made.next_timeout() - NOW)
        assert not made.handle_timeout(made.next_timeout() - 0.01)
        assert made.handle_timeout(made.next_timeout())
    assert asked == [0, 1, 3, 7, 67, 127]
    made.ask(NOW + 127.2)
    assert made.next_timeout() == NOW + 128, "never two within a second"


def test_without_an_interface_nobody_is_asked():
    made = machine(interface("eth0", "11.0.0.1/24"))
    assert not made.handle_timeout(NOW)
    assert made.next_timeout() == NOW + 1


def test_a_peer_is_heard_once_and_forgotten_in_time():
    made = machine()
    assert made.receive_text(says(A, NEAR), 120, NOW) == [PeerHeard(A, (NEAR,), is_new=True)]
    assert made.addresses(A) == (NEAR,)
    assert made.addresses(B) == ()
    assert len(made) == 1
    assert made.receive_text(says(A, NEAR), 120, NOW + 1) == []
    later = NOW + HEARD_INTERVAL
    assert made.receive_text(says(A, NEAR), 120, later) == [PeerHeard(A, (NEAR,), is_new=False)]
    assert made.receive_text(says(A, ALSO), 10, later) == [PeerHeard(A, (NEAR, ALSO), is_new=True)]
    made.handle_timeout(later + 10)
    assert made.addresses(A) == (NEAR,)
    made.handle_timeout(later + 120)
    assert made.addresses(A) == ()
    assert len(made) == 0
    assert made.receive_text(says(A, NEAR), 10**9, NOW)[0].is_new
    made.handle_timeout(NOW + MAX_TTL)
    assert made.addresses(A) == ()


def test_a_deadline_is_that_of_the_first_address():
    made = machine()
    for _ in range(4):
        made.handle_timeout(made.next_timeout())
    made.receive_text(says(A, NEAR), 5, NOW + 7)
    assert made.next_timeout() == NOW + 12


def test_goodbye():
    made = machine()
    made.receive_text(says(A, NEAR, ALSO), 120, NOW)
    assert made.receive_text(says(A, NEAR), 0, NOW) == []
    assert made.addresses(A) == (ALSO,)
    made.receive_text(says(A, NEAR, ALSO), 0, NOW)
    made.receive_text(says(B, NEAR), 0, NOW)
    assert made.addresses(A) == ()


def test_several_peers_in_one_record():
    events = machine().receive_text(says(A, NEAR) + says(B, ALSO), 120, NOW)
    assert [(each.peer, each.addresses) for each in events] == [(A, (NEAR,)), (B, (ALSO,))]


@pytest.mark.parametrize(
    "heard",
    [
        says(OWN, NEAR),
        encode_text([NEAR]),
        says(A, address("/ip4/127.0.0.1/tcp/4001")),
        says(A, address("/ip4/192.168.2.9/tcp/4001")),
        says(A, address("/ip4/8.8.8.8/tcp/4001")),
        says(A, address("/ip4/192.168.1.9/tcp/4001/ws")),
        says(A, address("/ip4/192.168.1.9/udp/4001/quic-v1")),
        says(A, address("/dns4/peer.example/tcp/4001")),
    ],
)
def test_what_is_not_believed(heard):
    assert machine().receive_text(heard, 120, NOW) == []
    assert len(machine().receive_text(heard + says(B, NEAR), 120, NOW)) == 1


def test_a_peer_has_a_few_addresses_and_changes_them_a_few_times_a_minute():
    made = machine()
    many = [address(f"/ip4/192.168.1.{number}/tcp/1") for number in range(100, 120)]
    (event,) = made.receive_text(says(A, *many[: MAX_ADDRESSES + 2]), 120, NOW)
    assert event.addresses == tuple(many[:MAX_ADDRESSES])
    for number in range(MAX_CHANGES - 1):
        made.receive_text(says(B, many[number]), 120, NOW)
    assert len(made.receive_text(says(B, many[10]), 120, NOW)) == 1
    assert made.receive_text(says(B, many[11]), 120, NOW + 1) == []
    assert made.receive_text(says(B, many[11]), 120, NOW + MINUTE)[0].is_new


def test_a_flood_of_peers_meets_two_bounds_and_who_is_asked_for_passes():
    made = machine(peers_per_minute=5, max_peers=3)
    flood = [peer_id() for _ in range(8)]
    heard = [bool(made.receive_text(says(peer, NEAR), 120, NOW)) for peer in flood]
    assert heard == [True] * 5 + [False] * 3
    assert made.ignored == 3
    assert [bool(made.addresses(peer)) for peer in flood] == [False] * 2 + [True] * 3 + [False] * 3
    made.expect(A, NOW)
    made.expect(A, NOW)
    made.expect_no_more(A)
    assert made.receive_text(says(A, NEAR), 120, NOW)
    made.expect_no_more(A)
    assert not made.receive_text(says(B, NEAR), 120, NOW)
    assert made.receive_text(says(B, NEAR), 120, NOW + MINUTE)


def test_fuzz(seed, scaled):
    rng = random.Random(seed)
    made, now = machine(peers_per_minute=50, max_peers=20), NOW
    peers = [peer_id() for _ in range(40)]
    for _ in range(scaled(5_000)):
        now += rng.choice([0, 0.1, 1, 30])
        data = bytearray(
            says(rng.choice(peers), NEAR, address(f"/ip4/192.168.1.{rng.randrange(256)}/tcp/1"))
        )
        if rng.random() < 0.3:
            data[rng.randrange(len(data))] = rng.randrange(256)
        made.receive_text(bytes(data), rng.choice([0, 1, 120, 1e9]), now)
        made.handle_timeout(now)
        known = [made.addresses(peer) for peer in peers]
        assert sum(map(bool, known)) <= 20
        assert max(map(len, known)) <= MAX_ADDRESSES
        assert made.next_timeout() > now


def test_the_interfaces_of_this_machine():
    for each in lan_interfaces():
        assert each.name != "lo"
        assert each.addresses
