"""What has changed is written once, in order, and not too often; trouble and its end are told."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from isthmus.node.store.machine import MAX_BATCH, RETRY_TIME, WRITE_INTERVAL, Table, WriteBehind
from isthmus.transports.core.errors import LocalProtocolError

from .values import peer


def key(number: int):
    return Table.PEERS, peer(number)


def test_the_first_change_is_written_at_once_and_the_next_a_second_later():
    machine = WriteBehind()
    assert machine.next_timeout() is None
    assert machine.mark(key(1))
    assert machine.next_timeout() < 0
    assert not machine.mark(key(2))
    assert machine.take() == (key(1), key(2))
    assert not machine.written(100.0)
    assert machine.next_timeout() is None
    assert machine.mark(key(1))
    assert machine.next_timeout() == 100.0 + WRITE_INTERVAL


def test_an_entry_is_written_once_and_behind_those_that_changed_before():
    machine = WriteBehind()
    for number in (1, 2, 1):
        machine.mark(key(number))
    assert len(machine) == 2
    assert machine.take() == (key(2), key(1))
    assert len(machine) == 0


def test_what_changes_while_it_is_written_is_written_again():
    machine = WriteBehind()
    machine.mark(key(1))
    machine.take()
    assert machine.mark(key(1))
    assert key(1) in machine
    machine.written(0.0)
    assert machine.take() == (key(1),)


def test_a_failure_and_its_end_are_told_once_and_nothing_is_lost():
    machine = WriteBehind()
    machine.mark(key(1))
    machine.take()
    machine.mark(key(2))
    assert machine.failed(5.0)
    assert machine.is_degraded
    assert machine.next_timeout() == 5.0 + RETRY_TIME
    assert machine.take() == (key(1), key(2))
    assert not machine.failed(20.0)
    assert machine.take() == (key(1), key(2))
    assert machine.written(40.0)
    assert not machine.is_degraded
    machine.take()
    assert not machine.written(50.0)


def test_a_failure_is_tried_again_even_if_there_is_nothing_to_write():
    machine = WriteBehind()
    assert machine.failed(1.0)
    assert machine.next_timeout() == 1.0 + RETRY_TIME
    assert not machine.mark(key(1))
    assert machine.take() == (key(1),)


def test_what_is_dropped_is_not_written():
    machine = WriteBehind()
    machine.unmark(key(1))
    machine.mark(key(1))
    machine.mark(key(2))
    machine.unmark(key(1))
    assert machine.take() == (key(2),)
    machine.unmark(key(2))
    machine.failed(0.0)
    assert machine.take() == ()


def test_batches_and_marks_are_bounded():
    machine = WriteBehind()
    for number in range(MAX_BATCH + 5):
        machine.mark(key(number))
    assert len(machine.take()) == MAX_BATCH
    machine.written(0.0)
    assert machine.take() == tuple(key(MAX_BATCH + each) for each in range(5))
    small = WriteBehind(max_marked=2)
    for number in range(4):
        small.mark(key(number))
    assert small.take() == (key(2), key(3))


def test_one_batch_at_a_time():
    machine = WriteBehind()
    machine.take()
    with pytest.raises(LocalProtocolError, match="neither written nor failed"):
        machine.take()


@given(st.lists(st.sampled_from(["mark", "take", "written", "failed"]) | st.integers(0, 5)))
def test_whatever_happens_every_change_is_written_after_it_was_made(steps):
    machine = WriteBehind(max_batch=2)
    unwritten: set = set()
    taken: tuple | None = None
    number = 0
    for step in steps:
        if isinstance(step, int):
            number = step
        elif step == "mark":
            machine.mark(key(number))
            unwritten.add(key(number))
        elif step == "take" and taken is None:
            taken = machine.take()
            unwritten -= set(taken)
        elif step == "written" and taken is not None:
            taken = None
            machine.written(0.0)
        elif step == "failed" and taken is not None:
            unwritten |= set(taken)
            taken = None
            machine.failed(0.0)
        assert all(each in machine for each in unwritten)
        assert len(machine) == len(unwritten)
