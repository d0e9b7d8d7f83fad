"""The scheduler: shares of classes, fairness within them, and a naive model to agree with."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from isthmus.transports.core.interfaces import Priority
from isthmus.transports.scheduler import (
    CLASSES,
    LOWEST_RANK,
    NEW_IN_A_ROW,
    QUANTA,
    RANK,
    Flow,
    Scheduler,
)


def flows(*priorities: Priority) -> list[Flow]:
    return [Flow(name, priority) for name, priority in enumerate(priorities)]


def serve(scheduler: Scheduler, frames: int, lowest: int = LOWEST_RANK) -> list[Flow]:
    """Serve so many frames to flows that never run dry."""
    served = []
    for _ in range(frames):
        flow = scheduler.next(lowest)
        assert flow is not None
        scheduler.charge(flow)
        served.append(flow)
    return served


def owners(served: list[Flow]) -> list[object]:
    return [flow.owner for flow in served]


def listed(scheduler: Scheduler) -> int:
    return sum(len(queue.new) + len(queue.old) for queue in scheduler._classes)


# Classes


def test_the_quanta_double_from_class_to_class():
    assert list(QUANTA.values()) == [8, 4, 2, 1]
    assert list(CLASSES) == sorted(Priority, reverse=True)
    assert [RANK[priority] for priority in CLASSES] == [0, 1, 2, LOWEST_RANK]


def test_saturated_classes_share_eight_to_four_to_two_to_one():
    scheduler, ones = Scheduler(), flows(*CLASSES)
    for flow in ones:
        scheduler.join(flow)
    served = owners(serve(scheduler, 150))
    assert Counter(served) == {0: 80, 1: 40, 2: 20, 3: 10}
    assert served[:15] == [0] * 8 + [1] * 4 + [2] * 2 + [3]


@pytest.mark.parametrize("many", [1, 5, 50])
def test_a_class_gets_its_share_however_many_flows_it_has(many: int):
    scheduler = Scheduler()
    for flow in flows(*[Priority.HIGH] * many, *[Priority.VERY_LOW] * 3):
        scheduler.join(flow)
    served = Counter(flow.rank for flow in serve(scheduler, 900))
    assert served == {0: 800, 3: 100}


def test_shares_are_not_saved_up():
    scheduler = Scheduler()
    high, low = flows(Priority.HIGH, Priority.LOW)
    scheduler.join(low)
    serve(scheduler, 1000)
    scheduler.join(high)
    assert owners(serve(scheduler, 20)).count(1) in range(2, 5)
    scheduler.leave(high)
    serve(scheduler, 1000)
    scheduler.join(high)
    assert 1 in owners(serve(scheduler, 2 * QUANTA[Priority.HIGH] + 1))


def test_urgent_data_within_its_share_waits_for_one_frame_at_most():
    scheduler = Scheduler()
    high, *bulk = flows(Priority.HIGH, *[Priority.MEDIUM] * 20, *[Priority.VERY_LOW] * 20)
    for flow in bulk:
        scheduler.join(flow)
    for _ in range(200):
        # One urgent frame for every two others.
        serve(scheduler, 2)
        scheduler.join(high)
        assert scheduler.next() is high
        scheduler.charge(high)
        scheduler.leave(high)


def test_only_the_classes_down_to_the_lowest_allowed_are_served():
    scheduler = Scheduler()
    high, medium, low = flows(Priority.HIGH, Priority.MEDIUM, Priority.LOW)
    assert scheduler.next() is None
    scheduler.join(low)
    assert scheduler.next(0) is None
    assert scheduler.next(1) is None
    assert scheduler.next(2) is low
    scheduler.join(medium)
    scheduler.join(high)
    assert set(owners(serve(scheduler, 100, lowest=0))) == {0}
    assert set(owners(serve(scheduler, 100, lowest=1))) == {0, 1}
    assert scheduler.next() is not None


# Flows of one class


def test_flows_of_a_class_take_turns():
    scheduler, ones = Scheduler(), flows(*[Priority.MEDIUM] * 3)
    for flow in ones:
        scheduler.join(flow)
    assert owners(serve(scheduler, 9)) == [0, 1, 2] * 3


def test_a_new_flow_goes_before_the_old_ones():
    scheduler = Scheduler()
    *bulk, new = flows(*[Priority.MEDIUM] * 11)
    for flow in bulk:
        scheduler.join(flow)
    serve(scheduler, 25)
    scheduler.join(new)
    assert owners(serve(scheduler, 11)).index(new.owner) == 0


def test_new_flows_do_not_starve_the_old_ones():
    """A flow that comes back for every frame is not new again each time."""
    scheduler = Scheduler()
    bulk, sparse = flows(Priority.MEDIUM, Priority.MEDIUM)
    scheduler.join(bulk)
    serve(scheduler, 1)
    served: list[object] = []
    for _ in range(100):
        scheduler.join(sparse)
        flow = scheduler.next()
        scheduler.charge(flow)
        served.append(flow.owner)
        scheduler.leave(sparse)
    assert served.count(bulk.owner) >= 49


def test_an_endless_sequence_of_short_flows_does_not_starve_a_long_one():
    scheduler, served = Scheduler(), []
    bulk = Flow("bulk", Priority.MEDIUM)
    scheduler.join(bulk)
    for _ in range(90):
        short = Flow("short", Priority.MEDIUM)
        scheduler.join(short)
        flow = scheduler.next()
        scheduler.charge(flow)
        served.append(flow.owner)
        if flow is bulk:
            flow = scheduler.next()
            assert flow is short
            scheduler.charge(flow)
        scheduler.leave(short)
    assert served.count("bulk") == 1 + 90 // NEW_IN_A_ROW
    assert listed(scheduler) <= NEW_IN_A_ROW + 2


def test_a_flow_that_comes_back_keeps_its_place():
    scheduler = Scheduler()
    first, second, third = flows(*[Priority.LOW] * 3)
    for flow in (first, second, third):
        scheduler.join(flow)
    serve(scheduler, 3)
    scheduler.leave(second)
    scheduler.leave(second)
    scheduler.join(second)
    scheduler.join(second)
    assert owners(serve(scheduler, 3)) == [0, 1, 2]
    scheduler.leave(second)
    assert owners(serve(scheduler, 4)) == [0, 2, 0, 2]


def test_flows_that_ran_dry_are_passed_over():
    scheduler = Scheduler()
    first, second, third = flows(*[Priority.LOW] * 3)
    for flow in (first, second, third):
        scheduler.join(flow)
    scheduler.leave(first)
    scheduler.leave(second)
    assert scheduler.next() is third
    scheduler.leave(third)
    assert scheduler.next() is None


# Moving


def test_a_flow_moves_to_another_class_as_a_new_one():
    scheduler = Scheduler()
    flow, *bulk = flows(Priority.VERY_LOW, *[Priority.MEDIUM] * 3)
    for one in (flow, *bulk):
        scheduler.join(one)
    serve(scheduler, 6)
    scheduler.move(flow, Priority.MEDIUM)
    assert scheduler.next() is flow
    scheduler.move(flow, Priority.MEDIUM)
    scheduler.charge(flow)
    scheduler.move(flow, Priority.HIGH)
    assert scheduler.next(0) is flow
    scheduler.move(flow, Priority.LOW)
    assert scheduler.next(0) is None


def test_a_flow_that_has_nothing_to_send_moves_silently():
    scheduler = Scheduler()
    idle, dry, bulk = flows(Priority.LOW, Priority.LOW, Priority.LOW)
    scheduler.join(bulk)
    scheduler.join(dry)
    scheduler.leave(dry)
    assert dry.is_listed
    scheduler.move(dry, Priority.HIGH)
    scheduler.move(idle, Priority.HIGH)
    assert not dry.is_listed
    assert scheduler.next(0) is None
    scheduler.join(idle)
    assert scheduler.next(0) is idle


# One alone


def test_a_flow_that_is_alone_is_listed_nowhere():
    scheduler, (flow,) = Scheduler(), flows(Priority.LOW)
    for _ in range(3):
        scheduler.join(flow)
        scheduler.join(flow)
        assert scheduler.ready == 1
        assert owners(serve(scheduler, 3)) == [0] * 3
        scheduler.charge(flow, is_last=True)
        assert (scheduler.ready, scheduler.next(), flow.is_ready) == (0, None, False)
    scheduler.join(flow)
    scheduler.leave(flow)
    assert (scheduler.ready, scheduler.next(), flow.is_ready) == (0, None, False)
    assert listed(scheduler) == 0


@pytest.mark.parametrize("has_sent", [True, False])
def test_a_flow_that_was_alone_is_new_to_those_that_join_until_it_has_sent(has_sent: bool):
    scheduler, (first, second) = Scheduler(), flows(Priority.LOW, Priority.LOW)
    scheduler.join(first)
    serve(scheduler, int(has_sent))
    scheduler.join(second)
    assert scheduler.ready == 2
    assert scheduler.next() is (second if has_sent else first)


def test_a_flow_that_is_alone_moves_and_keeps_to_the_lowest_class_that_is_served():
    scheduler, (flow, other) = Scheduler(), flows(Priority.LOW, Priority.MEDIUM)
    scheduler.join(flow)
    assert scheduler.next(1) is None
    scheduler.move(flow, Priority.HIGH)
    assert scheduler.next(0) is flow
    scheduler.join(other)
    assert owners(serve(scheduler, 12)) == [0] * 8 + [1] * 4
    scheduler.leave(other)
    assert owners(serve(scheduler, 2)) == [0] * 2
    assert scheduler.ready == 1


# Memory


@pytest.mark.parametrize("served", [True, False])
@pytest.mark.parametrize("beside_bulk", [True, False])
def test_flows_that_are_gone_are_forgotten(served: bool, beside_bulk: bool):
    scheduler = Scheduler()
    if beside_bulk:
        scheduler.join(Flow("bulk", Priority.LOW))
    for name in range(50_000 if served else 1000):
        flow = Flow(name, Priority.LOW)
        scheduler.join(flow)
        if served:
            while serve(scheduler, 1) != [flow]:
                pass
        scheduler.leave(flow)
        if beside_bulk and not served:
            serve(scheduler, 1)
    assert listed(scheduler) <= NEW_IN_A_ROW + 2


def test_many_flows_that_leave_at_once_are_forgotten():
    scheduler, ones = Scheduler(), flows(*[Priority.HIGH] * 1000)
    for flow in ones:
        scheduler.join(flow)
    for flow in reversed(ones):
        scheduler.leave(flow)
    assert listed(scheduler) == 0
    assert not any(flow.is_listed for flow in ones)


# Against a model

COMMANDS = st.lists(
    st.one_of(
        st.tuples(st.just("join"), st.integers(0, 5)),
        st.tuples(st.just("leave"), st.integers(0, 5)),
        st.tuples(st.just("move"), st.integers(0, 5), st.sampled_from(CLASSES)),
        st.tuples(st.just("serve"), st.integers(0, LOWEST_RANK)),
    ),
    max_size=80,
)


class Model:
    """Deficits per class, and which flows are ready; says which class must be served."""

    def __init__(self, ones: list[Flow]) -> None:
        self.rank = {flow: flow.rank for flow in ones}
        self.ready: set[Flow] = set()
        self.deficits = list(QUANTA.values())

    def rank_to_serve(self, lowest: int) -> int | None:
        ranks = sorted({self.rank[flow] for flow in self.ready if self.rank[flow] <= lowest})
        if not ranks:
            return None
        if not any(self.deficits[rank] for rank in ranks):
            self.deficits = list(QUANTA.values())
        rank = next(rank for rank in ranks if self.deficits[rank])
        self.deficits[rank] -= 1
        return rank


@settings(max_examples=200, deadline=None)
@given(COMMANDS)
def test_it_agrees_with_a_naive_model(commands):
    scheduler = Scheduler()
    ones = flows(*CLASSES, Priority.HIGH, Priority.MEDIUM)
    model = Model(ones)
    for name, *arguments in commands:
        if name == "serve":
            rank = model.rank_to_serve(arguments[0])
            flow = scheduler.next(arguments[0])
            assert (flow and flow.rank) == rank
            if flow is not None:
                assert flow in model.ready
                scheduler.charge(flow)
            continue
        flow = ones[arguments[0]]
        if name == "join":
            scheduler.join(flow)
            model.ready.add(flow)
        elif name == "leave":
            scheduler.leave(flow)
            model.ready.discard(flow)
        else:
            scheduler.move(flow, arguments[1])
            model.rank[flow] = RANK[arguments[1]]
        assert {flow for flow in ones if flow.is_ready} == model.ready
        assert listed(scheduler) == sum(flow.is_listed for flow in ones)
    # Nobody starves: within so many frames each one that is ready has had a turn.
    if model.ready:
        assert set(serve(scheduler, 15 * len(ones) * 2)) == model.ready
    for flow in ones:
        scheduler.leave(flow)
    assert listed(scheduler) == 0
