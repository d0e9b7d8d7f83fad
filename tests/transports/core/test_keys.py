"""Identity keys, against the vectors of libp2p's peer-ids specification."""

from __future__ import annotations

import copy
import json
import pickle
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, padding, rsa, utils
from cryptography.hazmat.primitives.hashes import SHA256
from hypothesis import given
from hypothesis import strategies as st
from isthmus.transports.core.errors import (
    ConfigError,
    LocalProtocolError,
    P2PError,
    RemoteProtocolError,
)
from isthmus.transports.core.keys import KeyType, PrivateKey, PublicKey
from isthmus.transports.core.varint import length_prefixed

VECTORS = json.loads(
    (Path(__file__).parents[2] / "vectors" / "core" / "keys.json").read_text("utf-8")
)["keys"]
ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
"""Of secp256k1."""
SPKI = (serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
MESSAGE = b"signed"


def vector(name):
    """Return the first vector of a type: public and private serialised keys."""
    entry = next(entry for entry in VECTORS if entry["type"] == name)
    return bytes.fromhex(entry["public"]), bytes.fromhex(entry["private"])


def serialised(key_type, data):
    return bytes((0x08, key_type, 0x12)) + length_prefixed(data)


def data_of(serialised_key):
    """Take the inner part out of a key of more than 127 bytes or of fewer."""
    return serialised_key[4:] if serialised_key[3] < 0x80 else serialised_key[5:]


def ec_key(curve):
    return ec.derive_private_key(7, curve).public_key().public_bytes(*SPKI)


@pytest.mark.parametrize("entry", VECTORS, ids=lambda entry: entry["type"])
def test_public_keys_round_trip(entry):
    raw = bytes.fromhex(entry["public"])
    key = PublicKey.from_protobuf(raw)
    assert key.type is KeyType[entry["type"]]
    assert key.to_protobuf() == raw
    assert key == PublicKey.from_protobuf(raw)
    assert hash(key) == hash(PublicKey(key.type, key.data))


@pytest.mark.parametrize("entry", [one for one in VECTORS if one["type"] == "ED25519"])
def test_private_keys(entry):
    raw = bytes.fromhex(entry["private"])
    key = PrivateKey.from_protobuf(raw)
    assert key.to_protobuf() == raw
    assert key.public_key.to_protobuf().hex() == entry["public"]
    assert PrivateKey.from_seed(raw[4:36]).to_protobuf() == raw


def test_ed25519_signatures():
    key = PrivateKey.from_seed(b"\x01" * 32)
    signature = key.sign(b"noise-libp2p-static-key:" + bytes(range(32)))
    assert signature.hex() == (
        "130334abd1877f20e0de02e45e7a23e3d1c450c9b4fc02b1f004ad0059e0985d"
        "7dfc323c6a323b8aa8b831f079a01c5af06ead20a404d72824bf8e0f96681209"
    )
    assert_verifies(key.public_key, key.sign(MESSAGE))


def test_ed25519_of_rfc_8032():
    seed = "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60"
    key = PrivateKey.from_seed(bytes.fromhex(seed))
    assert key.sign(b"").hex().startswith("e5564300c360ac729086e2cc806e828a84877f1eb8e5d974")
    assert key.public_key.verify(b"", key.sign(b""))


def test_secp256k1_signatures_with_low_and_high_s():
    public, private = vector("SECP256K1")
    key = ec.derive_private_key(int.from_bytes(private[4:]), ec.SECP256K1())
    r, s = utils.decode_dss_signature(key.sign(MESSAGE, ec.ECDSA(SHA256())))
    for half in (s, ORDER - s):
        assert_verifies(PublicKey.from_protobuf(public), utils.encode_dss_signature(r, half))


def test_ecdsa_signatures():
    public, private = vector("ECDSA")
    key = serialization.load_der_private_key(private[4:], None)
    assert_verifies(PublicKey.from_protobuf(public), key.sign(MESSAGE, ec.ECDSA(SHA256())))


def test_rsa_signatures():
    public, private = vector("RSA")
    key = serialization.load_der_private_key(private[5:], None)
    signature = key.sign(MESSAGE, padding.PKCS1v15(), SHA256())
    assert_verifies(PublicKey.from_protobuf(public), signature)


def assert_verifies(key, signature):
    assert key.verify(MESSAGE, signature)
    assert not key.verify(MESSAGE + b"!", signature)
    assert not key.verify(MESSAGE, signature[:-1])
    assert not key.verify(MESSAGE, b"")
    assert not key.verify(MESSAGE, signature[:-1] + bytes((signature[-1] ^ 1,)))


@pytest.mark.parametrize("curve", [ec.SECP384R1(), ec.SECP521R1()], ids=lambda curve: curve.name)
def test_larger_nist_curves(curve):
    data = ec_key(curve)
    assert PublicKey.from_protobuf(serialised(3, data)).data == data


def bad_keys():
    """Yield serialised keys that must be refused, by name."""
    ed25519, _ = vector("ED25519")
    secp256k1, _ = vector("SECP256K1")
    rsa_data = data_of(vector("RSA")[0])
    yield "empty", b""
    yield "type missing", b"\x12\x20" + ed25519[4:]
    yield "data missing", ed25519[:2]
    yield "type unknown", b"\x08\x04" + ed25519[2:]
    yield "fields swapped", b"\x12\x20" + ed25519[4:] + ed25519[:2]
    yield "field unknown", ed25519 + b"\x18\x01"
    yield "too short", ed25519[:-1]
    yield "length missing", b"\x08\x01\x12\x80"
    yield "length not minimal", ed25519[:3] + b"\xa0\x00" + ed25519[4:]
    yield "ed25519 of 31 bytes", serialised(1, bytes(31))
    yield "secp256k1 uncompressed", serialised(2, b"\x04" + bytes(64))
    yield "secp256k1 off the curve", serialised(2, b"\x02" + b"\xff" * 32)
    yield "secp256k1 odd prefix", secp256k1[:4] + b"\x05" + secp256k1[5:]
    yield "ecdsa that is rsa", serialised(3, rsa_data)
    yield "ecdsa on secp256k1", serialised(3, ec_key(ec.SECP256K1()))
    yield "ecdsa of nonsense", serialised(3, b"nonsense")
    yield "rsa that is ecdsa", serialised(0, data_of(vector("ECDSA")[0]))
    yield "rsa with a byte behind", serialised(0, rsa_data + b"\x00")
    yield "rsa of 1024 bits", serialised(0, rsa_of(1024))
    yield "rsa of 8200 bits", serialised(0, rsa_of(8200))
    yield "far too long", serialised(0, bytes(2049))
    yield "another algorithm", serialised(0, dsa_key())
    yield "not canonical", serialised(3, compressed_point())


def rsa_of(bits):
    """Make up a public key of that size: nobody has to know the factors."""
    return rsa.RSAPublicNumbers(65537, (1 << bits - 1) + 1).public_key().public_bytes(*SPKI)


def dsa_key():
    return dsa.generate_private_key(1024).public_key().public_bytes(*SPKI)


def compressed_point():
    """Encode a P-256 key with a compressed point, which no implementation writes."""
    public = ec.derive_private_key(7, ec.SECP256R1()).public_key()
    point = public.public_bytes(
        serialization.Encoding.X962, serialization.PublicFormat.CompressedPoint
    )
    return bytes.fromhex("3039301306072a8648ce3d020106082a8648ce3d030107032200") + point


@pytest.mark.parametrize(("data"), [pytest.param(data, id=name) for name, data in bad_keys()])
def test_bad_public_keys_are_refused(data):
    with pytest.raises(RemoteProtocolError):
        PublicKey.from_protobuf(data)


def test_the_old_form_of_96_bytes_is_read_and_checked():
    raw = vector("ED25519")[1]
    public = raw[36:]
    assert PrivateKey.from_protobuf(serialised(1, raw[4:] + public)).to_protobuf() == raw
    for body in (raw[4:] + bytes(32), raw[4:36] + bytes(32) + public, raw[4:36] + bytes(32)):
        with pytest.raises(ConfigError):
            PrivateKey.from_protobuf(serialised(1, body))


@pytest.mark.parametrize(
    "data", [b"", b"nonsense", serialised(1, bytes(32)), serialised(2, bytes(32))]
)
def test_bad_private_keys_are_refused(data):
    with pytest.raises(ConfigError):
        PrivateKey.from_protobuf(data)


def test_a_seed_has_32_bytes():
    with pytest.raises(ConfigError):
        PrivateKey.from_seed(bytes(31))


def test_generated_keys_differ():
    assert PrivateKey.generate().to_protobuf() != PrivateKey.generate().to_protobuf()


def test_no_text_and_no_copy_shows_the_secret():
    seed = bytes(range(32))
    key = PrivateKey.from_seed(seed)
    for text in (repr(key), str(key), f"{key}"):
        assert seed.hex() not in text
        assert key.public_key.data.hex() in text
    for leak in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(LocalProtocolError):
            leak(key)


@given(st.binary(max_size=200))
def test_random_bytes(data):
    for parse in (PublicKey.from_protobuf, PrivateKey.from_protobuf):
        try:
            key = parse(data)
        except P2PError:
            continue
        assert key.to_protobuf() == data


@given(st.sampled_from(VECTORS), st.integers(0, 10_000), st.integers(1, 255))
def test_a_changed_byte(entry, position, change):
    data = bytearray.fromhex(entry["public"])
    data[position % len(data)] ^= change
    try:
        key = PublicKey.from_protobuf(bytes(data))
    except RemoteProtocolError:
        return
    assert key.to_protobuf() == data
    assert not key.verify(MESSAGE, bytes(64))
