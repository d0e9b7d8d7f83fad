"""The table of connections against a plain model that looks at everything each time."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import inf

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from isthmus.node.config import LimitsConfig
from isthmus.node.limits import (
    LEAVING_PART,
    LOOKS,
    RETURN_TIME,
    BecameIdle,
    ConnectionTable,
    DialAllowed,
    DialRefused,
    DrainExpired,
    Evicted,
    Standing,
    Usage,
)
from isthmus.transports.core.errors import LimitExceeded
from isthmus.transports.core.interfaces import Priority
from isthmus.transports.core.multiaddr import Multiaddr

LIMITS = LimitsConfig(
    connections=8,
    outbound_share=0.25,
    connections_per_peer=2,
    connections_per_prefix=3,
    waiting_dials=3,
    dial_wait=20,
    minimum_age=60,
    eviction_pause=300,
    idle_timeout=200,
)
STRANGERS = 6
STRANGER = (Standing.UNKNOWN, False, False)
"""The least worth."""
PEERS = 12
PREFIXES = 4
PAUSES = st.integers(1, 50)
"""Seconds: more than the table rests after a search in vain."""


@dataclass
class Held:
    """A connection as the model sees it."""

    peer: int
    host: int
    is_inbound: bool
    since: float
    is_busy: bool = False
    streams: int = 0
    used_at: float = 0.0
    spared_at: float = 0.0
    noticed: int = 0
    noticed_at: float = -inf
    is_held: bool = False
    state: str = "standing"


@dataclass
class Asked:
    """A dial as the model sees it."""

    peer: int
    priority: Priority
    number: int
    until: float
    is_allowed: bool = field(default=False)


class TableMachine(RuleBasedStateMachine):
    """Comes, goes, uses, dials; predicts each answer."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.number = 0
        self.standing: dict[int, Standing] = {}
        self.held: dict[int, Held] = {}
        self.asked: dict[int, Asked] = {}
        self.paused: dict[int, float] = {}
        self.returning: dict[int, float] = {}
        self.expected_until = -inf
        self.table: ConnectionTable[int, int] = ConnectionTable(
            LIMITS, standing=self.standing_of, usage=self.usage, is_wanted=lambda peer: peer == 0
        )

    def standing_of(self, peer: int) -> Standing:
        return self.standing.get(peer, Standing.UNKNOWN)

    def usage(self, key: int) -> Usage:
        each = self.held[key]
        if each.is_busy or each.streams != each.noticed:
            each.noticed, each.noticed_at = each.streams, self.now
        return Usage(each.is_busy, each.streams)

    # What the model expects

    def among(self, *states: str) -> list[int]:
        return [key for key, each in self.held.items() if each.state in states]

    def taken(self) -> int:
        dials = sum(each.is_allowed for each in self.asked.values())
        return len(self.among("standing", "leaving")) + dials

    def waiting(self) -> list[int]:
        return [dial for dial, each in self.asked.items() if not each.is_allowed]

    def worth(self, key: int) -> tuple[int, bool, bool]:
        each = self.held[key]
        return (self.standing_of(each.peer), not each.is_inbound, each.is_busy)

    def candidates(self, newcomer: tuple[int, bool, bool]) -> list[int]:
        """Who may have to go for a newcomer."""
        if len(self.among("evicted")) >= max(1, LIMITS.connections // LEAVING_PART):
            return []
        standing_there = [key for key in self.among("standing") if not self.held[key].is_held]
        if not standing_there:
            return []
        lowest = min(map(self.worth, standing_there))
        if lowest > newcomer or (lowest == newcomer and newcomer > STRANGER):
            return []
        return [
            key
            for key in standing_there
            if self.worth(key) == lowest and self.now - self.held[key].since >= LIMITS.minimum_age
        ]

    def refusal(self, peer: int, host: int) -> tuple[str | None, bool]:
        """Name the setting that keeps an inbound connection out, and whether somebody may go."""
        there = [self.held[key] for key in self.among("standing")]
        standing = self.standing_of(peer)
        if sum(each.peer == peer for each in there) >= LIMITS.connections_per_peer:
            return "limits.connections_per_peer", False
        is_full = self.taken() >= LIMITS.connections
        if not standing:
            same = sum(each.host == host and each.is_inbound for each in there)
            if same >= LIMITS.connections_per_prefix:
                return "limits.connections_per_prefix", False
            if self.paused.get(peer, -inf) > self.now:
                return "limits.eviction_pause", False
            strangers = [
                key
                for key in self.among("standing", "leaving")
                if self.held[key].is_inbound and not self.standing_of(self.held[key].peer)
            ]
            is_full = is_full or len(strangers) >= STRANGERS
            if is_full and self.waiting():
                return "limits.connections", False
        return ("limits.connections", True) if is_full else (None, False)

    # What the table says

    def take(self, events) -> None:
        for event in events:
            match event:
                case Evicted(key):
                    self.took_place(key)
                case BecameIdle(key):
                    each = self.held[key]
                    assert each.state == "standing"
                    assert not each.is_busy
                    assert not each.is_held
                    assert each.peer
                    assert self.standing_of(each.peer) < Standing.KEPT
                    assert self.now - max(each.since, each.used_at) >= LIMITS.idle_timeout
                    each.state = "leaving"
                case DrainExpired(key):
                    assert self.held[key].state == "leaving"
                case DialAllowed(dial):
                    ahead = [self.asked[other] for other in self.waiting()]
                    assert self.taken() < LIMITS.connections
                    self.check_turn(self.asked[dial], ahead)
                    self.asked[dial].is_allowed = True
                case DialRefused(dial, error):
                    gone = self.asked.pop(dial)
                    assert not gone.is_allowed
                    is_late = gone.until <= self.now
                    expected = "connections" if is_late else "waiting_dials"
                    assert error.setting == f"limits.{expected}"
                    if is_late:
                        self.expected_until = self.now + LIMITS.minimum_age
                    else:
                        rest = [self.asked[other] for other in self.waiting()]
                        assert len(rest) == LIMITS.waiting_dials
                        assert all(turn(each) < turn(gone) for each in rest)

    def check_turn(self, served: Asked, waiting: list[Asked]) -> None:
        for other in waiting:
            if turn(other) < turn(served):
                # Only because somebody goes for a friend who would not for this one.
                assert self.standing_of(other.peer) < self.standing_of(served.peer)

    def took_place(self, key: int) -> None:
        each = self.held[key]
        assert each.state == "standing"
        assert not each.is_held
        assert self.now - each.since >= LIMITS.minimum_age
        rivals = [
            other
            for other in self.among("standing")
            if not self.held[other].is_held
            and self.now - self.held[other].since >= LIMITS.minimum_age
        ]
        assert self.full_worth(key) == min(map(self.full_worth, rivals))
        each.state = "evicted"
        self.paused[each.peer] = self.now + LIMITS.eviction_pause

    def full_worth(self, key: int) -> tuple[object, ...]:
        each = self.held[key]
        return (*self.worth(key), each.noticed_at, -each.since)

    # What happens

    @rule(pause=PAUSES)
    def wait(self, pause: int) -> None:
        self.advance(pause)

    def advance(self, pause: float) -> None:
        until = self.now + pause
        while (due := self.table.next_timeout()) <= until:
            self.now = max(due, self.now)
            self.take(self.table.handle_timeout(self.now))
        self.now = until

    @rule(pause=PAUSES, peer=st.integers(0, PEERS), host=st.integers(1, PREFIXES))
    def come(self, pause: int, peer: int, host: int) -> None:
        self.advance(pause)
        self.number += 1
        key = self.number
        setting, may_push = self.refusal(peer, host)
        newcomer = (self.standing_of(peer), False, self.returning.get(peer, -inf) > self.now)
        is_behind = newcomer == STRANGER and self.now < self.expected_until
        rivals = self.candidates(newcomer) if may_push and not is_behind else []
        address = Multiaddr.parse(f"/ip4/192.0.2.{host}/tcp/1")
        if setting and not rivals:
            with pytest.raises(LimitExceeded) as caught:
                self.table.admit(key, peer, address, is_inbound=True, now=self.now)
            assert caught.value.setting == setting
            if setting == "limits.connections" and newcomer > STRANGER:
                self.expected_until = self.now + LIMITS.minimum_age
            return
        events = self.table.admit(key, peer, address, is_inbound=True, now=self.now)
        assert [event.key in rivals for event in events] == ([True] if setting else [])
        self.take(events)
        self.paused.pop(peer, None)
        self.returning.pop(peer, None)
        self.held[key] = Held(peer, host, is_inbound=True, since=self.now)

    @rule(pause=PAUSES, peer=st.integers(1, PEERS), priority=st.sampled_from(Priority))
    def ask(self, pause: int, peer: int, priority: Priority) -> None:
        self.advance(pause)
        self.number += 1
        dial = self.number
        until = self.now + LIMITS.dial_wait
        self.asked[dial] = Asked(peer, priority, dial, until)
        self.take(self.table.request_dial(dial, peer, priority, self.now))

    @precondition(lambda self: self.waiting())
    @rule(data=st.data(), priority=st.sampled_from(Priority))
    def hurry(self, data, priority: Priority) -> None:
        dial = data.draw(st.sampled_from(self.waiting()))
        self.table.hurry_dial(dial, priority)
        self.asked[dial].priority = max(priority, self.asked[dial].priority)

    @precondition(lambda self: self.asked)
    @rule(data=st.data(), succeeds=st.booleans())
    def end_dial(self, data, succeeds: bool) -> None:
        dial = data.draw(st.sampled_from(sorted(self.asked)))
        each = self.asked.pop(dial)
        if each.is_allowed and succeeds:
            self.number += 1
            key, address = self.number, Multiaddr.parse("/ip4/192.0.2.9/tcp/1")
            assert self.table.admit(key, each.peer, address, is_inbound=False, now=self.now) == []
            self.paused.pop(each.peer, None)
            self.returning.pop(each.peer, None)
            self.held[key] = Held(each.peer, 9, is_inbound=False, since=self.now)
        self.take(self.table.dial_ended(dial, self.now))

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def leave(self, data) -> None:
        key = data.draw(st.sampled_from(sorted(self.held)))
        self.part(key)
        self.table.leave(key, self.now)

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def end(self, data) -> None:
        key = data.draw(st.sampled_from(sorted(self.held)))
        self.part(key)
        events = self.table.ended(key, self.now)
        del self.held[key]
        self.take(events)

    def part(self, key: int) -> None:
        each = self.held[key]
        if each.state == "standing":
            if each.is_busy or each.streams != each.noticed:
                self.returning[each.peer] = self.now + RETURN_TIME
            each.state = "leaving"

    @precondition(lambda self: self.held)
    @rule(data=st.data(), is_busy=st.booleans())
    def use(self, data, is_busy: bool) -> None:
        each = self.held[data.draw(st.sampled_from(sorted(self.held)))]
        each.streams += 1
        each.is_busy = is_busy
        each.used_at = self.now

    @precondition(lambda self: self.held)
    @rule(data=st.data(), is_held=st.booleans())
    def hold(self, data, is_held: bool) -> None:
        key = data.draw(st.sampled_from(sorted(self.held)))
        (self.table.hold if is_held else self.table.release)(key, "test")
        self.held[key].is_held = is_held

    @rule(peer=st.integers(1, PEERS), standing=st.sampled_from(Standing))
    def judge(self, peer: int, standing: Standing) -> None:
        self.standing[peer] = standing

    @invariant()
    def counts_agree(self) -> None:
        assert len(self.table) == len(self.among("standing", "leaving"))
        assert self.table.waiting == len(self.waiting())
        assert self.taken() <= LIMITS.connections
        assert self.table.waiting <= LIMITS.waiting_dials

    @invariant()
    def nobody_waits_beside_a_free_place(self) -> None:
        if self.waiting():
            assert self.taken() == LIMITS.connections
            assert all(self.asked[dial].until > self.now for dial in self.waiting())

    @invariant()
    def nothing_idle_stays(self) -> None:
        most = LIMITS.idle_timeout * (1 + 1 / LOOKS)
        for key in self.among("standing"):
            each = self.held[key]
            is_kept = self.standing_of(each.peer) is Standing.KEPT or each.peer == 0
            if is_kept or each.is_held or each.is_busy:
                each.spared_at = self.now
            assert self.now - max(each.since, each.used_at, each.spared_at) <= most


def turn(each: Asked) -> tuple[int, int]:
    return (-each.priority, each.number)


TestTable = TableMachine.TestCase
TestTable.settings = settings(settings.get_profile("isthmus"), stateful_step_count=60)
