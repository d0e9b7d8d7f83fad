"""When a connection is probed, and when silence is taken for an answer."""

from __future__ import annotations

from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st
from isthmus.node.liveness import (
    IDLE_INTERVAL,
    MIN_PATIENCE,
    PATIENCE,
    PROBE_INTERVAL,
    SILENCE,
    UNKNOWN_RTT,
    Beat,
    Pulse,
)

SLOW = 0.3


def asked(rtt=0.001, now=0.0):
    """One that has just been probed, while somebody waits."""
    pulse = Pulse()
    pulse.attend(now - PROBE_INTERVAL)
    assert pulse.handle_timeout(now, -inf, rtt) is Beat.PROBE
    return pulse


def test_nothing_is_probed_while_nobody_waits():
    pulse = Pulse()
    assert pulse.is_needless
    assert pulse.handle_timeout(1e9, 0, None) is None


def test_what_takes_no_time_is_not_probed():
    pulse = Pulse()
    pulse.attend(0)
    assert pulse.is_attended
    assert pulse.next_timeout() == PROBE_INTERVAL
    pulse.release(PROBE_INTERVAL / 2)
    assert pulse.is_needless
    assert not pulse.is_attended


def test_probes_follow_each_other_until_the_last_one_waits_no_more():
    pulse = asked()
    pulse.attend(0)
    assert pulse.answered(0.01, 0.01) is None
    assert pulse.next_timeout() == pytest.approx(0.01 + PROBE_INTERVAL)
    pulse.release(0.02)
    assert pulse.next_timeout() < inf
    pulse.release(0.02)
    assert pulse.is_needless


@pytest.mark.parametrize(
    ("rtt", "patience"),
    [(0.001, MIN_PATIENCE), (SLOW, PATIENCE * SLOW), (None, PATIENCE * UNKNOWN_RTT)],
)
def test_an_unanswered_probe_makes_it_suspect(rtt, patience):
    pulse = asked(rtt)
    assert pulse.next_timeout() == pytest.approx(patience)
    assert pulse.handle_timeout(patience - 0.001, -1, rtt) is None
    assert pulse.handle_timeout(patience, -1, rtt) is Beat.SUSPECT
    assert pulse.is_suspect
    assert pulse.next_timeout() == SILENCE
    assert pulse.handle_timeout(SILENCE, -1, rtt) is Beat.SILENT


def test_the_last_round_trip_counts_where_it_was_longer():
    pulse = asked(0.001)
    pulse.answered(SLOW, SLOW)
    now = SLOW + PROBE_INTERVAL
    assert pulse.handle_timeout(now, now, 0.001) is Beat.PROBE
    assert pulse.next_timeout() == pytest.approx(now + PATIENCE * SLOW)


def test_any_byte_is_a_sign_of_life():
    pulse = asked()
    assert pulse.handle_timeout(MIN_PATIENCE, 0.3, 0.001) is None
    assert not pulse.is_suspect
    assert pulse.next_timeout() == pytest.approx(0.3 + MIN_PATIENCE)
    assert pulse.handle_timeout(0.3 + MIN_PATIENCE, 0.3, 0.001) is Beat.SUSPECT
    due = pulse.next_timeout()
    assert due == pytest.approx(0.3 + SILENCE)
    # It spoke, and has been silent again for too long to be trusted.
    assert pulse.handle_timeout(due, due - 1, 0.001) is None
    assert pulse.is_suspect
    assert pulse.next_timeout() == pytest.approx(due - 1 + SILENCE)
    due += SILENCE - 1
    assert pulse.handle_timeout(due, due - 0.1, 0.001) is Beat.ALIVE
    assert not pulse.is_suspect


def test_an_answer_brings_it_back_also_when_nobody_waits_any_more():
    pulse = asked()
    pulse.handle_timeout(MIN_PATIENCE, -1, None)
    pulse.release(1)
    assert pulse.is_suspect
    assert pulse.next_timeout() == SILENCE
    assert pulse.answered(2, 2) is Beat.ALIVE
    assert not pulse.is_suspect
    assert pulse.is_needless


def test_paths_that_are_compared_are_probed_now_and_then():
    pulse = Pulse()
    pulse.compare(5, is_one_of_several=True)
    assert pulse.next_timeout() == 5
    assert pulse.handle_timeout(5, 0, None) is Beat.PROBE
    pulse.answered(5.1, 0.1)
    assert pulse.next_timeout() == pytest.approx(5.1 + IDLE_INTERVAL)
    pulse.compare(6, is_one_of_several=True)
    assert pulse.next_timeout() == pytest.approx(5.1 + IDLE_INTERVAL)
    pulse.attend(7)
    assert pulse.next_timeout() == pytest.approx(7 + PROBE_INTERVAL)
    pulse.release(7.05)
    assert pulse.next_timeout() == pytest.approx(7.05 + IDLE_INTERVAL)
    pulse.compare(8, is_one_of_several=False)
    assert pulse.is_needless


@given(
    rtts=st.lists(st.floats(0.0001, 2.0), max_size=30),
    cut=st.floats(0.0, 5.0),
)
def test_silence_is_noticed_in_time_and_only_silence(rtts, cut):
    """A path answers for a while, in whatever time, and then no more."""
    pulse = Pulse()
    now = 0.0
    pulse.attend(now)
    last = last_rtt = 0.0
    for rtt in rtts:
        if now > cut:
            break
        now = pulse.next_timeout()
        mean = last_rtt or None
        assert pulse.handle_timeout(now, last, mean) is Beat.PROBE
        if rtt > pulse.next_timeout() - now:
            break  # so slow at once that it is taken for silence
        now, last, last_rtt = now + rtt, now + rtt, rtt
        assert pulse.answered(now, rtt) is None
    begun = now
    while (beat := pulse.handle_timeout(now, last, last_rtt or None)) is not Beat.SUSPECT:
        assert beat in (Beat.PROBE, None)
        now = pulse.next_timeout()
    patience = max(PATIENCE * (last_rtt or UNKNOWN_RTT), MIN_PATIENCE)
    assert now - begun <= PROBE_INTERVAL + patience + 1e-9
