"""The receive buffer against plain bytes."""

from __future__ import annotations

import sys

from hypothesis import given, settings
from hypothesis import strategies as st
from isthmus.transports.yamux.buffer import PIECE, ReceiveBuffer

PIECES = st.one_of(
    st.binary(min_size=1, max_size=40),
    st.integers(PIECE - 2, 3 * PIECE).map(lambda size: bytes(range(256)) * (size // 256 + 1)),
)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("append"), PIECES),
        st.tuples(st.just("prepend"), PIECES),
        st.tuples(st.just("slice"), st.tuples(PIECES, st.integers(0, PIECE))),
        st.tuples(st.just("changing"), PIECES),
        st.tuples(st.just("take"), st.integers(1, 4 * PIECE)),
        st.tuples(st.just("piece"), st.integers(1, 4 * PIECE)),
        st.tuples(st.just("clear"), st.none()),
    ),
    max_size=40,
)


def held(buffer):
    """Return the bytes of what a buffer keeps from being freed."""
    wholes = [piece.obj if isinstance(piece, memoryview) else piece for piece in buffer._pieces]
    return sum(map(len, wholes))


@settings(max_examples=100, deadline=None)
@given(STEPS)
def test_it_is_a_queue_of_bytes(steps):
    buffer, model, kept = ReceiveBuffer(), b"", []
    for step, argument in steps:
        match step:
            case "append":
                buffer.append(memoryview(argument))
                model += argument
            case "slice":
                data, start = argument
                buffer.append(memoryview(data)[start:])
                model += data[start:]
            case "changing":
                changing = bytearray(argument)
                buffer.append(memoryview(changing))
                changing[:] = bytes(len(changing))
                model += argument
            case "prepend":
                buffer.prepend(argument)
                model = argument + model
            case "take":
                taken = buffer.take(argument)
                assert type(taken) is bytes
                assert taken == model[:argument]
                model = model[argument:]
            case "piece":
                if model:
                    first = len(buffer._pieces[0])
                    piece = buffer.take_piece(argument)
                    assert len(piece) == min(first, argument)
                    kept.append((piece, model[: len(piece)]))
                    model = model[len(piece) :]
            case _:
                buffer.clear()
                model = b""
        assert len(buffer) == len(model)
        assert held(buffer) <= 2 * len(buffer)
    assert all(piece == expected for piece, expected in kept)
    assert buffer.take(len(model) + 1) == model


def test_single_bytes_are_gathered():
    buffer = ReceiveBuffer()
    for _ in range(10 * PIECE):
        buffer.append(memoryview(b"x"))
    assert sum(map(sys.getsizeof, buffer._pieces)) < 2 * len(buffer)


def test_a_slice_that_is_most_of_a_record_is_no_copy():
    buffer, record = ReceiveBuffer(), bytes(10 * PIECE)
    buffer.append(memoryview(record)[12:])
    piece = buffer.take_piece(len(record))
    assert piece.obj is record
    assert len(piece) == len(record) - 12


def test_little_of_a_record_does_not_keep_the_rest():
    buffer, record = ReceiveBuffer(), bytes(10 * PIECE)
    buffer.append(memoryview(record)[: 5 * PIECE])
    buffer.append(memoryview(record))
    assert held(buffer) == 15 * PIECE
    buffer.take(14 * PIECE)
    assert held(buffer) == PIECE
    assert buffer.take(PIECE) == bytes(PIECE)
