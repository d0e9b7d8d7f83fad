"""When a better path is looked for: soon after a loss, rarely in the long run, never in a burst."""

from __future__ import annotations

import itertools
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st
from isthmus.node.upgrades import (
    AT_ONCE,
    EAGER_DELAY,
    EAGER_TIME,
    MAX_DELAY,
    MAX_PEERS,
    MIN_DELAY,
    PER_SECOND,
    SETTLE_TIME,
    Upgrades,
)


def looks(upgrades, until, *, takes=0.0, now=0.0):
    """When one peer is looked for, each look failing after `takes` seconds."""
    times = []
    while (due := upgrades.next_timeout()) <= until:
        now = max(now, due)
        assert upgrades.take(now) == ["peer"]
        times.append(now)
        assert upgrades.next_timeout() == inf
        now += takes
        upgrades.ended("peer", now)
    return times


def test_what_was_lost_is_looked_for_at_once_and_then_ever_more_rarely():
    upgrades = Upgrades()
    assert upgrades.next_timeout() == inf
    upgrades.lost("peer", 0)
    times = looks(upgrades, 40_000, takes=1.0)
    assert times[0] == 0
    gaps = [after - before for before, after in itertools.pairwise(times)]
    eager = [gap for gap, time in zip(gaps, times, strict=False) if time + 1 < EAGER_TIME]
    assert set(eager) == {1.0 + EAGER_DELAY}
    assert len(eager) == 40
    rare = gaps[len(eager) :]
    assert rare[:6] == [1 + MIN_DELAY * 2**n for n in range(6)]
    assert set(rare[6:]) == {1 + MAX_DELAY}


def test_what_is_lost_again_begins_anew():
    upgrades = Upgrades()
    upgrades.learnt("peer", 0)
    assert len(looks(upgrades, 10_000)) > 5
    upgrades.lost("peer", 10_000)
    times = looks(upgrades, 10_400)
    rare = [each for each in times if each > 10_000 + EAGER_TIME]
    assert rare[1] - rare[0] == 2 * MIN_DELAY


def test_news_is_gathered_and_begins_anew():
    upgrades = Upgrades()
    upgrades.learnt("peer", 0)
    assert upgrades.next_timeout() == SETTLE_TIME
    assert upgrades.take(SETTLE_TIME - 0.01) == []
    assert looks(upgrades, 1000) == [
        SETTLE_TIME,
        *(SETTLE_TIME + each for each in (60, 180, 420, 900)),
    ]
    upgrades.news(1000)
    assert upgrades.next_timeout() == 1000 + SETTLE_TIME
    upgrades.take(1001)
    upgrades.ended("peer", 1001)
    assert upgrades.next_timeout() == 1001 + MIN_DELAY
    upgrades.learnt("peer", 1002)
    assert upgrades.next_timeout() == 1002 + SETTLE_TIME
    assert len(upgrades) == 1


def test_who_is_forgotten_is_looked_for_no_more():
    upgrades = Upgrades()
    upgrades.lost("peer", 0)
    upgrades.forget("peer")
    upgrades.forget("peer")
    assert "peer" not in upgrades
    assert upgrades.take(1) == []
    upgrades.lost("peer", 1)
    assert upgrades.take(1) == ["peer"]
    upgrades.forget("peer")
    upgrades.lost("peer", 2)
    upgrades.ended("peer", 3)  # of the look before
    assert upgrades.take(3) == ["peer"]
    upgrades.ended("nobody", 3)


def test_a_look_under_way_counts_until_it_has_ended_though_it_is_forgotten():
    upgrades = Upgrades()
    for peer in range(AT_ONCE):
        upgrades.lost(peer, 0)
    assert len(upgrades.take(0)) == AT_ONCE
    for peer in range(AT_ONCE):
        upgrades.forget(peer)
        upgrades.lost(peer, 2)
    upgrades.lost("other", 2)
    assert upgrades.next_timeout() == inf
    assert upgrades.take(2) == []
    upgrades.ended(0, 3)
    assert upgrades.take(3) == [0]
    upgrades.ended(1, 4)
    assert upgrades.take(4) == [1]


def test_the_table_is_bounded():
    upgrades = Upgrades()
    for number in range(MAX_PEERS + 5):
        upgrades.learnt(number, 0)
    assert len(upgrades) == MAX_PEERS
    assert 4 not in upgrades
    assert 5 in upgrades


@given(
    takes=st.floats(0.0, 5.0),
    peers=st.integers(1, 60),
    first=st.sampled_from(["lost", "learnt"]),
)
def test_there_is_never_a_burst(takes, peers, first):
    upgrades = Upgrades()
    for peer in range(peers):
        getattr(upgrades, first)(peer, 0)
    running: list[tuple[float, int]] = []
    begun: list[float] = []
    looked_for = set()
    now = 0.0
    for _ in range(300):
        due = min(upgrades.next_timeout(), min(running, default=(inf, 0))[0])
        if due == inf:
            break
        now = max(now, due)
        for end, peer in sorted(running):
            if end <= now:
                running.remove((end, peer))
                upgrades.ended(peer, now)
        for peer in upgrades.take(now):
            running.append((now + takes, peer))
            begun.append(now)
            looked_for.add(peer)
        assert len(running) <= AT_ONCE
        recent = [each for each in begun if now - each < 1.0 - 1e-9]
        assert len(recent) <= PER_SECOND
    assert looked_for == set(range(peers))


@pytest.mark.parametrize("takes", [0.0, 0.9])
def test_a_second_is_not_exceeded_at_its_edge(takes):
    upgrades = Upgrades()
    for peer in range(20):
        upgrades.lost(peer, 0)
    assert len(upgrades.take(0)) == PER_SECOND
    for peer in range(PER_SECOND):
        upgrades.ended(peer, takes)
    assert upgrades.next_timeout() == 1.0
    assert len(upgrades.take(1.0)) == PER_SECOND
