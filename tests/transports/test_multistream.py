"""Negotiations, against bytes written down by hand from the specification."""

from __future__ import annotations

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st
from isthmus.transports.core.errors import (
    LocalProtocolError,
    NegotiationError,
    P2PError,
    RemoteProtocolError,
    unwrap_group,
)
from isthmus.transports.multistream import (
    MAX_FRAME,
    MAX_PROPOSALS,
    DialerNegotiation,
    LazyDialer,
    ListenerNegotiation,
    negotiate_dialer,
    negotiate_listener,
)

from .noise.pipes import pipe_pair

HEADER = bytes.fromhex("132f6d756c746973747265616d2f312e302e300a")
NA = bytes.fromhex("036e610a")
NOISE = bytes.fromhex("072f6e6f6973650a")
YAMUX = bytes.fromhex("0d2f79616d75782f312e302e300a")
LS = b"\x03ls\n"

NONSENSE = [
    b"\x00",  # not even a line break
    b"\x01x",
    b"\x03abc",
    b"\x03\xff\xfe\n",
    b"\x80\x00",  # a length that is not the shortest
    b"\x80\x80",  # of more than two bytes
    b"\x81\x08",  # 1025 bytes
    b"\xff\x7f",
]


def frame(text):
    body = text.encode() + b"\n"
    size = len(body)
    return (bytes([size]) if size < 128 else bytes([size & 127 | 128, size >> 7])) + body


def dialer(*protocols):
    """A dialer that has sent its first bytes."""
    machine = DialerNegotiation(protocols or ("/noise",))
    machine.data_to_send()
    return machine


def listener(*protocols):
    return ListenerNegotiation((protocols or ("/noise",)).__contains__)


def feed(machine, data, *, size=None):
    """Feed bytes, `size` at a time, and return the answer."""
    answer = b""
    for start in range(0, len(data), size or len(data)):
        machine.receive_data(data[start : start + (size or len(data))])
        answer += machine.data_to_send()
    return answer


# The dialer


def test_dialer_proposes_at_once():
    machine = DialerNegotiation(["/noise"])
    assert machine.data_to_send() == HEADER + NOISE
    assert machine.data_to_send() == b""
    assert not machine.is_complete


@pytest.mark.parametrize("size", [None, 1, 5])
def test_dialer_agrees(size):
    machine = dialer()
    assert feed(machine, HEADER + NOISE, size=size) == b""
    assert machine.is_complete
    assert machine.protocol == "/noise"
    assert machine.take_trailing() == b""


def test_dialer_hands_back_what_follows():
    machine = dialer()
    machine.receive_data(HEADER + NOISE + NA + b"\xff")
    assert machine.take_trailing() == NA + b"\xff"
    assert machine.take_trailing() == b""


def test_dialer_proposes_the_next():
    machine = dialer("/tls", "/noise", "/plain")
    assert feed(machine, HEADER) == b""
    assert feed(machine, NA) == NOISE
    assert feed(machine, NOISE) == b""
    assert machine.protocol == "/noise"


@pytest.mark.parametrize("size", [None, 1])
def test_dialer_is_refused(size):
    machine = dialer("/tls", "/noise")
    with pytest.raises(NegotiationError) as caught:
        feed(machine, HEADER + NA + NA, size=size)
    assert (caught.value.offered, caught.value.answered) == (("/tls", "/noise"), "na")


@pytest.mark.parametrize("answer", [YAMUX, LS, frame("/tls"), frame("/noise "), frame("x" * 900)])
def test_dialer_is_answered_something_else(answer):
    machine = dialer("/tls", "/noise")
    feed(machine, HEADER + NA)
    with pytest.raises(RemoteProtocolError, match="no proposal"):
        machine.receive_data(answer)


@pytest.mark.parametrize("data", [NOISE, NA, frame("/multistream/2.0.0"), b"\x05HTTP\n"])
def test_dialer_wants_the_header_first(data):
    with pytest.raises(RemoteProtocolError, match=r"/multistream/1\.0\.0 was expected"):
        dialer().receive_data(data)


@pytest.mark.parametrize("received", [b"", HEADER[:5], HEADER, HEADER + NOISE[:-1]])
def test_dialer_meets_the_end(received):
    machine = dialer()
    machine.receive_data(received)
    with pytest.raises(NegotiationError, match="end of stream"):
        machine.receive_eof()


@pytest.mark.parametrize(
    "protocols",
    [[], ["/p"] * (MAX_PROPOSALS + 1), ["noise"], [""], ["/a\nb"], ["/" + "x" * (MAX_FRAME - 1)]],
)
def test_what_cannot_be_proposed(protocols):
    with pytest.raises(LocalProtocolError):
        DialerNegotiation(protocols)


def test_the_longest_name_and_the_most_proposals():
    longest = "/" + "x" * (MAX_FRAME - 2)
    protocols = [f"/{n}" for n in range(MAX_PROPOSALS - 1)] + [longest]
    ours, theirs = DialerNegotiation(protocols), listener(longest)
    while not ours.is_complete:
        theirs.receive_data(ours.data_to_send())
        ours.receive_data(theirs.data_to_send())
    assert ours.protocol == theirs.protocol == longest


# The listener


def test_listener_waits():
    machine = listener()
    assert machine.data_to_send() == b""
    assert not machine.is_complete


@pytest.mark.parametrize("size", [None, 1, 5])
def test_listener_agrees(size):
    machine = listener()
    assert feed(machine, HEADER + NOISE, size=size) == HEADER + NOISE
    assert machine.is_complete
    assert machine.protocol == "/noise"
    assert machine.take_trailing() == b""


def test_listener_hands_back_what_follows():
    """A lazy dialer's first bytes come in the same segment."""
    machine = listener()
    machine.receive_data(HEADER + NOISE + b"\x00\x20message 1")
    assert machine.take_trailing() == b"\x00\x20message 1"
    assert machine.take_trailing() == b""


def test_listener_refuses_and_reads_on():
    machine = listener()
    assert feed(machine, HEADER) == HEADER
    assert feed(machine, YAMUX) == NA
    assert feed(machine, LS) == NA
    assert feed(machine, frame("")) == NA
    assert feed(machine, HEADER) == NA
    assert feed(machine, frame("/libp2p/simultaneous-connect")) == NA
    assert feed(machine, NOISE) == NOISE


def test_listener_asks_only_about_what_may_be_a_protocol():
    asked = []
    machine = ListenerNegotiation(lambda name: bool(asked.append(name)))
    feed(machine, HEADER + LS + frame("select:1") + YAMUX)
    assert asked == ["/yamux/1.0.0"]


def test_listener_bears_32_proposals():
    machine = listener()
    assert feed(machine, HEADER + YAMUX * (MAX_PROPOSALS - 1)) == HEADER + NA * (MAX_PROPOSALS - 1)
    assert feed(machine, NOISE) == NOISE
    machine = listener()
    feed(machine, HEADER + YAMUX * MAX_PROPOSALS)
    with pytest.raises(RemoteProtocolError, match="more than 32"):
        machine.receive_data(NOISE)
    assert machine.data_to_send() == b""


@pytest.mark.parametrize("data", [NOISE, LS, frame("/multistream/2.0.0"), frame("\x16\x03\x01")])
def test_listener_wants_the_header_first(data):
    with pytest.raises(RemoteProtocolError, match=r"/multistream/1\.0\.0 was expected"):
        listener().receive_data(data)


@pytest.mark.parametrize("received", [b"", HEADER[:5], HEADER, HEADER + NA, HEADER + NOISE[:-1]])
def test_listener_meets_the_end(received):
    machine = listener()
    machine.receive_data(received)
    with pytest.raises(RemoteProtocolError, match="ended the stream"):
        machine.receive_eof()


# Both


@pytest.mark.parametrize("make", [dialer, listener])
@pytest.mark.parametrize("before", [b"", HEADER])
@pytest.mark.parametrize("nonsense", NONSENSE)
@pytest.mark.parametrize("size", [None, 1])
def test_nonsense(make, before, nonsense, size):
    machine = make()
    with pytest.raises(RemoteProtocolError):
        feed(machine, before + nonsense, size=size)
    with pytest.raises(LocalProtocolError, match="has failed"):
        machine.receive_data(b"")
    with pytest.raises(LocalProtocolError, match="has failed"):
        machine.receive_eof()
    assert not machine.is_complete


@pytest.mark.parametrize("make", [dialer, listener])
def test_frames_of_1024_bytes_are_read(make):
    machine = make()
    longest = frame("/" + "x" * (MAX_FRAME - 2))
    feed(machine, HEADER + longest[:-1])
    if make is listener:
        assert feed(machine, longest[-1:]) == NA
    else:
        with pytest.raises(RemoteProtocolError, match="no proposal") as caught:
            machine.receive_data(longest[-1:])
        assert len(str(caught.value)) < 120


@pytest.mark.parametrize("make", [dialer, listener])
def test_the_order_of_calls(make):
    machine = make()
    for too_early in (lambda: machine.protocol, machine.take_trailing):
        with pytest.raises(LocalProtocolError, match="no protocol"):
            too_early()
    machine.receive_data(HEADER + NOISE)
    for too_late in (lambda: machine.receive_data(b"x"), machine.receive_eof):
        with pytest.raises(LocalProtocolError, match="is complete"):
            too_late()


NAMES = st.sampled_from(["/a", "/b", "/noise", "/" + "x" * 200])
BYTES = st.lists(
    st.binary(max_size=40)
    | st.sampled_from([HEADER, NA, NOISE, YAMUX, LS, *NONSENSE])
    | st.text(max_size=300).map(frame),
    max_size=8,
)


@given(st.sampled_from([dialer, listener, lambda: LazyDialer("/noise")]), BYTES, st.booleans())
def test_fuzz(make, chunks, ends):
    """In every state, any bytes: nothing but a P2PError, and what is held stays bounded."""
    machine = make()
    try:
        for chunk in chunks:
            machine.receive_data(chunk)
        if ends:
            machine.receive_eof()
    except P2PError as error:
        assert str(error)  # noqa: PT017 - the only exception that may come


@given(
    st.lists(NAMES, min_size=1, max_size=5),
    st.sets(NAMES),
    st.integers(1, 60),
    st.binary(max_size=100),
)
def test_two_machines(offered, served, size, rest):
    """Cut anywhere, both agree on the first protocol that is served, and lose no byte."""
    ours, theirs = DialerNegotiation(offered), ListenerNegotiation(served.__contains__)
    common = [name for name in offered if name in served]
    if not common:
        with pytest.raises(NegotiationError):
            talk(ours, theirs, size, rest)
        return
    assert talk(ours, theirs, size, rest) == (rest, rest)
    assert ours.protocol == theirs.protocol == common[0]


def talk(ours, theirs, size, rest):
    """Carry bytes both ways, `rest` behind each side's negotiation, and return what came out."""
    pipes = {ours: bytearray(ours.data_to_send()), theirs: bytearray()}
    out = {ours: None, theirs: None}
    while any(pipes.values()):
        for sender, receiver in ((ours, theirs), (theirs, ours)):
            data = bytes(pipes[sender][:size])
            del pipes[sender][:size]
            if out[receiver] is not None:
                out[receiver] += data
            elif data:
                receiver.receive_data(data)
                pipes[receiver] += receiver.data_to_send()
                if receiver.is_complete:
                    out[receiver] = receiver.take_trailing()
                    pipes[receiver] += rest
    return out[ours], out[theirs]


# The lazy dialer


def test_lazy_dialer_rides_along():
    lazy = LazyDialer("/noise")
    assert lazy.data_to_send() == HEADER + NOISE
    assert lazy.data_to_send() == b""
    assert not lazy.is_complete
    assert lazy.receive_data(HEADER + NOISE + b"first") == b"first"
    assert lazy.is_complete
    assert lazy.receive_data(b"then") == b"then"
    lazy.receive_eof()


def test_lazy_dialer_byte_by_byte():
    lazy = LazyDialer("/noise")
    received = [lazy.receive_data(bytes([byte])) for byte in HEADER + NOISE + b"ab"]
    assert received == [None] * (len(HEADER + NOISE) - 1) + [b"", b"a", b"b"]


def test_lazy_dialer_is_refused():
    lazy = LazyDialer("/noise")
    with pytest.raises(NegotiationError) as caught:
        lazy.receive_data(HEADER + NA)
    assert (caught.value.offered, caught.value.answered) == (("/noise",), "na")


def test_lazy_dialer_meets_nonsense_and_the_end():
    lazy = LazyDialer("/noise")
    assert lazy.receive_data(HEADER) is None
    with pytest.raises(NegotiationError, match="end of stream"):
        lazy.receive_eof()
    with pytest.raises(LocalProtocolError, match="has failed"):
        lazy.receive_data(NOISE)
    with pytest.raises(RemoteProtocolError):
        LazyDialer("/noise").receive_data(YAMUX)


# Over streams


async def test_drivers():
    agreed = {}

    async def dial(stream):
        agreed["dialer"] = await negotiate_dialer(stream, ["/tls", "/noise"])

    async def listen(stream):
        agreed["listener"] = await negotiate_listener(stream, "/noise".__eq__)

    with pipe_pair(max_receive=3) as (ours, theirs):
        with unwrap_group():
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(dial, ours)
                tasks.start_soon(listen, theirs)
        assert agreed == {"dialer": ("/noise", b""), "listener": ("/noise", b"")}


async def test_drivers_hand_back_what_follows():
    with pipe_pair() as (ours, theirs):
        await ours.send(HEADER + NOISE + b"for the listener")
        assert await negotiate_listener(theirs, "/noise".__eq__) == ("/noise", b"for the listener")
        assert await ours.receive() == HEADER + NOISE
        await theirs.send(HEADER + NOISE + b"for the dialer")
        assert await negotiate_dialer(ours, ["/noise"]) == ("/noise", b"for the dialer")


async def test_drivers_meet_the_end():
    with pipe_pair() as (ours, theirs):
        await theirs.send_eof()
        with pytest.raises(NegotiationError, match="end of stream"):
            await negotiate_dialer(ours, ["/noise"])
    with pipe_pair() as (ours, theirs):
        await ours.send(HEADER)
        await ours.send_eof()
        with pytest.raises(RemoteProtocolError, match="ended the stream"):
            await negotiate_listener(theirs, "/noise".__eq__)


async def test_the_dialer_is_refused_by_the_driver():
    with pipe_pair() as (ours, theirs):
        await theirs.send(HEADER + NA)
        with pytest.raises(NegotiationError):
            await negotiate_dialer(ours, ["/noise"])
