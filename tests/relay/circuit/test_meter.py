"""What a relay has carried, and for whom."""

from __future__ import annotations

import pytest
from isthmus.relay.circuit.meter import MAX_SOURCES, Meter
from isthmus.transports.core.peer_id import PeerId


def peer(number):
    return PeerId(b"\x12\x20" + number.to_bytes(32, "big"))


def test_the_rate_is_that_of_the_last_ten_seconds():
    meter = Meter(100.0)
    account = meter.begin(peer(1))
    for second in range(100, 130):
        meter.count(account, 1000, second + 0.5)
    assert meter.rate(130.0) == pytest.approx(1000)
    assert meter.rate(135.0) == pytest.approx(500)
    assert meter.rate(1000.0) == 0
    assert meter.bytes == account.bytes == 30_000


def test_a_young_meter_takes_what_there_is():
    meter = Meter(0.0)
    account = meter.begin(peer(1))
    meter.count(account, 500, 0.2)
    assert meter.rate(0.5) == 0
    assert meter.rate(2.0) == 250


def test_the_accounts_kept_are_those_of_the_last_users():
    meter = Meter(0.0)
    for number in range(MAX_SOURCES):
        meter.begin(peer(number))
    meter.begin(peer(0))
    meter.begin(peer(MAX_SOURCES))
    assert len(meter.accounts) == MAX_SOURCES
    assert peer(1) not in meter.accounts
    assert meter.accounts[peer(0)].circuits == 2
