"""One relay's reservation: when it is asked for, renewed, and made again."""

from __future__ import annotations

from math import inf

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from isthmus.relay.circuit.supervisor import (
    NEWS_INTERVAL,
    Supervisor,
    SupervisorPolicy,
    SupervisorState,
    renewal_after,
)
from isthmus.transports.core.errors import ConfigError, LocalProtocolError

POLICY = SupervisorPolicy(jitter=0)
HOUR = 3600.0


def begun(now: float = 0.0, policy: SupervisorPolicy = POLICY) -> Supervisor:
    """A supervisor whose first attempt is under way."""
    supervisor = Supervisor(policy)
    supervisor.want(now)
    assert supervisor.handle_timeout(now)
    return supervisor


def reserved(now: float = 0.0, ttl: float = HOUR) -> Supervisor:
    supervisor = begun(now)
    supervisor.connected()
    supervisor.reserved(ttl, now)
    supervisor.round_trip = 0.05
    return supervisor


def next_attempt(supervisor: Supervisor, now: float) -> float:
    """Let time pass until an attempt begins; return when."""
    while not supervisor.handle_timeout(now):
        assert supervisor.next_timeout() < inf
        now = max(now, supervisor.next_timeout())
    return now


@pytest.mark.parametrize(
    ("ttl", "after"),
    [
        (3600, 2700),  # three quarters
        (7200, 5400),
        (600, 300),  # five minutes before the end
        (1000, 700),
        (330, 30),  # half a minute at least
        (120, 30),
        (40, 30),
        (20, 15),  # unless there is no half minute
    ],
)
def test_when_a_reservation_is_renewed(ttl, after):
    assert renewal_after(ttl) == pytest.approx(after)


@given(st.floats(0.01, 1e9))
def test_a_reservation_is_renewed_before_it_ends(ttl):
    assert 0 < renewal_after(ttl) <= 0.75 * ttl + 1e-6


def test_nothing_is_done_unless_it_is_wanted():
    supervisor = Supervisor()
    supervisor.news(0.0)
    assert not supervisor.handle_timeout(1e9)
    assert supervisor.next_timeout() == inf
    assert supervisor.state is SupervisorState.RESTING


def test_an_attempt_goes_through_its_states():
    supervisor = begun()
    assert supervisor.state is SupervisorState.CONNECTING
    supervisor.connected()
    assert supervisor.state is SupervisorState.RESERVING
    supervisor.reserved(HOUR, 1.0)
    assert supervisor.state is SupervisorState.RESERVED
    assert supervisor.until == 1.0 + HOUR
    assert supervisor.next_timeout() == 1.0 + 2700


def test_it_is_made_before_it_breaks():
    supervisor = reserved()
    now = next_attempt(supervisor, 0.0)
    assert now == 2700
    assert supervisor.is_reserved
    supervisor.connected()
    assert supervisor.is_reserved
    supervisor.refused(now, 0.0, "not now")
    assert supervisor.is_reserved
    later = next_attempt(supervisor, now)
    assert later == now + 2
    supervisor.reserved(HOUR, later)
    assert supervisor.until == later + HOUR


def test_what_cannot_be_renewed_is_asked_for_anew_at_its_end():
    supervisor, now, tries = reserved(ttl=60.0), 0.0, []
    while True:
        now = next_attempt(supervisor, now)
        tries.append(now)
        if not supervisor.is_reserved:
            break
        supervisor.failed(now, 0.0, "no answer")
    assert tries == pytest.approx([30, 32, 36, 44, 60])
    assert supervisor.reason == "the reservation has expired"


def test_a_relay_that_was_lost_is_tried_in_quick_succession():
    supervisor = reserved()
    supervisor.lost(100.0, 0.0, "it was killed")
    assert supervisor.state is SupervisorState.CONNECTING
    assert supervisor.until == -inf
    now, starts = 100.0, []
    for _ in range(6):
        now = next_attempt(supervisor, now)
        starts.append(now - 100)
        supervisor.failed(now, 0.0, "nothing listens")
        assert supervisor.state is SupervisorState.WAITING
    assert starts == pytest.approx([0.1, 0.35, 0.975, 1.675, 2.375, 3.075])


@given(st.lists(st.floats(0, 1), min_size=300, max_size=300), st.floats(0, 1))
def test_attempts_after_a_loss_are_close_for_a_minute_and_then_fewer(draws, slowness):
    supervisor = Supervisor()
    supervisor.want(0.0)
    supervisor.handle_timeout(0.0)
    supervisor.connected()
    supervisor.round_trip = 0.01
    supervisor.reserved(HOUR, 0.0)
    supervisor.lost(100.0, draws[0], "gone")
    now, ends, starts = 100.0, 100.0, []
    for draw in draws:
        now = next_attempt(supervisor, ends)
        starts.append(now)
        assert now - ends <= (0.7 if ends < 163 else 36) + 1e-9
        ends = now + slowness * supervisor.patience(now)
        assert supervisor.patience(now) <= (1.0 if now < 163 else 10.0)
        supervisor.failed(ends, draw, "still gone")
        if now > 1000:
            break
    assert sum(start < 163 for start in starts) <= 120
    assert sum(163 <= start < 463 for start in starts) <= 20


def test_a_relay_that_drops_what_it_gives_is_not_hammered():
    supervisor, now, starts = reserved(), 0.0, []
    while now < 60:
        supervisor.lost(now, 0.0, "dropped")
        now = next_attempt(supervisor, now)
        starts.append(now)
        supervisor.connected()
        supervisor.reserved(HOUR, now)
    assert len(starts) <= 90
    supervisor.lost(now + 1000, 0.0, "gone")
    assert next_attempt(supervisor, now + 1000) == pytest.approx(now + 1000.1)


def refusals(count: int, **options) -> list[float]:
    """The seconds between requests to a relay that says no to each at once."""
    supervisor, now, gaps = begun(), 0.0, []
    for _ in range(count):
        supervisor.refused(now, 0.0, "full", **options)
        assert supervisor.state is SupervisorState.REFUSED
        assert supervisor.reason == "full"
        before, now = now, next_attempt(supervisor, now)
        gaps.append(now - before)
    return gaps


def test_refusals_are_met_with_patience():
    assert refusals(25) == [4] * 16 + [8, 16, 32, 64, 128, 256, 300, 300, 300]


def test_the_only_relay_is_asked_again_soon_for_a_while():
    assert refusals(24, is_alone=True) == [1.5] * 10 + [4] * 12 + [8, 16]


def test_news_makes_it_try_at_once_but_not_more_often_than_counts():
    supervisor = begun()
    supervisor.refused(0.0, 0.0, "full")
    supervisor.news(0.5)
    assert supervisor.handle_timeout(0.5)
    supervisor.failed(0.5, 0.0, "gone")
    due = supervisor.next_timeout()
    supervisor.news(0.5 + NEWS_INTERVAL / 2)
    assert supervisor.next_timeout() == due
    supervisor.news(0.5 + NEWS_INTERVAL)
    assert supervisor.handle_timeout(0.5 + NEWS_INTERVAL)


def test_news_leaves_a_reservation_that_stands():
    supervisor = reserved()
    supervisor.news(10.0)
    assert supervisor.next_timeout() == 2700
    supervisor.renew(11.0)
    assert supervisor.handle_timeout(11.0)
    assert supervisor.is_reserved


def test_one_that_rests_lets_go_and_ignores_what_was_under_way():
    supervisor = begun()
    supervisor.rest()
    supervisor.connected()
    supervisor.reserved(HOUR, 1.0)
    assert supervisor.state is SupervisorState.RESTING
    assert supervisor.next_timeout() == inf
    supervisor.want(2.0)
    assert supervisor.handle_timeout(2.0)


def test_one_that_is_wanted_again_during_its_attempt_takes_what_that_brings():
    supervisor = begun()
    supervisor.rest()
    supervisor.want(1.0)
    assert not supervisor.handle_timeout(1.0)
    supervisor.reserved(HOUR, 2.0)
    assert supervisor.is_reserved


def test_one_that_refused_and_then_goes_is_asked_anew_once_it_is_back():
    supervisor = begun()
    supervisor.refused(0.0, 0.0, "full")
    supervisor.lost(0.5, 0.0, "it refuses, and closes the connection")
    assert supervisor.next_timeout() == 4
    supervisor.lost(2.0, 0.0, "it starts again")
    assert supervisor.next_timeout() == 2.1


def test_a_loss_during_renewal_leaves_the_attempt_to_it():
    supervisor = reserved()
    now = next_attempt(supervisor, 0.0)
    supervisor.lost(now, 0.0, "gone")
    assert supervisor.next_timeout() == inf
    supervisor.failed(now + 0.1, 0.0, "gone")
    assert supervisor.state is SupervisorState.WAITING


def test_results_need_an_attempt():
    supervisor = Supervisor()
    supervisor.want(0.0)
    for command in (
        supervisor.connected,
        lambda: supervisor.reserved(HOUR, 0.0),
        lambda: supervisor.failed(0.0, 0.0, ""),
        lambda: supervisor.refused(0.0, 0.0, ""),
    ):
        with pytest.raises(LocalProtocolError, match="no attempt"):
            command()


def test_an_unknown_path_gets_more_time():
    supervisor = begun()
    assert supervisor.patience(0.0) == 10
    supervisor.connected()
    supervisor.round_trip = 0.05
    supervisor.reserved(HOUR, 0.0)
    assert supervisor.patience(0.0) == 10  # a renewal hurts nobody
    supervisor.lost(1.0, 0.0, "")
    assert supervisor.patience(1.0) == 1.0
    assert supervisor.patience(65.0) == 10
    supervisor.round_trip = 0.5
    assert supervisor.patience(1.0) == 4.0


@pytest.mark.parametrize(
    "wrong",
    [
        {"initial_delay": 0},
        {"eager_delay": 0.01},
        {"max_delay": 0.5},
        {"lone_delay": 0},
        {"refusal_delay": 1},
        {"max_refusal_delay": 3},
        {"known_attempt_time": 11},
        {"jitter": 1},
    ],
)
def test_policies_that_make_no_sense(wrong):
    with pytest.raises(ConfigError):
        SupervisorPolicy(**wrong)


class SupervisorModel(RuleBasedStateMachine):
    """Whatever happens: wanted means that something is under way or due, in bounded time."""

    def __init__(self) -> None:
        super().__init__()
        self.supervisor = Supervisor()
        self.now = 0.0
        self.starts: list[float] = []

    @rule()
    def want(self):
        self.supervisor.want(self.now)

    @rule()
    def rest(self):
        self.supervisor.rest()

    @rule(seconds=st.floats(0, 100))
    def wait(self, seconds):
        self.now += seconds
        self._act()

    @precondition(lambda self: self.supervisor.next_timeout() < inf)
    @rule()
    def wait_until_due(self):
        self.now = max(self.now, self.supervisor.next_timeout())
        self._act()

    @precondition(lambda self: self.supervisor.is_attempting)
    @rule(random=st.floats(0, 1), what=st.sampled_from(["reserved", "failed", "refused"]))
    def finish(self, random, what):
        if what == "reserved":
            self.supervisor.connected()
            self.supervisor.reserved(60 + 3600 * random, self.now)
        elif what == "failed":
            self.supervisor.failed(self.now, random, "why")
        else:
            self.supervisor.refused(self.now, random, "why")

    @rule(random=st.floats(0, 1))
    def lose(self, random):
        self.supervisor.lost(self.now, random, "lost")

    @rule()
    def hear(self):
        self.supervisor.news(self.now)

    @invariant()
    def is_never_forgotten(self):
        supervisor = self.supervisor
        if not supervisor.is_wanted:
            assert supervisor.state is SupervisorState.RESTING
            return
        assert supervisor.state is not SupervisorState.RESTING
        assert supervisor.is_attempting or supervisor.next_timeout() < inf
        if not (supervisor.is_attempting or supervisor.is_reserved):
            assert supervisor.next_timeout() <= self.now + 300
        if supervisor.is_reserved:
            assert supervisor.next_timeout() <= supervisor.until

    def _act(self):
        if self.supervisor.handle_timeout(self.now):
            self.starts.append(self.now)
        if self.supervisor.is_reserved:
            assert self.now < self.supervisor.until


SupervisorModel.TestCase.settings = settings(max_examples=100, stateful_step_count=30)
TestSupervisorModel = SupervisorModel.TestCase
