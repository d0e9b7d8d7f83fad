"""Records: what is sealed comes out, and nothing else does."""

from __future__ import annotations

import random

import pytest
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from hypothesis import given
from hypothesis import strategies as st
from isthmus.transports.core.errors import LocalProtocolError, NoiseError
from isthmus.transports.noise.machine import NoiseSession
from isthmus.transports.noise.wire import MAX_MESSAGE, MAX_PLAINTEXT, OVERHEAD

from .peers import KEY_A, KEY_B, framed, sessions

LAST_NONCE = 2**64 - 2
CIPHER_A = ChaCha20Poly1305(KEY_A)


@pytest.mark.parametrize("size", [1, 2, 1000, 16_384, MAX_PLAINTEXT - 1, MAX_PLAINTEXT])
@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_sizes(size, kind):
    ours, theirs = sessions()
    plaintext = kind(random.Random(size).randbytes(size))
    record = ours.seal(plaintext)
    assert len(record) == size + OVERHEAD
    assert theirs.receive_data(kind(record)) == [plaintext]


@pytest.mark.parametrize("size", [0, MAX_PLAINTEXT + 1])
def test_sizes_refused(size):
    ours, theirs = sessions()
    with pytest.raises(LocalProtocolError, match=f"not {size}"):
        ours.seal(bytes(size))
    with pytest.raises(LocalProtocolError, match=f"not {size}"):
        ours.seal_into(bytes(size), bytearray(100_000))
    assert theirs.receive_data(ours.seal(b"no nonce was used")) == [b"no nonce was used"]


def test_both_ways():
    ours, theirs = sessions()
    assert theirs.receive_data(ours.seal(b"ping")) == [b"ping"]
    assert ours.receive_data(theirs.seal(b"pong")) == [b"pong"]


@pytest.mark.parametrize("wrap", [lambda buffer: buffer, memoryview])
def test_seal_into(wrap):
    ours, theirs = sessions()
    buffer = bytearray(b"\xaa" * 100)
    size = ours.seal_into(b"isthmus", wrap(buffer))
    assert size == 7 + OVERHEAD
    assert buffer[size:] == b"\xaa" * (100 - size), "it wrote behind the record"
    assert theirs.receive_data(buffer[:size]) == [b"isthmus"]
    assert sessions()[0].seal(b"isthmus") == buffer[:size]


def test_seal_into_a_buffer_that_just_fits_or_does_not():
    ours, theirs = sessions()
    with pytest.raises(LocalProtocolError, match="a buffer of 24"):
        ours.seal_into(b"isthmus", bytearray(24))
    buffer = bytearray(25)
    assert ours.seal_into(b"isthmus", buffer) == 25
    assert theirs.receive_data(buffer) == [b"isthmus"]


def test_the_buffer_is_the_callers_again():
    ours, theirs = sessions()
    buffer = bytearray(ours.seal(b"one") + ours.seal(b"two")[:5])
    assert theirs.receive_data(buffer) == [b"one"]
    buffer.extend(b"not held")
    buffer[:] = bytes(len(buffer))
    rest = sessions()[0]
    rest.seal(b"one")
    assert theirs.receive_data(rest.seal(b"two")[5:]) == [b"two"]


# Bytes, however they are cut


PLAINTEXTS = [b"a", b"bc" * 40, b"d" * 500]


def wire_of(plaintexts=PLAINTEXTS):
    ours, _ = sessions()
    return b"".join(map(ours.seal, plaintexts))


def test_whole():
    assert sessions()[1].receive_data(wire_of()) == PLAINTEXTS


def test_byte_by_byte():
    _, theirs = sessions()
    received = []
    for byte in wire_of():
        received += theirs.receive_data(bytes([byte]))
    assert received == PLAINTEXTS
    theirs.receive_eof()


def test_cut_anywhere():
    wire = wire_of()
    for at in range(len(wire) + 1):
        _, theirs = sessions()
        view = memoryview(bytearray(wire))
        assert theirs.receive_data(view[:at]) + theirs.receive_data(view[at:]) == PLAINTEXTS


@given(st.lists(st.binary(min_size=1, max_size=2000), max_size=20), st.integers(1, 4000))
def test_any_chunks(plaintexts, chunk):
    wire = memoryview(wire_of(plaintexts))
    _, theirs = sessions()
    received = []
    for start in range(0, len(wire), chunk):
        received += theirs.receive_data(wire[start : start + chunk])
        assert len(theirs._partial) <= MAX_MESSAGE + 1
    assert received == plaintexts
    theirs.receive_eof()


def test_nothing_is_nothing():
    _, theirs = sessions()
    assert theirs.receive_data(b"") == []
    theirs.receive_eof()
    wire = wire_of([b"hello"])
    for part, plaintexts in ((wire[:1], []), (b"", []), (wire[1:], [b"hello"])):
        assert theirs.receive_data(part) == plaintexts


def test_a_partial_record_is_bounded():
    _, theirs = sessions()
    assert theirs.receive_data(b"\xff\xff" + bytes(MAX_MESSAGE - 1)) == []
    assert len(theirs._partial) == MAX_MESSAGE + 1
    with pytest.raises(NoiseError):
        theirs.receive_data(b"x" * 100_000)
    assert len(theirs._partial) == 0


@pytest.mark.parametrize("kept", [1, 2, 3, 18])
def test_truncated(kept):
    _, theirs = sessions()
    theirs.receive_data(wire_of()[:19] + wire_of()[19 : 19 + kept])
    with pytest.raises(NoiseError, match="within a record"):
        theirs.receive_eof()
    theirs.receive_eof()


def test_empty_records_are_skipped():
    """Nobody needs them, and some implementations take them for the end: none is sent."""
    ours, theirs = sessions()
    cipher_text = CIPHER_A.encrypt(bytes(12), b"", None)
    ours._send_nonce = 1
    assert theirs.receive_data(framed(cipher_text) + ours.seal(b"more")) == [b"more"]


# Refusals


def test_every_byte_counts():
    record = wire_of([b"isthmus"])
    for position in range(len(record)):
        _, theirs = sessions()
        changed = bytearray(record)
        changed[position] ^= 0x01
        with pytest.raises(NoiseError):  # noqa: PT012 - a changed length fails at the end
            theirs.receive_data(changed)
            theirs.receive_eof()


@pytest.mark.parametrize("length", [0, 1, 15])
def test_shorter_than_a_tag(length):
    _, theirs = sessions()
    with pytest.raises(NoiseError, match="record 0 of the peer does not authenticate"):
        theirs.receive_data(framed(bytes(length)))


def test_replayed():
    ours, theirs = sessions()
    record = ours.seal(b"once")
    assert theirs.receive_data(record) == [b"once"]
    with pytest.raises(NoiseError, match="record 1 "):
        theirs.receive_data(record)


def test_reordered():
    ours, theirs = sessions()
    first, second = ours.seal(b"first"), ours.seal(b"second")
    with pytest.raises(NoiseError, match="record 0 "):
        theirs.receive_data(second + first)


def test_left_out():
    ours, theirs = sessions()
    _, second, third = (ours.seal(text) for text in (b"1", b"2", b"3"))
    with pytest.raises(NoiseError):
        theirs.receive_data(second + third)


def test_reflected():
    ours, _ = sessions()
    with pytest.raises(NoiseError):
        ours.receive_data(ours.seal(b"mine"))


def test_the_text_names_the_record_that_failed():
    ours, theirs = sessions()
    good = b"".join(ours.seal(b"good") for _ in range(3))
    with pytest.raises(NoiseError, match="record 3 "):
        theirs.receive_data(good + bytes(40))


def test_nothing_is_received_after_an_error():
    ours, theirs = sessions()
    with pytest.raises(NoiseError):
        theirs.receive_data(framed(bytes(20)))
    with pytest.raises(LocalProtocolError, match="has failed: record 0"):
        theirs.receive_data(ours.seal(b"too late"))
    theirs.receive_eof()
    assert ours.receive_data(theirs.seal(b"a farewell")) == [b"a farewell"]


# Nonces


def test_the_last_nonce():
    ours = NoiseSession(KEY_A, KEY_B, send_nonce=LAST_NONCE)
    theirs = NoiseSession(KEY_B, KEY_A, receive_nonce=LAST_NONCE)
    assert theirs.receive_data(ours.seal(b"the last")) == [b"the last"]
    for _ in range(2):
        with pytest.raises(NoiseError, match="every nonce"):
            ours.seal(b"one too many")
        with pytest.raises(NoiseError, match="every nonce"):
            ours.seal_into(b"one too many", bytearray(100))
    with pytest.raises(NoiseError, match="used every nonce"):
        theirs.receive_data(framed(bytes(20)))


def test_nonces_count_records():
    """64 bits, the low byte first, behind four zero bytes."""
    ours = NoiseSession(KEY_A, KEY_B, send_nonce=0x0102)
    assert ours.seal(b"x")[2:] == CIPHER_A.encrypt(
        bytes.fromhex("00000000 0201000000000000"), b"x", b""
    )


@given(st.lists(st.binary(max_size=100), max_size=5))
def test_fuzz(chunks):
    _, theirs = sessions()
    try:
        for chunk in chunks:
            assert theirs.receive_data(chunk) == []
        theirs.receive_eof()
    except NoiseError:
        theirs.receive_eof()
