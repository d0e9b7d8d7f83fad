"""Peer ids."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from isthmus.transports.core.errors import AddressError
from isthmus.transports.core.keys import PrivateKey, PublicKey
from isthmus.transports.core.multibase import multibase_encode
from isthmus.transports.core.peer_id import PeerId

VECTORS = json.loads(
    (Path(__file__).parents[2] / "vectors" / "core" / "keys.json").read_text("utf-8")
)["keys"]
INLINE = st.binary(min_size=1, max_size=42).map(lambda key: bytes((0, len(key))) + key)
HASHED = st.binary(min_size=32, max_size=32).map(lambda digest: b"\x12\x20" + digest)
SEED_1 = PeerId.from_public_key(PrivateKey.from_seed(b"\x01" * 32).public_key)


@pytest.mark.parametrize("entry", VECTORS, ids=lambda entry: entry["type"])
def test_vectors(entry):
    key = PublicKey.from_protobuf(bytes.fromhex(entry["public"]))
    peer = PeerId.from_public_key(key)
    assert peer.matches(key)
    assert peer.public_key == (key if peer.raw[0] == 0 else None)
    if "peer_id" in entry:
        assert str(peer) == entry["peer_id"]
        assert peer.cid == entry["cid"]
        assert PeerId.parse(entry["peer_id"]) == PeerId.parse(entry["cid"]) == peer


def test_a_long_key_is_hashed():
    entry = next(entry for entry in VECTORS if entry["type"] == "RSA")
    raw = bytes.fromhex(entry["public"])
    peer = PeerId.from_public_key(PublicKey.from_protobuf(raw))
    assert bytes(peer) == b"\x12\x20" + hashlib.sha256(raw).digest()
    assert str(peer).startswith("Qm")


@pytest.mark.parametrize(
    ("text", "same"),
    [
        (
            "bafzbeie5745rpv2m6tjyuugywy4d5ewrqgqqhfnf445he3omzpjbx5xqxe",
            "QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N",
        ),
        (
            "k2k4r8oqamigqdo6o7hsbfwd45y70oyynp98usk7zmyfrzpqxh1pohl7",
            "QmcgpsyWgH8Y8ajJz1Cu72KnS5uo2Aa2LpzU7kinSupNKC",
        ),
        (
            "k51qzi5uqu5dhb6l8spkdx7yxafegfkee5by8h7lmjh2ehc2sgg34z7c15vzqs",
            "12D3KooWCryG7Mon9orvQxcS1rYZjotPgpwoJNHHKcLLfE4Hf5mV",
        ),
    ],
)
def test_cids_of_other_implementations(text, same):
    assert str(PeerId.parse(text)) == same


@given(INLINE | HASHED, st.sampled_from("fbkz"))
def test_round_trips(raw, base):
    peer = PeerId.from_bytes(raw)
    assert bytes(peer) == raw
    assert PeerId.parse(str(peer)) == peer
    assert PeerId.parse(peer.cid) == peer
    assert PeerId.parse(multibase_encode(b"\x01\x72" + raw, base)) == peer


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\x00",
        b"\x00\x00",
        b"\x00\x02\x01",
        b"\x00\x01\x01\x01",
        b"\x00\x2b" + bytes(43),
        b"\x12\x20" + bytes(31),
        b"\x12\x1f" + bytes(32),
        b"\x12\x21" + bytes(33),
        b"\x13\x20" + bytes(32),
        b"\x80\x00\x01\x01",
    ],
)
def test_other_multihashes_are_refused(raw):
    with pytest.raises(AddressError):
        PeerId.from_bytes(raw)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "peer",
        "1",
        "Qm",
        "12D3KooW0",
        str(SEED_1)[:-1],
        str(SEED_1) + "1",
        SEED_1.cid[:-1],
        "12D3KooW" * 100,
        "b" + "a" * 1000,
        # A CID of the codec dag-pb, and a CIDv0 behind a prefix.
        multibase_encode(b"\x01\x70" + bytes(SEED_1), "b"),
        multibase_encode(bytes(SEED_1), "z"),
    ],
)
def test_bad_texts_are_refused(text):
    with pytest.raises(AddressError):
        PeerId.parse(text)


def test_an_inline_key_that_is_none():
    peer = PeerId.from_bytes(b"\x00\x03key")
    with pytest.raises(AddressError, match=str(peer)):
        _ = peer.public_key
    assert not peer.matches(PrivateKey.from_seed(b"\x01" * 32).public_key)


def test_it_is_a_frozen_value():
    again = PeerId.from_bytes(bytearray(SEED_1.raw))
    assert (again, hash(again), str(again), str(again)) == (
        SEED_1,
        hash(SEED_1),
        str(SEED_1),
        str(SEED_1),
    )
    assert str(SEED_1) != SEED_1
    assert str(SEED_1) in repr(SEED_1)
    with pytest.raises(dataclasses.FrozenInstanceError):
        SEED_1.raw = b""


@given(st.lists(INLINE | HASHED, max_size=5))
def test_order_is_that_of_the_bytes(raws):
    assert [bytes(peer) for peer in sorted(map(PeerId.from_bytes, raws))] == sorted(raws)


def test_order_is_among_peer_ids_only():
    with pytest.raises(TypeError):
        sorted([SEED_1, SEED_1.raw])


@given(st.binary(max_size=60) | INLINE, st.text(max_size=80))
def test_random_input(raw, text):
    for make, value in ((PeerId.from_bytes, raw), (PeerId.parse, text), (PeerId.parse, f"1{text}")):
        try:
            peer = make(value)
        except AddressError:
            continue
        assert PeerId.parse(str(peer)) == peer
