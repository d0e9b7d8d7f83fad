"""Events as they are told by a control socket are what they were in the node."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from isthmus import Multiaddr, PeerId
from isthmus.node import events
from isthmus.node.api.reading import read_event
from isthmus.node.cli.lines import describe_event, plain_event_line
from isthmus.node.events import (
    AddressesChanged,
    CircuitEnded,
    CircuitOpened,
    ConnectionEnded,
    ConnectionOpened,
    ConnectionRefused,
    DialFailed,
    EventsLost,
    HandlerFailed,
    HolePunched,
    HolePunchFailed,
    LinkChanged,
    Listening,
    MulticastUnavailable,
    NodeEvent,
    PathChanged,
    PeerFound,
    PeerIdentified,
    PeerOffline,
    PeerOnline,
    ProvidingFailed,
    ReachabilityChanged,
    RelayLost,
    RelayRefused,
    RelayReservationEnded,
    RelayReservationMade,
    RelayReserved,
    ServiceProvided,
    StoreDegraded,
    StoreRecovered,
    StreamRefused,
)
from isthmus.node.link import LinkState
from isthmus.relay.autonat.reachability import Reachability
from isthmus.transports.core.interfaces import Side

PEER = PeerId.parse("12D3KooWGJAmQyRkvK6Cf7Jr3zhMmtLX2Q8d2hKS9sMLUFWEPTpo")
ADDRESS = Multiaddr.parse("/ip4/127.0.0.1/tcp/4001")
EVENTS = [
    Listening(PEER, (ADDRESS,)),
    AddressesChanged(()),
    ConnectionOpened(PEER, ADDRESS, Side.LISTENER, limited=True),
    ConnectionEnded(PEER, ADDRESS, None, "why"),
    ConnectionEnded(PEER, ADDRESS, True, "why"),
    ConnectionRefused(PEER, ADDRESS, "full", "limits.connections"),
    PeerIdentified(PEER, "agent\x1b", ("/a", "/b"), (ADDRESS,), None),
    PeerIdentified(PEER, "agent", (), (), ADDRESS),
    PeerFound(PEER, (ADDRESS, ADDRESS)),
    ReachabilityChanged(Reachability.PUBLIC, (ADDRESS,)),
    HolePunched(PEER, ADDRESS, 2),
    HolePunchFailed(PEER, "why"),
    MulticastUnavailable(("eth0",)),
    DialFailed(None, "why"),
    DialFailed(PEER, "why"),
    ConnectionRefused(None, ADDRESS, "full", "limits.pending_inbound", count=3),
    StreamRefused(PEER, "full", "limits.inbound_streams"),
    RelayReserved(PEER, (ADDRESS,), 1767225600.0),
    RelayRefused(PEER, "full"),
    RelayLost(PEER, "it left"),
    RelayReservationMade(PEER, 1767225600.0),
    RelayReservationEnded(PEER, "it left"),
    CircuitOpened(PEER, PEER),
    CircuitEnded(PEER, PEER, 2000, 1.5, "its time was over"),
    LinkChanged(PEER, LinkState.RECONNECTING, "it broke"),
    PathChanged(PEER, ADDRESS, ADDRESS, "the path before does not answer"),
    PeerOnline(PEER),
    PeerOffline(PEER, "it broke"),
    StoreDegraded(Path("/d/x"), "no room"),
    StoreRecovered(Path("/d/x")),
    ServiceProvided("chat", 20),
    ProvidingFailed("chat", "why"),
    EventsLost(3),
]


def told(event):
    return json.loads(json.dumps(event.to_json()))


def test_every_kind_of_event_is_tried():
    kinds = {each for each in vars(events).values() if isinstance(each, type)}
    kinds = {each for each in kinds if issubclass(each, NodeEvent)}
    assert {type(each) for each in EVENTS} | {HandlerFailed, NodeEvent} == kinds


@pytest.mark.parametrize("event", EVENTS)
def test_an_event_comes_back(event):
    assert read_event(told(event)) == event


@pytest.mark.parametrize("error", [ValueError("not: today"), KeyError()])
def test_a_handlers_error_reads_the_same(error):
    event = HandlerFailed(PEER, "/x", error, time=1.0)
    assert describe_event(read_event(told(event))) == describe_event(event)


@pytest.mark.parametrize(
    "change",
    [
        {"event": "tea_is_ready"},
        {"event": None},
        {"peer": 3},
        {"peer": "nobody"},
        {"address": "/nowhere"},
        {"side": "neither"},
        {"limited": "no"},
        {"time": "now"},
    ],
)
def test_what_another_version_tells_is_not_understood(change):
    assert read_event(told(EVENTS[2]) | change) is None


def test_something_is_missing_or_no_list():
    assert read_event({"event": "events_lost"}) is None
    assert read_event(told(EVENTS[1]) | {"addresses": "none"}) is None


def test_an_event_of_another_version_is_shown_all_the_same():
    line = plain_event_line({"event": "tea_is_ready", "time": 1.0, "of": "a\x1b[2J", "cups": 2})
    assert line.endswith(" tea_is_ready, of a[2J, cups 2")
    assert plain_event_line({}) == "None"
