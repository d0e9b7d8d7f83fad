"""Handshakes and records of another implementation, replayed byte for byte."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from isthmus.transports.core.interfaces import ChannelBinding, Side
from isthmus.transports.core.keys import PrivateKey
from isthmus.transports.core.peer_id import PeerId
from isthmus.transports.noise.machine import NoiseHandshake, StaticKey
from isthmus.transports.noise.wire import SIGNATURE_PREFIX

VECTORS = Path(__file__).parents[2] / "vectors" / "noise" / "xx.json"
CASES = json.loads(VECTORS.read_text("utf-8"))
NAMES = {Side.DIALER: "dialer", Side.LISTENER: "listener"}


@pytest.fixture(params=CASES, ids=lambda case: case["name"])
def case(request):
    return request.param


@pytest.fixture(params=Side, ids=lambda side: side.name)
def side(request):
    return request.param


def unhex(texts):
    return [bytes.fromhex(text) for text in texts]


def identity(case, side):
    return PrivateKey.from_seed(bytes.fromhex(case[NAMES[side]]["identity"]))


def party(case, side):
    values = case[NAMES[side]]
    static = StaticKey.from_bytes(bytes.fromhex(values["static"]), identity(case, side))
    return NoiseHandshake(
        side,
        static,
        ephemeral=bytes.fromhex(values["ephemeral"]),
        muxers=tuple(values["muxers"]),
        prologue=bytes.fromhex(case["prologue"]),
    )


def play(case, side, cut):
    """Let one side meet the recorded messages, cut as `cut` says."""
    machine = party(case, side)
    for number, message in enumerate(unhex(case["messages"])):
        if number % 2 == side:
            assert machine.data_to_send() == message
        else:
            for piece in cut(message):
                assert machine.data_to_send() == b""
                machine.receive_data(piece)
    assert machine.data_to_send() == b""
    return machine


def whole(message):
    return [message]


def by_byte(message):
    return [message[i : i + 1] for i in range(len(message))]


@pytest.mark.parametrize("cut", [whole, by_byte])
def test_handshake(case, side, cut):
    result = play(case, side, cut).result
    other = identity(case, side.other).public_key
    assert result.remote_key == other
    assert result.remote_peer == PeerId.from_public_key(other)
    assert result.channel_binding == ChannelBinding("noise", bytes.fromhex(case["handshake_hash"]))
    assert result.muxer == case["muxer"]
    assert result.trailing == b""


def test_handshake_with_trailing_bytes(case):
    *_, last = unhex(case["messages"])
    records = unhex(case["from_dialer"])
    machine = party(case, Side.LISTENER)
    machine.receive_data(bytes.fromhex(case["messages"][0]))
    machine.receive_data(last + b"".join(records))
    result = machine.result
    assert result.trailing == b"".join(records)
    assert result.session.receive_data(result.trailing) == unhex(case["plaintexts"])


def test_records(case, side):
    session = play(case, side, whole).result.session
    mine, theirs = (unhex(case[f"from_{NAMES[each]}"]) for each in (side, side.other))
    plaintexts = unhex(case["plaintexts"])
    assert [session.seal(text) for text in plaintexts] == mine
    assert [session.receive_data(record) for record in theirs] == [[text] for text in plaintexts]


def test_records_into_a_buffer(case, side):
    session = play(case, side, whole).result.session
    buffer = bytearray(4096)
    for text, record in zip(
        unhex(case["plaintexts"]), unhex(case[f"from_{NAMES[side]}"]), strict=True
    ):
        size = session.seal_into(text, buffer)
        assert buffer[:size] == record


def test_signature_over_a_static_key():
    """Ed25519 is deterministic: the identity of seed 01 x 32 over the static key 00..1f."""
    signature = PrivateKey.from_seed(b"\x01" * 32).sign(SIGNATURE_PREFIX + bytes(range(32)))
    assert signature.hex() == (
        "130334abd1877f20e0de02e45e7a23e3d1c450c9b4fc02b1f004ad0059e0985d"
        "7dfc323c6a323b8aa8b831f079a01c5af06ead20a404d72824bf8e0f96681209"
    )


def test_static_key_signs_its_public_half():
    owner = PrivateKey.from_seed(b"\x01" * 32)
    for static in (StaticKey.from_bytes(b"\x07" * 32, owner), StaticKey.generate(owner)):
        assert static.identity_key == owner.public_key.to_protobuf()
        assert owner.public_key.verify(SIGNATURE_PREFIX + static.public, static.identity_sig)


def test_generated_static_keys_differ():
    owner = PrivateKey.from_seed(b"\x01" * 32)
    assert StaticKey.generate(owner).public != StaticKey.generate(owner).public
