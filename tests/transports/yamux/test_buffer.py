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
        st.tuples(st.just("take"), st.integers(1, 4 * PIECE)),
        st.tuples(st.just("clear"), st.none()),
    ),
    max_size=40,
)


@settings(max_examples=100, deadline=None)
@given(STEPS)
def test_it_is_a_queue_of_bytes(steps):
    buffer, model = ReceiveBuffer(), b""
    for step, argument in steps:
        match step:
            case "append":
                buffer.append(memoryview(argument))
                model += argument
            case "prepend":
                buffer.prepend(argument)
                model = argument + model
            case "take":
                taken = buffer.take(argument)
                assert type(taken) is bytes
                assert taken == model[:argument]
                model = model[argument:]
            case _:
                buffer.clear()
                model = b""
        assert len(buffer) == len(model)
    assert buffer.take(len(model) + 1) == model


def test_single_bytes_are_gathered():
    buffer = ReceiveBuffer()
    for _ in range(10 * PIECE):
        buffer.append(memoryview(b"x"))
    assert sum(map(sys.getsizeof, buffer._pieces)) < 2 * len(buffer)
