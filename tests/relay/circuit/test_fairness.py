"""Who of the peers that use a relay may move bytes, on a virtual clock."""

from __future__ import annotations

import pytest
from isthmus.relay.circuit.fairness import LARGEST_CHUNK, LEAST_CHUNK, MAX_LATE, ROUND, FairShare

BANDWIDTH = 6_250_000.0  # 50 Mbit/s


class Line:
    """Circuits that always have something to move, as the driver of a relay runs them."""

    def __init__(self, bandwidth, greedy):
        self.now = 0.0
        self.share = FairShare(bandwidth, 0.0)
        self.moved = dict.fromkeys(greedy, 0)
        self.ready = []
        for source, circuits in greedy.items():
            for number in range(circuits):
                self.share.join(source)
                self.ready.append((source, number))

    def step(self):
        """Let everybody move that may, then wait for the next release."""
        share, ready = self.share, self.ready
        self.ready = []
        for ticket in ready:
            source = ticket[0]
            while True:
                self.moved[source] += share.chunk
                if not share.spend(source, share.chunk):
                    share.wait(source, ticket)
                    break
        self.now = max(self.now, share.next_release(self.now))
        self.ready = share.release(self.now)

    def run(self, seconds):
        while self.now < seconds:
            self.step()


def test_many_circuits_get_no_more_than_one():
    line = Line(BANDWIDTH, {"flood": 16, "one": 1})
    line.run(10.0)
    shares = [line.moved[source] / sum(line.moved.values()) for source in ("flood", "one")]
    assert shares == pytest.approx([0.5, 0.5], abs=0.05)
    assert sum(line.moved.values()) == pytest.approx(BANDWIDTH * 10, rel=0.1)


def test_a_release_frees_no_more_circuits_than_it_has_bytes_for():
    """Sixteen that wait do not all move at once, however little was released."""
    share = FairShare(BANDWIDTH, 0.0)
    for number in range(16):
        share.join("flood")
        share.wait("flood", number)
    assert share.release(1.0) == [0]
    assert not share.spend("flood", share.chunk)


@pytest.mark.parametrize("bandwidth", [16_384.0, BANDWIDTH, 1e9])
def test_who_is_alone_gets_all(bandwidth):
    line = Line(bandwidth, {"one": 3})
    line.run(10.0)
    assert line.moved["one"] == pytest.approx(bandwidth * 10, rel=0.1)


def test_without_a_bandwidth_the_loop_sets_the_pace():
    line = Line(None, {"flood": 16, "one": 1})
    for _ in range(2000):
        line.step()
    assert line.now == 0.0
    assert line.moved["one"] / line.moved["flood"] == pytest.approx(1, abs=0.1)


def test_who_is_alone_never_waits_without_a_bandwidth():
    share = FairShare(None, 0.0)
    share.join("one")
    assert all(share.spend("one", LARGEST_CHUNK) for _ in range(100))
    assert share.next_release(0.0) == float("inf")


def test_who_moves_little_hardly_waits_beside_a_flood():
    line = Line(BANDWIDTH, {"flood": 16})
    share = line.share
    share.join("echo")
    delays = []
    for _ in range(1000):
        line.step()
        if not share.spend("echo", 64):
            began = line.now
            share.wait("echo", "echo")
            while "echo" not in line.ready:
                line.step()
            line.ready.remove("echo")
            delays.append(line.now - began)
    assert len(delays) < 20
    assert max(delays, default=0) < 0.02


def test_a_source_that_left_owes_nothing_and_has_nothing():
    share = FairShare(BANDWIDTH, 0.0)
    share.join("a")
    share.wait("a", 1)
    share.wait("a", 2)
    share.forget("a", 1)
    share.forget("a", 1)
    assert share.release(1.0) == [2]
    assert share.next_release(1.0) == float("inf")
    share.leave("a")
    share.forget("a", 2)
    share.join("a")
    assert not share.spend("a", 1)


def test_a_late_timer_is_made_up_for_but_not_by_more_than_some_rounds():
    share = FairShare(BANDWIDTH, 0.0)
    share.join("a")
    released = 0
    share.spend("a", 10**9)
    share.wait("a", 1)
    while share.next_release(100.0) <= 100.0:
        assert share.release(100.0) == []
        released += 1
    assert 1 < released <= MAX_LATE / ROUND + 1


@pytest.mark.parametrize("bandwidth", [16_384.0, BANDWIDTH, 1e9, None])
def test_chunks_have_bounds(bandwidth):
    assert LEAST_CHUNK <= FairShare(bandwidth, 0.0).chunk <= LARGEST_CHUNK


def rates(moved):
    """Return what each source may hope for after a second in which each has moved so much."""
    share = FairShare(BANDWIDTH, 0.0)
    for source, size in moved.items():
        share.join(source)
        share.spend(source, size)
    return {source: share.rate(source, 1.0) / BANDWIDTH for source in moved}


def test_who_is_alone_may_hope_for_all():
    assert rates({"flood": BANDWIDTH}) == {"flood": 1.0}


def test_of_two_that_want_as_much_each_may_hope_for_half():
    found = rates({"one": BANDWIDTH / 2, "other": BANDWIDTH / 2})
    assert found == {"one": 0.5, "other": 0.5}


def test_one_that_begins_may_hope_for_half_and_then_the_other_for_no_more():
    found = rates({"old": BANDWIDTH, "new": BANDWIDTH / 4})
    assert found == pytest.approx({"old": 0.75, "new": 0.5})


def test_one_that_moves_little_costs_the_other_no_more_than_that():
    found = rates({"flood": 0.9 * BANDWIDTH, "echo": 0.01 * BANDWIDTH})
    assert found == pytest.approx({"flood": 1.0, "echo": 0.5})


def test_without_a_bandwidth_nothing_is_to_be_hoped_for():
    share = FairShare(None, 0.0)
    share.join("flood")
    assert share.rate("flood", 1.0) == float("inf")
