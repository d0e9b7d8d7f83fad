"""What a path is worth, and that what this side opens moves seldom and for a reason."""

from __future__ import annotations

from math import inf

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from isthmus.node.path import (
    BAD_FOR,
    BETTER_FOR,
    GOOD_FOR,
    LAST_FOR,
    MEMORY,
    Path,
    Rank,
    Silences,
)
from isthmus.node.selection import MAX_PLACES, Move, Selection

MINUTES = 10
STEP = 0.5


def path(rank=Rank.DIRECT, silences=None, *, now=0):
    return Path(
        rank,
        silences or Silences(),
        limited=False,
        dialled=True,
        is_preferred=True,
        number=1,
        now=now,
    )


def both(near=Rank.LAN, far=Rank.DIRECT, *, rtts=(0.001, 0.02)):
    """A selection of two, with their round trips known; the first one is used."""
    selection: Selection[str] = Selection(is_local_lower=True)
    for key, rank, rtt in (("near", near, rtts[0]), ("far", far, rtts[1])):
        selection.add(key, rank, dialled=True, limited=False, now=0, place=key)
        selection.measured(key, 0, rtt)
    assert selection.best() == "near"
    assert selection.take_move() is None
    return selection


def measure(selection, key, rtt, since, until, loss=None):
    """Measure the same for a while; return when it was moved, if it was."""
    now = since
    while now <= until:
        selection.measured(key, now, rtt, loss)
        if (move := selection.take_move()) is not None:
            return now, move.new
        now += STEP
    return None


def test_kinds_come_first_and_then_what_is_suspect_demoted_or_unsteady():
    paths = [path(rank) for rank in Rank]
    assert [each.rank for each in sorted(paths, key=lambda each: each.score(0))] == list(Rank)
    lan, relay = paths[0], paths[-1]
    lan.suspect(0)
    assert relay.score(0) < lan.score(0)
    lan.answered(0)
    assert lan.score(0) < relay.score(0)


def test_a_second_silence_within_five_minutes_ranks_last_for_five():
    silences = Silences()
    one = path(Rank.LAN, silences)
    one.suspect(0)
    one.suspect(1)  # the same silence
    assert one.changes_at(1) == inf
    one.answered(2)
    assert one.score(2) < path(Rank.RELAY).score(2)
    again = path(Rank.LAN, silences, now=2)  # a new connection to the same place
    again.suspect(MEMORY - 1)
    again.answered(MEMORY)
    assert path(Rank.RELAY).score(MEMORY) < again.score(MEMORY)
    assert again.changes_at(MEMORY) == MEMORY - 1 + LAST_FOR
    assert again.score(MEMORY - 1 + LAST_FOR) < path(Rank.RELAY).score(1e9)
    late = path(Rank.LAN, silences, now=MEMORY)
    late.suspect(2 * MEMORY)
    late.answered(2 * MEMORY)
    assert late.score(2 * MEMORY) < path(Rank.RELAY).score(0)


def test_connections_that_fall_silent_together_are_one_silence():
    selection: Selection[str] = Selection(is_local_lower=True)
    for key, rank in (("mine", Rank.LAN), ("theirs", Rank.LAN), ("relay", Rank.RELAY)):
        selection.add(key, rank, dialled=key == "mine", limited=False, now=0, place=rank)
    for key, now in (("mine", 10), ("theirs", 35)):  # the idle one is probed later
        selection.suspect(key, now)
    assert selection.best() == "relay"
    for key in ("theirs", "mine"):
        selection.answered(key, 40)
    assert selection.best() in ("mine", "theirs")
    # What was measured since is another one.
    selection.suspect("theirs", 500)
    selection.measured("mine", 510, 0.001)
    assert selection.best() == "mine"
    selection.suspect("mine", 520)
    for key in ("theirs", "mine"):
        selection.answered(key, 530)
    assert selection.best() == "relay"


@pytest.mark.parametrize(("rtt", "loss"), [(0.11, None), (0.001, 0.11)], ids=["far", "lossy"])
def test_a_class_is_lost_after_a_while_and_regained_after_a_longer_one(rtt, loss):
    selection = both()
    assert measure(selection, "near", rtt, 0, 60, loss) == (BAD_FOR, "far")
    assert measure(selection, "near", 0.001, 10, 90) == (10 + GOOD_FOR, "near")
    # An interruption begins it anew.
    assert measure(selection, "near", rtt, 50, 50 + BAD_FOR - STEP, loss) is None
    selection.measured("near", 55, 0.001)
    assert measure(selection, "near", rtt, 56, 56 + BAD_FOR - STEP, loss) is None


def test_a_new_connection_to_a_place_has_the_class_that_the_way_there_has():
    silences = Silences()
    lossy = path(Rank.LAN, silences)
    for now in (0, BAD_FOR):
        lossy.measured(now, 0.001, 0.2, None)
    assert path(Rank.LAN, silences, now=BAD_FOR + 1).is_demoted
    for now in (10, 10 + GOOD_FOR):
        lossy.measured(now, 0.001, 0.0, None)
    assert not path(Rank.LAN, silences, now=11 + GOOD_FOR).is_demoted


@pytest.mark.parametrize("rtt", [0.09, 0.0999])
def test_what_is_not_five_times_as_far_keeps_its_class(rtt):
    assert measure(both(), "near", rtt, 0, 60) is None


def test_milliseconds_do_not_make_a_path_far():
    selection = both(rtts=(0.0001, 0.0002))
    assert measure(selection, "near", 0.004, 0, 60) is None


def test_a_worse_kind_is_not_judged_by_a_better_one():
    selection = both(rtts=(0.001, 0.2))
    assert measure(selection, "far", 0.2, 0, 60) is None
    selection.add("relay", Rank.RELAY, dialled=True, limited=True, now=60)
    selection.measured("relay", 60, 0.1)
    selection.suspect("near", 61)
    assert selection.best() == "far"


@pytest.mark.parametrize(
    ("near", "far", "moves"),
    [
        (0.100, 0.070, True),
        (0.100, 0.081, False),
        (0.010, 0.004, True),
        (0.010, 0.006, False),
    ],
)
def test_within_a_kind_only_a_much_shorter_round_trip_for_long_moves(near, far, moves):
    selection = both(Rank.DIRECT, Rank.DIRECT, rtts=(near, near))
    found = measure(selection, "far", far, 0, 100)
    assert found == ((BETTER_FOR, "far") if moves else None)


def test_a_nearer_path_that_was_silent_meanwhile_begins_anew():
    selection = both(Rank.DIRECT, Rank.DIRECT, rtts=(0.1, 0.1))
    assert measure(selection, "far", 0.01, 0, 20) is None
    selection.suspect("far", 21)
    selection.answered("far", 40)
    assert measure(selection, "far", 0.01, 40, 40 + BETTER_FOR) == (40 + BETTER_FOR, "far")


def test_what_is_nearer_than_the_unlimited_path_need_not_be_than_the_best():
    selection: Selection[str] = Selection(is_local_lower=True)
    selection.add("limited", Rank.RELAY, dialled=True, limited=True, now=0)
    selection.measured("limited", 0, 0.01)
    for key, rtt in (("far", 0.3), ("near", 0.02)):
        selection.add(key, Rank.RELAY, dialled=True, limited=False, now=0)
        selection.measured(key, 0, rtt)
    assert selection.best() == "limited"
    assert selection.best(allow_limited=False) == "far"
    for now in range(1, int(BETTER_FOR) + 1):
        selection.measured("near", now, 0.02)
    assert selection.best() == "limited"
    assert selection.best(allow_limited=False) == "near"


def test_of_several_that_are_left_the_shortest_is_taken():
    selection = both(rtts=(0.001, 0.2))
    selection.add("third", Rank.DIRECT, dialled=True, limited=False, now=0)
    selection.measured("third", 0, 0.02)
    selection.remove("near", 1)
    assert selection.take_move() == Move("near", "third", "the path before has ended")
    selection.suspect("third", 2)
    assert selection.best() == "far"
    assert selection.take_move() == Move("third", "far", "the path before does not answer")


def test_a_move_there_and_back_before_anybody_looked_is_none():
    selection = both()
    selection.suspect("near", 1)
    selection.answered("near", 1)
    assert selection.take_move() is None
    selection.suspect("near", 2)
    assert selection.take_move().new == "far"
    assert selection.take_move() is None


def test_the_unlimited_path_in_use_is_not_closed():
    selection: Selection[str] = Selection(is_local_lower=True)
    selection.add("direct", Rank.DIRECT, dialled=True, limited=False, now=0)
    selection.add("relay", Rank.RELAY, dialled=True, limited=True, now=0)
    selection.suspect("direct", 1)
    assert selection.best() == "relay"
    assert selection.best(allow_limited=False) == "direct"
    assert selection.next_timeout() is None


def test_places_are_bounded():
    selection: Selection[int] = Selection(is_local_lower=True)
    for number in range(MAX_PLACES + 1):
        selection.add(number, Rank.DIRECT, dialled=True, limited=False, now=0, place=number)
        selection.suspect(number, 0)
    for number in (0, MAX_PLACES):
        selection.suspect(number, 1)
        selection.add(100 + number, Rank.DIRECT, dialled=True, limited=False, now=2, place=number)
        selection.suspect(100 + number, 2)
    assert selection.would_gain(Rank.LAN, 0, 3)  # forgotten, and seen anew only once
    selection.add("fine", Rank.DIRECT, dialled=True, limited=False, now=3, place="fine")
    assert not selection.would_gain(Rank.LAN, MAX_PLACES, 3)


def test_the_places_forgotten_are_those_not_used_for_longest():
    selection: Selection[int] = Selection(is_local_lower=True)
    for number in range(MAX_PLACES):
        selection.add(number, Rank.DIRECT, dialled=True, limited=False, now=0, place=number)
    for now in (1, 3):
        selection.suspect(0, now)
        selection.answered(0, now + 1)
    for number in (MAX_PLACES, MAX_PLACES + 1):  # place 0 is the oldest, and used anew
        selection.add(-number, Rank.DIRECT, dialled=True, limited=False, now=4, place=0)
        selection.add(number, Rank.DIRECT, dialled=True, limited=False, now=4, place=number)
    assert not selection.would_gain(Rank.LAN, 0, 5)


def test_a_path_that_does_not_answer_is_no_measure_for_others():
    selection = both()
    selection.suspect("far", 0)
    assert measure(selection, "near", 0.11, 0, 2 * BAD_FOR) is None
    selection.answered("far", 2 * BAD_FOR)
    assert selection.best() == "near"


CHANGES = st.lists(
    st.tuples(
        st.floats(0.5, 90.0),
        st.sampled_from([0.001, 0.05, 0.3, 1.0]),
        st.sampled_from([None, 0.05, 0.2]),
    ),
    min_size=1,
    max_size=80,
)


@settings(max_examples=150)
@example(changes=[(4.9, 1.0, None), (60.0, 0.001, None)] * 5)
@example(changes=[(5.6, 1.0, None), (40.0, 0.001, None)] * 9)
@given(changes=CHANGES)
def test_ten_minutes_of_a_path_that_changes(changes):
    """A change that is over within five seconds moves nothing; a longer one moves once at most."""
    selection = both()
    now, begun, moves, was_bad = 0.0, 0.0, 0, False
    for seconds, rtt, loss in changes:
        if now > MINUTES * 60:
            break
        is_bad = rtt > 5 * 0.02 or loss == 0.2
        if is_bad != was_bad:
            was_bad, begun, moves = is_bad, now, 0
        end = now + seconds
        while now < end:
            now += STEP
            selection.measured("near", now, rtt, loss)
            selection.measured("far", now, 0.02)
            if selection.take_move() is not None:
                moves += 1
                assert now - begun >= BAD_FOR
                assert moves == 1


@settings(max_examples=100)
@given(
    cuts=st.lists(st.tuples(st.floats(0.5, 100), st.floats(1, 200)), min_size=1, max_size=20),
)
def test_ten_minutes_of_cuts(cuts):
    """Each cut is a move away, its end one back: at once, or after the time of an unsteady one."""
    selection = both()
    now, away = 0.0, 0
    for cut, stands in cuts:
        was = selection.best()
        selection.suspect("near", now)
        assert (selection.take_move() is not None) == (was == "near")
        away += was == "near"
        now += cut
        selection.answered("near", now)
        back = selection.take_move()
        if back is None:
            due = selection.next_timeout()
            if due < now + stands:
                selection.handle_timeout(due, lambda _: True)
        now += stands
        assert selection.take_move() is None or back is None
    assert away <= len(cuts)
