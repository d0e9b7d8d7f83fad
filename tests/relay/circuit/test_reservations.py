"""The tables of reservations and circuits, beside a model, and as large as they get."""

from __future__ import annotations

import gc
import statistics
from collections import Counter
from dataclasses import replace
from time import perf_counter

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from isthmus.relay.circuit.limits import PRESETS
from isthmus.relay.circuit.reservations import CircuitTable, ReservationTable
from isthmus.transports.core.addresses import prefix_of
from isthmus.transports.core.errors import LimitExceeded
from isthmus.transports.core.multiaddr import Multiaddr
from isthmus.transports.core.peer_id import PeerId

TTL = 100.0
LIMITS = replace(
    PRESETS["public"],
    reservations=6,
    reservations_per_prefix=3,
    reservation_ttl=TTL,
    circuits=5,
    circuits_per_peer=2,
)


def peer(number):
    return PeerId(b"\x12\x20" + number.to_bytes(32, "big"))


def address(host):
    return Multiaddr.parse(f"/ip4/192.0.2.{host % 256}/tcp/{4001 + host // 256}")


PEERS = [peer(number) for number in range(10)]


def test_a_refresh_moves_the_end_and_the_connection():
    table = ReservationTable(LIMITS)
    assert table.reserve(PEERS[0], "a", address(1), 0.0) is None
    old = table.reserve(PEERS[0], "b", address(2), 50.0)
    assert (old.connection, old.expires_at) == ("a", TTL)
    assert table.connection_ended("a") is None
    assert table.find(PEERS[0], 149.9).connection == "b"
    assert table.find(PEERS[0], 150.0) is None
    assert table.next_timeout() == 150.0
    assert [slot.peer for slot in table.handle_timeout(150.0)] == [PEERS[0]]
    assert table.next_timeout() == float("inf")


def test_a_full_table_lets_those_renew_who_are_in_it():
    table = ReservationTable(LIMITS)
    for number in range(6):
        table.reserve(PEERS[number], number, address(number), 0.0)
    with pytest.raises(LimitExceeded, match=r"relay\.reservations"):
        table.reserve(PEERS[6], 6, address(6), 1.0)
    table.reserve(PEERS[3], 3, address(3), 1.0)
    assert table.connection_ended(0).peer == PEERS[0]
    table.reserve(PEERS[6], 6, address(6), 1.0)
    assert len(table) == 6


def test_a_refusal_for_a_new_place_leaves_the_old_one():
    table = ReservationTable(LIMITS)
    for number in range(3):
        table.reserve(PEERS[number], number, address(1), 0.0)
    table.reserve(PEERS[3], 3, address(2), 0.0)
    with pytest.raises(LimitExceeded, match=r"relay\.reservations_per_prefix"):
        table.reserve(PEERS[3], 33, address(1), 1.0)
    assert table.find(PEERS[3], 1.0).connection == 3
    table.reserve(PEERS[0], 0, address(1), 1.0)  # it counts there already


def test_a_reservation_that_moves_ends_when_it_would_have():
    table = ReservationTable(LIMITS)
    table.reserve(PEERS[0], "a", address(1), 0.0)
    table.reserve(PEERS[1], "b", address(2), 10.0)
    table.move(table.on("a"), "c", address(3))
    assert table.on("a") is None
    assert [slot.connection for slot in table] == ["c", "b"]
    assert [slot.peer for slot in table.handle_timeout(TTL)] == [PEERS[0]]


class Reservations(RuleBasedStateMachine):
    """Nobody reserves for another, keeps a slot after leaving, or exceeds a limit."""

    def __init__(self):
        super().__init__()
        self.table = ReservationTable(LIMITS)
        self.now = 0.0
        self.next_connection = 0
        # What holds: connection -> (peer, address), and peer -> (connection, end).
        self.connections = {}
        self.held = {}

    @rule(who=st.sampled_from(PEERS), host=st.integers(1, 3))
    def connect(self, who, host):
        self.connections[self.next_connection] = (who, address(host))
        self.next_connection += 1

    @precondition(lambda self: self.connections)
    @rule(data=st.data())
    def reserve(self, data):
        connection = data.draw(st.sampled_from(sorted(self.connections)))
        who, place = self.connections[connection]
        others = {each: held for each, held in self.held.items() if each != who}
        of_place = sum(self.connections[each][1] == place for each, _ in others.values())
        may = len(others) < LIMITS.reservations and of_place < LIMITS.reservations_per_prefix
        try:
            self.table.reserve(who, connection, place, self.now)
        except LimitExceeded:
            assert not may
        else:
            assert may
            self.held[who] = (connection, self.now + TTL)

    @precondition(lambda self: self.connections)
    @rule(data=st.data())
    def end(self, data):
        connection = data.draw(st.sampled_from(sorted(self.connections)))
        who, _ = self.connections.pop(connection)
        had = self.held.get(who, (None, 0))[0] == connection
        slot = self.table.connection_ended(connection)
        assert (slot is not None) == had
        if had:
            del self.held[who]

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def move(self, data):
        who = data.draw(st.sampled_from(sorted(self.held)))
        connection, end = self.held[who]
        own = [key for key, each in self.connections.items() if each[0] == who]
        other = data.draw(st.sampled_from(own))
        place = self.connections[other][1]
        of_place = sum(
            self.connections[each][1] == place
            for peer_id, (each, _) in self.held.items()
            if peer_id != who
        )
        slot = self.table.on(connection)
        try:
            self.table.move(slot, other, place)
        except LimitExceeded:
            assert of_place >= LIMITS.reservations_per_prefix
        else:
            assert of_place < LIMITS.reservations_per_prefix
            self.held[who] = (other, end)

    @rule(seconds=st.floats(0, 2 * TTL))
    def wait(self, seconds):
        self.now += seconds
        expired = {slot.peer for slot in self.table.handle_timeout(self.now)}
        assert expired == {who for who, (_, end) in self.held.items() if end <= self.now}
        for who in expired:
            del self.held[who]

    @invariant()
    def the_table_has_what_holds_and_no_more(self):
        found = {slot.peer: (slot.connection, slot.expires_at) for slot in self.table}
        assert found == self.held
        assert len(self.table) <= LIMITS.reservations
        for who, (connection, _) in found.items():
            assert self.connections[connection][0] == who
        places = Counter(prefix_of(self.connections[each][1]) for each, _ in found.values())
        assert max(places.values(), default=0) <= LIMITS.reservations_per_prefix
        assert self.table.next_timeout() == min(
            (end for _, end in self.held.values()), default=float("inf")
        )


TestReservations = Reservations.TestCase
TestReservations.settings = settings(max_examples=50, stateful_step_count=40, deadline=None)


def cost(entries, operations):
    """Return the seconds that one refresh, look-up, end and new reservation take together."""
    roomy = replace(LIMITS, reservations=2 * entries, reservations_per_prefix=2 * entries)
    table = ReservationTable(roomy)
    everybody = [(peer(number), number, address(number % 65536)) for number in range(entries)]
    for who, connection, place in everybody:
        table.reserve(who, connection, place, 0.0)
    rounds = []
    for start in range(0, operations, 1000):
        some = everybody[start : start + 1000]
        began = perf_counter()
        for who, connection, place in some:
            table.reserve(who, connection, place, 1.0)
            table.find(who, 1.0)
            table.connection_ended(connection)
            table.next_timeout()
            table.handle_timeout(1.0)
            table.reserve(who, connection, place, 1.0)
        rounds.append((perf_counter() - began) / len(some))
    return statistics.median(rounds)


@pytest.mark.parametrize(
    "entries",
    [2_000, pytest.param(10_000, marks=[pytest.mark.slow, pytest.mark.timeout(120)])],
)
def test_a_table_of_ten_times_as_many_is_as_fast(entries):
    gc.disable()
    try:
        ratios = [cost(10 * entries, entries) / cost(entries, entries) for _ in range(3)]
    finally:
        gc.enable()
    assert min(ratios) < 1.5, ratios


def test_circuits_are_counted_at_both_ends():
    table = CircuitTable(LIMITS)
    table.enter(PEERS[0], PEERS[1])
    table.enter(PEERS[2], PEERS[0])
    for source, target in ((PEERS[0], PEERS[3]), (PEERS[3], PEERS[0])):
        with pytest.raises(LimitExceeded, match=r"relay\.circuits_per_peer"):
            table.enter(source, target)
    table.leave(PEERS[0], PEERS[1])
    table.enter(PEERS[3], PEERS[0])
    assert (len(table), table.of(PEERS[0]), table.of(PEERS[1])) == (2, 2, 0)


def test_circuits_are_counted_together():
    table = CircuitTable(LIMITS)
    for number in range(5):
        table.enter(peer(100 + number), peer(200 + number))
    with pytest.raises(LimitExceeded, match=r"relay\.circuits\)"):
        table.enter(peer(1), peer(2))
