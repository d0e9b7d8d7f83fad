"""Signed envelopes and the peer records in them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from isthmus.transports.core.envelope import (
    MAX_ENVELOPE,
    PEER_RECORD_DOMAIN,
    PEER_RECORD_TYPE,
    PeerRecord,
    next_sequence,
    open_envelope,
    seal_envelope,
)
from isthmus.transports.core.errors import LocalProtocolError, RemoteProtocolError
from isthmus.transports.core.keys import PrivateKey
from isthmus.transports.core.multiaddr import Multiaddr
from isthmus.transports.core.peer_id import PeerId
from isthmus.transports.core.varint import length_prefixed

KEY, OTHER_KEY = (PrivateKey.from_seed(bytes([n]) * 32) for n in (1, 2))
PEER, OTHER = (PeerId.from_public_key(key.public_key) for key in (KEY, OTHER_KEY))
ADDRESS = Multiaddr.parse("/ip4/127.0.0.1/tcp/4001")
# Opened by js-libp2p's RecordEnvelope.openAndCertify.
VECTOR = bytes.fromhex(
    "0a24080112208a88e3dd7409f195fd52db2d3cba5d72ca6709bf1d94121bf3748801b40f6f5c120203011a36"
    "0a260024080112208a88e3dd7409f195fd52db2d3cba5d72ca6709bf1d94121bf3748801b40f6f5c1001"
    "1a0a0a08047f000001060fa12a40"
    "5952f57af52b9b47bcc535948fb676f46e91cbf51966f2efb7f0232827007dcf"
    "d3ed3907dac95a4d73cf3ed767a42108017b8fcdd9f18413dcd18ed8a043de0f"
)


def test_vector():
    record = PeerRecord(PEER, 1, (ADDRESS,))
    assert record.seal(KEY) == VECTOR
    assert PeerRecord.from_envelope(VECTOR) == record


@given(st.binary(max_size=100), st.text(max_size=10), st.binary(max_size=8))
def test_round_trip(payload, domain, payload_type):
    data = seal_envelope(KEY, domain, payload_type, payload)
    assert open_envelope(data, domain, payload_type) == (KEY.public_key, payload)
    for others in ((domain + "x", payload_type), (domain, payload_type + b"x")):
        with pytest.raises(RemoteProtocolError):
            open_envelope(data, *others)


@given(st.integers(0, len(VECTOR) - 1), st.integers(1, 255))
def test_no_byte_may_change(position, change):
    data = bytearray(VECTOR)
    data[position] ^= change
    with pytest.raises(RemoteProtocolError):
        PeerRecord.from_envelope(bytes(data))


@given(st.integers(0, len(VECTOR) - 1), st.binary(max_size=200))
def test_random_bytes_raise_only_the_protocol_error(end, data):
    for forged in (VECTOR[:end], data):
        with pytest.raises(RemoteProtocolError):
            PeerRecord.from_envelope(forged)


def test_unknown_fields_outside_the_signature_are_ignored():
    assert PeerRecord.from_envelope(VECTOR + b"\x22\x01x") == PeerRecord.from_envelope(VECTOR)


def sealed(payload):
    return seal_envelope(KEY, PEER_RECORD_DOMAIN, PEER_RECORD_TYPE, payload)


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\x0a\x00",
        b"\x0a\x03abc",
        b"\x0a",
        b"\x0a" + length_prefixed(bytes(OTHER)),
    ],
)
def test_a_signed_record_may_still_be_wrong(payload):
    with pytest.raises(RemoteProtocolError):
        PeerRecord.from_envelope(sealed(payload))


def test_addresses_that_do_not_parse_are_left_out():
    payload = b"\x0a" + length_prefixed(bytes(PEER))
    for raw in (b"\x0a" + length_prefixed(bytes(ADDRESS)), b"\x0a\x02\xff\x7f", b""):
        payload += b"\x1a" + length_prefixed(raw)
    assert PeerRecord.from_envelope(sealed(payload)) == PeerRecord(PEER, 0, (ADDRESS,))


def test_process_local_addresses_are_not_told():
    record = PeerRecord(PEER, 2, (Multiaddr.parse("/memory/1"), ADDRESS))
    assert PeerRecord.from_envelope(record.seal(KEY)).addresses == (ADDRESS,)


def test_a_record_is_signed_by_its_own_peer():
    with pytest.raises(LocalProtocolError):
        PeerRecord(PEER, 1, ()).seal(OTHER_KEY)


def test_an_envelope_has_a_bound():
    with pytest.raises(LocalProtocolError):
        seal_envelope(KEY, "", b"", bytes(MAX_ENVELOPE))
    with pytest.raises(RemoteProtocolError):
        open_envelope(VECTOR + b"\x22" + length_prefixed(bytes(MAX_ENVELOPE)), "", b"")
    with pytest.raises(LocalProtocolError):
        PeerRecord(PEER, 1, (ADDRESS,) * 1000).seal(KEY)


def test_sequence_numbers_only_grow():
    assert next_sequence(100, 7) == 100
    assert next_sequence(100, 100) == 101
    assert next_sequence(99, 200) == 201
