"""Events reach every reader in order, within a bound, and turn into plain JSON."""

from __future__ import annotations

import json
import time

import anyio
from isthmus.node.events import (
    ConnectionOpened,
    EventHub,
    EventReader,
    EventsLost,
    HandlerFailed,
    Listening,
    PeerIdentified,
    event_name,
)
from isthmus.transports.core.interfaces import Side
from isthmus.transports.core.keys import PrivateKey
from isthmus.transports.core.multiaddr import Multiaddr
from isthmus.transports.core.peer_id import PeerId

PEER = PeerId.from_public_key(PrivateKey.from_seed(b"\x01" * 32).public_key)
ADDRESS = Multiaddr.parse("/ip4/127.0.0.1/tcp/4001")


async def take(reader: EventReader, count: int) -> list:
    return [await anext(reader) for _ in range(count)]


async def test_every_reader_sees_what_comes_after_it_was_made():
    hub = EventHub()
    first = hub.reader()
    hub.publish(EventsLost(1))
    second = hub.reader()
    hub.publish(EventsLost(2))
    hub.close()
    assert [event.count async for event in first] == [1, 2]
    assert [event.count async for event in second] == [2]
    assert [event async for event in hub.reader()] == []


async def test_a_waiting_reader_is_woken():
    hub = EventHub()
    reader = hub.reader()
    async with anyio.create_task_group() as tasks:

        async def publish() -> None:
            await anyio.wait_all_tasks_blocked()
            hub.publish(EventsLost(7))
            await anyio.wait_all_tasks_blocked()
            hub.close()

        tasks.start_soon(publish)
        assert [event.count async for event in reader] == [7]


async def test_a_slow_reader_is_told_once_how_many_it_lost_and_where():
    reader = EventReader(limit=3)
    for number in range(5):
        reader.put(HandlerFailed(PEER, str(number), ValueError()))
    assert [event.protocol for event in await take(reader, 2)] == ["0", "1"]
    reader.put(HandlerFailed(PEER, "5", ValueError()))
    events = await take(reader, 3)
    assert [getattr(event, "protocol", event) for event in events][::2] == ["2", "5"]
    assert events[1].count == 2
    for number in range(5):
        reader.put(HandlerFailed(PEER, str(number), ValueError()))
    events = await take(reader, 4)
    assert isinstance(events[3], EventsLost)
    assert events[3].count == 2


async def test_a_gap_waits_for_room_beside_the_next_event():
    reader = EventReader(limit=2)
    for number in range(3):
        reader.put(HandlerFailed(PEER, str(number), ValueError()))
    await take(reader, 1)
    reader.put(HandlerFailed(PEER, "3", ValueError()))
    events = await take(reader, 2)
    assert events[0].protocol == "1"
    assert events[1].count == 2


def test_a_reader_that_nobody_holds_is_forgotten():
    hub = EventHub()
    reader = hub.reader()
    assert len(hub._readers) == 1
    del reader
    assert len(hub._readers) == 0


def test_a_closed_reader_takes_nothing():
    reader = EventReader()
    reader.close()
    reader.put(EventsLost(1))
    assert not reader._waiting


def test_json_is_plain_and_named():
    before = time.time()
    plain = Listening(PEER, (ADDRESS,)).to_json()
    assert before <= plain.pop("time") <= time.time()
    assert plain == {
        "event": "listening",
        "peer_id": str(PEER),
        "addresses": ["/ip4/127.0.0.1/tcp/4001"],
    }
    assert event_name(ConnectionOpened.__name__) == "connection_opened"
    opened = ConnectionOpened(PEER, ADDRESS, Side.LISTENER, limited=False).to_json()
    assert opened["side"] == "listener"
    assert opened["limited"] is False
    failed = HandlerFailed(PEER, "/a", ValueError("no")).to_json()
    assert failed["error"] == "ValueError: no"
    identified = PeerIdentified(PEER, "a/1", ("/a",), (), None).to_json()
    assert json.loads(json.dumps(identified))["observed"] is None
