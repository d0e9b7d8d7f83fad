"""What the pages say of limits: the table is the code's, and each row of a refusal is had."""

from __future__ import annotations

import re
from dataclasses import fields

import pytest
from isthmus import LimitsConfig, Multiaddr, PeerId, Priority, PrivateKey
from isthmus.node.cli.lines import describe_event
from isthmus.node.events import ConnectionEnded, ConnectionRefused, StreamRefused
from isthmus.node.inbound_streams import InboundStreams
from isthmus.node.limits import ConnectionTable, Standing, Usage
from isthmus.node.prefixes import Doorway
from isthmus.transports.core.codes import ConnectionCode
from isthmus.transports.core.errors import ConnectionClosed, LimitExceeded

from .test_docs import PAGES, begins, listen_at, rows


class Refusals:
    """A node's table with room for little, and what it says to those who want more."""

    def __init__(self):
        self.peers = [PeerId.from_public_key(PrivateKey.generate().public_key) for _ in range(9)]

    def table(self, **limits):
        return ConnectionTable(
            LimitsConfig(**({"outbound_share": 0} | limits)),
            standing=lambda _: Standing.UNKNOWN,
            usage=lambda _: Usage(is_busy=False, streams=0),
            is_wanted=lambda _: False,
        )

    def come(self, table, *visits):
        """Have peers come, each a number at a time; return the last one's refusal as a line."""
        place = Multiaddr.parse(listen_at(1))
        for key, (number, now) in enumerate(visits):
            peer = self.peers[number]
            try:
                table.admit(key, peer, place, is_inbound=True, now=now)
            except LimitExceeded as error:
                event = ConnectionRefused(peer, place, str(error), error.setting)
        return describe_event(event)

    def knock(self, **limits):
        """Have one who comes second refused."""
        place, door = Multiaddr.parse(listen_at(1)), Doorway(LimitsConfig(**limits))
        door.enter(place, 0)
        if "connection_burst" in limits:
            door.leave(place)
        with pytest.raises(LimitExceeded) as caught:
            door.enter(place, 0)
        error = caught.value
        return describe_event(ConnectionRefused(None, place, str(error), error.setting))

    def open_streams(self):
        streams = InboundStreams(
            LimitsConfig(inbound_streams_unknown=1), lambda _: Standing.UNKNOWN
        )
        streams.enter(self.peers[0])
        with pytest.raises(LimitExceeded) as caught:
            streams.enter(self.peers[0])
        error = caught.value
        return describe_event(StreamRefused(self.peers[0], str(error), error.setting))

    def ended(self, code=None, event=None):
        why = ConnectionClosed(remote=code is not None, code=code)
        reason = f"{why}: {event.reason}" if event else str(why)
        place = Multiaddr.parse(listen_at(1))
        return describe_event(ConnectionEnded(self.peers[0], place, True, reason))

    def idle(self):
        table = self.table()
        self.come_in(table, 0, 0)
        (event,) = table.handle_timeout(600)
        return self.ended(event=event)

    def evicted(self):
        table = self.table(connections=1)
        self.come_in(table, 0, 0)
        (event,) = self.come_in(table, 1, 60)
        return self.ended(event=event)

    def come_in(self, table, number, now):
        place = Multiaddr.parse("/memory/1")
        return table.admit(number, self.peers[number], place, is_inbound=True, now=now)

    def lines(self):
        full, two = {"connections": 1}, {"connections": 2}
        return [
            self.come(self.table(**two, outbound_share=0.5), (0, 0), (1, 0)),
            self.come(self.table(connections_per_peer=1), (0, 0), (0, 0)),
            self.come(self.table(connections_per_prefix=1), (0, 0), (1, 0)),
            self.come(self.table(**full), (0, 0), (1, 60), (0, 61)),
            self.knock(connection_burst=1),
            self.knock(connections_per_prefix=1),
            self.knock(pending_inbound=1),
            self.open_streams(),
            self.idle(),
            self.evicted(),
            self.ended(ConnectionCode.RESOURCE_LIMIT_EXCEEDED),
            self.ended(ConnectionCode.GARBAGE_COLLECTED),
            self.full_of_dials(),
        ]

    def full_of_dials(self):
        """Say what a stranger is told while dials have taken every place."""
        table = self.table(connections=1)
        table.request_dial("dial", None, Priority.LOW, 0)
        return self.come(table, (0, 0))


def test_every_refusal_is_in_the_page_and_every_row_is_had():
    lines = Refusals().lines()
    found = {
        message: [line for line in lines if begins(message, line)] for message in rows("Limits")
    }
    assert [message for message, shown in found.items() if not shown] == []
    shown = {line for each in found.values() for line in each}
    assert [line for line in lines if line not in shown] == []


def test_the_table_of_limits_is_that_of_the_code():
    shown = re.findall(r"^\| `limits\.(\w+)` \| ([\d.]+) \|", PAGES["limits.md"], re.MULTILINE)
    own = [(item.name, f"{item.default:g}") for item in fields(LimitsConfig)]
    assert shown == own
