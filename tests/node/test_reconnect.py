"""The delays between attempts: bounds for every policy, and the times that people wait."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from isthmus.node.reconnect import EAGER_DELAY, EAGER_TIME, Backoff, ReconnectPolicy
from isthmus.transports.core.errors import ConfigError

DRAWS = st.lists(st.floats(0, 1), min_size=200, max_size=200)


def starts(policy: ReconnectPolicy, draws: list[float], *, until: float) -> list[float]:
    """When attempts begin after a loss at 0, if each fails at once."""
    backoff, now, found = Backoff(policy, 0.0), 0.0, []
    for draw in draws:
        if backoff.is_over or now > until:
            break
        now += backoff.delay(now, draw)
        found.append(now)
    return found


def test_the_first_delays():
    policy = ReconnectPolicy(jitter=0)
    found = starts(policy, [0.5] * 6, until=60)
    assert found == pytest.approx([0.1, 0.35, 0.975, 1.675, 2.375, 3.075])


@given(DRAWS)
def test_a_peer_that_comes_back_is_dialled_soon(draws):
    found = starts(ReconnectPolicy(max_attempts=None), draws, until=400)
    gaps = [late - early for early, late in zip([0.0, *found], found, strict=False)]
    for start, gap in zip(found, gaps, strict=True):
        if start < EAGER_TIME:
            assert gap <= EAGER_DELAY + 1e-9
        assert gap <= 30 * 1.2 + 1e-9
    # A minute of these and some minutes of those, and no more.
    assert 85 <= sum(start < EAGER_TIME for start in found) <= 115
    assert sum(EAGER_TIME <= start < 360 for start in found) <= 20


@given(
    st.builds(
        ReconnectPolicy,
        max_attempts=st.one_of(st.none(), st.integers(0, 50)),
        initial_delay=st.floats(0.01, 5),
        max_delay=st.floats(5, 100),
        backoff_multiplier=st.floats(1, 5),
        jitter=st.floats(0, 0.99),
    ),
    DRAWS,
)
def test_no_policy_hammers_or_waits_for_ever(policy, draws):
    found = starts(policy, draws, until=1e9)
    if policy.max_attempts is not None:
        assert len(found) == policy.max_attempts
    shortest = min(policy.initial_delay, EAGER_DELAY, policy.max_delay) * (1 - policy.jitter)
    for early, late in zip([0.0, *found], found, strict=False):
        assert shortest - 1e-9 <= late - early <= policy.max_delay * (1 + policy.jitter) + 1e-6


def test_news_begins_anew():
    backoff = Backoff(ReconnectPolicy(max_attempts=2, jitter=0), 0.0)
    assert backoff.delay(0.0, 0.5) == 0.1
    assert backoff.delay(0.1, 0.5) == 0.25
    assert backoff.is_over
    backoff.reset(100.0)
    assert not backoff.is_over
    assert backoff.delay(100.0, 0.5) == 0.1


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("max_attempts", -1),
        ("initial_delay", 0),
        ("initial_delay", 31),
        ("backoff_multiplier", 0.9),
        ("jitter", 1),
        ("jitter", -0.1),
    ],
)
def test_what_makes_no_sense_is_refused(setting, value):
    with pytest.raises(ConfigError, match=rf"reconnect\.{setting}"):
        ReconnectPolicy(**{setting: value})
