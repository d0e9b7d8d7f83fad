"""When holes are punched: at once, then ever more rarely, and soon after news, by the clock."""

from __future__ import annotations

from itertools import pairwise
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st
from isthmus.relay.dcutr.schedule import (
    AT_ONCE,
    MAX_DELAY,
    MAX_PEERS,
    MIN_DELAY,
    NEWS_PAUSE,
    SETTLE_TIME,
    STABLE_TIME,
    Attempt,
    Outcome,
    Schedule,
)
from isthmus.transports.core.keys import PrivateKey
from isthmus.transports.core.peer_id import PeerId

PEER, OTHER = (
    PeerId.from_public_key(PrivateKey.from_seed(bytes([n]) * 32).public_key) for n in (1, 2)
)


def failed(now=0.0):
    """Return a schedule whose one try has failed."""
    schedule = Schedule()
    schedule.relayed(PEER, now)
    assert schedule.take(now) == [PEER]
    assert schedule.failed(PEER, now, "no luck") == now + MIN_DELAY
    return schedule


def test_a_failed_try_is_repeated_after_a_minute_and_ever_more_rarely_up_to_an_hour():
    schedule = Schedule()
    assert (schedule.next_timeout(), schedule.attempt(PEER)) == (inf, None)
    schedule.relayed(PEER, 0)
    times = []
    while (now := schedule.next_timeout()) < 8 * 3600:
        assert schedule.take(now - 0.001) == []
        assert schedule.take(now) == [PEER]
        assert schedule.next_timeout() == inf
        times.append(now)
        schedule.failed(PEER, now, "no luck")
    pauses = [after - before for before, after in pairwise(times)]
    assert times[0] == 0
    assert pauses[:7] == [60, 120, 240, 480, 960, 1920, 3600]
    assert set(pauses[7:]) == {MAX_DELAY}
    assert schedule.attempt(PEER) == Attempt(
        Outcome.FAILED, "no luck", False, len(times), times[-1], times[-1] + MAX_DELAY
    )


def test_news_has_it_tried_soon_and_the_pauses_begin_anew():
    schedule = failed()
    schedule.take(60)
    schedule.failed(PEER, 60, "no luck")
    schedule.news(100)
    assert schedule.next_timeout() == 100 + SETTLE_TIME
    assert schedule.take(schedule.next_timeout()) == [PEER]
    assert schedule.failed(PEER, 110, "no luck") == 110 + MIN_DELAY


def test_news_puts_nothing_off_and_cannot_hurry_it_without_end():
    schedule = failed()
    schedule.news(1)
    assert schedule.next_timeout() == NEWS_PAUSE
    schedule.news(2)
    assert schedule.next_timeout() == NEWS_PAUSE
    later = failed()
    later.news(59.9)
    assert later.next_timeout() == MIN_DELAY


def test_news_during_a_try_counts_after_it():
    schedule = Schedule()
    schedule.relayed(PEER, 0)
    schedule.take(0)
    schedule.news(1)
    assert schedule.next_timeout() == inf
    schedule.failed(PEER, 15, "no luck")
    assert schedule.next_timeout() == 15 + NEWS_PAUSE
    # Of an earlier try it does not.
    schedule.take(20)
    schedule.failed(PEER, 21, "no luck")
    assert schedule.next_timeout() == 21 + MIN_DELAY


def test_who_is_reached_directly_or_has_gone_is_left_alone():
    schedule = failed()
    schedule.rest(PEER)
    schedule.rest(OTHER)
    schedule.news(1)
    assert schedule.next_timeout() == inf
    assert schedule.attempt(PEER).next_at is None
    # Whoever comes anew is tried again, but not sooner than a minute after it has failed.
    schedule.relayed(PEER, 10)
    assert schedule.next_timeout() == MIN_DELAY
    schedule.rest(PEER)
    schedule.relayed(PEER, 70)
    assert schedule.next_timeout() == 70
    # Another circuit beside the one that stands changes nothing.
    schedule.relayed(PEER, 90)
    assert schedule.next_timeout() == 70


@pytest.mark.parametrize(
    ("stood", "pause"), [(STABLE_TIME, STABLE_TIME), (STABLE_TIME - 1, MIN_DELAY)]
)
def test_a_direct_connection_that_is_lost_is_made_again_at_once_unless_it_was_short(stood, pause):
    schedule = failed()
    schedule.take(60)
    schedule.succeeded(PEER, 60)
    assert schedule.attempt(PEER) == Attempt(Outcome.SUCCEEDED, "", False, 0, 60, None)
    schedule.rest(PEER)
    schedule.relayed(PEER, 60 + stood)
    assert schedule.next_timeout() == 60 + pause
    # The pauses begin anew, too.
    schedule.take(60 + pause)
    assert schedule.failed(PEER, 200, "no luck") == 200 + MIN_DELAY


def test_who_has_gone_before_his_turn_is_skipped():
    schedule = failed()
    assert schedule.take(60) == [PEER]
    schedule.relayed(PEER, 60)
    assert schedule.attempt(PEER).outcome is Outcome.RUNNING
    schedule.skipped(PEER)
    schedule.skipped(PEER)
    assert schedule.attempt(PEER) == Attempt(Outcome.FAILED, "no luck", False, 1, 0, None)


def test_what_a_peer_has_begun_is_told_and_not_repeated_from_here():
    schedule = Schedule()
    schedule.served(PEER, 5, "no luck")
    schedule.served(PEER, 10, "no luck")
    assert schedule.attempt(PEER) == Attempt(Outcome.FAILED, "no luck", True, 2, 10, None)
    assert schedule.next_timeout() == inf
    schedule.served(PEER, 15, "")
    assert schedule.attempt(PEER) == Attempt(Outcome.SUCCEEDED, "", True, 0, 15, None)
    schedule.relayed(OTHER, 0)
    assert schedule.attempt(OTHER).outcome is Outcome.WAITING


def peers(count):
    return [PeerId(b"\x00\x24\x08\x01\x12\x20" + n.to_bytes(32, "big")) for n in range(count)]


def test_so_many_at_one_time_and_the_rest_when_there_is_room():
    schedule = Schedule()
    for peer in peers(AT_ONCE + 3):
        schedule.relayed(peer, 0)
    first = schedule.take(0)
    assert first == peers(AT_ONCE)
    assert (schedule.take(0), schedule.next_timeout()) == ([], inf)
    schedule.failed(first[0], 1, "no luck")
    schedule.succeeded(first[1], 1)
    schedule.skipped(first[2])
    assert schedule.next_timeout() == 0
    assert len(schedule.take(1)) == 3


def test_so_many_are_remembered_and_who_waits_for_nothing_goes_first():
    schedule = Schedule()
    crowd = peers(MAX_PEERS + 3)
    for peer in crowd[:MAX_PEERS]:
        schedule.relayed(peer, 0)
    running = schedule.take(0)
    schedule.rest(crowd[AT_ONCE + 5])
    schedule.relayed(crowd[MAX_PEERS], 0)
    assert schedule.attempt(crowd[AT_ONCE + 5]) is None
    # Then the first that is planned, and never one that is under way.
    schedule.served(crowd[MAX_PEERS + 1], 0, "")
    assert schedule.attempt(crowd[AT_ONCE]) is None
    assert len(schedule) == MAX_PEERS
    assert all(schedule.attempt(peer) for peer in running)


_STEPS = st.sampled_from(
    ["relayed", "rest", "news", "take", "failed", "succeeded", "skipped", "served"]
)


@given(st.lists(st.tuples(_STEPS, st.integers(0, 3), st.floats(0, 200)), max_size=60))
def test_whatever_happens_no_peer_is_punched_for_twice_at_a_time_or_too_soon(steps):
    schedule, now = Schedule(), 0.0
    crowd, running, ended = peers(4), set(), {}
    for step, number, wait in steps:
        now += wait
        peer = crowd[number]
        if step in ("failed", "succeeded", "skipped"):
            if peer in running:
                reason = ("no luck",) if step == "failed" else ()
                getattr(schedule, step)(*((peer,) if step == "skipped" else (peer, now, *reason)))
                running.discard(peer)
                if step == "failed":
                    ended[peer] = now
        elif step == "take":
            for each in schedule.take(now):
                assert each not in running
                assert now - ended.get(each, -inf) >= NEWS_PAUSE
                running.add(each)
        elif step == "news":
            schedule.news(now)
        else:
            more = {"rest": (), "relayed": (now,), "served": (now, "no luck")}[step]
            getattr(schedule, step)(peer, *more)
        for each in running:
            assert schedule.attempt(each).outcome is Outcome.RUNNING
