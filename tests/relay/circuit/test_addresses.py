"""Addresses behind relays: which there are, and which are told."""

from __future__ import annotations

import pytest
from isthmus.relay.circuit.addresses import (
    ANY_RELAY,
    MAX_ANNOUNCED,
    CircuitAddress,
    announced,
    behind,
)
from isthmus.transports.core.errors import AddressError
from isthmus.transports.core.keys import PrivateKey
from isthmus.transports.core.multiaddr import Multiaddr
from isthmus.transports.core.peer_id import PeerId

RELAY, PEER = (
    PeerId.from_public_key(PrivateKey.from_seed(bytes([n]) * 32).public_key) for n in (1, 2)
)
PLACE = Multiaddr.parse("/ip4/8.8.8.8/tcp/4001")


def parse(*texts: str) -> list[Multiaddr]:
    return [Multiaddr.parse(text) for text in texts]


@pytest.mark.parametrize("place", [PLACE, Multiaddr.parse("/dns4/relay.example/tcp/443/tls/ws")])
@pytest.mark.parametrize("target", [PEER, None])
def test_an_address_is_taken_apart_and_put_together(place, target):
    address = behind(place, RELAY)
    if target is not None:
        address = address.with_peer(target)
    found = CircuitAddress.of(address)
    assert found == CircuitAddress(RELAY, place, target)
    assert found.destination == place.with_peer(RELAY)


def test_a_relay_may_be_named_by_its_id_alone():
    found = CircuitAddress.of(Multiaddr.parse(f"/p2p/{RELAY}/p2p-circuit/p2p/{PEER}"))
    assert found == CircuitAddress(RELAY, None, PEER)
    assert str(found.destination) == f"/p2p/{RELAY}"


@pytest.mark.parametrize(
    "text",
    [
        "/ip4/8.8.8.8/tcp/1",
        "/p2p-circuit",
        f"/p2p-circuit/p2p/{PEER}",
        f"/ip4/8.8.8.8/tcp/1/p2p-circuit/p2p/{PEER}",
        f"/ip4/8.8.8.8/tcp/1/p2p/{RELAY}/p2p-circuit/webrtc",
        f"/ip4/8.8.8.8/tcp/1/p2p/{RELAY}/p2p-circuit/p2p/{PEER}/p2p/{PEER}",
        f"/ip4/8.8.8.8/tcp/1/p2p/{RELAY}/p2p-circuit/p2p/{PEER}/p2p-circuit",
        f"/ip4/8.8.8.8/tcp/1/p2p/{RELAY}/p2p-circuit/p2p/{PEER}/p2p-circuit/p2p/{RELAY}",
    ],
)
def test_what_leads_through_no_relay_or_several(text):
    with pytest.raises(AddressError, match="relay"):
        CircuitAddress.of(Multiaddr.parse(text))


def told(**options) -> list[str]:
    options = {"dialled": None, "told": [], "known": [], **options}
    return [str(each) for each in announced(RELAY, **options)]


def circuit(place: str) -> str:
    return f"{place}/p2p/{RELAY}/p2p-circuit"


def test_where_it_was_dialled_comes_first_and_what_it_says_of_itself_then():
    says = parse(
        f"/ip4/9.9.9.9/tcp/1/p2p/{RELAY}", "/ip4/8.8.8.8/tcp/4001", "/dns4/r.example/tcp/1"
    )
    assert told(dialled=PLACE, told=says) == [
        circuit("/ip4/8.8.8.8/tcp/4001"),
        circuit("/ip4/9.9.9.9/tcp/1"),
        circuit("/dns4/r.example/tcp/1"),
    ]


def test_a_relay_that_says_nothing_is_where_it_is_known_to_be():
    known = parse("/ip4/10.0.0.1/tcp/1", f"/ip4/8.8.8.8/tcp/1/p2p/{RELAY}")
    assert told(known=known) == [circuit("/ip4/10.0.0.1/tcp/1"), circuit("/ip4/8.8.8.8/tcp/1")]
    assert told(dialled=PLACE, known=known) == [circuit("/ip4/8.8.8.8/tcp/4001")]
    assert told() == []


def test_what_only_leads_there_from_near_is_told_by_who_is_near():
    says = parse("/ip4/127.0.0.1/tcp/1", "/ip4/10.0.0.1/tcp/1", "/ip4/9.9.9.9/tcp/1")
    assert told(dialled=PLACE, told=says)[1:] == [circuit("/ip4/9.9.9.9/tcp/1")]
    near = Multiaddr.parse("/ip4/10.0.0.7/tcp/1")
    assert told(dialled=near, told=says)[1:] == [
        circuit("/ip4/10.0.0.1/tcp/1"),
        circuit("/ip4/9.9.9.9/tcp/1"),
    ]


def test_what_is_no_place_is_left_out_and_the_rest_is_bounded():
    says = parse(
        f"/p2p/{RELAY}",
        f"/ip4/9.9.9.9/tcp/1/p2p/{PEER}/p2p-circuit/p2p/{RELAY}",
        f"/ip4/9.9.9.9/tcp/1/p2p/{RELAY}/p2p/{RELAY}",
        *(f"/ip4/9.9.9.9/tcp/{port}" for port in range(2, 20)),
    )
    found = told(told=says)
    assert found[0] == circuit("/ip4/9.9.9.9/tcp/1")
    assert len(found) == MAX_ANNOUNCED
    assert str(ANY_RELAY) == "/p2p-circuit"
