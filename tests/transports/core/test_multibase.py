"""The text encodings of bytes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from isthmus.transports.core.errors import AddressError
from isthmus.transports.core.multibase import (
    MAX_TEXT,
    base58_decode,
    base58_encode,
    multibase_decode,
    multibase_encode,
)

# https://datatracker.ietf.org/doc/html/draft-msporny-base58, and the tests of multibase.
BASE58 = [("", ""), ("61", "2g"), ("0000287fb4cd", "11233QC4"), ("00", "1")]
BASE58 += [(b"Hello World!".hex(), "2NEpo7TZRRrLZSi2U")]
YES = b"\x00yes mani !"
MULTIBASE = ["f00796573206d616e692021", "bab4wk4zanvqw42jaee", "k02lcpzo5yikidynfl"]
MULTIBASE += ["z17paNL19xttacUY", "uAHllcyBtYW5pICE"]


@pytest.mark.parametrize(("data", "text"), BASE58)
def test_base58_vectors(data, text):
    assert base58_encode(bytes.fromhex(data)) == text
    assert base58_decode(text).hex() == data


@pytest.mark.parametrize("text", MULTIBASE)
def test_multibase(text):
    assert multibase_decode(text) == YES
    assert multibase_encode(YES, text[0]) == text


@pytest.mark.parametrize("text", [text for text in MULTIBASE if text[0] in "fbk"])
def test_upper_case(text):
    assert multibase_decode(text.upper()) == YES
    with pytest.raises(AddressError):
        multibase_decode(text[0].upper() + text[1:] + "a")


@given(st.binary(max_size=64), st.sampled_from("fbkzu"))
def test_round_trip(data, base):
    assert multibase_decode(multibase_encode(data, base)) == data


@given(st.binary(max_size=64))
def test_base58_round_trip(data):
    assert base58_decode(base58_encode(data)) == data


@pytest.mark.parametrize(
    "text",
    [
        *("", "x00", "f0", "f0 1", "fFF", "b1", "baa=", "bab", "uA-", "u AA", "uAB", "k_", "z0"),
        "z" + "1" * MAX_TEXT,
    ],
)
def test_refused(text):
    with pytest.raises(AddressError):
        multibase_decode(text)


def test_no_such_encoding():
    with pytest.raises(AddressError):
        multibase_encode(b"", "m")


def test_long_base58_is_refused_before_it_costs_time():
    with pytest.raises(AddressError):
        base58_decode("2" * 1_000_000)


@given(st.text(max_size=MAX_TEXT))
def test_any_text(text):
    try:
        data = multibase_decode(text)
    except AddressError:
        return
    assert multibase_encode(data, text[0].lower()).lower() == text.lower()
