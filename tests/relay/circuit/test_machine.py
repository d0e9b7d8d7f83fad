"""All relays of a node in a world of relays that come and go, as a prober would see it."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from math import inf
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from isthmus.relay.circuit.machine import MAX_CONFIGURED, Attempt, Relays, Released
from isthmus.relay.circuit.selection import HEAD_START, MAX_DISCOVERED
from isthmus.relay.circuit.supervisor import SupervisorState
from isthmus.transports.core.errors import LimitExceeded
from isthmus.transports.core.keys import PrivateKey
from isthmus.transports.core.multiaddr import Multiaddr
from isthmus.transports.core.peer_id import PeerId

RELAYS = [
    PeerId.from_public_key(PrivateKey.from_seed(bytes([n]) * 32).public_key) for n in range(80)
]
HOUR = 3600.0
LATENCY = 0.1
"""Seconds that an attempt takes with a relay that answers."""

BACK = 2.0
"""Seconds after which a relay that is back must be of use."""


def address(number: int) -> Multiaddr:
    return Multiaddr.parse(f"/ip4/8.{number}.0.1/tcp/4001")


def relays(configured: int = 2, discovered: int = 0, **options) -> Relays:
    made = Relays(draw=Random(5).random, **options)
    for number in range(configured + discovered):
        is_configured = number < configured
        made.add(RELAYS[number], [address(number)], is_configured=is_configured, now=0.0)
    return made


class World:
    """Relays with a plan each: at which times they are up, away, silent or refusing."""

    def __init__(self, machine: Relays, plans: list[list[tuple[float, str]]]) -> None:
        self.machine = machine
        self.plans = dict(zip(RELAYS, plans, strict=False))
        self.now = 0.0
        self.results: list[tuple[float, PeerId, str]] = []
        self.attempts: list[tuple[float, PeerId]] = []
        self.alone_since = 0.0
        self.breaks = sorted({time for plan in plans for time, _ in plan})

    def mode(self, relay: PeerId, time: float) -> str:
        plan = self.plans[relay]
        return plan[bisect_right([start for start, _ in plan], time) - 1][1]

    def up_since(self, relay: PeerId) -> float:
        """When the relay began to give reservations, without a pause since; inf if it does not."""
        since = inf
        for time, mode in self.plans[relay]:
            if time > self.now:
                break
            since = inf if mode != "up" else min(since, time)
        return since

    def run(self, until: float) -> None:
        turns: Counter[float] = Counter()
        while self.now < until:
            turns[self.now] += 1
            assert turns[self.now] < 50, "it has something to do again and again at one time"
            self.act()
            waits = [self.machine.next_timeout(), *(time for time, _, _ in self.results), until]
            waits += [time for time in self.breaks if time > self.now]
            self.now = max(self.now, min(waits))
            self.change()
            self.check()

    def act(self) -> None:
        for action in self.machine.handle_timeout(self.now):
            if isinstance(action, Released):
                continue
            relay, mode = action.relay, self.mode(action.relay, self.now)
            self.attempts.append((self.now, relay))
            takes = {"silent": action.patience, "away": 0.001}.get(mode, LATENCY)
            self.results.append((self.now + takes, relay, mode))

    def change(self) -> None:
        for result in sorted(self.results):
            time, relay, mode = result
            if time > self.now:
                continue
            self.results.remove(result)
            # Both at its beginning and at its end it must have been there.
            mode = mode if mode == self.mode(relay, self.now) else "away"
            if mode in ("up", "refusing"):
                self.machine.connected(relay)
                self.machine.measured(relay, [0.02])
            if mode == "up":
                self.machine.reserved(relay, HOUR, self.now)
            elif mode == "refusing":
                self.machine.refused(relay, "full", self.now)
            else:
                self.machine.failed(relay, mode, self.now)
        for relay in self.machine:
            is_up = self.mode(relay, self.now) in ("up", "refusing")
            if self.machine.supervisor(relay).is_reserved and not is_up:
                self.machine.lost(relay, "gone", self.now)

    def standing(self) -> list[PeerId]:
        return [relay for relay in self.machine if self.machine.supervisor(relay).is_reserved]

    def check(self) -> None:
        if self.standing():
            self.alone_since = inf
            return
        self.alone_since = min(self.alone_since, self.now)
        for relay in self.machine:
            waited = self.now - max(self.up_since(relay), self.alone_since)
            assert waited <= BACK + 1e-6, f"{relay} at {self.now}"


def plan(draw, kinds: list[str], *, longest: float = 60.0) -> list[tuple[float, str]]:
    """Up for a while, then something else for at most a minute, and so on.

    Up for long enough to be noticed: else it has been away for longer than a minute, and of a path
    that never answered nobody knows how long its packets take.
    """
    times, now = [(0.0, "up")], 0.0
    for kind in kinds:
        now += draw(st.floats(BACK + LATENCY, 90.0))
        times.append((now, kind))
        now += draw(st.floats(0.05, longest if kind != "refusing" else 12.0))
        times.append((now, "up"))
    return times


@settings(deadline=None)
@given(st.data(), st.integers(1, 4))
def test_while_some_relay_is_up_a_reservation_stands(data, count):
    kinds = st.lists(st.sampled_from(["away", "silent", "refusing"]), max_size=4)
    plans = [plan(data.draw, data.draw(kinds)) for _ in range(count)]
    world = World(relays(count), plans)
    world.run(max(time for each in plans for time, _ in each) + 10)
    assert len(world.standing()) == min(count, 2)


@settings(deadline=None)
@given(st.data())
def test_of_two_both_stand_again_soon_after_they_are_back(data):
    kinds = st.lists(st.sampled_from(["away", "silent"]), min_size=1, max_size=3)
    plans = [plan(data.draw, data.draw(kinds)) for _ in range(2)]
    world = World(relays(2), plans)

    def check() -> None:
        for relay in set(RELAYS[:2]) - set(world.standing()):
            assert world.now - world.up_since(relay) <= BACK + 1e-6

    world.check = check
    world.run(max(time for each in plans for time, _ in each) + 10)


@settings(deadline=None)
@given(st.data(), st.floats(60, 3000))
def test_a_relay_that_was_away_for_long_is_found_within_the_longest_delay(data, away):
    kind = data.draw(st.sampled_from(["away", "silent"]))
    world = World(relays(1), [[(0.0, "up"), (10.0, kind), (10.0 + away, "up")]])
    world.check = lambda: None
    world.run(10 + away + 36 + 10 + LATENCY)
    assert world.standing()
    assert len(world.attempts) <= 140 + away / 20


@settings(deadline=None)
@given(st.data())
def test_attempts_are_bounded(data):
    kinds = st.lists(st.sampled_from(["away", "refusing"]), min_size=1, max_size=8)
    plans = [plan(data.draw, data.draw(kinds), longest=20) for _ in range(3)]
    world = World(relays(3), plans)
    end = max(time for each in plans for time, _ in each) + 1
    world.run(end)
    for relay in world.machine:
        times = [time for time, each in world.attempts if each == relay]
        for first in times:
            assert sum(first <= time < first + 10 for time in times) <= 30


def test_one_that_refuses_is_asked_at_once_when_the_other_is_lost():
    plans = [[(0.0, "up"), (500.0, "away")], [(0.0, "refusing"), (499.0, "up")]]
    world = World(relays(2), plans)
    world.run(499.95)
    assert world.standing() == [RELAYS[0]]
    assert world.machine.supervisor(RELAYS[1]).state is SupervisorState.REFUSED
    world.run(500.2)
    assert world.standing() == [RELAYS[1]]


def test_what_is_not_wanted_any_more_is_released():
    world = World(relays(4), [[(0.0, "away"), (3.0 + n / 10, "up")] for n in range(4)])
    released: list[PeerId] = []
    take = world.machine.handle_timeout
    world.machine.handle_timeout = lambda now: [
        released.append(each.relay) or each if isinstance(each, Released) else each
        for each in take(now)
    ]
    world.check = lambda: None
    world.run(20.0)
    assert len(world.standing()) == 2
    assert set(released) == set(RELAYS[:4]) - set(world.standing())


def test_an_expired_reservation_is_asked_for_anew():
    machine = relays(1)
    assert machine.handle_timeout(0.0) == [Attempt(RELAYS[0], 10.0)]
    machine.connected(RELAYS[0])
    machine.measured(RELAYS[0], [0.01])
    assert machine.reserved(RELAYS[0], 40.0, 0.0)
    machine.handle_timeout(HEAD_START)
    assert machine.next_timeout() == 30.0
    assert machine.handle_timeout(30.0) == [Attempt(RELAYS[0], 10.0)]
    machine.handle_timeout(40.0)
    assert not machine.supervisor(RELAYS[0]).is_reserved
    machine.failed(RELAYS[0], "no answer", 41.0)
    assert machine.handle_timeout(41.0) == []
    assert machine.handle_timeout(41.2) == [Attempt(RELAYS[0], 1.0)]


def test_what_the_user_names_first_is_dialled_first():
    machine = relays(0, 1)
    relay = RELAYS[0]
    machine.add(relay, [address(7)], is_configured=False, now=0.0)
    assert machine.addresses(relay) == (address(0), address(7))
    machine.add(relay, [address(9)], is_configured=True, now=0.0)
    assert machine.addresses(relay) == (address(9), address(0), address(7))
    assert machine.addresses(RELAYS[1]) == ()


def test_bounds():
    machine = relays(MAX_CONFIGURED)
    with pytest.raises(LimitExceeded, match=r"relays\.via"):
        machine.add(RELAYS[70], [], is_configured=True, now=0.0)
    # One that is known is no other one.
    assert machine.add(RELAYS[0], [], is_configured=True, now=0.0)
    machine = relays(0, MAX_DISCOVERED)
    assert not machine.add(RELAYS[70], [address(70)], is_configured=False, now=0.0)
    assert RELAYS[70] not in machine
    many = [address(number) for number in range(50)]
    machine.add(RELAYS[0], many, is_configured=False, now=0.0)
    assert len(machine.addresses(RELAYS[0])) == 8


def test_one_that_is_removed_is_released_and_forgotten():
    machine = relays(2)
    machine.handle_timeout(0.0)
    machine.remove(RELAYS[0])
    machine.remove(RELAYS[0])
    assert machine.handle_timeout(0.0) == [Released(RELAYS[0])]
    assert list(machine) == [RELAYS[1]]
    # What was under way comes to nothing.
    assert not machine.reserved(RELAYS[0], HOUR, 0.0)
    machine.failed(RELAYS[0], "", 0.0)
    machine.refused(RELAYS[0], "", 0.0)
    machine.connected(RELAYS[0])
    machine.lost(RELAYS[0], "", 0.0)
    machine.renew(RELAYS[0], 0.0)
    machine.renew(RELAYS[1], 0.0)
    machine.news(0.0)


def test_what_is_said_of_a_relay_that_is_not_known_is_harmless():
    machine = relays(0)
    for say in (machine.remove, machine.connected):
        say(RELAYS[0])
    machine.renew(RELAYS[0], 0.0)
    machine.measured(RELAYS[0], [0.1])
    assert machine.handle_timeout(0.0) == []


def test_a_relay_that_was_not_wanted_goes_without_a_word():
    machine = relays(2, 1)
    machine.handle_timeout(0.0)
    machine.remove(RELAYS[2])
    assert not any(isinstance(each, Released) for each in machine.handle_timeout(0.0))
    machine.remove(RELAYS[0])
    assert Released(RELAYS[0]) in machine.handle_timeout(0.0)


def test_a_reservation_is_made_again_when_asked_for():
    machine = relays(1)
    world = World(machine, [[(0.0, "up")]])
    world.run(5.0)
    assert len(world.attempts) == 1
    machine.renew(RELAYS[0], world.now)
    world.run(10.0)
    assert len(world.attempts) == 2


def test_one_that_has_failed_makes_room_for_another():
    machine = relays(0, MAX_DISCOVERED)
    assert machine.next_timeout() == -inf
    failed = set()
    for now in range(0, 60, 5):
        for action in machine.handle_timeout(float(now)):
            if isinstance(action, Attempt):
                failed.add(action.relay)
                machine.failed(action.relay, "gone", float(now))
    assert failed
    assert machine.add(RELAYS[70], [address(70)], is_configured=False, now=60.0)
    gone = set(RELAYS[:MAX_DISCOVERED]) - set(machine)
    assert len(gone) == 1
    assert gone < failed
    assert machine.addresses(gone.pop()) == ()
