"""The messages of AutoNAT and DCUtR, beside Google's package and as their authors have them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from isthmus.relay.autonat import wire as autonat
from isthmus.relay.autonat.wire import (
    DialData,
    DialDataRequest,
    DialRequest,
    DialResponse,
    DialStatus,
    ResponseStatus,
    decode_dial_back,
    decode_message,
    encode_dial_back,
    encode_message,
)
from isthmus.relay.dcutr import wire as dcutr
from isthmus.relay.dcutr.wire import HolePunch, HolePunchType
from isthmus.transports.core.errors import RemoteProtocolError
from isthmus.transports.core.multiaddr import Multiaddr
from isthmus.transports.core.varint import LengthPrefixReader

from .google import google_class

FOUR = Multiaddr.parse("/ip4/1.2.3.4/tcp/4001")
SIX = Multiaddr.parse("/ip6/2606:4700::1/tcp/4001/ws")
ADDRESSES = st.lists(st.sampled_from([FOUR, SIX]), max_size=4).map(tuple)
NUMBERS = st.integers(0, 2**64 - 1)
MESSAGES = (
    st.builds(DialRequest, ADDRESSES, NUMBERS)
    | st.builds(DialResponse, st.sampled_from(ResponseStatus), NUMBERS, st.sampled_from(DialStatus))
    | st.builds(DialDataRequest, NUMBERS, NUMBERS)
    | st.builds(DialData, st.binary(max_size=100))
)
GOOGLE_MESSAGE = google_class(autonat._MESSAGE, "autonat")
GOOGLE_DIAL_BACK = google_class(autonat._DIAL_BACK, "back")
GOOGLE_PUNCH = google_class(dcutr._HOLE_PUNCH, "punch")


def bare(data):
    """Return what a length stands before."""
    (frame,) = LengthPrefixReader(10_000).receive_data(data)
    return frame


@given(MESSAGES)
def test_what_is_written_is_read_by_us_and_by_google(message):
    data = bare(encode_message(message))
    assert decode_message(data) == message
    theirs = GOOGLE_MESSAGE()
    theirs.ParseFromString(data)
    assert theirs.SerializeToString() == data
    assert decode_message(theirs.SerializeToString()) == message


@given(NUMBERS)
def test_the_proof_is_a_fixed_number(nonce):
    data = bare(encode_dial_back(nonce))
    assert decode_dial_back(data) == nonce
    theirs = GOOGLE_DIAL_BACK()
    theirs.ParseFromString(data)
    assert theirs.nonce == nonce
    assert len(data) == 9


@given(st.sampled_from(HolePunchType), ADDRESSES)
def test_hole_punches_likewise(kind, addresses):
    message = HolePunch(kind, addresses)
    data = bare(dcutr.encode(message))
    assert dcutr.decode(data) == message
    theirs = GOOGLE_PUNCH()
    theirs.ParseFromString(data)
    assert (theirs.type, len(theirs.addresses)) == (kind, len(addresses))
    assert theirs.SerializeToString() == data


def test_the_bytes_are_those_of_the_specification():
    request = DialRequest((FOUR,), 0x0102030405060708)
    assert encode_message(request).hex() == (
        "150a130a08" + bytes(FOUR).hex() + "11" + "0807060504030201"
    )
    response = DialResponse(ResponseStatus.OK, 0, DialStatus.DIAL_ERROR)
    assert encode_message(response).hex() == "09120708c80110001864"
    assert encode_message(DialDataRequest(1, 30_000)).hex() == "081a06080110b0ea01"
    assert encode_message(DialData(b"x")).hex() == "0522030a0178"
    assert encode_dial_back(1).hex() == "09090100000000000000"
    assert autonat.DIAL_BACK_OK == b"\0"
    assert dcutr.encode(HolePunch(HolePunchType.SYNC)).hex() == "0308ac02"
    connect = dcutr.encode(HolePunch(HolePunchType.CONNECT, (FOUR,)))
    assert connect.hex() == "0c08641208" + bytes(FOUR).hex()


def test_absent_numbers_are_zero():
    assert decode_message(b"\x0a\x00") == DialRequest((), 0)
    assert decode_message(b"\x12\x00") == DialResponse(ResponseStatus.INTERNAL_ERROR)
    assert decode_message(b"\x1a\x00") == DialDataRequest(0, 0)
    assert decode_message(b"\x22\x00") == DialData(b"")
    assert decode_dial_back(b"") == 0


def test_an_address_that_does_not_parse_keeps_its_place_and_costs_no_other():
    both = DialRequest((None, FOUR), 1)
    assert decode_message(bare(encode_message(both))) == both
    many = DialRequest((FOUR,) * 60, 1)
    assert len(decode_message(bare(encode_message(many))).addresses) == autonat.MAX_ADDRESSES
    told = dcutr.decode(b"\x08\x64\x12\x02\xff\xff\x12\x08" + bytes(FOUR))
    assert told.addresses == (FOUR,)
    crowd = dcutr.decode(b"\x08\x64" + (b"\x12\x08" + bytes(FOUR)) * 99)
    assert len(crowd.addresses) == dcutr.MAX_ADDRESSES


@pytest.mark.parametrize(
    "data", [b"", b"\x0a\x00\x12\x00", b"\x12\x02\x08\x63", b"\x12\x02\x18\x01"]
)
def test_what_is_no_message_of_autonat_is_refused(data):
    with pytest.raises(RemoteProtocolError):
        decode_message(data)


@pytest.mark.parametrize("data", [b"", b"\x08\x65", b"\x12\x00"])
def test_what_is_no_message_of_dcutr_is_refused(data):
    with pytest.raises(RemoteProtocolError):
        dcutr.decode(data)


def test_what_we_send_fits_into_what_everyone_reads():
    long = [Multiaddr.parse(f"/dns4/{'x' * 60}.{n:04}.example/tcp/1") for n in range(200)]
    kept = autonat.fitting(long)
    assert kept == tuple(long[: len(kept)])
    assert len(encode_message(DialRequest(kept, 2**64 - 1))) <= autonat.MAX_REQUEST_BYTES
    name = ".".join(["x" * 60] * 4)
    longest = [Multiaddr.parse(f"/dns4/{name}/tcp/{n}/tls/sni/{name}/ws") for n in range(16)]
    told = dcutr.fitting([*longest, FOUR])
    assert 2 < len(told) < len(longest)
    assert len(dcutr.encode(HolePunch(HolePunchType.CONNECT, told))) <= dcutr.MAX_MESSAGE_BYTES
    assert len(dcutr.fitting([FOUR] * 99)) == dcutr.MAX_ADDRESSES
