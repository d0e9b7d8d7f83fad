"""What a lane does to segments and messages, in time and in chance, without any IO."""

from __future__ import annotations

from itertools import pairwise
from math import inf
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from isthmus.transports.core.errors import ConfigError
from isthmus.transports.memory.lane import MIN_HOLD, MIN_RETRANSMIT, Lane
from isthmus.transports.memory.settings import LinkSettings

COUNT = 10_000


def lane(**settings):
    return Lane(LinkSettings(**settings), Random(7))


def drain(lane):
    """Return all items with the times at which they arrive."""
    found = []
    while (now := lane.next_arrival()) != inf:
        if (item := lane.take(now)) is not None:
            found.append((now, item))
    return found


@pytest.mark.parametrize(
    "settings",
    [
        {"delay": -1},
        {"delay": inf},
        {"jitter": -0.1},
        {"rate": 0},
        {"loss": 1},
        {"loss": -0.1},
        {"reorder": 1.5},
        {"queue": 0},
    ],
)
def test_settings_are_checked(settings):
    with pytest.raises(ConfigError, match=next(iter(settings))):
        LinkSettings(**settings)


def test_delay_is_exact():
    one = lane(delay=0.25)
    assert one.send("a", 100, 1.0) == 1.25
    assert one.next_arrival() == 1.25
    assert one.take(1.2499) is None
    assert one.take(1.25) == "a"
    assert one.next_arrival() == inf


def test_rate_spaces_items():
    one = lane(delay=0.5, rate=1000)
    for name in "abc":
        one.send(name, 100, 0.0)
    assert drain(one) == [
        (pytest.approx(0.6), "a"),
        (pytest.approx(0.7), "b"),
        (pytest.approx(0.8), "c"),
    ]
    one.send("later", 100, 10.0)
    assert drain(one) == [(pytest.approx(10.6), "later")]


def test_queue_holds_until_taken():
    one = lane(queue=250)
    one.send("a", 100, 0.0)
    one.send("b", 100, 0.0)
    assert one.room == 50
    one.send("control", 100, 0.0)
    assert one.room == 0
    one.take(0.0)
    assert one.room == 50
    one.clear()
    assert (one.room, one.next_arrival()) == (250, inf)


def test_lost_segment_delays_all_behind_it():
    one = lane(delay=0.1, loss=0.5)
    arrivals = [one.send(number, 10, 0.0) for number in range(100)]
    assert one.items_lost > 0
    assert arrivals == sorted(arrivals)
    assert [item for _, item in drain(one)] == list(range(100))
    # A round trip for every loss of one and the same segment, and nothing in between.
    assert {round((each - 0.1) / 0.2, 6) % 1 for each in arrivals} == {0}


def test_reordered_segment_shows_as_delay():
    one = lane(delay=0.1, reorder=0.2)
    arrivals = [one.send(number, 10, float(number)) - number for number in range(1000)]
    assert [item for _, item in drain(one)] == list(range(1000))
    late = [each for each in arrivals if each > 0.15]
    assert late == pytest.approx([0.2] * one.items_reordered)
    assert one.items_reordered == pytest.approx(200, abs=50)


def test_lost_messages_are_lost():
    one = lane(loss=0.1)
    sent = [one.send_message(n, 10, float(n), max_retransmits=0) for n in range(COUNT)]
    assert [item for _, item in drain(one)] == [n for n in range(COUNT) if sent[n]]
    assert sent.count(False) == one.items_lost == pytest.approx(COUNT / 10, rel=0.1)


def test_messages_without_a_bound_are_sent_once():
    one, other = lane(loss=0.3), lane(loss=0.3)
    sent = [one.send_message(n, 10, 0.0) for n in range(1000)]
    assert sent == [other.send_message(n, 10, 0.0, max_retransmits=0) for n in range(1000)]


def test_retransmits_are_bounded():
    one = lane(delay=0.05, loss=0.1)
    for number in range(COUNT):
        one.send_message(number, 10, 0.0, max_retransmits=2)
    # One in a thousand is lost three times in a row.
    assert one.items_lost == pytest.approx(COUNT / 1000, abs=10)
    late = {round(now, 6) for now, _ in drain(one)}
    assert late == {0.05, 0.15, 0.25}


def test_age_bounds_what_arrives():
    one = lane(delay=0.05, loss=0.3)
    for number in range(1000):
        one.send_message(number, 10, 0.0, max_age=0.2)
    assert {round(now, 6) for now, _ in drain(one)} == {0.05, 0.15}


def test_age_counts_the_wait_for_the_link():
    one = lane(rate=1000)
    one.send("bulk", 1000, 0.0)
    assert not one.send_message("stale", 10, 0.0, max_age=0.9)
    assert one.send_message("fresh", 10, 0.0, max_age=1.1)
    # What was not sent takes no time of the link.
    assert drain(one) == [(1.0, "bulk"), (pytest.approx(1.01), "fresh")]


def test_reordered_messages_are_overtaken():
    one = lane(delay=0.02, reorder=0.1)
    for number in range(COUNT):
        one.send_message(number, 10, number * 0.001)
    got = [item for _, item in drain(one)]
    assert sorted(got) == list(range(COUNT))
    overtaken = sum(1 for before, after in pairwise(got) if before > after)
    assert one.items_reordered == pytest.approx(COUNT / 10, rel=0.1)
    assert 0 < overtaken <= one.items_reordered


def test_short_links_hold_and_retransmit_too():
    one, other = lane(loss=0.5), lane(reorder=0.5)
    for number in range(100):
        one.send_message(number, 1, 0.0, max_retransmits=1)
        other.send_message(number, 1, 0.0)
    assert {now for now, _ in drain(one)} == {0.0, MIN_RETRANSMIT}
    assert {now for now, _ in drain(other)} == {0.0, MIN_HOLD}


def test_lost_message_fills_the_queue_until_it_has_left():
    one = lane(rate=100, loss=0.99, queue=100)
    while one.send_message("x", 10, 0.0, max_retransmits=0):
        one.take(one.next_arrival())
    assert one.room == 90
    assert one.take(one.next_arrival()) is None
    assert one.room == 100


def test_jitter_stays_within_its_bound():
    one = lane(delay=0.1, jitter=0.05)
    for number in range(1000):
        one.send_message(number, 1, 0.0)
    times = [now for now, _ in drain(one)]
    assert 0.1 <= min(times) < 0.102
    assert 0.148 < max(times) <= 0.15


def test_stalled_lane_delivers_nothing():
    one = lane(delay=0.1)
    one.send("a", 1, 0.0)
    one.is_stalled = True
    assert (one.next_arrival(), one.take(5.0)) == (inf, None)
    one.is_stalled = False
    assert one.take(5.0) == "a"


def test_equal_seeds_give_equal_fates():
    fates = []
    for _ in range(2):
        one = lane(delay=0.01, jitter=0.01, loss=0.2, reorder=0.2, rate=1e5)
        for number in range(200):
            one.send(number, 10, 0.0)
            one.send_message(number, 10, 0.0, max_retransmits=1)
        fates.append(drain(one))
    assert fates[0] == fates[1]


@given(
    settings=st.builds(
        LinkSettings,
        delay=st.floats(0, 1),
        jitter=st.floats(0, 1),
        rate=st.none() | st.floats(1, 1e9),
        loss=st.floats(0, 0.9),
        reorder=st.floats(0, 0.99),
    ),
    steps=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 5000), st.booleans()), max_size=30),
    seed=st.integers(0, 1000),
)
def test_nothing_reliable_is_lost_and_all_room_comes_back(settings, steps, seed):
    one, now, reliable = Lane(settings, Random(seed)), 0.0, []
    for pause, size, is_reliable in steps:
        now += pause
        item = (is_reliable, len(reliable))
        if is_reliable:
            assert one.send(item, size, now) >= now + settings.delay
            reliable.append(item)
        else:
            one.send_message(item, size, now, max_age=0.5)
    assert one.held <= sum(size for _, size, _ in steps)
    got = drain(one)
    assert [item for _, item in got if item[0]] == reliable
    assert [when for when, _ in got] == sorted(when for when, _ in got)
    assert (one.held, one.room) == (0, settings.queue)
