"""What the machine makes of the peer's bytes: three ways of feeding, every rule and breach."""

from __future__ import annotations

import pytest
from isthmus.transports.core.errors import LocalProtocolError, RemoteProtocolError
from isthmus.transports.core.interfaces import Side
from isthmus.transports.yamux.config import YamuxConfig
from isthmus.transports.yamux.control import MAX_CONTROL
from isthmus.transports.yamux.events import (
    DataReceived,
    GoAwayReceived,
    PongReceived,
    StreamFinished,
    StreamOpened,
    StreamWasReset,
)
from isthmus.transports.yamux.flow import LINGER
from isthmus.transports.yamux.machine import YamuxMachine

from .frames import ACK, FIN, RST, SYN, WINDOW, data, drain, go_away, parse, ping, update

OPENED = update(1, 0, SYN)


@pytest.fixture
def listener() -> YamuxMachine:
    return YamuxMachine(Side.LISTENER, 0.0)


@pytest.fixture
def dialer() -> YamuxMachine:
    return YamuxMachine(Side.DIALER, 0.0)


def names(events: list) -> list[str]:
    return [type(event).__name__ for event in events]


def breach(machine: YamuxMachine, wire: bytes, match: str) -> None:
    """Feed a breach: it raises, GoAway(1) is the only thing sent, and the machine is dead."""
    machine.ping(0.0)
    with pytest.raises(RemoteProtocolError, match=match) as caught:
        machine.receive_data(wire, 0.0)
    assert caught.value.code == 1
    assert machine.is_closing
    assert drain(machine) == go_away(1)
    assert machine.is_finished
    assert machine.receive_data(OPENED, 0.0) == []
    with pytest.raises(LocalProtocolError):
        machine.open_stream(0.0)


# What a peer says over a session's life, and what comes of it; stream 2 is ours.

LIFE = [
    (data(1, b"hello", SYN), ["StreamOpened", "DataReceived"]),
    (update(3, 100, SYN), ["StreamOpened"]),
    (update(2, 0, ACK), []),
    (data(2, b"answer"), ["DataReceived"]),
    (data(1, b", world", FIN), ["StreamFinished"]),
    (ping(SYN, 5), []),
    (ping(ACK, 0), ["PongReceived"]),
    (update(3, 4, RST), ["StreamWasReset"]),
    (data(3, b"late"), []),
    (data(2, b"", FIN), ["StreamFinished"]),
    (data(5, b"all at once", SYN | FIN), ["StreamOpened", "DataReceived", "StreamFinished"]),
    (go_away(0), ["GoAwayReceived"]),
]
WIRE = b"".join(wire for wire, _ in LIFE)
EVENTS = [name for _, events in LIFE for name in events]


def living() -> YamuxMachine:
    machine = YamuxMachine(Side.LISTENER, 0.0)
    machine.open_stream(0.0)
    machine.ping(0.0)
    return machine


def check_life(machine: YamuxMachine, seen: list[str]) -> None:
    assert seen == EVENTS
    taken = {i: machine.take(stream, 100, 0.0) for i, stream in machine.streams.items()}
    assert taken == {1: b"hello, world", 2: b"answer", 5: b"all at once"}
    assert drain(machine).endswith(ping(ACK, 5) + update(2, 0, SYN))
    assert machine.remote_go_away == 0


def test_a_session_frame_by_frame():
    machine, seen = living(), []
    for wire, expected in LIFE:
        events = names(machine.receive_data(wire, 0.0))
        assert events == expected
        seen += events
    check_life(machine, seen)


def test_a_session_fed_whole():
    machine = living()
    check_life(machine, names(machine.receive_data(WIRE, 0.0)))


def test_a_session_byte_by_byte():
    machine, seen = living(), []
    for offset in range(len(WIRE)):
        seen += names(machine.receive_data(WIRE[offset : offset + 1], 0.0))
    check_life(machine, seen)


@pytest.mark.parametrize("cut", range(1, 12))
def test_a_session_with_trailing_bytes(cut: int):
    machine = living()
    rest = ping(SYN, 9)
    check_life(machine, names(machine.receive_data(WIRE + rest[:cut], 0.0)))
    machine.receive_data(rest[cut:], 0.0)
    assert drain(machine) == ping(ACK, 9)


# Data


def test_a_body_is_delivered_as_its_bytes_arrive(listener: YamuxMachine):
    whole = data(1, bytes(WINDOW), SYN)
    (opened, received) = listener.receive_data(whole[:13], 0.0)
    assert (type(opened), type(received)) == (StreamOpened, DataReceived)
    assert listener.take(opened.stream, 10, 0.0) == b"\0"
    assert names(listener.receive_data(whole[13:], 0.0)) == ["DataReceived"]
    assert opened.stream.bytes_received == opened.stream.unread + 1 == WINDOW


def test_one_event_tells_of_all_that_was_not_taken(listener: YamuxMachine):
    (opened, _) = listener.receive_data(data(1, b"a", SYN), 0.0)
    assert listener.receive_data(data(1, b"b"), 0.0) == []
    assert listener.take(opened.stream, 10, 0.0) == b"ab"
    assert names(listener.receive_data(data(1, b"c"), 0.0)) == ["DataReceived"]


def test_fin_with_payload_gives_the_payload_first(listener: YamuxMachine):
    opened, received, finished = listener.receive_data(data(1, b"last", SYN | FIN), 0.0)
    assert (type(received), type(finished)) == (DataReceived, StreamFinished)
    assert listener.take(opened.stream, 10, 0.0) == b"last"


def test_fin_with_payload_on_a_stream_that_this_side_has_finished(dialer: YamuxMachine):
    stream = dialer.open_stream(0.0)
    dialer.finish(stream)
    drain(dialer)
    dialer.receive_data(data(1, b"last", ACK | FIN), 0.0)
    assert not dialer.streams
    assert dialer.unread_bytes == 4
    assert dialer.take(stream, 10, 0.0) == b"last"
    assert dialer.unread_bytes == 0


@pytest.mark.parametrize("wire", [data(1, b"x", RST), data(1, b"", RST), update(1, 3, RST | FIN)])
def test_rst_on_any_frame_ends_both_directions_and_drops_the_buffers(listener, wire: bytes):
    (opened, _) = listener.receive_data(data(1, b"unread", SYN), 0.0)
    listener.send(opened.stream, memoryview(b"unsent"))
    events = listener.receive_data(wire, 0.0)
    assert events[-1] == StreamWasReset(opened.stream)
    assert opened.stream.reset_remote
    assert opened.stream.reset_code == (3 if wire[1] else 0)
    assert (listener.unread_bytes, listener.queued, listener.streams) == (0, 0, {})
    assert drain(listener) == b""


def test_fin_twice_is_told_once_and_what_follows_is_dropped(listener: YamuxMachine):
    (opened, _) = listener.receive_data(update(1, 0, SYN | FIN), 0.0)
    assert listener.receive_data(data(1, b"", FIN) + update(1, 9, FIN), 0.0) == []
    assert listener.receive_data(data(1, b"too late"), 0.0) == []
    assert opened.stream.unread == listener.unread_bytes == 0


def test_late_frames_are_drained(dialer: YamuxMachine):
    stream = dialer.open_stream(0.0)
    drain(dialer)
    dialer.reset(stream)
    drain(dialer)
    late = data(1, b"x" * 50) + update(1, 10) + data(1, b"y", FIN) + update(1, 0, RST)
    never = data(99, b"z", ACK) + update(2, 7, FIN)
    assert dialer.receive_data(late + never + go_away(0), 0.0) == [GoAwayReceived(0)]
    assert drain(dialer) == b""


def test_a_body_under_way_when_its_stream_is_reset_is_drained(dialer: YamuxMachine):
    stream = dialer.open_stream(0.0)
    drain(dialer)
    wire = data(1, bytes(100), FIN) + ping(SYN, 1)
    dialer.receive_data(wire[:50], 0.0)
    dialer.reset(stream)
    assert dialer.receive_data(wire[50:], 0.0) == []
    assert dialer.unread_bytes == 0
    assert drain(dialer) == update(1, 0, RST) + ping(ACK, 1)


def test_the_whole_window_may_come_in_one_frame_and_not_a_byte_more(listener: YamuxMachine):
    listener.receive_data(data(1, bytes(WINDOW), SYN), 0.0)
    breach(listener, data(1, b"x"), "credit for 0")


def test_a_frame_beyond_the_window_is_refused_by_its_header(listener: YamuxMachine):
    breach(listener, data(1, bytes(WINDOW + 1), SYN)[:12], "credit for 262144")


def test_frames_for_unknown_streams_are_not_bounded_by_a_window(listener: YamuxMachine):
    assert listener.receive_data(data(7, bytes(3 * WINDOW)), 0.0) == []


# Breaches


@pytest.mark.parametrize(
    ("wire", "match"),
    [
        (b"\x01" + OPENED[1:], "version 1"),
        (b"\x00\x04" + OPENED[2:], "frame type 4"),
        (b"\x00\xff" + OPENED[2:], "frame type 255"),
        (data(0, b"x"), "stream 0"),
        (data(0), "stream 0"),
        (update(0, 1), "stream 0"),
        (update(0, 1, SYN), "parity"),
        (update(2, 0, SYN), "parity"),
        (data(4, b"x", SYN), "parity"),
        (OPENED + OPENED, "open already"),
        (ping(0, 1), "flags 0"),
        (ping(SYN | ACK, 1), "flags 3"),
        (ping(FIN, 1), "flags 4"),
        (update(1, 2**32 - WINDOW - 1, SYN) + update(1, 1), "granted more"),
    ],
)
def test_a_breach_ends_the_session(listener: YamuxMachine, wire: bytes, match: str):
    breach(listener, wire, match)


def test_the_dialer_refuses_odd_streams(dialer: YamuxMachine):
    breach(dialer, update(1, 0, SYN), "parity")


def test_the_most_credit_is_four_gibibytes(listener: YamuxMachine):
    (opened,) = listener.receive_data(update(1, 2**32 - WINDOW - 1, SYN), 0.0)
    assert opened.stream.credit == 2**32 - 1


def test_what_came_before_the_breach_is_still_told(listener: YamuxMachine):
    with pytest.raises(RemoteProtocolError):
        listener.receive_data(data(1, b"x", SYN) + b"\xff" * 12, 0.0)
    assert names(listener.events()) == ["StreamOpened", "DataReceived"]
    assert names(listener.receive_eof()) == ["StreamWasReset"]


# Tolerance


def test_unknown_flags_are_ignored(listener: YamuxMachine):
    events = listener.receive_data(data(1, b"x", SYN | 0xFFF0), 0.0)
    assert names(events) == ["StreamOpened", "DataReceived"]


@pytest.mark.parametrize("value", [0, 7])
def test_unsolicited_pongs_are_ignored(listener: YamuxMachine, value: int):
    assert listener.receive_data(ping(ACK, value), 0.0) == []
    assert listener.inflight.min_rtt is None


def test_pings_are_answered_once_each_in_order(listener: YamuxMachine):
    listener.receive_data(ping(SYN, 3) + ping(SYN, 3) + ping(SYN, 2**32 - 1), 0.0)
    assert drain(listener) == ping(ACK, 3) * 2 + ping(ACK, 2**32 - 1)
    assert drain(listener) == b""


def test_any_go_away_leaves_the_streams_to_the_end_of_the_path(listener: YamuxMachine):
    (opened, _, gone) = listener.receive_data(data(1, b"x", SYN) + go_away(2), 0.0)
    assert gone == GoAwayReceived(2)
    assert listener.remote_go_away == 2
    assert listener.is_closing
    listener.send(opened.stream, memoryview(b"still"))
    assert drain(listener) == data(1, b"still")
    assert not listener.is_finished


def test_an_id_may_come_again_once_its_stream_has_ended(listener: YamuxMachine):
    first, second = (
        listener.receive_data(OPENED, 0.0)[0].stream,
        listener.receive_data(update(1, 0, RST) + OPENED, 0.0)[1].stream,
    )
    assert first is not second
    assert listener.streams == {1: second}
    listener.reset(first)
    assert listener.streams == {1: second}


# Limits


def test_streams_beyond_the_inbound_limit_are_reset():
    machine = YamuxMachine(Side.LISTENER, 0.0, config=YamuxConfig(max_inbound_streams=2))
    machine.receive_data(update(1, 0, SYN) + update(3, 0, SYN), 0.0)
    assert machine.receive_data(data(5, b"refused", SYN) + data(5, b"more", FIN), 0.0) == []
    assert machine.streams_refused == 1
    assert drain(machine) == update(5, 0, RST)
    machine.receive_data(update(1, 0, RST), 0.0)
    assert names(machine.receive_data(update(7, 0, SYN), 0.0)) == ["StreamOpened"]


def test_streams_beyond_the_backlog_are_reset_until_one_is_accepted():
    machine = YamuxMachine(Side.LISTENER, 0.0, config=YamuxConfig(accept_backlog=2))
    events = machine.receive_data(OPENED + update(3, 0, SYN), 0.0)
    assert machine.receive_data(update(5, 0, SYN), 0.0) == []
    assert drain(machine) == update(5, 0, RST)
    # One that ended meanwhile still waits to be accepted, so that resets make no room.
    machine.receive_data(update(1, 0, RST), 0.0)
    assert machine.receive_data(update(7, 0, SYN), 0.0) == []
    machine.accept(events[0].stream, 0.0)
    assert names(machine.receive_data(update(9, 0, SYN), 0.0)) == ["StreamOpened"]


def test_the_defaults_are_a_thousand_streams_and_256_in_the_backlog(listener: YamuxMachine):
    for stream_id in range(1, 2 * 256 + 1, 2):
        assert listener.receive_data(update(stream_id, 0, SYN), 0.0)
    assert listener.receive_data(update(1001, 0, SYN), 0.0) == []


# Congestion


def test_reading_stops_while_too_much_control_waits(listener: YamuxMachine):
    wire = b"".join(ping(SYN, n) for n in range(3 * MAX_CONTROL)) + data(1, b"after", SYN)
    assert listener.receive_data(wire, 0.0) == []
    assert listener.is_congested
    assert listener.receive_data(b"", 0.0) == []
    answers, events = [], []
    while listener.is_congested:
        answers += parse(drain(listener))
        assert not listener.is_congested
        events += listener.receive_data(b"", 0.0)
    answers += parse(drain(listener))
    assert [frame.length for frame in answers] == list(range(3 * MAX_CONTROL))
    assert names(events) == ["StreamOpened", "DataReceived"]


def test_a_body_under_way_is_taken_even_in_congestion(listener: YamuxMachine):
    (opened,) = listener.receive_data(OPENED, 0.0)
    listener.receive_data(ping(SYN, 0) * (MAX_CONTROL - 1), 0.0)
    wire = data(1, b"hello")
    listener.receive_data(wire[:14], 0.0)
    listener.ping(0.0)
    assert listener.is_congested
    listener.receive_data(wire[14:] + ping(SYN, 9), 0.0)
    assert listener.take(opened.stream, 10, 0.0) == b"hello"
    assert ping(ACK, 9) not in drain(listener)
    listener.receive_data(b"", 0.0)
    assert drain(listener) == ping(ACK, 9)


# Closing


def test_what_comes_after_close_is_dropped_and_needs_no_credit(listener: YamuxMachine):
    (opened, _) = listener.receive_data(data(1, b"unread", SYN), 0.0)
    listener.accept(opened.stream, 0.0)
    listener.close(opened.stream, 0.0)
    assert listener.unread_bytes == 0
    assert drain(listener) == update(1, 0, ACK) + update(1, 0, FIN)
    assert listener.receive_data(data(1, bytes(WINDOW - 6)), 0.0) == []
    assert listener.unread_bytes == 0
    assert drain(listener) == b""
    assert names(listener.receive_data(update(1, 0, FIN), 0.0)) == ["StreamFinished"]
    assert not listener.streams
    assert listener.next_timeout() == 30.0


def test_a_peer_that_does_not_finish_is_reset_after_a_while(listener: YamuxMachine):
    first, second = (listener.receive_data(update(n, 0, SYN | ACK), 0.0)[0].stream for n in (1, 3))
    listener.close(first, 1.0)
    listener.close(second, 2.0)
    listener.close(first, 9.0)
    drain(listener)
    listener.receive_data(ping(SYN, 0), 20.0)
    drain(listener)
    listener.handle_timeout(30.0)
    assert listener.next_timeout() == 1.0 + LINGER
    assert listener.handle_timeout(1.0 + LINGER) == [StreamWasReset(first)]
    assert drain(listener) == update(1, 0, RST)
    assert list(listener.streams) == [3]
    assert listener.handle_timeout(2.0 + LINGER) == [StreamWasReset(second)]


def test_closing_after_the_peer_has_finished_or_been_reset_waits_for_nothing(listener):
    (finished, _) = listener.receive_data(update(1, 0, SYN | FIN), 0.0)
    listener.close(finished.stream, 0.0)
    (opened, _) = listener.receive_data(update(3, 0, SYN | RST), 0.0)
    listener.close(opened.stream, 0.0)
    assert listener.next_timeout() == 30.0
    assert drain(listener) == update(1, 0, FIN)
    assert not listener.streams


def test_the_pong_of_a_keepalive_is_an_event(listener: YamuxMachine):
    listener.handle_timeout(30.0)
    drain(listener, 30.0)
    assert listener.receive_data(ping(ACK, 0), 30.5) == [PongReceived(0, 0.5)]
