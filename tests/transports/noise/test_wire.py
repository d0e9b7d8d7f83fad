"""The handshake payload, as bytes that were written down by hand from the specification."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from isthmus.transports.core.errors import NoiseError
from isthmus.transports.noise import wire
from isthmus.transports.noise.wire import NoiseExtensions, NoiseHandshakePayload

LISTS = {
    "webtransport_certhashes": st.lists(st.binary(max_size=40), max_size=5).map(tuple),
    "stream_muxers": st.lists(st.text(max_size=20), max_size=5).map(tuple),
}


def test_limits():
    assert wire.LENGTH.pack(wire.MAX_MESSAGE) == b"\xff\xff"
    assert wire.MAX_PLAINTEXT == 65_519
    assert wire.OVERHEAD == 18


def test_without_extensions():
    payload = NoiseHandshakePayload(identity_key=b"key", identity_sig=b"sig")
    encoded = bytes.fromhex("0a036b65791203736967")
    assert payload.encode() == encoded
    assert NoiseHandshakePayload.decode(encoded) == payload


def test_with_extensions():
    payload = NoiseHandshakePayload(
        identity_key=b"k",
        identity_sig=b"s",
        extensions=NoiseExtensions(
            webtransport_certhashes=(b"\x01", b"\x02"), stream_muxers=("/a",)
        ),
    )
    encoded = bytes.fromhex("0a016b 120173 220a 0a0101 0a0102 12022f61")
    assert payload.encode() == encoded
    assert NoiseHandshakePayload.decode(encoded) == payload


def test_empty_extensions_are_extensions():
    payload = NoiseHandshakePayload.decode(bytes.fromhex("0a016b 120173 2200"))
    assert payload.extensions == NoiseExtensions()


def test_unknown_fields_are_ignored():
    """Field 3 was once early data."""
    payload = NoiseHandshakePayload.decode(bytes.fromhex("0a016b 120173 1a0178 2a0179 3001"))
    assert payload == NoiseHandshakePayload(identity_key=b"k", identity_sig=b"s")


def test_what_is_missing_is_empty():
    assert NoiseHandshakePayload.decode(b"") == NoiseHandshakePayload(
        identity_key=b"", identity_sig=b""
    )


@pytest.mark.parametrize(
    "encoded",
    ["0a", "0a05", "2203120180", "220308", "220212ff", "07", "0a016b12ffffffffffffffff7f"],
)
def test_what_does_not_parse(encoded):
    with pytest.raises(NoiseError, match="does not parse"):
        NoiseHandshakePayload.decode(bytes.fromhex(encoded))


@pytest.mark.parametrize("name", ["webtransport_certhashes", "stream_muxers"])
def test_a_hundred_entries_at_most(name):
    def encoded(count):
        entries = (b"x",) * count if name == "webtransport_certhashes" else ("x",) * count
        return NoiseHandshakePayload(
            identity_key=b"k", identity_sig=b"s", extensions=NoiseExtensions(**{name: entries})
        ).encode()

    decoded = NoiseHandshakePayload.decode(encoded(wire.MAX_EXTENSION_ENTRIES))
    assert len(getattr(decoded.extensions, name)) == wire.MAX_EXTENSION_ENTRIES
    with pytest.raises(NoiseError, match="more than 100"):
        NoiseHandshakePayload.decode(encoded(wire.MAX_EXTENSION_ENTRIES + 1))


@given(st.binary(max_size=200), st.binary(max_size=200), st.none() | st.fixed_dictionaries(LISTS))
def test_round_trip(key, signature, lists):
    extensions = None if lists is None else NoiseExtensions(**lists)
    payload = NoiseHandshakePayload(identity_key=key, identity_sig=signature, extensions=extensions)
    assert NoiseHandshakePayload.decode(payload.encode()) == payload


@given(st.binary(max_size=300))
def test_fuzz(data):
    try:
        NoiseHandshakePayload.decode(data)
    except NoiseError as error:
        assert str(error)  # noqa: PT017 - the only exception that may come
