"""When which address is dialled: ranks, staggering, failures, and the bounds."""

from __future__ import annotations

from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st
from isthmus.node.dialplan import (
    LAN_STAGGER,
    LATE,
    MAX_ADDRESSES,
    MAX_RUNNING,
    SECOND_LOOK,
    STAGGER,
    DialPlan,
)
from isthmus.node.path import Rank
from isthmus.transports.core.multiaddr import Multiaddr

BEGAN = 100.0


def address(number: int) -> Multiaddr:
    return Multiaddr.parse(f"/ip4/192.0.2.1/tcp/{number + 1}")


def plan(*ranks: Rank) -> DialPlan:
    made = DialPlan(BEGAN)
    for number, rank in enumerate(ranks):
        assert made.add(address(number), rank)
    return made


def starts(made: DialPlan) -> list[tuple[float, int]]:
    """When each address is dialled, in seconds since the beginning, if none ever answers."""
    found = []
    while (now := made.next_timeout()) < inf:
        found += [(round(now - BEGAN, 6), each.port - 1) for each in made.take(now)]
    return found


@pytest.mark.parametrize(
    ("ranks", "expected"),
    [
        ([], []),
        ([Rank.RELAY], [(0.0, 0)]),
        ([Rank.DIRECT, Rank.DIRECT], [(0.0, 0), (0.25, 1)]),
        ([Rank.WEBSOCKET, Rank.DIRECT], [(0.0, 1), (0.25, 0)]),
        ([Rank.DIRECT, Rank.LAN, Rank.LAN], [(0.0, 1), (0.03, 2), (0.06, 0)]),
        ([Rank.WEBRTC, Rank.RELAY, Rank.DIRECT], [(0.0, 2), (0.5, 1), (1.0, 0)]),
        ([Rank.RELAY, Rank.RELAY], [(0.0, 0), (0.25, 1)]),
        ([Rank.RELAY, Rank.DIRECT, Rank.RELAY], [(0.0, 1), (0.5, 0), (0.75, 2)]),
        ([Rank.WEBRTC, Rank.RELAY], [(0.0, 1), (1.0, 0)]),
        ([Rank.TURN, Rank.LAN], [(0.0, 1), (1.0, 0)]),
    ],
)
def test_the_best_rank_is_dialled_at_once_and_the_others_by_and_by(ranks, expected):
    assert starts(plan(*ranks)) == expected


def test_a_failure_starts_the_next():
    made = plan(Rank.DIRECT, Rank.DIRECT, Rank.RELAY)
    assert made.take(BEGAN) == (address(0),)
    made.failed(address(0), BEGAN + 0.01)
    assert made.take(BEGAN + 0.01) == (address(1),)
    assert made.waiting == (address(2),)
    # The relay's time has not come while something better is tried, ...
    assert made.take(BEGAN + 0.02) == ()
    # ... and need not come once nothing is.
    made.failed(address(1), BEGAN + 0.03)
    assert made.take(BEGAN + 0.03) == (address(2),)
    assert not made.is_exhausted
    made.failed(address(2), BEGAN + 0.04)
    assert made.is_exhausted


def test_an_address_that_comes_later_is_tried_too():
    made = plan(Rank.DIRECT)
    made.take(BEGAN)
    made.failed(address(0), BEGAN + 5)
    assert made.is_exhausted
    assert made.add(address(1), Rank.DIRECT)
    assert not made.add(address(1), Rank.DIRECT)
    assert made.take(BEGAN + 5) == (address(1),)


def test_what_has_failed_is_tried_again_for_who_names_it_again():
    made = plan(Rank.DIRECT, Rank.DIRECT)
    made.take(BEGAN)
    made.failed(address(0), BEGAN + 0.01)
    made.take(BEGAN + 0.01)
    # The second one is silent.
    assert made.add(address(0), Rank.DIRECT)
    assert not made.add(address(0), Rank.DIRECT)
    assert made.take(BEGAN + STAGGER) == ()
    assert made.take(BEGAN + 2) == (address(0),)
    assert not made.add(address(0), Rank.DIRECT)
    assert not made.add(address(1), Rank.DIRECT)
    made.ended(address(0), BEGAN + 3)
    assert not made.add(address(0), Rank.DIRECT)


def fail_all(made: DialPlan, now: float) -> list[int]:
    """Let every attempt fail as it begins; return which were made."""
    tried = []
    while not made.is_exhausted:
        for each in made.take(now):
            tried.append(each.port - 1)
            made.failed(each, now)
    return tried


@pytest.mark.parametrize(
    ("ranks", "expected"),
    [
        ([Rank.RELAY], [0]),
        ([Rank.RELAY, Rank.RELAY], [0, 1, 0]),
        ([Rank.RELAY, Rank.RELAY, Rank.RELAY], [0, 1, 2, 0, 1]),
        ([Rank.DIRECT, Rank.DIRECT], [0, 1]),
        ([Rank.DIRECT, Rank.RELAY, Rank.RELAY], [0, 1, 2, 1]),
        ([Rank.RELAY, Rank.WEBRTC], [0, 1]),
    ],
)
def test_relays_that_failed_before_the_last_one_are_asked_once_more(ranks, expected):
    assert fail_all(plan(*ranks), BEGAN) == expected


def test_they_are_not_if_it_has_taken_long():
    assert fail_all(plan(Rank.RELAY, Rank.RELAY), BEGAN + SECOND_LOOK) == [0, 1]


def test_one_that_led_somewhere_is_not_asked_once_more():
    made = plan(Rank.RELAY, Rank.RELAY)
    made.take(BEGAN)
    made.ended(address(0), BEGAN)
    assert fail_all(made, BEGAN) == [1]


def test_addresses_and_attempts_are_bounded():
    made = plan(*[Rank.DIRECT] * MAX_ADDRESSES)
    assert not made.add(address(MAX_ADDRESSES), Rank.LAN)
    assert [number for _, number in starts(made)] == list(range(MAX_RUNNING))
    made.failed(address(3), BEGAN + 60)
    assert made.take(BEGAN + 60) == (address(MAX_RUNNING),)
    assert made.next_timeout() == inf


ATTEMPTS = st.lists(
    st.tuples(st.sampled_from(Rank), st.one_of(st.none(), st.floats(0.001, 3))),
    max_size=MAX_ADDRESSES,
)


@given(ATTEMPTS)
def test_every_address_is_tried_and_none_too_early(attempts):
    made = plan(*[rank for rank, _ in attempts])
    ends: dict[int, float] = {}
    started: dict[int, float] = {}
    failed: set[int] = set()
    again = 0
    now, last_failure = BEGAN, -inf
    while True:
        failing = min(ends.items(), key=lambda item: item[1], default=(None, inf))
        wake = made.next_timeout()
        if wake == failing[1] == inf:
            break
        if failing[1] <= wake:
            number, now = failing
            assert number is not None
            del ends[number]
            made.failed(address(number), now)
            failed.add(number)
            last_failure = now
            continue
        now = max(now, wake)
        running = {each for each in started if each in ends or attempts[each][1] is None}
        for each in made.take(now):
            number = each.port - 1
            rank, duration = attempts[number]
            if number in started:
                assert number in failed
                assert rank is Rank.RELAY
                again += 1
            if running:
                late = LATE.get(rank, 0)
                has_to_wait = any(LATE.get(attempts[each][0], 0) < late for each in running)
                assert now - BEGAN >= late or not has_to_wait
                previous = max(started.values())
                gap = min(LAN_STAGGER, STAGGER)
                assert now - previous >= gap - 1e-9 or now == last_failure
            started[number] = now
            running.add(number)
            if duration is not None:
                ends[number] = now + duration
    stuck = sum(duration is None for _, duration in attempts)
    if stuck < MAX_RUNNING:
        assert len(started) == len(attempts)
    assert again < max(len(attempts), 1)
    assert made.is_exhausted is (stuck == 0)
