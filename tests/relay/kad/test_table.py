"""Where walks begin, and when services are announced."""

from __future__ import annotations

import pytest
from isthmus.relay.kad.config import MAX_SERVICES
from isthmus.relay.kad.machine import K
from isthmus.relay.kad.table import (
    FIRST_RETRY,
    HURRY_AFTER,
    LAST_RETRY,
    Schedule,
    SeedTable,
)
from isthmus.relay.kad.wire import FoundPeer, distance_hash
from isthmus.transports.core.errors import LimitExceeded
from isthmus.transports.core.multiaddr import Multiaddr
from isthmus.transports.core.peer_id import PeerId

DAY = 86_400.0
HERE = Multiaddr.parse("/ip4/192.0.2.1/tcp/4001")
ELSEWHERE = Multiaddr.parse("/ip4/192.0.2.2/tcp/4001")


def peer(number):
    return PeerId.from_bytes(b"\x12\x20" + number.to_bytes(32, "big"))


def test_a_walk_begins_at_the_closest_met_and_at_those_that_were_given():
    table = SeedTable([HERE.with_peer(peer(1)), ELSEWHERE.with_peer(peer(1))])
    given = FoundPeer(peer(1), (HERE, ELSEWHERE))
    assert table.seeds(0) == [given]
    met = [FoundPeer(peer(number), (HERE,)) for number in range(100, 150)]
    for found in met:
        table.met(found)
    closest = sorted(met, key=lambda each: distance_hash(bytes(each.peer)) ^ 7)[:K]
    assert table.seeds(7) == [*closest, given]


def test_who_does_not_answer_is_forgotten_unless_given():
    table = SeedTable([HERE.with_peer(peer(1))])
    table.met(FoundPeer(peer(2), (HERE,)))
    for number in (1, 2, 3):
        table.lost(peer(number))
    assert [each.peer for each in table.seeds(0)] == [peer(1)]


def test_the_least_recently_met_make_room():
    table = SeedTable([], max_seeds=3)
    for number in (1, 2, 3, 1, 4):
        table.met(FoundPeer(peer(number)))
    assert len(table) == 3
    assert {each.peer for each in table.seeds(0)} == {peer(1), peer(3), peer(4)}


def test_a_service_is_announced_again_and_again():
    schedule = Schedule(interval=0.9 * DAY)
    assert schedule.next_timeout() is None
    schedule.add("chat", 5.0)
    schedule.add("chat", 50.0)
    assert (schedule.due(4.0), schedule.due(5.0)) == ([], ["chat"])
    schedule.announced("chat", 6.0, taken=3)
    assert schedule.due(DAY / 2) == []
    assert schedule.next_timeout() == 6.0 + 0.9 * DAY
    assert schedule.due(DAY) == ["chat"]


def test_what_nobody_took_is_tried_again_after_ever_longer_pauses():
    schedule = Schedule(interval=DAY)
    schedule.add("chat", 0.0)
    now, pauses = 0.0, []
    for _ in range(9):
        schedule.announced("chat", now, taken=0)
        due = schedule.next_timeout()
        assert due is not None
        pauses.append(due - now)
        now = due
    assert pauses[:3] == [FIRST_RETRY, 2 * FIRST_RETRY, 4 * FIRST_RETRY]
    assert pauses[-2:] == [LAST_RETRY, LAST_RETRY]
    schedule.announced("chat", now, taken=1)
    schedule.announced("chat", now, taken=0)
    assert schedule.next_timeout() == now + FIRST_RETRY


def test_news_hurry_but_not_at_once_after_an_announcement():
    schedule = Schedule(interval=DAY)
    schedule.add("told", 0.0)
    schedule.add("refused", 0.0)
    schedule.announced("told", 0.0, taken=1)
    schedule.announced("refused", 0.0, taken=0)
    schedule.hurry(10.0)
    assert schedule.due(10.0) == ["refused"]
    assert schedule.due(HURRY_AFTER) == ["told", "refused"]
    schedule.hurry(500.0)
    assert schedule.due(HURRY_AFTER) == ["told", "refused"], "nothing is put off by news"


def test_services_are_bounded():
    schedule = Schedule(interval=DAY)
    for number in range(MAX_SERVICES):
        schedule.add(str(number), 0.0)
    with pytest.raises(LimitExceeded, match=r"dht\.provide"):
        schedule.add("another", 0.0)
