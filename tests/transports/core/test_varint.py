"""Varints, and frames with a length in front."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from isthmus.transports.core.errors import LocalProtocolError, RemoteProtocolError
from isthmus.transports.core.varint import (
    MAX_VARINT,
    LengthPrefixReader,
    decode_varint,
    encode_varint,
    length_prefixed,
)

VECTORS = [(0, "00"), (1, "01"), (127, "7f"), (128, "8001"), (255, "ff01"), (300, "ac02")]
VECTORS += [(16384, "808001"), (MAX_VARINT, "ffffffffffffffff7f")]


@pytest.mark.parametrize(("number", "encoded"), VECTORS)
def test_vectors(number, encoded):
    assert encode_varint(number).hex() == encoded
    assert decode_varint(bytes.fromhex(encoded)) == (number, len(encoded) // 2)


@given(st.integers(0, MAX_VARINT), st.binary(max_size=4), st.binary(max_size=4))
def test_round_trip_amid_other_bytes(number, before, behind):
    encoded = encode_varint(number)
    data = before + encoded + behind
    assert decode_varint(data, len(before)) == (number, len(before) + len(encoded))
    for end in range(len(encoded)):
        assert decode_varint(encoded[:end]) is None


@pytest.mark.parametrize("number", [-1, MAX_VARINT + 1])
def test_what_does_not_fit_is_our_bug(number):
    with pytest.raises(LocalProtocolError):
        encode_varint(number)


@pytest.mark.parametrize("encoded", ["8000", "ff8000", "ff" * 9 + "01", "80" * 9])
def test_too_long_and_not_minimal_are_refused(encoded):
    with pytest.raises(RemoteProtocolError):
        decode_varint(bytes.fromhex(encoded))


def test_a_bound_on_the_bytes_holds():
    assert decode_varint(b"\xff\x07", max_bytes=2) == (1023, 2)
    assert decode_varint(b"\xff", max_bytes=2) is None
    with pytest.raises(RemoteProtocolError):
        decode_varint(b"\xff\xff\x01", max_bytes=2)


@given(st.lists(st.binary(max_size=300), max_size=5), st.binary(max_size=1), st.integers(1, 50))
def test_frames_come_out_however_they_are_cut(frames, rest, size):
    stream = b"".join(map(length_prefixed, frames)) + (b"\x05" + rest)
    reader = LengthPrefixReader(300)
    found = []
    for start in range(0, len(stream), size):
        found += reader.receive_data(stream[start : start + size])
    assert found == frames
    assert reader.trailing == reader.take_trailing() == b"\x05" + rest
    assert reader.trailing == b""


def test_one_frame_at_a_time_leaves_the_rest_to_the_next_layer():
    reader = LengthPrefixReader(4)
    reader.feed(b"\x02hi\x01!raw bytes")
    assert reader.next_frame() == b"hi"
    assert reader.next_frame() == b"!"
    assert reader.take_trailing() == b"raw bytes"
    assert reader.next_frame() is None


def test_a_frame_too_long_is_refused_for_good():
    reader = LengthPrefixReader(4)
    for data in (b"\x05", b"hello", b""):
        with pytest.raises(RemoteProtocolError):
            reader.receive_data(data)


@given(st.lists(st.binary(max_size=40), max_size=4))
def test_random_bytes_raise_only_the_protocol_error(chunks):
    reader = LengthPrefixReader(64)
    try:
        for chunk in chunks:
            reader.receive_data(chunk)
    except RemoteProtocolError:
        assert reader.trailing
