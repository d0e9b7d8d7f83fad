"""Multiaddrs."""

from __future__ import annotations

import dataclasses
import ipaddress
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from isthmus.transports.core.errors import AddressError
from isthmus.transports.core.keys import PrivateKey
from isthmus.transports.core.multiaddr import MAX_COMPONENTS, MAX_LENGTH, Component, Multiaddr
from isthmus.transports.core.peer_id import PeerId
from isthmus.transports.core.varint import encode_varint, length_prefixed

VECTORS = json.loads(
    (Path(__file__).parents[2] / "vectors" / "core" / "multiaddrs.json").read_text("utf-8")
)["addresses"]
ALICE, BOB = (
    PeerId.from_public_key(PrivateKey.from_seed(bytes([n]) * 32).public_key) for n in (1, 2)
)
CERTHASH = "uEiAAAQIDBAUGBwgJCgsMDQ4PEBESExQVFhcYGRobHB0eHw"
CODES = {
    "ip4/1.2.3.4": 4,
    "tcp/1": 6,
    "ip6/::": 41,
    "ip6zone/eth0": 42,
    "ipcidr/24": 43,
    "dns/a.example": 53,
    "dns4/a.example": 54,
    "dns6/a.example": 55,
    "dnsaddr/a.example": 56,
    "udp/1": 273,
    "webrtc-direct": 280,
    "webrtc": 281,
    "p2p-circuit": 290,
    "unix/tmp/socket": 400,
    f"p2p/{ALICE}": 421,
    "https": 443,
    "tls": 448,
    "sni/a.example": 449,
    "noise": 454,
    "quic": 460,
    "quic-v1": 461,
    "webtransport": 465,
    f"certhash/{CERTHASH}": 466,
    "ws": 477,
    "wss": 478,
    "http": 480,
    "http-path/tmp%2Fbar": 481,
    "memory/7": 777,
}

NAMES = st.text(st.characters(codec="utf-8", categories=("L", "N", "P", "S")), min_size=1).map(
    lambda text: text.replace("/", ".")[:100]
)
VALUES = {
    "ip4": st.binary(min_size=4, max_size=4),
    "ip6": st.binary(min_size=16, max_size=16),
    "tcp": st.binary(min_size=2, max_size=2),
    "udp": st.binary(min_size=2, max_size=2),
    "memory": st.binary(min_size=8, max_size=8),
    "ipcidr": st.binary(min_size=1, max_size=1),
    "p2p": st.sampled_from([ALICE.raw, BOB.raw]),
    "certhash": st.binary(min_size=1, max_size=64).map(
        lambda data: b"\x12" + length_prefixed(data)
    ),
    "http-path": st.text(st.characters(codec="utf-8"), min_size=1, max_size=20).map(str.encode),
} | dict.fromkeys(("dns", "dns4", "dns6", "dnsaddr", "sni", "ip6zone"), NAMES.map(str.encode))
FLAGS = ["tls", "ws", "wss", "webrtc", "webrtc-direct", "p2p-circuit", "quic-v1", "http", "noise"]
COMPONENTS = st.sampled_from([*VALUES, *FLAGS]).flatmap(
    lambda name: st.builds(Component, st.just(name), VALUES.get(name, st.just(b"")))
)
ADDRESSES = st.lists(COMPONENTS, min_size=1, max_size=5).map(
    lambda components: Multiaddr(tuple(components))
)


def parse(text):
    return Multiaddr.parse(text)


@pytest.mark.parametrize(("text", "encoded"), VECTORS)
def test_vectors(text, encoded):
    address = parse(text)
    assert bytes(address).hex() == encoded
    assert str(Multiaddr.from_bytes(bytes.fromhex(encoded))) == text


@pytest.mark.parametrize(("rest", "code"), CODES.items())
def test_every_protocol_has_its_code(rest, code):
    address = parse(f"/{rest}")
    assert bytes(address).startswith(encode_varint(code))
    assert str(address) == f"/{rest}"
    assert Multiaddr.from_bytes(bytes(address)) == address


@given(ADDRESSES)
def test_text_and_bytes_round_trip(address):
    assert parse(str(address)) == address
    assert Multiaddr.from_bytes(bytes(address)) == address


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("/ip4/127.0.0.1/tcp/1/", "/ip4/127.0.0.1/tcp/1"),
        ("/ip4/127.0.0.1/tcp/0080", "/ip4/127.0.0.1/tcp/80"),
        ("/ip6/0:0:0:0:0:0:0:1", "/ip6/::1"),
        ("/ip6/::ffff:102:304", "/ip6/::ffff:1.2.3.4"),
        (f"/ipfs/{ALICE}", f"/p2p/{ALICE}"),
        (f"/p2p/{ALICE.cid}", f"/p2p/{ALICE}"),
        ("/unix/tmp/socket/", "/unix/tmp/socket"),
        ("/http-path/a%62%2fc", "/http-path/ab%2Fc"),
        (
            "/certhash/b2uaraocy6yrdblb4sfptaddgimjmmpy",
            "/certhash/u1QEQOFj2IjCsPJFfMAxmQxLGPw",
        ),
    ],
)
def test_other_spellings(text, canonical):
    assert str(parse(text)) == canonical


@pytest.mark.parametrize(
    "text",
    [
        "",
        "/",
        "//",
        "ip4/1.2.3.4",
        "/ip4",
        "/ip4/",
        "/ip4/::1",
        "/ip4/1.2.3",
        "/ip4/1.2.3.04",
        "/ip6/1.2.3.4",
        "/ip6/fe80::1%eth0",
        "/ip6zone//ip6/fe80::1",
        "/tcp",
        "/tcp/-1",
        "/tcp/65536",
        "/tcp/http",
        "/tcp/\u0661",
        "/tcp/" + "1" * 900,
        "/udp/1 ",
        "/ipcidr/256",
        "/memory/18446744073709551616",
        "/quic/1",
        "/unix",
        "/unix/",
        "/unix/a\nb",
        "/unix/\ud800",
        "/dns/",
        "/dns/a b",
        "/dns/a\x00",
        "/dns/" + "a" * 254,
        "/dns//tcp/1",
        "/p2p",
        "/p2p/nobody",
        "/p2p/QmxoHT6iViN5xAjoz1VZ553cL31U9F94ht3QvWR1FrEbZY",
        "/certhash",
        "/certhash/b2uaraocy6yrdblb4sfptaddgimjmmp",
        "/certhash/uEiA",
        "/certhash/zz",
        "/http-path/%",
        "/http-path/%zz",
        "/http-path/%ff",
        "/onion3/vww6ybal4bd7szmgncyruucpgfkqahzddi37ktceo3ah7ngmcopnpyyd:1234",
        "/ws" * (MAX_COMPONENTS + 1),
        "/dns/" + "a" * MAX_LENGTH,
    ],
)
def test_bad_texts_are_refused(text):
    with pytest.raises(AddressError):
        parse(text)


@pytest.mark.parametrize(
    "encoded",
    [
        "",
        "04",
        "047f0000",
        "0600",
        "84",
        "8400",
        "ffffffffffffffffff01",
        "047f000001ff7f",  # an unknown protocol behind a known one
        "3600",
        "3605612f62",
        "3603612f62",
        "3602ff61",
        "3680",
        "900300",
        "90030161",
        "9003012f",
        "9003032f612f",
        "a503221221c05877cbae039d70a5e600ea02c6f9f2942439285c9e344e26f8d280c850fad6",
        "d2030112",
        "d203021200",
        "d2030412019999",
        "d20344" + "1242" + "00" * 66,
        "d20302d580",
        "e10300",
        "e10301ff",
        "dd03" * (MAX_COMPONENTS + 1),
        "dd03" * MAX_LENGTH,
    ],
)
def test_bad_bytes_are_refused(encoded):
    with pytest.raises(AddressError):
        Multiaddr.from_bytes(bytes.fromhex(encoded))


def test_neither_form_may_be_too_long():
    path = "/http-path/" + "%2F" * 330
    address = parse(path)
    assert len(str(address)) == 1001
    with pytest.raises(AddressError):
        address.encapsulate(parse("/http-path/" + "a" * 100))
    with pytest.raises(AddressError):
        Multiaddr.from_bytes(bytes.fromhex("e103") + length_prefixed(b"/" * 340))


def test_a_component_is_checked():
    assert Component("tcp", b"\x01\x00").number == 256
    assert str(Component("tcp", b"\x01\x00")) == "/tcp/256"
    for name, data in (("tcp", b"\x01"), ("ws", b"x"), ("what", b""), ("p2p", b"x")):
        with pytest.raises(AddressError):
            Component(name, data)
    with pytest.raises(AddressError):
        Multiaddr(())


def test_many_addresses_lose_only_the_bad_ones():
    good = [parse("/ip4/1.2.3.4/tcp/1"), parse("/ip6/::1/udp/2/quic-v1")]
    assert Multiaddr.parse_many([bytes(good[0]), b"\xff\x7f", b"", bytes(good[1])]) == good


def test_it_is_a_frozen_value():
    address = parse("/ip4/127.0.0.1/tcp/1")
    again = Multiaddr.from_bytes(bytes(address))
    assert {address, again} == {again}
    assert address != str(address)
    assert repr(address) == "Multiaddr('/ip4/127.0.0.1/tcp/1')"
    with pytest.raises(dataclasses.FrozenInstanceError):
        address.names = ()


RELAYED = f"/ip4/1.2.3.4/tcp/1/p2p/{ALICE}/p2p-circuit"


@pytest.mark.parametrize(
    ("text", "host", "port", "last", "peer"),
    [
        ("/ip4/1.2.3.4/tcp/4001", "1.2.3.4", 4001, "tcp", None),
        (f"/ip6/::1/tcp/1/p2p/{BOB}", "::1", 1, "tcp", BOB),
        ("/ip6zone/eth0/ip6/fe80::1/tcp/1", "fe80::1", 1, "tcp", None),
        ("/ip6zone/eth0", "", None, "ip6zone", None),
        ("/dns4/a.example/tcp/443/tls/ws", "a.example", 443, "ws", None),
        ("/dnsaddr/a.example", "a.example", None, "dnsaddr", None),
        (
            f"/ip4/1.2.3.4/udp/1/webrtc-direct/certhash/{CERTHASH}",
            "1.2.3.4",
            1,
            "webrtc-direct",
            None,
        ),
        (RELAYED, "1.2.3.4", 1, "p2p-circuit", None),
        (f"{RELAYED}/p2p/{BOB}", "1.2.3.4", 1, "p2p-circuit", BOB),
        (f"{RELAYED}/webrtc/p2p/{BOB}", "1.2.3.4", 1, "webrtc", BOB),
        (f"/p2p/{ALICE}", "", None, "p2p", ALICE),
        ("/memory/1", "", None, "memory", None),
    ],
)
def test_what_an_address_says(text, host, port, last, peer):
    address = parse(text)
    assert (address.host, address.port) == (host, port)
    assert (address.last_transport, address.peer_id) == (last, peer)
    is_ip = host and "example" not in host
    assert address.ip == (ipaddress.ip_address(host) if is_ip else None)


def test_values():
    address = parse(f"{RELAYED}/p2p/{BOB}")
    assert address.names == ("ip4", "tcp", "p2p", "p2p-circuit", "p2p")
    assert address.value_of("p2p") == str(ALICE)
    assert address.value_of("p2p-circuit") == ""
    assert address.value_of("udp") is None
    assert parse("/unix/tmp/socket").value_of("unix") == "/tmp/socket"
    assert parse("/http-path/a%2Fb").components[0].data == b"a/b"


def test_process_local():
    assert parse("/memory/1").is_process_local
    assert parse(f"/unix/tmp/socket/p2p/{ALICE}").is_process_local
    assert not parse("/ip4/127.0.0.1/tcp/1").is_process_local


def test_peers_come_and_go():
    place = parse("/ip4/1.2.3.4/tcp/1")
    alice = place.with_peer(ALICE)
    assert str(alice) == f"{place}/p2p/{ALICE}"
    assert alice.with_peer(ALICE) is alice
    assert alice.with_peer(BOB) == place.with_peer(BOB)
    assert alice.without_peer() == place
    assert place.without_peer() is place
    assert parse(RELAYED).with_peer(BOB).without_peer() == parse(RELAYED)
    assert parse(f"/p2p/{ALICE}/ws").with_peer(ALICE).names == ("p2p", "ws", "p2p")
    alone = parse(f"/p2p/{ALICE}")
    assert alone.without_peer() is alone
    assert alone.with_peer(BOB) == parse(f"/p2p/{BOB}")


def test_encapsulation():
    relay = parse(f"/ip4/1.2.3.4/tcp/1/p2p/{ALICE}")
    whole = relay.encapsulate(parse("/p2p-circuit")).with_peer(BOB)
    assert str(whole) == f"{RELAYED}/p2p/{BOB}"
    assert whole.decapsulate_at("p2p-circuit") == relay
    assert whole.decapsulate_at("p2p") == parse(RELAYED)
    assert whole.decapsulate_at("udp") is whole
    with pytest.raises(AddressError):
        whole.decapsulate_at("ip4")


PIECES = [*CODES, "ip4", "tcp", "unix", "p2p", "", "1", "%41", "..", "\u202e", " "]


@given(st.lists(st.sampled_from(PIECES) | st.text(max_size=8), max_size=6))
def test_random_texts(pieces):
    try:
        address = parse("/" + "/".join(pieces))
    except AddressError:
        return
    assert parse(str(address)) == Multiaddr.from_bytes(bytes(address)) == address


ENCODED_PIECES = st.sampled_from([bytes(parse(f"/{rest}")) for rest in CODES])
CODE_PIECES = st.sampled_from([encode_varint(code) for code in CODES.values()])


def test_nothing_follows_a_path():
    """Its text would be that of a longer path."""
    path, other = (bytes(parse(each)) for each in ("/unix/tmp/socket", "/tcp/1"))
    assert str(Multiaddr.from_bytes(other + path)) == "/tcp/1/unix/tmp/socket"
    with pytest.raises(AddressError, match="after /unix"):
        Multiaddr.from_bytes(path + other)


@given(st.lists(ENCODED_PIECES | CODE_PIECES | st.binary(max_size=6), max_size=6).map(b"".join))
def test_random_bytes(data):
    try:
        address = Multiaddr.from_bytes(data)
    except AddressError:
        return
    assert bytes(address) == data
    assert parse(str(address)) == address
    _ = address.peer_id, address.ip, address.host, address.port, address.last_transport
