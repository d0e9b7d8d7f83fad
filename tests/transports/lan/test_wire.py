"""TXT data, as go, js and rust write it, and as nobody should."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from isthmus.transports.core.errors import LocalProtocolError
from isthmus.transports.core.multiaddr import Multiaddr
from isthmus.transports.lan.wire import (
    MAX_STRINGS,
    NAME_LENGTH,
    decode_text,
    encode_text,
    is_announceable,
    random_name,
)

PEER = "12D3KooWEdmQg6TNyomdvjmcsHoBXVuNFtAT9P7jAQ9LYWnWYEJz"
V4 = Multiaddr.parse(f"/ip4/192.168.1.7/tcp/4001/p2p/{PEER}")
V6 = Multiaddr.parse(f"/ip6/fd00::7/tcp/4001/p2p/{PEER}")


def text(*strings):
    return b"".join(bytes([len(each)]) + each for each in strings)


def string(address):
    return b"dnsaddr=" + str(address).encode()


def test_the_bytes():
    assert encode_text([V4]) == text(string(V4))
    assert encode_text([]) == b""
    # go: all in one record; js and rust: one in each of several.
    assert decode_text(text(string(V4), string(V6))) == [V4, V6]
    assert [decode_text(text(string(each))) for each in (V4, V6)] == [[V4], [V6]]


def test_an_address_that_is_too_long():
    with pytest.raises(LocalProtocolError):
        encode_text([Multiaddr.parse(f"/dns/{'a' * 240}/tcp/1/p2p/{PEER}")])


@pytest.mark.parametrize(
    "other",
    [
        b"",
        b"version=1",
        b"DNSADDR=" + str(V4).encode(),
        b"dnsaddr=",
        b"dnsaddr=nonsense",
        b"dnsaddr=/ip4/192.168.1.7/tcp/4001/shiny/1",
        b"dnsaddr=\xff\xfe",
    ],
)
def test_strings_that_mean_nothing_leave_the_others(other):
    assert decode_text(text(other, string(V4), other, string(V6), other)) == [V4, V6]


def test_what_is_cut_off_or_endless():
    data = text(string(V4), string(V6))
    for end in range(len(data)):
        assert decode_text(data[:end]) == ([V4] if end > len(string(V4)) else [])
    assert decode_text(text(*[string(V4)] * (MAX_STRINGS + 1))) == [V4] * MAX_STRINGS
    assert decode_text(bytes(10_000)) == []


@given(st.lists(st.sampled_from([V4, V6]), max_size=MAX_STRINGS))
def test_there_and_back(addresses):
    assert decode_text(encode_text(addresses)) == addresses


def test_fuzz(seed, scaled):
    rng = random.Random(seed)
    whole = encode_text([V4, V6] * 3)
    for _ in range(scaled(20_000)):
        data = bytearray(whole)
        for _ in range(rng.randrange(1, 6)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        for address in decode_text(bytes(data[: rng.randrange(len(data) + 1)])):
            assert isinstance(address, Multiaddr)
        decode_text(rng.randbytes(rng.randrange(300)))


@pytest.mark.parametrize(
    ("place", "can"),
    [
        ("/ip4/192.168.1.7/tcp/4001", True),
        ("/ip6/fd00::7/tcp/4001", True),
        ("/ip4/192.168.1.7/tcp/4001/ws", False),
        ("/ip4/192.168.1.7/udp/4001/quic-v1", False),
        ("/dns4/peer.local/tcp/4001", False),
        (f"/ip4/192.168.1.7/tcp/4001/p2p/{PEER}/p2p-circuit", False),
    ],
)
def test_what_everybody_understands(place, can):
    assert is_announceable(Multiaddr.parse(f"{place}/p2p/{PEER}")) is can
    assert not is_announceable(Multiaddr.parse(place))


def test_names():
    assert random_name(bytes(range(NAME_LENGTH))) == "abcdefghijklmnopqrstuvwxyz234567"
    assert random_name(bytes([255] * 99)) == "7" * NAME_LENGTH
