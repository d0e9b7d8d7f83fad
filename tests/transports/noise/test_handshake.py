"""What a handshake agrees on, refuses and survives."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from isthmus.transports.core.errors import (
    LocalProtocolError,
    NoiseError,
    P2PError,
    PeerIdMismatch,
)
from isthmus.transports.core.interfaces import Side
from isthmus.transports.noise.machine import NoiseHandshake, StaticKey
from isthmus.transports.noise.wire import (
    MAX_MESSAGE,
    NoiseExtensions,
    NoiseHandshakePayload,
)

from .peers import IDENTITIES, IDS, STATICS, framed, handshake, shake, waiting_for

MESSAGES = (1, 2, 3)
DIALER, LISTENER = Side


class Rogue(NoiseHandshake):
    """A party that sends a payload of the test's choice."""

    payload = b""

    def _write_identity(self) -> bytes:
        static = self._symmetric.encrypt(self._static.public)
        self._mix(self._static.private, self._remote_ephemeral)
        return static + self._symmetric.encrypt(self.payload)


def meet_rogue(payload, side):
    """Let `side` meet a party that sends this payload, and return the machine of `side`."""
    rogue = Rogue(side.other, STATICS[side.other], ephemeral=b"\x55" * 32)
    rogue.payload = payload
    machine = handshake(side)
    pair = (machine, rogue) if side is DIALER else (rogue, machine)
    shake(*pair)
    return machine


def true_payload(side, **changes):
    static = STATICS[side]
    values = {"identity_key": static.identity_key, "identity_sig": static.identity_sig}
    return NoiseHandshakePayload(**(values | changes)).encode()


# Agreement


def test_who_vouched_once_is_believed_only_for_the_same_key_and_signature():
    """What is remembered of a peer's signature helps nobody who changes a byte of it."""
    for _ in range(2):
        shake(handshake(DIALER), handshake(LISTENER))
        for side in Side:
            signature = bytearray(STATICS[side.other].identity_sig)
            signature[0] ^= 1
            with pytest.raises(NoiseError, match="did not sign"):
                meet_rogue(true_payload(side.other, identity_sig=bytes(signature)), side)


def test_both_learn_the_same():
    dialer, listener = handshake(DIALER), handshake(LISTENER)
    shake(dialer, listener)
    for machine in (dialer, listener):
        assert machine.is_complete
        assert machine.result.remote_peer == IDS[machine.side.other]
        assert machine.result.remote_key == IDENTITIES[machine.side.other].public_key
        assert machine.result.muxer == "/yamux/1.0.0"
    assert dialer.result.channel_binding == listener.result.channel_binding


def test_the_channel_binding_is_of_this_handshake_alone():
    bindings = set()
    for ephemeral in (b"\x01" * 32, b"\x02" * 32):
        dialer, listener = handshake(DIALER, ephemeral=ephemeral), handshake(LISTENER)
        shake(dialer, listener)
        bindings.add(dialer.result.channel_binding.data)
    assert len(bindings) == 2


@pytest.mark.parametrize(
    ("dialer", "listener", "agreed"),
    [
        (("/a",), ("/a",), "/a"),
        (("/a", "/b"), ("/b", "/a"), "/a"),
        (("/x", "/b"), ("/a", "/b"), "/b"),
        (("/a",), ("/b",), None),
        (("/a",), (), None),
        ((), ("/a",), None),
        ((), (), None),
    ],
)
def test_early_muxer(dialer, listener, agreed):
    machines = handshake(DIALER, muxers=dialer), handshake(LISTENER, muxers=listener)
    shake(*machines)
    assert [machine.result.muxer for machine in machines] == [agreed, agreed]


def test_no_muxers_no_extensions():
    _, _, with_muxers = shake(handshake(DIALER), handshake(LISTENER))
    _, _, without = shake(handshake(DIALER, muxers=()), handshake(LISTENER))
    assert len(with_muxers) - len(without) == 16  # two tags, two lengths, the name


@pytest.mark.parametrize("side", Side)
def test_expected_peer(side):
    machine = handshake(side, expected_peer=IDS[side.other])
    other = handshake(side.other)
    shake(*((machine, other) if side is DIALER else (other, machine)))
    assert machine.is_complete


@pytest.mark.parametrize("side", Side)
def test_another_peer_than_expected(side):
    machine = handshake(side, expected_peer=IDS[side])
    other = handshake(side.other)
    with pytest.raises(PeerIdMismatch) as caught:
        shake(*((machine, other) if side is DIALER else (other, machine)))
    assert (caught.value.expected, caught.value.actual) == (IDS[side], IDS[side.other])
    assert machine.data_to_send() == b"", "a dialer shows a stranger who it is"
    assert not machine.is_complete


def test_the_roles_are_the_sides_and_not_who_connected():
    """As webrtc-direct reverses them: the identities change places, nothing else does."""
    dialer = handshake(DIALER, static=STATICS[LISTENER])
    listener = handshake(LISTENER, static=STATICS[DIALER])
    shake(dialer, listener)
    assert dialer.result.remote_peer == IDS[DIALER]
    assert listener.result.remote_peer == IDS[LISTENER]


def test_prologues_must_be_the_same():
    with pytest.raises(NoiseError, match="does not authenticate"):
        shake(handshake(DIALER, prologue=b"one"), handshake(LISTENER, prologue=b"other"))


# The order of calls


def test_nothing_before_it_is_complete():
    machine = handshake(DIALER)
    assert not machine.is_complete
    with pytest.raises(LocalProtocolError, match="not complete"):
        _ = machine.result


def test_the_dialer_speaks_first():
    assert handshake(LISTENER).data_to_send() == b""
    dialer = handshake(DIALER)
    assert len(dialer.data_to_send()) == 34
    assert dialer.data_to_send() == b""


@pytest.mark.parametrize("side", Side)
def test_nothing_after_it_is_complete(side):
    machines = handshake(DIALER), handshake(LISTENER)
    shake(*machines)
    for call in (lambda: machines[side].receive_data(b"x"), machines[side].receive_eof):
        with pytest.raises(LocalProtocolError, match="is complete"):
            call()


def test_nothing_after_an_error():
    machine, message = waiting_for(2)
    with pytest.raises(NoiseError):
        machine.receive_data(message[:-1] + bytes([message[-1] ^ 1]))
    for call in (lambda: machine.receive_data(message), machine.receive_eof):
        with pytest.raises(LocalProtocolError, match="has failed: a handshake message"):
            call()
    assert machine.data_to_send() == b""
    assert not machine.is_complete


@pytest.mark.parametrize("size", [0, 31, 33])
def test_ephemeral_of_the_wrong_size(size):
    with pytest.raises(LocalProtocolError, match="32 bytes"):
        handshake(DIALER, ephemeral=bytes(size))


def test_too_many_muxers():
    handshake(DIALER, muxers=("/m",) * 100)
    with pytest.raises(LocalProtocolError, match="101 muxers"):
        handshake(DIALER, muxers=("/m",) * 101)


def test_muxers_too_long_for_a_message():
    with pytest.raises(LocalProtocolError, match="do not fit"):
        shake(handshake(DIALER), handshake(LISTENER, muxers=("/" + "m" * MAX_MESSAGE,)))


# Bytes, however they are cut


@pytest.mark.parametrize("number", MESSAGES)
def test_cut_anywhere(number):
    _, message = waiting_for(number)
    for at in range(0, len(message), 7):
        machine, message = waiting_for(number)
        machine.receive_data(message[:at])
        assert not machine.is_complete
        assert machine.data_to_send() == b""
        machine.receive_data(bytearray(message[at:]))
        assert machine.is_complete == (number > 1)
        assert bool(machine.data_to_send()) == (number < 3)


@pytest.mark.parametrize("number", [2, 3])
def test_trailing(number):
    machine, message = waiting_for(number)
    machine.receive_data(memoryview(message + b"\x00\x11the session"))
    assert machine.result.trailing == b"\x00\x11the session"


def test_two_messages_at_once():
    _, hello = waiting_for(1)
    _, proof = waiting_for(3)
    listener = handshake(LISTENER)
    listener.receive_data(hello + proof)
    assert listener.is_complete


@pytest.mark.parametrize("number", MESSAGES)
def test_end_of_stream(number):
    _, message = waiting_for(number)
    for received in (0, 1, 2, len(message) - 1):
        machine, message = waiting_for(number)
        machine.receive_data(message[:received])
        with pytest.raises(NoiseError, match="closed the stream during the Noise handshake"):
            machine.receive_eof()


# Refusals


@pytest.mark.parametrize("number", MESSAGES)
@pytest.mark.parametrize("flip", [0x01, 0x80])
def test_every_byte_counts(number, flip):
    _, message = waiting_for(number)
    for position in range(len(message)):
        assert fails(number, message, position, flip), f"byte {position} of message {number}"


def fails(number, message, position, flip):
    """Change one byte and say whether the handshake fails, at the latest at the end."""
    machine, _ = waiting_for(number)
    changed = bytearray(message)
    changed[position] ^= flip
    try:
        machine.receive_data(changed)
        if number == 1 and (reply := machine.data_to_send()):
            # Nothing authenticates message 1 until the reply covers its hash.
            dialer, _ = waiting_for(2)
            dialer.receive_data(reply)
        else:
            machine.receive_eof()
    except NoiseError:
        return not machine.is_complete
    return False


@pytest.mark.parametrize("number", MESSAGES)
@pytest.mark.parametrize("length", [0, 1, 16, 31, 33, 95])
def test_length_at_once(number, length):
    """A length that cannot be is refused before its message has come."""
    machine, _ = waiting_for(number)
    if (number, length) == (3, 95):
        machine.receive_data(length.to_bytes(2, "big"))
        return
    with pytest.raises(NoiseError, match=f"of {length} bytes"):
        machine.receive_data(length.to_bytes(2, "big"))


def test_message_1_has_no_payload():
    machine, message = waiting_for(1)
    with pytest.raises(NoiseError, match="33 bytes"):
        machine.receive_data(framed(message[2:] + b"x"))


@pytest.mark.parametrize("number", [2, 3])
def test_longest_message_of_garbage(number):
    machine, _ = waiting_for(number)
    with pytest.raises(NoiseError):
        machine.receive_data(framed(b"\x01" * MAX_MESSAGE))


LOW_ORDER = [
    bytes(32),
    (1).to_bytes(32, "little"),
    (2**255 - 19 - 1).to_bytes(32, "little"),
    (2**255 - 19).to_bytes(32, "little"),
    (2**255 - 18).to_bytes(32, "little"),
]


@pytest.mark.parametrize("point", LOW_ORDER)
def test_ephemeral_of_low_order(point):
    listener = handshake(LISTENER)
    with pytest.raises(NoiseError, match="low order"):
        listener.receive_data(framed(point))
    dialer, reply = waiting_for(2)
    with pytest.raises(NoiseError, match="low order"):
        dialer.receive_data(framed(point + reply[34:]))


@pytest.mark.parametrize("side", Side)
@pytest.mark.parametrize("point", LOW_ORDER)
def test_static_key_of_low_order(side, point):
    static = StaticKey.from_bytes(b"\x66" * 32, IDENTITIES[side.other])
    static.public = point
    machines = handshake(side), handshake(side.other, static=static)
    with pytest.raises(NoiseError, match="low order"):
        shake(*machines[:: 1 if side is DIALER else -1])


@pytest.mark.parametrize("side", Side)
@pytest.mark.parametrize(
    ("payload", "why"),
    [
        (lambda _: b"", "identity cannot be used"),
        (lambda _: b"\xff\xff", "does not parse"),
        (lambda side: true_payload(side, identity_key=b"\x08\x01\x12\x01x"), "cannot be used"),
        (lambda side: true_payload(side, identity_sig=b""), "did not sign"),
        (lambda side: true_payload(side, identity_sig=bytes(64)), "did not sign"),
        (
            lambda side: true_payload(side, identity_key=STATICS[side.other].identity_key),
            "did not sign",
        ),
        (
            lambda side: true_payload(side, identity_sig=STATICS[side.other].identity_sig),
            "did not sign",
        ),
        (
            lambda side: true_payload(
                side, extensions=NoiseExtensions(stream_muxers=("/m",) * 101)
            ),
            "more than 100",
        ),
    ],
)
def test_payloads_refused(side, payload, why):
    with pytest.raises(NoiseError, match=why):
        meet_rogue(payload(side.other), side)


@pytest.mark.parametrize("side", Side)
def test_a_signature_without_its_context(side):
    static = STATICS[side.other]
    bare = IDENTITIES[side.other].sign(static.public)
    with pytest.raises(NoiseError, match="did not sign"):
        meet_rogue(true_payload(side.other, identity_sig=bare), side)


@pytest.mark.parametrize("side", Side)
def test_true_payload_without_extensions(side):
    """As rust sends it: no extensions, so the muxer is negotiated."""
    assert meet_rogue(true_payload(side.other), side).result.muxer is None


def test_a_message_of_another_handshake():
    first, second = handshake(DIALER), handshake(DIALER, ephemeral=b"\x77" * 32)
    listener = handshake(LISTENER)
    listener.receive_data(first.data_to_send())
    with pytest.raises(NoiseError, match="does not authenticate"):
        second.receive_data(listener.data_to_send())


def test_message_1_in_the_place_of_message_3():
    listener, hello = waiting_for(1)
    with pytest.raises(NoiseError, match="32 bytes"):
        listener.receive_data(hello + hello)


# Anything at all


@given(st.sampled_from(MESSAGES), st.lists(st.binary(max_size=300), max_size=4), st.booleans())
def test_fuzz(number, chunks, ends):
    """In every state, any bytes: a P2PError or patience, and no handshake by accident."""
    machine, _ = waiting_for(number)
    try:
        for chunk in chunks:
            machine.receive_data(chunk)
        if ends:
            machine.receive_eof()
    except P2PError:
        assert machine.data_to_send() == b""
    assert not machine.is_complete


@given(st.sampled_from(MESSAGES), st.data())
def test_fuzz_near_the_truth(number, data):
    """A true message with a part replaced, cut off or put in twice."""
    machine, message = waiting_for(number)
    start = data.draw(st.integers(0, len(message)))
    stop = data.draw(st.integers(start, len(message)))
    changed = message[:start] + data.draw(st.binary(max_size=80)) + message[stop:]
    try:
        machine.receive_data(changed)
    except NoiseError:
        assert not machine.is_complete
    if number > 1:
        assert machine.is_complete == changed.startswith(message)
