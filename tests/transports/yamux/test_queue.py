"""What waits to be sent: what stays in one frame, what is gathered, and what holds up nobody."""

from __future__ import annotations

import pytest
from isthmus.transports.core.interfaces import Side
from isthmus.transports.yamux.buffer import PIECE
from isthmus.transports.yamux.events import SendResumed
from isthmus.transports.yamux.flow import CONNECTION_QUEUE, LARGEST_FRAME, SEND_QUEUE, SMALL_QUEUE
from isthmus.transports.yamux.machine import YamuxMachine

from .frames import RST, WINDOW, WINDOW_UPDATE, Frame, data, drain, parse, update


@pytest.fixture
def dialer() -> YamuxMachine:
    return YamuxMachine(Side.DIALER, 0.0)


# What is to stay in one frame


@pytest.fixture
def keeping(dialer: YamuxMachine):
    stream = dialer.open_stream(0.0)
    drain(dialer)
    stream.keeps_frames = True
    stream.credit = 10**6
    return stream


def lengths(record: bytes) -> list[int]:
    return [frame.length for frame in parse(record)]


def test_what_fits_together_shares_a_frame_and_what_does_not_waits(dialer, keeping):
    for size in (100, 200, 60_000, 6_000, 300):
        dialer.send(keeping, memoryview(bytes(size)))
    assert lengths(dialer.data_to_send(65_448, 0.0)) == [60_300]
    assert lengths(dialer.data_to_send(65_448, 0.0)) == [6_300]
    assert dialer.data_to_send(65_448, 0.0) == b""


def test_beside_control_it_waits_for_a_record_of_its_own(dialer, keeping):
    other = dialer.open_stream(0.0)
    drain(dialer)
    dialer.reset(other)
    dialer.send(keeping, memoryview(bytes(65_436)))
    assert parse(dialer.data_to_send(65_448, 0.0)) == [Frame(WINDOW_UPDATE, RST, other.id, 0)]
    assert lengths(dialer.data_to_send(65_448, 0.0)) == [65_436]


def test_what_is_larger_than_a_record_is_cut_and_the_next_is_whole_again(dialer, keeping):
    dialer.send(keeping, memoryview(bytes(70_000)))
    dialer.send(keeping, memoryview(bytes(65_000)))
    assert lengths(dialer.data_to_send(65_448, 0.0)) == [65_436]
    assert lengths(dialer.data_to_send(65_448, 0.0)) == [70_000 - 65_436]
    assert lengths(dialer.data_to_send(65_448, 0.0)) == [65_000]


def test_credit_cuts_it_rather_than_to_wait(dialer, keeping):
    keeping.credit = 1_000
    dialer.send(keeping, memoryview(bytes(60_000)))
    dialer.send(keeping, memoryview(bytes(65_000)))
    assert lengths(dialer.data_to_send(65_448, 0.0)) == [1_000]
    assert dialer.data_to_send(65_448, 0.0) == b""
    dialer.receive_data(update(keeping.id, 10**6), 0.0)
    assert lengths(dialer.data_to_send(65_448, 0.0)) == [59_000]
    assert lengths(dialer.data_to_send(65_448, 0.0)) == [65_000]


def test_a_full_queue_takes_one_whole_and_then_none(dialer, keeping):
    keeping.credit = 0
    piece = memoryview(bytes(60_000))
    taken = [dialer.send(keeping, piece) for _ in range(7)]
    assert taken == [60_000] * 5 + [0] * 2
    assert keeping.queued < SEND_QUEUE + len(piece)
    dialer.receive_data(update(keeping.id, 10**6), 0.0)
    drain(dialer)
    assert SendResumed(keeping) in dialer.events()


def test_where_frames_are_short_a_record_is_filled_all_the_same(dialer, keeping):
    other = dialer.open_stream(0.0)
    drain(dialer)
    for stream in (keeping, other):
        stream.keeps_frames, stream.credit = True, 10**6
        dialer.send(stream, memoryview(bytes(65_436)))
        dialer.send(stream, memoryview(bytes(65_436)))
    records = []
    while record := dialer.data_to_send(65_448, 0.0):
        records.append(record)
    assert [len(record) for record in records[:3]] == [65_448] * 3
    assert max(max(lengths(record)) for record in records[:3]) == LARGEST_FRAME


def test_where_memory_is_short_it_takes_what_there_is_room_for(dialer, keeping):
    keeping.credit = 0
    dialer.queued = CONNECTION_QUEUE
    assert dialer.send(keeping, memoryview(bytes(60_000))) == SMALL_QUEUE


# What waits


def test_little_that_waits_is_gathered(dialer: YamuxMachine):
    stream = dialer.open_stream(0.0)
    stream.credit = 0
    for number in range(10_000):
        assert dialer.send(stream, memoryview(bytes([number % 256]))) == 1
    assert len(stream.queue) <= 3
    dialer.send(stream, memoryview(bytes(PIECE)))
    dialer.receive_data(update(stream.id, 10**6), 0.0)
    sent = b"".join(frame.body for frame in parse(drain(dialer)))
    assert sent == bytes(number % 256 for number in range(10_000)) + bytes(PIECE)


def test_no_credit_wakes_no_stream(dialer: YamuxMachine):
    first, second = dialer.open_stream(0.0), dialer.open_stream(0.0)
    for stream in (first, second):
        dialer.send(stream, memoryview(bytes(WINDOW)))
    drain(dialer)
    for stream in (first, second):
        dialer.send(stream, memoryview(b"x"))
    dialer.receive_data(update(first.id, 0), 0.0)
    assert drain(dialer) == b""
    dialer.receive_data(update(second.id, 10), 0.0)
    assert drain(dialer) == data(second.id, b"x")
