"""The table of connections as an object: who comes in, who goes for whom, which dial is next."""

from __future__ import annotations

from math import inf

import pytest
from isthmus.node.config import LimitsConfig
from isthmus.node.inbound_streams import InboundStreams
from isthmus.node.limits import (
    DRAIN_TIME,
    MAX_PAUSED,
    MAX_RETURNING,
    RETURN_TIME,
    SEARCH_PAUSE,
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

IDLE, BUSY = Usage(is_busy=False, streams=0), Usage(is_busy=True, streams=1)


class Fixture:
    """A table, and what it is told: the key of a connection is the name of its peer."""

    def __init__(self, **limits) -> None:
        self.standing: dict[str, Standing] = {}
        self.uses: dict[str, Usage] = {}
        self.wanted: set[str] = set()
        self.table = ConnectionTable(
            LimitsConfig(**({"outbound_share": 0} | limits)),
            standing=lambda peer: self.standing.get(peer, Standing.UNKNOWN),
            usage=lambda key: self.uses.get(key, IDLE),
            is_wanted=self.wanted.__contains__,
        )

    def come(self, name, now, *, host=None, peer=None, is_inbound=True):
        address = Multiaddr.parse(f"/ip4/192.0.2.{host}/tcp/1" if host else "/memory/1")
        return self.table.admit(name, peer or name, address, is_inbound=is_inbound, now=now)

    def refused(self, name, now, **options) -> LimitExceeded:
        before = len(self.table)
        with pytest.raises(LimitExceeded) as caught:
            self.come(name, now, **options)
        assert name not in self.table
        assert len(self.table) == before
        assert caught.value.value > caught.value.limit
        assert caught.value.setting in str(caught.value)
        return caught.value


def evicted(events):
    return [event.key for event in events if isinstance(event, Evicted)]


def fullness(it):
    return {each.name: (each.used, each.bound) for each in it.table.fullness()}


def test_each_limit_says_how_full_it_is():
    it = Fixture(connections=4, outbound_share=0.5, waiting_dials=7, minimum_age=100)
    it.standing["friend"] = Standing.KNOWN
    it.come("a", 0, peer="many")
    it.come("friend", 0)
    it.come("mine", 0, peer="many", is_inbound=False)
    assert fullness(it) == {
        "connections": (3, 4),
        "inbound connections of strangers": (1, 2),
        "connections of one peer": (2, 4),
        "dials under way": (0, 1),
        "dials that wait": (0, 7),
    }
    for dial in ("first", "second", "third"):
        it.table.request_dial(dial, dial, Priority.MEDIUM, 1)
    now = fullness(it)
    assert (now["dials under way"], now["dials that wait"]) == ((1, 1), (2, 7))
    it.table.ended("a", 2)
    now = fullness(it)
    assert now["inbound connections of strangers"] == (0, 2)
    assert (now["dials under way"], now["dials that wait"]) == ((2, 2), (1, 7))


# Coming in


def test_a_quarter_is_kept_for_those_who_are_dialled_or_known():
    it = Fixture(connections=4, outbound_share=0.25)
    it.standing["friend"] = Standing.KNOWN
    for name in ("a", "b", "c"):
        assert it.come(name, 0) == []
    error = it.refused("d", 0)
    assert (error.setting, error.value, error.limit) == ("limits.connections", 4, 3)
    assert it.come("friend", 0) == []
    assert it.refused("e", 1).setting == "limits.connections"
    # A friend does not count against the strangers' part.
    assert it.table.ended("friend", 2) == []
    assert it.come("mine", 2, is_inbound=False) == []
    assert it.refused("f", 3).limit == 3


def test_what_was_dialled_and_has_ended_makes_no_room_for_strangers():
    it = Fixture(connections=4, outbound_share=0.25)
    it.come("mine", 0, is_inbound=False)
    it.table.ended("mine", 1)
    for name in ("a", "b", "c"):
        it.come(name, 1)
    assert it.refused("d", 1).limit == 3


def test_one_peer_and_one_prefix_have_their_share():
    it = Fixture(connections_per_peer=2, connections_per_prefix=3)
    it.standing["friend"] = Standing.KNOWN
    it.come(1, 0, peer="a", host=1)
    it.come(2, 0, peer="a", host=1)
    assert it.refused(3, 0, peer="a", host=2).setting == "limits.connections_per_peer"
    it.come(4, 0, peer="b", host=1)
    error = it.refused(5, 0, peer="c", host=1)
    assert (error.setting, error.limit) == ("limits.connections_per_prefix", 3)
    assert "192.0.2.1" in str(error)
    # A right comes from the peer's id, never from its address.
    it.come("friend", 0, host=1)
    it.come(6, 0, peer="c", host=2)
    # Who has left may come again, though its handlers still run.
    it.table.leave(1, 0)
    it.table.leave(1, 0)
    assert it.refused(7, 0, peer="d", host=1).setting == "limits.connections_per_prefix"
    it.table.leave(4, 0)
    it.come(7, 0, peer="a", host=1)
    assert len(it.table) == 6


def test_what_has_left_counts_until_it_has_ended():
    it = Fixture(connections=1)
    it.come("a", 0)
    it.table.leave("a", 0)
    assert it.refused("b", 100).setting == "limits.connections"
    it.table.ended("a", 100)
    assert it.table.ended("a", 100) == []
    it.come("b", 100.0 + SEARCH_PAUSE)


# Making room


def test_the_least_worthy_that_is_old_enough_goes():
    it = Fixture(connections=6)
    it.standing |= {"kept": Standing.KEPT, "known": Standing.KNOWN, "new": Standing.KEPT}
    it.uses |= {"busy": BUSY, "used": Usage(is_busy=False, streams=3)}
    for now, name in enumerate(("kept", "known", "used", "busy", "idle")):
        it.come(name, now)
    it.come("dialled", 5, is_inbound=False)
    order = []
    for number in range(6):
        it.standing[f"new{number}"] = Standing.KEPT
        try:
            order += evicted(it.come(f"new{number}", 70 + number))
        except LimitExceeded:
            break
        it.table.ended(order[-1], 70 + number)
    assert order == ["idle", "used", "busy", "dialled", "known"]


def test_of_two_that_were_never_used_the_older_stays():
    it = Fixture(connections=3)
    for now, name in ((0, "old"), (5, "newer"), (30, "young")):
        it.come(name, now)
    events = it.come("next", 66)
    assert events == [Evicted("newer", events[0].reason)]
    assert "limits.connections" in events[0].reason


def test_nobody_goes_before_the_minimum_age():
    it = Fixture(connections=2, minimum_age=60)
    it.come("a", 0)
    it.come("b", 30)
    assert it.refused("c", 59.9).setting == "limits.connections"
    assert evicted(it.come("c", 60)) == ["a"]
    it.table.ended("a", 60)
    assert it.refused("d", 89)
    assert evicted(it.come("d", 90)) == ["b"]


def test_nobody_better_goes_while_the_least_are_too_young():
    it = Fixture(connections=2)
    it.come("dialled", 0, is_inbound=False)
    it.come("young", 50)
    it.standing["friend"] = Standing.KEPT
    it.refused("friend", 100)
    assert evicted(it.come("friend", 110)) == ["young"]


def test_strangers_push_out_idle_strangers_only():
    it = Fixture(connections=3)
    it.uses["busy"] = BUSY
    it.standing["known"] = Standing.KNOWN
    it.come("busy", 0)
    it.come("known", 0)
    it.come("dialled", 0, is_inbound=False)
    it.refused("stranger", 1000)
    it.uses["busy"] = IDLE
    # A search in vain is not repeated at once.
    it.refused("stranger", 1000 + SEARCH_PAUSE / 2)
    assert evicted(it.come("stranger", 1000 + SEARCH_PAUSE)) == ["busy"]


def test_strangers_leave_the_next_place_to_those_turned_away_who_are_worth_more():
    it = Fixture(connections=1, minimum_age=60)
    it.standing["known"] = Standing.KNOWN
    it.come("a", 0)
    it.refused("known", 59)
    assert it.refused("b", 61).setting == "limits.connections"
    assert evicted(it.come("known", 62)) == ["a"]

    # Not for ever: he may not come again.
    it = Fixture(connections=1, minimum_age=60)
    it.standing["known"] = Standing.KNOWN
    it.come("a", 0)
    it.refused("known", 59)
    it.refused("b", 118.9)
    assert evicted(it.come("b", 119)) == ["a"]


def test_strangers_leave_the_next_place_to_a_dial_that_waited_in_vain():
    it = Fixture(connections=1, minimum_age=60, dial_wait=30)
    it.come("a", 0)
    it.table.request_dial("dial", None, Priority.LOW, 29)
    (refused,) = it.table.handle_timeout(59)
    assert isinstance(refused, DialRefused)
    it.refused("b", 61)
    events = it.table.request_dial("again", None, Priority.LOW, 62)
    assert evicted(events) == ["a"]
    assert DialAllowed("again") in events


def test_who_was_in_use_when_the_connection_broke_comes_back_as_such():
    it = Fixture(connections=2, minimum_age=60)
    for name in ("in use", "used lately"):
        it.come(name, 0)
    it.uses |= {"in use": BUSY, "used lately": Usage(is_busy=False, streams=3)}
    for name in ("in use", "used lately"):
        it.table.ended(name, 10)
    it.come("a", 11)
    it.come("b", 12)
    it.refused("in use", 70, peer="in use")
    it.refused("c", 71)  # though "a" is old enough: the better one is expected
    assert evicted(it.come("in use again", 72, peer="in use")) == ["b"]
    it.uses["in use again"] = BUSY
    it.table.ended("b", 72)
    it.standing["known"] = Standing.KNOWN
    for name in ("a", "in use again"):
        it.table.hold(name, "call")
    it.refused("known", 600)
    it.table.release("a", "call")
    it.refused("c", 601)
    assert evicted(it.come("used again", 609, peer="used lately")) == ["a"]


def test_who_was_in_use_is_forgotten_in_time_and_pushes_out_nobody_in_use():
    for uses, now in (({"a": BUSY}, 100), ({}, 10 + RETURN_TIME)):
        it = Fixture(connections=1)
        it.come("was in use", 0)
        it.uses["was in use"] = BUSY
        it.table.ended("was in use", 10)
        it.come("a", 11)
        it.uses |= uses
        it.standing["known"] = Standing.KNOWN
        it.table.hold("a", "call")
        it.refused("known", now - 1)  # strangers stand behind him from now on
        it.table.release("a", "call")
        it.refused("again", now, peer="was in use")


def test_only_so_many_who_were_in_use_are_remembered():
    it = Fixture(connections=1)
    for number in range(MAX_RETURNING + 1):
        it.come(number, 0)
        it.uses[number] = BUSY
        it.table.ended(number, 0)
    assert len(it.table._returning) == MAX_RETURNING
    it.come("a", 0)
    it.table.hold("a", "call")
    it.standing["known"] = Standing.KNOWN
    it.refused("known", 90)
    it.table.release("a", "call")
    it.refused("first", 100, peer=0)
    assert evicted(it.come("second", 101, peer=1)) == ["a"]


def test_friends_do_not_push_out_each_other():
    for standing in (Standing.KNOWN, Standing.KEPT):
        it = Fixture(connections=1)
        it.standing |= {"a": standing, "b": standing}
        it.come("a", 0)
        it.refused("b", 1000)


def test_who_is_held_stays():
    it = Fixture(connections=1, idle_timeout=600)
    it.come("relay", 0)
    it.table.hold("relay", "reservation")
    it.table.hold("relay", "call")
    it.table.release("relay", "call")
    it.refused("a", 100)
    assert it.table.handle_timeout(700) == []
    it.table.release("relay", "reservation")
    it.table.release("nobody", "reservation")
    assert evicted(it.come("a", 701)) == ["relay"]


def test_who_made_room_is_refused_for_a_while():
    it = Fixture(connections=1, eviction_pause=600)
    it.come("a", 0)
    assert evicted(it.come("b", 100)) == ["a"]
    it.table.ended("a", 100)
    assert it.refused("a again", 699, peer="a").setting == "limits.eviction_pause"
    assert evicted(it.come("a again", 700, peer="a")) == ["b"]
    it.table.ended("b", 700)
    # Not, however, whom this side dials, nor whom it has come to know.
    it.table.ended("a again", 701)
    it.come("mine", 701, peer="b", is_inbound=False)
    it.table.ended("mine", 702)
    it.come("b again", 702, peer="b")

    it = Fixture(connections=1)
    it.come("a", 0)
    it.standing["b"] = Standing.KNOWN
    it.come("b", 100)
    it.table.ended("a", 100)
    it.table.ended("b", 101)
    it.standing["a"] = Standing.KNOWN
    it.come("a again", 101, peer="a")


def test_only_so_many_who_made_room_are_remembered():
    it = Fixture(connections=1, minimum_age=0, eviction_pause=1e6)
    it.come(0, 0)
    for number in range(1, MAX_PAUSED + 2):
        assert evicted(it.come(number, number)) == [number - 1]
        it.table.ended(number - 1, number)
    assert len(it.table._paused) == MAX_PAUSED
    assert it.refused("back", MAX_PAUSED + 2, peer=1).setting == "limits.eviction_pause"


def test_those_who_do_not_leave_in_time_bound_how_many_make_room():
    it = Fixture(connections=16)
    for number in range(16):
        it.come(number, 0)
    assert evicted(it.come("a", 100)) == [0]
    assert evicted(it.come("b", 100)) == [1]
    assert len(it.table) == 16
    it.refused("c", 100)
    it.table.ended(0, 101)
    assert evicted(it.come("c", 101)) == [2]


# Dials that wait


def test_dials_have_a_place_at_once_while_there_are_any():
    it = Fixture(connections=2)
    assert it.table.request_dial("d1", "a", Priority.LOW, 0) == [DialAllowed("d1")]
    it.come("b", 0)
    assert it.table.request_dial("d2", "c", Priority.HIGH, 0) == []
    assert it.refused("d", 0)
    # The place of a dial is that of the connection it makes.
    it.come("a", 1, is_inbound=False)
    assert it.table.dial_ended("d1", 1) == []
    assert it.table.waiting == 1
    assert it.table.ended("a", 2) == [DialAllowed("d2")]
    assert it.table.next_timeout() > 100


def test_the_most_urgent_dial_is_next_and_of_equals_the_first():
    it = Fixture(connections=1, dial_wait=30)
    it.come("a", 0)
    asked = [("low", 256), ("high", 1024), ("medium", 512), ("high too", 1024), ("raised", 128)]
    for name, priority in asked:
        assert it.table.request_dial(name, None, Priority(priority), 1) == []
    it.table.hurry_dial("raised", Priority.MEDIUM)
    it.table.hurry_dial("medium", Priority.LOW)  # it stays as urgent as it was
    it.table.hurry_dial("nobody", Priority.HIGH)
    served = it.table.ended("a", 2)
    for now in range(3, 7):
        served += it.table.dial_ended(served[-1].dial, now)
    assert [event.dial for event in served] == ["high", "high too", "medium", "raised", "low"]


def test_a_dial_that_waits_in_vain_is_told_why():
    it = Fixture(connections=1, dial_wait=30)
    it.come("a", 0)
    assert it.table.request_dial("d", None, Priority.MEDIUM, 5) == []
    assert it.table.handle_timeout(34.9) == []
    (refused,) = it.table.handle_timeout(35)
    assert refused == DialRefused("d", refused.error)
    assert (refused.error.setting, refused.error.value) == ("limits.connections", 2)
    at_once = Fixture(connections=1, dial_wait=0)
    at_once.come("a", 0)
    (refused,) = at_once.table.request_dial("d", None, Priority.MEDIUM, 0)
    assert isinstance(refused, DialRefused)
    assert at_once.table.waiting == 0


def test_of_too_many_waiting_dials_the_least_urgent_gives_way():
    it = Fixture(connections=1, waiting_dials=2)
    it.come("a", 0)
    for name, priority in (("first", Priority.LOW), ("second", Priority.MEDIUM)):
        assert it.table.request_dial(name, None, priority, 0) == []
    (refused,) = it.table.request_dial("third", None, Priority.LOW, 1)
    assert (refused.dial, refused.error.setting) == ("third", "limits.waiting_dials")
    assert (refused.error.value, refused.error.limit) == (3, 2)
    (refused,) = it.table.request_dial("fourth", None, Priority.HIGH, 2)
    assert refused.dial == "first"
    assert it.table.waiting == 2


def test_strangers_come_behind_the_dials_that_wait_which_are_looked_at_every_second():
    it = Fixture(connections=1, minimum_age=60)
    it.come("a", 0)
    assert it.table.request_dial("dial", None, Priority.LOW, 59) == []
    assert it.table.next_timeout() == 60
    it.refused("b", 60)
    assert DialAllowed("dial") in it.table.handle_timeout(60)


def test_a_waiting_dial_takes_the_place_of_a_stranger_once_it_is_old_enough():
    it = Fixture(connections=2)
    it.uses["busy"] = BUSY
    it.come("busy", 0)
    it.come("idle", 50)
    assert it.table.request_dial("d", "x", Priority.MEDIUM, 100) == []
    # A stranger that comes does not get in before it.
    it.refused("stranger", 109)
    assert it.table.handle_timeout(109) == []
    events = it.table.handle_timeout(it.table.next_timeout())
    assert (evicted(events), events[1:]) == (["idle"], [DialAllowed("d")])
    # The next one takes that of one in use: a user's own dial is worth more.
    it.table.ended("idle", 120)
    events = it.table.request_dial("e", "y", Priority.VERY_LOW, 120)
    assert evicted(events) == ["busy"]


def test_a_dial_to_a_friend_is_served_where_one_to_a_stranger_is_not():
    it = Fixture(connections=1)
    it.standing |= {"a": Standing.KNOWN, "friend": Standing.KEPT}
    it.come("a", 0)
    assert it.table.request_dial("d", "x", Priority.HIGH, 100) == []
    assert it.table.request_dial("d2", "y", Priority.HIGH, 100) == []
    events = it.table.request_dial("e", "friend", Priority.LOW, 100)
    assert (evicted(events), events[1:]) == (["a"], [DialAllowed("e")])
    assert it.table.waiting == 2
    assert it.table.dial_ended("d", 101) == []
    assert it.table.waiting == 1


# Idle connections


def run(table, until):
    """Call the table whenever it is due; return what it said and when."""
    told = []
    while (now := table.next_timeout()) <= until:
        told += [(now, event) for event in table.handle_timeout(now)]
    return told


def test_what_is_idle_ends_and_what_is_used_stays():
    it = Fixture(idle_timeout=600)
    it.standing["kept"] = Standing.KEPT
    it.wanted.add("wanted")
    it.uses["busy"] = BUSY
    for name in ("idle", "busy", "kept", "wanted", "used"):
        it.come(name, 0)
    told = []
    for minute in range(40):
        it.uses["used"] = Usage(is_busy=False, streams=minute // 9)
        told += run(it.table, 60 * minute)
    ((now, event),) = told[:1]
    assert (now, event.key) == (600, "idle")
    assert "limits.idle_timeout" in event.reason
    # It is asked to drain, and closed if it does not.
    assert told[1:] == [(600 + DRAIN_TIME, DrainExpired("idle"))]
    it.uses["busy"] = Usage(is_busy=False, streams=9)
    it.wanted.clear()
    late = {event.key: now for now, event in run(it.table, 7200) if isinstance(event, BecameIdle)}
    assert set(late) == {"busy", "wanted", "used"}
    # Use is noticed a quarter of the timeout late at most.
    assert 2400 - 60 + 600 <= late["busy"] <= 2400 + 600 + 150
    for name in ("idle", *late, "kept"):
        assert it.table.ended(name, 7200) == []
    it.table.handle_timeout(8000)
    assert it.table.next_timeout() == inf


def test_an_early_use_is_noticed_early():
    it = Fixture(idle_timeout=600)
    it.come("a", 0)
    it.uses["a"] = Usage(is_busy=False, streams=1)
    ((now, event), _) = run(it.table, 7200)
    assert (now, event.key) == (750, "a")


def test_an_infinite_timeout_ends_nothing():
    it = Fixture(idle_timeout=inf)
    it.come("a", 0)
    assert it.table.next_timeout() == inf


# Streams


def test_a_stranger_may_have_fewer_streams_than_a_friend():
    standing: dict[str, Standing] = {"friend": Standing.KNOWN}
    limits = LimitsConfig(inbound_streams_unknown=2, inbound_streams=3)
    streams = InboundStreams(limits, lambda peer: standing.get(peer, Standing.UNKNOWN))
    for peer, most in (("stranger", 2), ("friend", 3)):
        for _ in range(most):
            streams.enter(peer)
        with pytest.raises(LimitExceeded) as caught:
            streams.enter(peer)
        assert (caught.value.value, caught.value.limit) == (most + 1, most)
        assert caught.value.setting.endswith("_unknown") is (peer == "stranger")
        streams.leave(peer)
        streams.enter(peer)
    standing["stranger"] = Standing.KNOWN
    streams.enter("stranger")
    for peer in ("stranger", "friend"):
        for _ in range(3):
            streams.leave(peer)
    assert streams._open == {}
