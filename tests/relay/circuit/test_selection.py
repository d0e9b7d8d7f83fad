"""Which relays are chosen: the user's first, two at a time, apart from each other, for good."""

from __future__ import annotations

from math import inf
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from isthmus.relay.circuit.selection import (
    AVOID_TIME,
    HEAD_START,
    MAX_DISCOVERED,
    MAX_TRYING,
    NEXT_STAGE,
    SWITCH_TIME,
    Health,
    RelaySelection,
    place_of,
)
from isthmus.transports.core.multiaddr import Multiaddr

STANDING, FAILING, TRYING = Health.STANDING, Health.FAILING, Health.TRYING


def selection(configured: int = 0, discovered: int = 0, *, wanted: int = 2, seed: int = 1):
    """Relays 0, 1, ... that were configured, then discovered ones, each in a network of its own."""
    made = RelaySelection(wanted=wanted, draw=Random(seed).random)
    for number in range(configured + discovered):
        made.add(number, f"4:{number:04x}", is_configured=number < configured)
    return made


def test_two_configured_relays_are_both_chosen_at_once_and_stay():
    chosen = selection(2, 5)
    assert chosen.choose({}, 0.0) == {0, 1}
    assert chosen.choose({0: STANDING, 1: STANDING}, 100.0) == {0, 1}


def test_one_that_is_away_is_not_given_up():
    chosen = selection(2)
    for now in (0.0, 1.0, 1000.0):
        assert chosen.choose({0: STANDING, 1: FAILING}, now) == {0, 1}


def test_of_many_configured_ones_two_are_tried_and_then_all():
    chosen = selection(5)
    first = chosen.choose({}, 0.0)
    assert len(first) == 2
    assert chosen.next_timeout() == NEXT_STAGE
    assert chosen.choose({}, NEXT_STAGE / 2) == first
    assert chosen.choose({}, NEXT_STAGE) == set(range(5))
    # The two that answer first are the ones.
    assert chosen.choose({3: STANDING}, 1.0) == set(range(5))
    assert chosen.choose({3: STANDING, 4: STANDING}, 1.1) == {3, 4}


def test_discovered_ones_wait_for_the_configured_ones():
    chosen = selection(1, 3)
    assert chosen.choose({}, 0.0) == {0}
    assert chosen.choose({0: STANDING}, 1.0) == {0}
    later = chosen.choose({0: STANDING}, HEAD_START)
    assert 0 in later
    assert 1 < len(later) <= 1 + MAX_TRYING
    one = next(iter(later - {0}))
    assert chosen.choose({0: STANDING, one: STANDING}, 3.0) == {0, one}


def test_discovered_ones_give_way_to_a_configured_one():
    chosen = selection(1, 2)
    chosen.choose({0: FAILING}, 0.0)
    health = {0: FAILING, 1: STANDING, 2: STANDING}
    # It is tried on though there are two.
    assert chosen.choose(health, 10.0) == {0, 1, 2}
    assert len(chosen.choose({**health, 0: STANDING}, 20.0)) == 2
    assert 0 in chosen.choose({**health, 0: STANDING}, 20.0)


def test_without_configured_ones_discovered_ones_are_tried_at_once():
    chosen = selection(0, 6)
    first = chosen.choose({}, 0.0)
    assert len(first) == 2
    assert len(chosen.choose(dict.fromkeys(first, TRYING), HEAD_START)) == MAX_TRYING


def test_a_discovered_one_that_fails_is_left_for_another():
    chosen = selection(0, 3, wanted=1)
    (first,) = chosen.choose({}, 0.0)
    (second,) = chosen.choose({first: FAILING}, 1.0)
    assert second != first
    everything = chosen.choose(dict.fromkeys(range(3), FAILING), HEAD_START)
    # Nothing is left: those that failed are tried on.
    assert everything == {0, 1, 2}
    assert chosen.next_timeout() <= 1.0 + AVOID_TIME


def test_discovered_relays_are_in_different_networks():
    chosen = RelaySelection(wanted=2, draw=Random(1).random)
    for number, place in enumerate(["4:0808", "4:0808", "4:0808", "4:0101"]):
        chosen.add(number, place, is_configured=False)
    for _ in range(20):
        first = chosen.choose({}, 0.0)
        assert 3 in first
        assert len(first) == 2
    # Beside a configured one, too, while what the user has named may be anywhere.
    chosen.add(4, "4:0101", is_configured=True)
    assert 3 not in chosen.choose({4: STANDING}, 10.0)
    chosen.add(5, "4:0101", is_configured=True)
    assert chosen.choose({4: STANDING, 5: STANDING}, 20.0) == {4, 5}


def test_the_cheaper_of_two_is_taken_so_the_dearest_never_is():
    taken = set()
    for seed in range(50):
        chosen = selection(0, 6, wanted=1, seed=seed)
        for number in range(6):
            chosen.measured(number, [0.01 * (number + 1)] * 3)
        taken |= chosen.choose({}, 0.0)
    assert 0 in taken
    assert len(taken) > 2, "all peers would meet at the cheapest"
    counts = [0] * 6
    for seed in range(300):
        chosen = selection(0, 6, wanted=1, seed=seed)
        for number in range(6):
            chosen.measured(number, [0.01 * (number + 1)] * 3)
        counts[next(iter(chosen.choose({}, 0.0)))] += 1
    assert counts == sorted(counts, reverse=True) or counts[0] > 2 * counts[4]


def test_the_median_of_three_counts_and_so_does_load():
    chosen = selection(0, 1)
    assert chosen.cost(0) == inf
    chosen.measured(0, [0.01, 5.0, 0.02])
    assert chosen.cost(0) == 0.02
    chosen.measured(0, [0.01, 0.01])
    assert chosen.cost(0) == 0.01
    chosen.measured(0, [], load=0.5)
    assert chosen.cost(0) == pytest.approx(0.015)
    chosen.measured(0, [], load=7)
    assert chosen.cost(0) == pytest.approx(0.02)
    chosen.measured(9, [1.0])
    assert chosen.cost(9) == inf


def test_a_better_one_is_taken_after_minutes_and_made_before_the_other_goes():
    chosen, health = selection(3), {0: STANDING, 1: STANDING}
    for number, cost in enumerate([0.05, 0.2, 0.05]):
        chosen.measured(number, [cost] * 3)
    assert chosen.choose(health, 0.0) == {0, 1}
    assert chosen.choose(health, SWITCH_TIME - 1) == {0, 1}
    assert chosen.next_timeout() == SWITCH_TIME
    assert chosen.choose(health, SWITCH_TIME) == {0, 1, 2}
    assert chosen.choose({**health, 2: STANDING}, SWITCH_TIME + 1) == {0, 2}


def test_a_better_one_that_was_worse_in_between_begins_anew():
    chosen, health = selection(2, wanted=1), {0: STANDING}
    for number, cost in enumerate([0.2, 0.05]):
        chosen.measured(number, [cost] * 3)
    chosen.choose(health, 0.0)
    chosen.measured(1, [0.3] * 3)
    chosen.choose(health, 100.0)
    chosen.measured(1, [0.05] * 3)
    chosen.choose(health, 200.0)
    assert chosen.choose(health, SWITCH_TIME + 100) == {0}
    assert chosen.choose(health, SWITCH_TIME + 200) == {0, 1}


@given(st.lists(st.tuples(st.floats(0.02, 0.025), st.floats(0.02, 0.025)), max_size=60))
def test_what_differs_a_little_is_never_a_reason_to_change(costs):
    chosen, now = selection(2, wanted=1), 0.0
    chosen.measured(0, [0.022] * 3)
    for first, second in costs:
        chosen.measured(0, [first])
        chosen.measured(1, [second])
        now += 600
        assert chosen.choose({0: STANDING}, now) == {0}


def test_room_is_made_for_new_ones_by_those_that_failed():
    chosen = selection(1, MAX_DISCOVERED)
    assert chosen.add("new", None, is_configured=False) == "new"
    chosen.choose(dict.fromkeys(range(1, MAX_DISCOVERED + 1), FAILING), 0.0)
    dropped = chosen.add("new", None, is_configured=False)
    assert dropped not in ("new", None, 0)
    assert dropped not in chosen
    assert len(chosen) == MAX_DISCOVERED + 1
    assert chosen.add("mine", None, is_configured=True) is None


def test_a_discovered_one_may_become_the_users():
    chosen = selection(0, 1)
    assert chosen.add(0, None, is_configured=True) is None
    assert chosen.is_configured(0)
    chosen.add(0, "4:0102", is_configured=False)
    assert chosen.is_configured(0)


@pytest.mark.parametrize(
    ("address", "place"),
    [
        ("/ip4/192.0.2.1/tcp/1", "4:c000"),
        ("/ip6/2001:db8:1::1/tcp/1", "6:20010db8"),
        ("/dns4/relay.example/tcp/1", None),
    ],
)
def test_places(address, place):
    assert place_of([Multiaddr.parse(address)]) == place
    assert place_of([]) is None


@given(
    st.integers(0, 4),
    st.lists(st.integers(0, 3), max_size=12),
    st.lists(
        st.tuples(st.dictionaries(st.integers(0, 15), st.sampled_from(Health)), st.floats(0, 90)),
        max_size=15,
    ),
    st.integers(0, 1000),
    st.integers(1, 3),
)
def test_whatever_happens(configured, places, history, seed, wanted):
    chosen = RelaySelection(wanted=wanted, draw=Random(seed).random)
    for number in range(configured):
        chosen.add(number, "4:0000", is_configured=True)
    for number, place in enumerate(places, configured):
        chosen.add(number, f"4:{place:04x}", is_configured=False)
    place_by = dict(enumerate(places, configured))
    now = 0.0
    for health, seconds in history:
        now += seconds
        picked = chosen.choose(health, now)
        standing = {r for r, each in health.items() if each is STANDING and r in chosen}
        own = {relay for relay in standing if relay < configured}
        # Nobody of the user's is left out while a place is not held by one of them.
        if len(own) >= wanted:
            assert picked & standing <= own
        else:
            assert own <= picked
            others = min(configured, wanted)
            assert sum(relay < configured for relay in picked) >= others
        assert len(picked & standing) <= wanted
        found = [place_by[relay] for relay in picked if relay >= configured]
        if not own and configured == 0:
            assert len(set(found)) == len(found)
        assert len(found) <= wanted + MAX_TRYING
        assert chosen.next_timeout() > now
