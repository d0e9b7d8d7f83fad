"""What the machine puts on the wire, byte by byte, and what it never does."""

from __future__ import annotations

import pytest
from isthmus.transports.core.errors import LimitExceeded, LocalProtocolError
from isthmus.transports.core.interfaces import Priority, Side
from isthmus.transports.inflight import MARKER_TIMEOUT
from isthmus.transports.yamux.control import ACK_DELAY, MAX_CONTROL
from isthmus.transports.yamux.events import OpenResumed, SendResumed, StreamOpened, StreamWasReset
from isthmus.transports.yamux.flow import CONNECTION_QUEUE, LARGEST_FRAME, SEND_QUEUE, SMALL_QUEUE
from isthmus.transports.yamux.machine import YamuxMachine
from isthmus.transports.yamux.wire import MAX_STREAM_ID

from .frames import (
    ACK,
    DATA,
    FIN,
    PING,
    RST,
    SYN,
    WINDOW,
    WINDOW_UPDATE,
    Frame,
    data,
    drain,
    go_away,
    parse,
    ping,
    update,
)


@pytest.fixture
def dialer() -> YamuxMachine:
    return YamuxMachine(Side.DIALER, 0.0)


@pytest.fixture
def listener() -> YamuxMachine:
    return YamuxMachine(Side.LISTENER, 0.0)


def opened(machine: YamuxMachine, wire: bytes):
    (stream,) = [e.stream for e in machine.receive_data(wire, 0.0) if isinstance(e, StreamOpened)]
    return stream


# Opening and accepting


def test_ids_are_odd_for_the_dialer_and_even_for_the_listener(dialer, listener):
    assert [dialer.open_stream(0.0).id for _ in range(3)] == [1, 3, 5]
    assert [listener.open_stream(0.0).id for _ in range(3)] == [2, 4, 6]


def test_syn_rides_on_the_first_data(dialer: YamuxMachine):
    stream = dialer.open_stream(0.0)
    assert dialer.send(stream, memoryview(b"hello")) == 5
    assert drain(dialer) == bytes.fromhex("00 00 0001 00000001 00000005") + b"hello"
    dialer.send(stream, memoryview(b"again"))
    assert drain(dialer) == bytes.fromhex("00 00 0000 00000001 00000005") + b"again"


def test_syn_without_data_is_a_window_update(dialer: YamuxMachine):
    dialer.open_stream(0.0)
    assert dialer.has_control
    assert drain(dialer) == bytes.fromhex("00 01 0001 00000001 00000000")
    assert not dialer.has_control


def test_ack_rides_on_the_first_data(listener: YamuxMachine):
    stream = opened(listener, update(1, flags=SYN))
    listener.accept(stream, 0.0)
    listener.send(stream, memoryview(b"hi"))
    assert drain(listener) == bytes.fromhex("00 00 0002 00000001 00000002") + b"hi"
    assert listener.next_timeout() == 30.0


def test_ack_waits_a_little_for_data_and_then_is_a_window_update(listener: YamuxMachine):
    streams = [opened(listener, update(n, flags=SYN)) for n in (1, 3, 5)]
    listener.accept(streams[0], 1.0)
    listener.accept(streams[1], 1.004)
    assert drain(listener, 1.004) == b""
    assert not listener.has_control
    assert listener.next_timeout() == 1.0 + ACK_DELAY
    listener.handle_timeout(1.004)
    assert drain(listener, 1.004) == b""
    listener.handle_timeout(1.0 + ACK_DELAY)
    assert drain(listener, 1.005) == (
        bytes.fromhex("00 01 0002 00000001 00000000")
        + bytes.fromhex("00 01 0002 00000003 00000000")
    )
    assert listener.next_timeout() == 30.0
    listener.accept(streams[2], 2.0)
    assert listener.next_timeout() == 2.0 + ACK_DELAY


def test_ack_goes_along_with_whatever_is_sent(listener: YamuxMachine):
    stream, other = (opened(listener, update(n, flags=SYN)) for n in (1, 3))
    listener.accept(stream, 0.0)
    listener.send(other, memoryview(b"hi"))
    assert drain(listener) == data(3, b"hi") + update(1, 0, ACK)
    assert listener.next_timeout() == 30.0


def test_ack_waits_with_data_that_has_no_room(listener: YamuxMachine):
    streams = [opened(listener, update(n, flags=SYN)) for n in range(1, 17, 2)]
    for stream in streams:
        listener.accept(stream, 0.0)
    listener.ping(0.0)
    frames = parse(listener.data_to_send(64, 0.0))
    assert [frame.kind for frame in frames] == [PING] + [WINDOW_UPDATE] * 4
    assert drain(listener) == b""
    listener.handle_timeout(ACK_DELAY)
    acks = parse(drain(listener, ACK_DELAY))
    assert sorted(f.stream_id for f in [*frames[1:], *acks]) == list(range(1, 17, 2))


def test_ack_of_a_stream_that_ends_is_not_sent(listener: YamuxMachine):
    stream = opened(listener, update(1, flags=SYN))
    listener.accept(stream, 0.0)
    listener.reset(stream)
    assert drain(listener) == update(1, 0, RST)
    listener.handle_timeout(ACK_DELAY)
    assert drain(listener) == b""


def test_ack_is_announced_once_with_fin_or_credit(listener: YamuxMachine):
    stream = opened(listener, update(1, flags=SYN))
    listener.accept(stream, 0.0)
    listener.finish(stream)
    listener.handle_timeout(ACK_DELAY)
    assert drain(listener) == update(1, 0, ACK) + update(1, 0, FIN)


def test_ack_rides_on_a_grant_of_credit(listener: YamuxMachine):
    stream = opened(listener, data(1, bytes(WINDOW), SYN))
    listener.accept(stream, 0.0)
    listener.take(stream, WINDOW, 0.0)
    assert drain(listener) == update(1, WINDOW, ACK)


def test_opening_and_finishing_at_once_takes_two_frames(dialer: YamuxMachine):
    dialer.finish(dialer.open_stream(0.0))
    assert drain(dialer) == update(1, 0, SYN) + update(1, 0, FIN)


def test_accepting_a_stream_that_was_reset_meanwhile_says_nothing(listener: YamuxMachine):
    stream = opened(listener, update(1, flags=SYN) + update(1, flags=RST))
    listener.accept(stream, 0.0)
    assert drain(listener) == b""


def test_unacknowledged_streams_are_bounded_and_opening_resumes():
    machine = YamuxMachine(Side.DIALER, 0.0)
    streams = [machine.open_stream(0.0) for _ in range(256)]
    assert not machine.can_open
    with pytest.raises(LimitExceeded, match="max_unacknowledged"):
        machine.open_stream(0.0)
    assert machine.receive_data(update(1, 0, ACK), 0.0) == [OpenResumed()]
    assert machine.receive_data(update(1, 0, ACK), 0.0) == []
    machine.open_stream(0.0)
    with pytest.raises(LimitExceeded):
        machine.open_stream(0.0)
    # An end without an acknowledgement makes room too, and is told by the same call.
    drain(machine)
    events = machine.receive_data(update(3, 0, RST), 0.0)
    assert events == [OpenResumed(), StreamWasReset(streams[1])]


def test_nothing_needs_an_acknowledgement_to_go_on(dialer: YamuxMachine):
    """rust acknowledges only when its application acts."""
    stream = dialer.open_stream(0.0)
    dialer.send(stream, memoryview(b"hello"))
    dialer.finish(stream)
    drain(dialer)
    dialer.receive_data(data(1, b"answer", 0) + data(1, flags=FIN), 0.0)
    assert dialer.take(stream, 100, 0.0) == b"answer"
    assert not dialer.streams
    assert dialer.can_open


def test_no_stream_opens_beyond_the_last_id_or_in_a_session_that_ends(dialer: YamuxMachine):
    dialer._next_id = MAX_STREAM_ID
    dialer.open_stream(0.0)
    with pytest.raises(LocalProtocolError):
        dialer.open_stream(0.0)
    ending = YamuxMachine(Side.DIALER, 0.0)
    ending.receive_data(go_away(0), 0.0)
    assert ending.is_closing
    with pytest.raises(LocalProtocolError):
        ending.open_stream(0.0)


# Data


def test_a_stream_that_is_alone_fills_a_record_with_one_frame(dialer: YamuxMachine):
    payload = bytes(range(256)) * 400
    stream = dialer.open_stream(0.0)
    assert dialer.send(stream, memoryview(payload)) == len(payload)
    first, second = parse(dialer.data_to_send(65_448, 0.0)), parse(drain(dialer))
    assert [frame.length for frame in first] == [65_448 - 12]
    assert b"".join(frame.body for frame in first + second) == payload
    assert stream.bytes_sent == len(payload)
    assert dialer.queued == 0


def test_streams_side_by_side_fill_a_record_with_four_frames(dialer: YamuxMachine):
    streams = [dialer.open_stream(0.0) for _ in range(2)]
    for stream in streams:
        dialer.send(stream, memoryview(bytes(100_000)))
    frames = parse(dialer.data_to_send(65_448, 0.0))
    assert [(f.stream_id, f.length) for f in frames] == [(n, LARGEST_FRAME) for n in (1, 3)] * 2


def test_small_pieces_share_a_frame(dialer: YamuxMachine):
    stream = dialer.open_stream(0.0)
    for piece in (b"a", b"bc", b"", b"def"):
        dialer.send(stream, memoryview(piece))
    assert drain(dialer) == data(1, b"abcdef", SYN)


def test_a_frame_never_exceeds_the_room_or_the_credit(dialer: YamuxMachine):
    stream = dialer.open_stream(0.0)
    sent = dialer.send(stream, memoryview(bytes(SEND_QUEUE)))
    assert sent == SEND_QUEUE == WINDOW
    record = dialer.data_to_send(64, 0.0)
    assert len(record) == 64
    drain(dialer)
    assert stream.credit == 0
    assert dialer.send(stream, memoryview(b"beyond")) == 6
    assert drain(dialer) == b""
    dialer.receive_data(update(1, 2), 0.0)
    assert drain(dialer) == data(1, b"be")
    dialer.receive_data(update(1, 2**20), 0.0)
    assert drain(dialer) == data(1, b"yond")


def test_credit_without_a_queue_is_kept(dialer: YamuxMachine):
    stream = dialer.open_stream(0.0)
    drain(dialer)
    assert dialer.receive_data(update(1, 5, ACK), 0.0) == []
    assert stream.credit == WINDOW + 5


def test_the_queue_is_bounded_and_sending_resumes_at_half(dialer: YamuxMachine):
    stream = dialer.open_stream(0.0)
    assert dialer.send(stream, memoryview(bytes(SEND_QUEUE + 1))) == SEND_QUEUE
    assert dialer.send(stream, memoryview(b"x")) == 0
    dialer.data_to_send(65_519, 0.0)
    assert dialer.events() == []
    dialer.data_to_send(65_519, 0.0)
    dialer.data_to_send(65_519, 0.0)
    assert dialer.events() == [SendResumed(stream)]
    assert dialer.events() == []


def test_streams_of_a_class_take_turns_frame_by_frame(dialer: YamuxMachine):
    for _ in range(2):
        dialer.send(dialer.open_stream(0.0), memoryview(bytes(2 * LARGEST_FRAME)))
    assert [f.stream_id for f in parse(drain(dialer)) if f.body] == [1, 3, 1, 3]


# The end of a stream


def test_fin_is_a_frame_of_its_own_after_the_last_byte(dialer: YamuxMachine):
    stream = dialer.open_stream(0.0)
    dialer.send(stream, memoryview(bytes(70_000)))
    dialer.finish(stream)
    dialer.finish(stream)
    frames = parse(drain(dialer, max_bytes=60_012))
    assert [(f.kind, f.flags, f.length) for f in frames] == [
        (DATA, SYN, 60_000),
        (DATA, 0, 10_000),
        (WINDOW_UPDATE, FIN, 0),
    ]
    with pytest.raises(LocalProtocolError):
        dialer.send(stream, memoryview(b"more"))


def test_fin_waits_for_credit_and_room(dialer: YamuxMachine):
    stream = dialer.open_stream(0.0)
    dialer.send(stream, memoryview(bytes(WINDOW)))
    drain(dialer)
    dialer.send(stream, memoryview(bytes(100)))
    dialer.finish(stream)
    assert drain(dialer) == b""
    dialer.receive_data(update(1, 40), 0.0)
    assert drain(dialer) == data(1, bytes(40))
    dialer.receive_data(update(1, 60), 0.0)
    # The record has no room for the FIN; the next one has.
    assert dialer.data_to_send(64, 0.0) == data(1, bytes(52))
    assert dialer.data_to_send(64, 0.0) == data(1, bytes(8)) + update(1, 0, FIN)


def test_credit_is_still_granted_after_fin(dialer: YamuxMachine):
    stream = dialer.open_stream(0.0)
    dialer.finish(stream)
    drain(dialer)
    dialer.receive_data(data(1, bytes(WINDOW)), 0.0)
    dialer.take(stream, WINDOW, 0.0)
    assert drain(dialer) == update(1, WINDOW)


def test_reset_is_a_window_update_with_the_code(dialer: YamuxMachine):
    stream = dialer.open_stream(0.0)
    drain(dialer)
    dialer.send(stream, memoryview(b"never sent"))
    assert dialer.reset(stream, 9) == [StreamWasReset(stream)]
    assert (stream.reset_code, stream.reset_remote) == (9, False)
    assert drain(dialer) == bytes.fromhex("00 01 0008 00000001 00000009")
    assert dialer.reset(stream) == []
    assert dialer.queued == 0
    dialer.finish(stream)
    assert drain(dialer) == b""
    with pytest.raises(LocalProtocolError):
        dialer.send(stream, memoryview(b"more"))


def test_a_stream_reset_before_the_peer_has_heard_of_it_leaves_no_trace(dialer: YamuxMachine):
    stream = dialer.open_stream(0.0)
    dialer.send(stream, memoryview(b"never sent"))
    dialer.reset(stream)
    assert drain(dialer) == b""
    assert not dialer.streams


# Pings and the end of the session


def test_a_ping_measures_the_round_trip(dialer: YamuxMachine):
    assert dialer.ping(1.0) == 0
    assert drain(dialer, 1.0) == ping(SYN, 0)
    (pong,) = dialer.receive_data(ping(ACK, 0), 1.25)
    assert (pong.value, pong.round_trip_time) == (0, 0.25)
    assert dialer.inflight.min_rtt == 0.25
    assert dialer.receive_data(ping(ACK, 0), 2.0) == []


def test_unanswered_pings_are_bounded(dialer: YamuxMachine):
    values = [dialer.ping(0.0) for _ in range(MAX_CONTROL + 10)]
    assert values[MAX_CONTROL:] == [MAX_CONTROL - 1] * 10
    assert len(parse(drain(dialer))) == MAX_CONTROL


def test_ping_values_wrap(dialer: YamuxMachine):
    dialer._pings._next = 0xFFFF_FFFF
    assert [dialer.ping(0.0), dialer.ping(0.0)] == [0xFFFF_FFFF, 0]


def test_pongs_pass_a_stalled_application(listener: YamuxMachine):
    stream = opened(listener, data(1, bytes(WINDOW), SYN))
    listener.accept(stream, 0.0)
    listener.send(stream, memoryview(bytes(WINDOW)))
    listener.receive_data(ping(SYN, 7), 0.0)
    first = listener.data_to_send(65_519, 0.0)
    assert first.startswith(ping(ACK, 7))


def test_go_away_is_the_last_frame_after_what_is_queued(dialer: YamuxMachine):
    stream = dialer.open_stream(0.0)
    dialer.send(stream, memoryview(b"bye"))
    dialer.go_away()
    dialer.go_away(1)
    assert dialer.has_farewell
    assert not dialer.is_flushed
    assert not dialer.is_finished
    assert drain(dialer) == data(1, b"bye", SYN) + go_away(0)
    assert dialer.is_finished
    assert not dialer.has_farewell
    with pytest.raises(LocalProtocolError):
        dialer.open_stream(0.0)


def test_go_away_waits_for_credit_and_abort_does_not(dialer: YamuxMachine):
    stream = dialer.open_stream(0.0)
    dialer.send(stream, memoryview(bytes(WINDOW)))
    drain(dialer)
    dialer.send(stream, memoryview(b"stuck"))
    dialer.go_away()
    assert drain(dialer) == b""
    dialer.abort()
    assert drain(dialer) == go_away(0)
    assert dialer.is_finished
    assert dialer.receive_data(update(1, 1), 0.0) == []
    assert drain(dialer) == b""


def test_abort_overrides_a_go_away_that_was_not_sent_and_says_nothing_twice(dialer):
    dialer.ping(0.0)
    dialer.go_away()
    dialer.abort(1)
    dialer.abort(2)
    assert drain(dialer) == go_away(1)


def test_go_away_refuses_what_the_peer_opens_meanwhile(listener: YamuxMachine):
    listener.go_away()
    assert listener.receive_data(data(1, b"late", SYN), 0.0) == []
    assert listener.streams_refused == 1
    assert drain(listener) == update(1, 0, RST) + go_away(0)


def test_the_end_of_the_path_resets_every_stream(dialer: YamuxMachine):
    streams = [dialer.open_stream(0.0) for _ in range(3)]
    dialer.receive_data(data(1, b"unread"), 0.0)
    dialer.send(streams[1], memoryview(b"unsent"))
    assert dialer.receive_eof() == [StreamWasReset(stream) for stream in streams]
    assert all(stream.reset_remote for stream in streams)
    assert dialer.is_finished
    assert dialer.is_closing
    assert (dialer.unread_bytes, dialer.queued) == (0, 0)
    assert dialer.receive_eof() == []
    assert dialer.receive_data(b"\xff" * 12, 0.0) == []
    assert drain(dialer) == b""


# Control and classes in one record


def test_control_comes_first_and_respects_the_room(listener: YamuxMachine):
    streams = [opened(listener, update(2 * n + 1, flags=SYN)) for n in range(9)]
    for n in range(3):
        listener.receive_data(ping(SYN, n), 0.0)
    for stream in streams:
        listener.finish(stream)
    records = []
    while record := listener.data_to_send(64, 0.0):
        assert len(record) <= 64
        records += parse(record)
    assert [frame.kind for frame in records] == [PING] * 3 + [WINDOW_UPDATE] * 9
    assert [frame.stream_id for frame in records[3:]] == [stream.id for stream in streams]


def test_more_control_than_a_record_holds_goes_into_the_next(listener: YamuxMachine):
    listener.receive_data(b"".join(ping(SYN, n) for n in range(10)), 0.0)
    assert len(listener.data_to_send(64, 0.0)) == 60
    assert len(listener.data_to_send(64, 0.0)) == 60


def test_a_record_ends_after_its_first_urgent_frame(dialer: YamuxMachine):
    bulk = dialer.open_stream(0.0)
    urgent = dialer.open_stream(0.0, Priority.HIGH)
    dialer.send(bulk, memoryview(bytes(WINDOW)))
    first = parse(dialer.data_to_send(65_519, 0.0))
    assert {f.stream_id for f in first if f.kind == DATA} == {1}
    dialer.send(urgent, memoryview(b"now"))
    record = parse(dialer.data_to_send(65_519, 0.0))
    assert [f.stream_id for f in record if f.kind == DATA] == [3]


def test_markers_are_laid_only_while_classes_are_mixed(dialer: YamuxMachine):
    bulk = dialer.open_stream(0.0)
    dialer.send(bulk, memoryview(bytes(100_000)))
    assert not [f for f in parse(drain(dialer)) if f.kind == PING]
    urgent = dialer.open_stream(0.0, Priority.HIGH)
    dialer.send(bulk, memoryview(bytes(100_000)))
    (marker,) = [f for f in parse(drain(dialer)) if f.kind == PING][:1]
    assert marker == Frame(PING, SYN, 0, 0)
    assert dialer.next_timeout() == MARKER_TIMEOUT
    assert dialer.receive_data(ping(ACK, 0), 0.01) == []
    assert dialer.inflight.min_rtt == 0.01
    dialer.set_priority(urgent, Priority.MEDIUM)
    dialer.data_to_send(65_519, 0.02)
    assert not dialer.inflight.is_active
    assert dialer.next_timeout() == 30.0


def test_a_marker_whose_answer_is_lost_is_laid_again(dialer: YamuxMachine):
    bulk = dialer.open_stream(0.0)
    dialer.open_stream(0.0, Priority.HIGH)
    dialer.send(bulk, memoryview(bytes(70_000)))
    lost = [f.length for f in parse(drain(dialer)) if f.kind == PING]
    assert dialer.next_timeout() == MARKER_TIMEOUT
    dialer.handle_timeout(MARKER_TIMEOUT)
    (again,) = parse(drain(dialer, MARKER_TIMEOUT))
    assert again.kind == PING
    assert again.length not in lost


def test_beyond_the_in_flight_limit_only_the_most_urgent_class_is_sent(dialer: YamuxMachine):
    bulk = dialer.open_stream(0.0)
    urgent = dialer.open_stream(0.0, Priority.HIGH)
    dialer.receive_data(update(1, 2**24, ACK), 0.0)
    now, sent = 0.0, 0
    for _ in range(20):
        dialer.send(bulk, memoryview(bytes(WINDOW)))
        for frame in parse(drain(dialer, now)):
            sent += frame.length if frame.kind == DATA else 0
            if frame.kind == PING:
                dialer.receive_data(ping(ACK, frame.length), now + 0.02)
        now += 0.02
    assert dialer.inflight.limit < 2**24
    while dialer.send(bulk, memoryview(bytes(WINDOW))):
        drain(dialer, now)
    assert dialer.inflight.room(now) == 0
    assert drain(dialer, now) == b""
    dialer.send(urgent, memoryview(b"now"))
    assert drain(dialer, now) == data(3, b"now")


def test_a_connection_whose_queues_are_full_lets_each_stream_queue_a_little():
    machine = YamuxMachine(Side.DIALER, 0.0)
    block = memoryview(bytes(SEND_QUEUE))
    streams = [machine.open_stream(0.0) for _ in range(CONNECTION_QUEUE // SEND_QUEUE)]
    assert all(machine.send(stream, block) == SEND_QUEUE for stream in streams)
    late = machine.open_stream(0.0)
    assert machine.send(late, block) == SMALL_QUEUE
    assert machine.send(late, block) == 0
    while machine.data_to_send(65_448, 0.0):
        pass
    # What the initial windows let go makes room again, and is told.
    assert machine.queued < CONNECTION_QUEUE
    assert SendResumed(late) in machine.events()
    assert machine.send(late, block) == SEND_QUEUE


def test_a_probe_of_the_path_has_a_record_of_its_own(dialer: YamuxMachine):
    bulk = dialer.open_stream(0.0)
    dialer.open_stream(0.0, Priority.HIGH)
    dialer.receive_data(update(1, 2**24, ACK), 0.0)

    def round_trip(now: float, seconds: float) -> list[list[Frame]]:
        """Send what may be sent, answer its markers, and return the records."""
        dialer.send(bulk, memoryview(bytes(WINDOW)))
        records = []
        while record := dialer.data_to_send(65_448, now):
            records.append(parse(record))
        for frame in (frame for record in records for frame in record if frame.kind == PING):
            dialer.receive_data(ping(ACK, frame.length), now + seconds)
        return records

    round_trip(0.0, 0.02)
    for now in range(1, 5):
        assert DATA in {frame.kind for frame in round_trip(now, 0.03)[0]}
        assert dialer.inflight.min_rtt == 0.02
    round_trip(11.0, 0.03)  # the minimum is old by now
    probe = round_trip(12.0, 0.025)[0]
    assert [frame.kind for frame in probe] == [PING]
    assert dialer.inflight.min_rtt == pytest.approx(0.025)
