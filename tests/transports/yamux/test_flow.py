"""Windows, their growth, and what unread data may cost a connection and a node."""

from __future__ import annotations

from itertools import pairwise

import pytest
from isthmus.transports.core.interfaces import Priority, Side
from isthmus.transports.yamux.config import YamuxConfig
from isthmus.transports.yamux.events import StreamOpened, StreamWasReset
from isthmus.transports.yamux.flow import (
    JUDGED_WINDOW,
    MAX_RECEIVE_WINDOW,
    STEP_ROOM,
    NodeBudget,
    StreamState,
)
from isthmus.transports.yamux.machine import YamuxMachine
from isthmus.transports.yamux.table import StreamTable

from .frames import ACK, FIN, RST, SYN, WINDOW, data, drain, parse, ping, update


@pytest.fixture
def machine() -> YamuxMachine:
    return YamuxMachine(Side.LISTENER, 0.0)


def opened(machine: YamuxMachine, stream_id: int = 1) -> StreamState:
    (stream,) = [
        event.stream
        for event in machine.receive_data(update(stream_id, 0, SYN), 0.0)
        if isinstance(event, StreamOpened)
    ]
    return stream


def measure(machine: YamuxMachine, rtt: float) -> None:
    machine.ping(0.0)
    drain(machine)
    machine.receive_data(ping(ACK, 0), rtt)


# Granting


def test_credit_is_granted_once_half_the_window_was_taken(machine: YamuxMachine):
    stream = opened(machine)
    machine.receive_data(data(1, bytes(WINDOW)), 0.0)
    machine.take(stream, WINDOW // 2 - 1, 0.0)
    assert drain(machine) == b""
    machine.take(stream, 1, 0.0)
    assert drain(machine) == update(1, WINDOW // 2)
    machine.take(stream, WINDOW, 0.0)
    assert drain(machine) == update(1, WINDOW // 2)


def test_grants_of_one_stream_coalesce(machine: YamuxMachine):
    stream = opened(machine)
    machine.receive_data(data(1, bytes(WINDOW)), 0.0)
    machine.take(stream, WINDOW // 2, 0.0)
    machine.take(stream, WINDOW // 2, 0.0)
    assert drain(machine) == update(1, WINDOW)


def test_bytes_put_back_cost_no_credit_and_earn_none(machine: YamuxMachine):
    stream = opened(machine)
    machine.receive_data(data(1, bytes(WINDOW)), 0.0)
    taken = machine.take(stream, WINDOW, 0.0)
    assert drain(machine) == update(1, WINDOW)
    machine.unread(stream, taken)
    assert machine.unread_bytes == stream.unread == WINDOW
    machine.receive_data(data(1, b"x" * WINDOW), 0.0)
    assert machine.take(stream, WINDOW, 0.0) == taken
    assert drain(machine) == b""
    assert machine.take(stream, WINDOW, 0.0) == b"x" * WINDOW
    assert drain(machine) == update(1, WINDOW)


def test_nothing_is_granted_after_the_peers_last_byte(machine: YamuxMachine):
    stream = opened(machine)
    machine.receive_data(data(1, bytes(WINDOW), FIN), 0.0)
    machine.take(stream, WINDOW, 0.0)
    assert drain(machine) == b""


def test_a_take_after_a_reset_is_empty(machine: YamuxMachine):
    stream = opened(machine)
    machine.receive_data(data(1, b"x"), 0.0)
    machine.reset(stream)
    assert machine.take(stream, 10, 0.0) == b""


# Growth


def consume(machine: YamuxMachine, stream: StreamState, now: float) -> int:
    """Receive and take a whole window at once; return the credit granted for it."""
    machine.receive_data(data(stream.id, bytes(stream.granted)), now)
    machine.take(stream, 2**30, now)
    return sum(frame.length for frame in parse(drain(machine, now)))


def test_a_window_that_is_used_up_quickly_doubles_up_to_its_limit(machine: YamuxMachine):
    stream = opened(machine)
    measure(machine, 0.1)
    now, windows = 0.1, []
    for _ in range(16):
        now += 0.05
        before = stream.window
        granted = consume(machine, stream, now)
        assert granted == (before if stream.window == before else before + stream.window // 2)
        windows.append(stream.window)
    # Small ones grow at once; larger ones are used twice before they are judged.
    assert windows[:3] == [2 * WINDOW, JUDGED_WINDOW, JUDGED_WINDOW]
    assert {after / before for before, after in pairwise(windows)} == {1.0, 2.0}
    assert windows[-2:] == [MAX_RECEIVE_WINDOW] * 2


def test_a_window_does_not_grow_for_a_slow_sender_or_without_a_round_trip(machine):
    stream = opened(machine)
    assert consume(machine, stream, 0.001) == WINDOW
    measure(machine, 0.1)
    assert consume(machine, stream, 1.0) == WINDOW
    assert stream.window == WINDOW


def test_a_window_stops_growing_where_it_makes_the_stream_no_faster(machine: YamuxMachine):
    stream = opened(machine)
    measure(machine, 0.1)
    now = 0.1
    for _ in range(10):
        # A path of 4 MB/s: the time is in proportion to what comes.
        now += stream.granted / 4e6
        consume(machine, stream, now)
    # One doubling beyond what needs no proof: there is no earlier rate to compare the first with.
    assert stream.window == 2 * JUDGED_WINDOW


def test_a_window_does_not_grow_beyond_the_budget():
    config = YamuxConfig(receive_budget=2 * WINDOW)
    machine = YamuxMachine(Side.LISTENER, 0.0, config=config)
    stream = opened(machine)
    measure(machine, 0.1)
    for turn in range(1, 20):
        consume(machine, stream, 0.1 + turn * 0.001)
    # The last doubling needs its old size to fit into the budget.
    assert stream.window == 4 * WINDOW


# Steps

STEP = 10_000


def test_in_steps_credit_is_granted_after_each(machine: YamuxMachine):
    stream = opened(machine)
    stream.step = STEP
    machine.receive_data(data(1, bytes(WINDOW)), 0.0)
    machine.take(stream, STEP - 1, 0.0)
    assert drain(machine) == b""
    machine.take(stream, 1, 0.0)
    assert drain(machine) == update(1, STEP)
    machine.take(stream, 2 * STEP, 0.0)
    assert drain(machine) == update(1, 2 * STEP)


def stepping(
    machine: YamuxMachine, *, pace: float = 1e7, unread: int = 0, rtt: float = 0.1
) -> StreamState:
    """Take ten times the first window in steps, with so much left each time; return the stream."""
    stream = opened(machine)
    measure(machine, rtt)
    stream.step, stream.pace = STEP, pace
    machine.receive_data(data(1, bytes(unread)), rtt)
    for turn in range(10 * WINDOW // STEP):
        now, size = rtt + turn * 0.001, min(STEP, stream.granted)
        machine.receive_data(data(1, bytes(size)), now)
        machine.take(stream, size, now)
        drain(machine)
    return stream


def test_in_steps_a_window_grows_while_there_is_nothing_to_take(machine: YamuxMachine):
    assert stepping(machine).window > WINDOW


@pytest.mark.parametrize("why_not", [{"unread": STEP}, {"rtt": 0.001}, {"pace": 1e6}])
def test_in_steps_it_does_not_where_it_would_be_of_no_use(machine: YamuxMachine, why_not):
    assert stepping(machine, **why_not).window == WINDOW


def test_in_steps_no_more_is_granted_than_the_pace_needs(machine: YamuxMachine):
    stream = stepping(machine, pace=1e6)
    needed = 1e6 * (0.1 + STEP_ROOM) + STEP
    assert needed - STEP <= stream.granted <= needed


def test_in_steps_little_is_queued(machine: YamuxMachine):
    stream = opened(machine)
    stream.step = STEP
    assert machine.send(stream, memoryview(bytes(WINDOW))) == 2 * STEP
    assert machine.send(stream, memoryview(bytes(WINDOW))) == 0


# The connection's budget


def fat(machine: YamuxMachine, stream_id: int, size: int) -> StreamState:
    """Open a stream whose window has grown to `size`."""
    stream = opened(machine, stream_id)
    stream.window = stream.granted = size
    return stream


def test_beyond_the_budget_the_fattest_of_the_lowest_class_is_reset():
    config = YamuxConfig(receive_budget=3 * WINDOW)
    machine = YamuxMachine(Side.LISTENER, 0.0, config=config)
    urgent, low, lower, modest = (fat(machine, n, 4 * WINDOW) for n in (1, 3, 5, 7))
    machine.set_priority(urgent, Priority.HIGH)
    machine.set_priority(low, Priority.LOW)
    machine.set_priority(lower, Priority.LOW)
    machine.set_priority(modest, Priority.VERY_LOW)
    machine.receive_data(data(7, bytes(WINDOW)), 0.0)
    machine.receive_data(data(3, bytes(2 * WINDOW)), 0.0)
    assert machine.receive_data(data(5, bytes(WINDOW + 1)), 0.0)[-1:] != [StreamWasReset(lower)]
    events = machine.receive_data(data(1, bytes(3 * WINDOW)), 0.0)
    assert events[-1] == StreamWasReset(low)
    assert not low.reset_remote
    # Within its first window a stream is safe, however low its class.
    assert sorted(machine.streams) == [1, 5, 7]
    assert update(3, 0, RST) in drain(machine)
    assert machine.unread_bytes == 5 * WINDOW + 1


def test_several_are_reset_if_one_is_not_enough():
    config = YamuxConfig(receive_budget=WINDOW)
    machine = YamuxMachine(Side.LISTENER, 0.0, config=config)
    first, second = fat(machine, 1, 4 * WINDOW), fat(machine, 3, 4 * WINDOW)
    machine.unread(first, bytes(3 * WINDOW))
    machine.unread(second, bytes(4 * WINDOW))
    events = machine.receive_data(ping(SYN, 0), 0.0)
    assert events == [StreamWasReset(second), StreamWasReset(first)]


def test_what_ended_streams_hold_cannot_be_shed():
    config = YamuxConfig(receive_budget=WINDOW)
    machine = YamuxMachine(Side.LISTENER, 0.0, config=config)
    stream = fat(machine, 1, 4 * WINDOW)
    machine.finish(stream)
    drain(machine)
    machine.receive_data(data(1, bytes(4 * WINDOW), FIN), 0.0)
    assert not machine.streams
    assert machine.receive_data(ping(SYN, 0), 0.0) == []
    assert machine.shed() == []
    assert len(machine.take(stream, 2**30, 0.0)) == 4 * WINDOW
    assert machine._table.grown == machine.unread_bytes == 0


# The node's budget


def test_the_node_budget_names_the_connection_that_holds_most():
    budget = NodeBudget(100)
    machines = [YamuxMachine(Side.LISTENER, 0.0, budget=budget) for _ in range(3)]
    for machine in machines:
        budget.join(machine, lambda machine=machine: machine.unread_bytes)
    assert budget.victim() is None
    for machine, size in zip(machines, (40, 50, 10), strict=True):
        machine.receive_data(data(1, bytes(size), SYN), 0.0)
    assert budget.used == 100
    assert budget.victim() is None
    machines[2].receive_data(data(1, b"x"), 0.0)
    assert budget.victim() is machines[1]
    (reset,) = machines[1].shed()
    assert reset.stream.id == 1
    assert (budget.used, budget.victim()) == (51, None)


def test_a_connection_that_has_ended_gives_back_all_it_held_and_only_once():
    budget = NodeBudget(0)
    machine = YamuxMachine(Side.LISTENER, 0.0, budget=budget)
    budget.join(machine, lambda: machine.unread_bytes)
    ended = opened(machine)
    machine.finish(ended)
    drain(machine)
    machine.receive_data(data(1, b"held", FIN) + data(3, b"open", SYN), 0.0)
    assert budget.used == 8
    machine.receive_eof()
    machine.receive_eof()
    budget.leave(machine)
    budget.leave(machine)
    assert (budget.used, budget.victim()) == (0, None)
    assert machine.take(ended, 10, 0.0) == b"held"
    assert budget.used == 0


def test_a_budget_that_nobody_joined_has_no_victim():
    budget = NodeBudget(0)
    machine = YamuxMachine(Side.LISTENER, 0.0, budget=budget)
    machine.receive_data(data(1, b"x", SYN), 0.0)
    assert budget.used == 1
    assert budget.victim() is None


# The table


def stream_of(stream_id: int, priority: Priority = Priority.MEDIUM, *, is_remote: bool = False):
    return StreamState(stream_id, priority, 0.0, is_remote=is_remote)


def test_the_table_counts_by_class_and_side():
    table = StreamTable()
    assert (table.highest_open, table.is_mixed) == (3, False)
    ours, theirs = stream_of(1, Priority.LOW), stream_of(2, is_remote=True)
    table.add(ours)
    assert (table.highest_open, table.is_mixed, table.unacknowledged) == (2, False, 1)
    table.add(theirs)
    assert (table.highest_open, table.is_mixed, table.inbound) == (1, True, 1)
    table.reclassify(ours, Priority.HIGH)
    ours.flow.rank = 0
    assert (table.highest_open, table.is_mixed) == (0, True)
    table.acknowledge(ours)
    table.acknowledge(ours)
    table.remove(ours)
    table.remove(theirs)
    assert (table.unacknowledged, table.inbound, table.highest_open) == (0, 0, 3)
    assert table.opened == 2
    table.detach()


def test_a_stream_that_has_ended_is_in_no_class_even_if_its_id_is_used_again():
    table = StreamTable()
    old, new = stream_of(2, is_remote=True), stream_of(2, Priority.LOW, is_remote=True)
    table.add(old)
    table.remove(old)
    table.reclassify(old, Priority.HIGH)
    assert table.highest_open == 3
    table.add(new)
    table.reclassify(old, Priority.HIGH)
    assert (table.highest_open, table.is_mixed) == (2, False)


def test_a_streams_state_says_what_it_can():
    stream = stream_of(1)
    assert stream.is_open
    assert not stream.is_sendable
    stream.queue.extend([memoryview(b"abc"), memoryview(b"defg")])
    stream.queued = 7
    assert stream.is_sendable
    assert b"".join(stream.take_frame(2)) == b"ab"
    assert b"".join(stream.take_frame(3)) == b"cde"
    assert b"".join(stream.take_frame(2)) == b"fg"
    assert (stream.queued, stream.bytes_sent, list(stream.queue)) == (0, 7, [])
