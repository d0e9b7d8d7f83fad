"""The in-flight limit over a simulated bottleneck: a rate, a delay and a queue, in virtual time."""

from __future__ import annotations

from heapq import heappop, heappush
from math import inf
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from isthmus.transports.inflight import (
    LARGEST_RECORD,
    MARKER_TIMEOUT,
    MAX_MARKER_DISTANCE,
    MAX_MARKERS,
    MAX_SLACK,
    MIN_LIMIT,
    MIN_RTT_AGE,
    QUEUE_TARGET,
    RELEASE_TIME,
    START_LIMIT,
    InFlightLimit,
)

if TYPE_CHECKING:
    from collections.abc import Callable

MBIT = 125_000.0
# What the peer's event loop adds to every answer.
LOOP = 0.0003
PING = 12


class Bottleneck:
    """A sender that always has data, the limit under test, and a path whose queue holds 100 ms."""

    def __init__(
        self, rate: float, rtt: float, *, loses: Callable[[int], bool] = lambda _: False
    ) -> None:
        self.rate = rate
        self.rtt = rtt
        self.foreign = 0.0  # seconds of queue that others keep
        self.loses = loses
        self.now = 0.0
        self.is_sending = True
        self.is_held_back = False  # by its own slowness: it hardly keeps a queue
        self.pace = inf  # bytes a second that the sender makes
        self._paced_until = 0.0
        self.limit = InFlightLimit()
        self.limit.measured(rtt + LOOP, 0.0)
        self.limit.activate(0.0)
        self._capacity = max(rate * 0.1, 65_536)
        self._free_at = 0.0
        self._last_arrival = 0.0
        self._pongs: list[tuple[float, int]] = []
        self._value = 0
        self._delivered: list[tuple[float, int]] = []
        self._queues: list[tuple[float, float]] = []

    @property
    def queue(self) -> float:
        """Seconds that a byte written now would wait at the bottleneck for ours before it."""
        return max(self._free_at - self.now, 0.0)

    def run(self, until: float) -> None:
        """Let time pass, from event to event."""
        limit = self.limit
        while self.now < until:
            self._send()
            times = [until, limit.next_timeout()]
            if self._pongs:
                times.append(self._pongs[0][0])
            if self._paced_until > self.now:
                times.append(self._paced_until)
            elif self.is_sending and self.is_held_back:
                times.append(self.now + max(self.queue - 0.0001, 1e-4))
            elif self.is_sending and self.queue * self.rate >= self._capacity:
                times.append(self.now + max(self.queue - 0.75 * self._capacity / self.rate, 1e-4))
            self.now = max(self.now, min(times))
            limit.handle_timeout(self.now)
            while self._pongs and self._pongs[0][0] <= self.now:
                limit.answered(heappop(self._pongs)[1], self.now)
            self._queues.append((self.now, self.queue))

    def utilisation(self, start: float, end: float) -> float:
        """The share of the rate that was delivered between two times."""
        return sum(s for t, s in self._delivered if start <= t < end) / (end - start) / self.rate

    def worst_queue(self, start: float, end: float) -> float:
        """The longest queue that our own bytes made between two times, in seconds."""
        return max(queue for time, queue in self._queues if start <= time < end)

    def _send(self) -> None:
        limit = self.limit
        while self.is_sending and self.queue * self.rate < self._capacity:
            if (self.is_held_back and self.queue > 0.0002) or self.now < self._paced_until:
                return
            if limit.marker_due():
                limit.mark(self._value, self.now)
                arrival = self._transmit(PING)
                if not self.loses(self._value):
                    heappush(self._pongs, (arrival + self.rtt / 2 + LOOP, self._value))
                self._value += 1
            if limit.room(self.now) <= 0:
                return
            size = limit.record_size(65_519)
            self._paced_until = max(self.now, self._paced_until) + size / self.pace
            self._delivered.append((self._transmit(size), size))

    def _transmit(self, size: int) -> float:
        self.limit.written(size, self.now)
        self._free_at = max(self.now, self._free_at) + size / self.rate
        # A byte stream: what is written later never arrives earlier.
        arrival = self._free_at + self.rtt / 2 + self.foreign
        self._last_arrival = max(arrival, self._last_arrival)
        return self._last_arrival


# Convergence

PATHS = [
    pytest.param(20 * MBIT, 0.020, 0.008, id="20 Mbit/s, 20 ms"),
    pytest.param(100 * MBIT, 0.080, 0.008, id="100 Mbit/s, 80 ms"),
    # The smallest record, 4 KiB, is 6.6 ms of this path.
    pytest.param(5 * MBIT, 0.030, 0.010, id="5 Mbit/s, 30 ms"),
    pytest.param(100 * MBIT, 0.002, 0.008, id="100 Mbit/s, 2 ms"),
]


@pytest.mark.parametrize(("rate", "rtt", "queue"), PATHS)
def test_the_link_is_full_and_the_queue_is_short(rate: float, rtt: float, queue: float):
    path = Bottleneck(rate, rtt)
    path.run(6.0)
    assert path.utilisation(2.0, 6.0 - rtt) >= 0.9
    assert path.worst_queue(3.0, 6.0) <= queue
    ideal = rate * (rtt + 0.003)
    record = path.limit.record_size(65_536)
    assert path.limit.rate == pytest.approx(rate, rel=0.02)
    # Growth is by a quarter, and one record goes beyond.
    assert 0.95 * ideal <= path.limit.limit <= max(1.3 * ideal + record, MIN_LIMIT)
    assert path.limit.in_flight <= path.limit.limit + record + PING


@pytest.mark.parametrize(
    ("rate", "rtt"),
    [(20 * MBIT, 0.02), (100 * MBIT, 0.002), (5 * MBIT, 0.03), (100 * MBIT, 0.08)],
)
def test_measuring_the_minimum_again_costs_little(rate: float, rtt: float):
    path = Bottleneck(rate, rtt)
    path.run(2.2 * MIN_RTT_AGE)
    assert path.utilisation(MIN_RTT_AGE - 1, 2 * MIN_RTT_AGE) >= 0.9
    assert path.limit.min_rtt == pytest.approx(rtt + LOOP, rel=0.05, abs=0.001)
    # While the path fills again after the measurement there may be half of it in the queue.
    assert path.worst_queue(3.0, 2.2 * MIN_RTT_AGE) <= rtt / 2 + 0.01


def test_a_long_fat_path_is_filled():
    path = Bottleneck(50 * MBIT, 0.2)
    path.run(9.0)
    assert path.utilisation(3.0, 8.8) >= 0.9
    assert path.worst_queue(5.0, 9.0) <= 0.012


def test_a_path_that_becomes_faster_is_filled_again():
    path = Bottleneck(10 * MBIT, 0.04)
    path.run(4.0)
    before = path.limit.limit
    path.rate *= 5
    path.run(8.0)
    assert path.limit.limit > 4 * before
    assert path.utilisation(6.0, 7.9) >= 0.9


def test_a_slow_path_is_not_taken_for_one_with_a_foreign_queue():
    path = Bottleneck(2 * MBIT, 0.05)
    path.run(9.0)
    assert path.utilisation(3.0, 8.9) >= 0.9
    assert path.worst_queue(5.0, 9.0) <= 0.02


def test_a_pause_of_the_application_is_no_slowness_of_the_path():
    path = Bottleneck(20 * MBIT, 0.02)
    path.run(3.0)
    path.is_sending = False
    path.run(7.0)
    path.is_sending = True
    path.run(9.0)
    assert path.utilisation(7.5, 8.9) >= 0.9


# Foreign queues and other paths


def test_a_foreign_queue_releases_the_limit_for_a_while():
    path = Bottleneck(20 * MBIT, 0.02)
    path.run(3.0)
    assert path.limit.room(path.now) < inf
    path.foreign = 0.05
    path.run(5.0)
    assert path.limit.room(path.now) == inf
    assert path.utilisation(4.5, 4.9) >= 0.9
    path.run(4.0 + RELEASE_TIME)
    assert path.limit.room(path.now) < inf
    path.run(7.0 + RELEASE_TIME)
    # By then the foreign queue is a part of the minimum.
    assert path.limit.min_rtt == pytest.approx(0.07, rel=0.05)
    assert path.utilisation(5.0 + RELEASE_TIME, 6.9 + RELEASE_TIME) >= 0.9


def test_a_longer_path_is_learnt_by_measuring_the_minimum_again():
    path = Bottleneck(20 * MBIT, 0.02)
    path.run(3.0)
    path.rtt = 0.1
    path.run(20.0)
    assert path.limit.min_rtt == pytest.approx(0.1, rel=0.05)
    assert path.utilisation(17.0, 19.9) >= 0.9
    assert path.worst_queue(17.0, 19.9) <= 0.01


def test_a_shorter_path_is_learnt_at_once():
    path = Bottleneck(20 * MBIT, 0.1)
    path.run(3.0)
    path.rtt = 0.02
    path.run(4.0)
    # Within the record that goes ahead of a marker.
    assert 0.02 < path.limit.min_rtt < 0.025
    path.run(6.0)
    assert path.utilisation(4.0, 5.9) >= 0.9


# Lost markers


def test_every_third_answer_lost_is_no_loss_of_speed():
    path = Bottleneck(20 * MBIT, 0.02, loses=lambda value: value % 3 == 0)
    path.run(8.0)
    assert path.utilisation(3.0, 7.9) >= 0.9
    assert path.worst_queue(3.0, 8.0) <= 0.01


def test_all_answers_lost_for_a_while_is_a_stall_that_ends():
    path = Bottleneck(20 * MBIT, 0.02, loses=lambda value: 500 <= value < 510)
    path.run(9.0)
    assert path.utilisation(6.0, 8.9) >= 0.9


def test_a_peer_that_never_answers_is_not_limited():
    path = Bottleneck(20 * MBIT, 0.02, loses=lambda _: True)
    path.run(5.0)
    assert path.limit.limit == inf
    assert path.utilisation(1.0, 4.9) >= 0.99


# One call at a time


@pytest.fixture
def limit() -> InFlightLimit:
    return InFlightLimit()


def test_it_limits_nothing_until_it_is_active(limit: InFlightLimit):
    limit.written(10**9, 0.0)
    assert limit.room(0.0) == inf
    assert not limit.marker_due()
    assert limit.next_timeout() == inf
    assert (limit.frame_size(16_000), limit.record_size(65_000)) == (16_000, 65_000)
    limit.answered(7, 0.0)
    assert limit.rate is limit.min_rtt is None


@pytest.mark.parametrize(("rate", "largest"), [(30e6, 16_350), (40e6, LARGEST_RECORD)])
def test_a_path_that_takes_a_record_in_2_ms_gets_frames_as_large(
    limit: InFlightLimit, rate: float, largest: int
):
    for step in range(100):
        limit.written(int(rate * 0.001), step * 0.001)
    assert limit.frame_size(16_350) == largest
    # A pause counts as slowness, and the limit has frames of its own.
    limit.written(1000, 10.0)
    assert limit.frame_size(16_350) == 16_350
    limit.activate(11.0)
    assert limit.frame_size(16_350) == 16_350


def test_a_fast_path_without_a_queue_is_only_watched():
    path = Bottleneck(1e9, 0.0002)
    path.is_held_back = True
    path.run(1.0)
    limit = path.limit
    assert limit.room(path.now) > limit.limit
    before = path._value
    path.run(2.0)
    assert path._value - before <= 2 / MAX_SLACK + 1
    assert path.utilisation(1.0, 2.0) >= 0.98


def test_where_markers_only_watch_the_short_answer_is_the_long_one():
    path = Bottleneck(1e9, 0.0002)
    path.is_held_back = True
    seen = set()
    for step in range(2000):
        path.run(step * 0.0005)
        # Both kinds of time: a queue now and then brings the limit back.
        path.is_held_back = step % 100 < 90
        limit = path.limit
        is_free = limit.is_free(path.now)
        seen.add(is_free)
        if is_free:
            assert not limit.marker_due()
            assert limit.room(path.now) > 0
            assert limit.record_size(65_519) == 65_519
    assert seen == {True, False}
    limit.deactivate()
    assert not limit.is_free(path.now)


def test_a_receiver_that_is_the_slower_one_gathers_no_queue_worth_mentioning():
    path = Bottleneck(2e9, 0.0001)
    path.pace = 2.1e9
    path.run(2.0)
    assert path.worst_queue(1.0, 2.0) < 0.001
    assert path.utilisation(1.0, 1.9) >= 0.95


def test_a_queue_on_a_watched_path_brings_the_limit_back():
    path = Bottleneck(1e9, 0.0002)
    path.is_held_back = True
    path.run(1.0)
    assert path.limit.room(path.now) > path.limit.limit
    # No longer: what the sender has beyond the rate waits at the bottleneck.
    path.is_held_back = False
    path.run(3.0)
    assert path.limit.room(path.now) <= path.limit.limit
    assert path.worst_queue(1.0, 1.5) <= MAX_SLACK + QUEUE_TARGET
    assert path.worst_queue(1.5, 3.0) <= 0.008
    assert path.utilisation(1.5, 3.0) >= 0.9


def test_an_answer_that_is_late_brings_the_limit_back(limit: InFlightLimit):
    limit.activate(0.0)
    for value in range(20):
        limit.mark(value, value * 0.001)
        limit.written(1_000_000, value * 0.001)
        limit.answered(value, value * 0.001 + 0.0002)
    limit.mark(20, 0.02)
    assert limit.room(0.0201) > limit.limit
    assert limit.room(0.02 + 0.0002 + QUEUE_TARGET + 0.0001) <= limit.limit


def test_activation_starts_from_nothing_in_flight(limit: InFlightLimit):
    limit.written(10**6, 4.0)
    limit.activate(5.0)
    assert limit.in_flight == 0
    assert limit.marker_due()
    limit.mark(1, 5.0)
    assert not limit.marker_due()
    limit.written(1000, 5.0)
    limit.activate(6.0)
    assert limit.in_flight == 1000
    assert limit.next_timeout() == 5.0 + MARKER_TIMEOUT


def test_deactivation_ends_the_limit_and_a_later_start_forgets_the_markers(limit: InFlightLimit):
    path = Bottleneck(20 * MBIT, 0.02)
    path.run(2.0)
    limit = path.limit
    assert limit.frame_size(16_350) == pytest.approx(20 * MBIT * 0.002, rel=0.02)
    assert limit.record_size(65_519) == pytest.approx(20 * MBIT * 0.004, rel=0.02)
    limit.deactivate()
    assert limit.room(2.0) == inf
    assert limit.next_timeout() == inf
    assert limit.frame_size(16_350) == 16_350
    limit.activate(3.0)
    assert limit.limit == START_LIMIT
    limit.deactivate()
    limit.activate(3.0, is_busy=True)
    assert limit.limit == inf
    assert limit.in_flight == 0
    before = limit.min_rtt
    limit.answered(path._value - 1, 3.0)
    assert (limit.in_flight, limit.min_rtt) == (0, before)


def test_an_answer_acknowledges_all_markers_before_it(limit: InFlightLimit):
    limit.activate(0.0)
    for value in range(3):
        limit.mark(value, 0.0)
        limit.written(1000, 0.0)
    limit.answered(1, 0.1)
    assert limit.in_flight == 2000
    limit.answered(0, 0.2)
    assert limit.in_flight == 2000
    limit.answered(2, 0.2)
    assert limit.in_flight == 1000


def test_an_answer_that_acknowledges_nothing_new_tells_no_rate(limit: InFlightLimit):
    limit.activate(0.0)
    limit.mark(0, 0.0)
    limit.answered(0, 0.0)
    limit.mark(1, 1.0)
    limit.answered(1, 1.1)
    assert limit.rate is None
    assert limit.min_rtt == 0.0


def test_a_lower_round_trip_of_any_ping_counts_and_a_higher_does_not(limit: InFlightLimit):
    limit.measured(0.05, 0.0)
    limit.measured(0.08, 1.0)
    assert limit.min_rtt == 0.05
    limit.measured(0.03, 2.0)
    assert limit.min_rtt == 0.03
    limit.measured(0.09, 3.0, is_probe=True)
    assert limit.min_rtt == 0.09


def test_markers_are_bounded_and_given_up_one_by_one(limit: InFlightLimit):
    limit.activate(0.0)
    for value in range(MAX_MARKERS):
        assert limit.marker_due()
        limit.mark(value, value / 100)
        limit.written(MAX_MARKER_DISTANCE, value / 100)
    assert not limit.marker_due()
    limit.handle_timeout(0.9)
    assert not limit.marker_due()
    limit.handle_timeout(1.0)
    assert limit.marker_due()
    assert limit.next_timeout() == 0.01 + MARKER_TIMEOUT
    limit.handle_timeout(2.0)
    assert limit.next_timeout() == inf


CALLS = st.lists(
    st.tuples(
        st.sampled_from(["written", "mark", "answer", "ping", "timeout", "activate", "stop"]),
        st.integers(0, 100_000),
        st.floats(0, 3),
    ),
    max_size=80,
)


@settings(max_examples=150, deadline=None)
@given(CALLS)
def test_whatever_is_called_the_bounds_hold(calls):
    limit, now, values = InFlightLimit(), 0.0, 0
    for name, number, seconds in calls:
        now += seconds
        match name:
            case "written":
                limit.written(min(number, limit.record_size(65_519)), now)
            case "mark" if limit.marker_due():
                limit.mark(values, now)
                values += 1
            case "answer" if values:
                limit.answered(number % values, now)
            case "ping":
                limit.measured(seconds, now)
            case "timeout":
                limit.handle_timeout(now)
            case "activate":
                limit.activate(now)
            case "stop":
                limit.deactivate()
        assert limit.in_flight >= 0
        assert limit.room(now) >= 0
        assert limit.limit > 0
        assert len(limit._markers) <= MAX_MARKERS
        assert limit.min_rtt is None or limit.min_rtt >= 0
        assert 1 <= limit.frame_size(16_000) <= LARGEST_RECORD
        assert 1 <= limit.record_size(65_519) <= 65_519
        # A stall always ends: either there is room, or a marker is due, or one is awaited.
        assert limit.room(now) > 0 or limit.marker_due() or limit._markers
