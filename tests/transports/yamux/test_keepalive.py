"""A silent peer is asked once, then given up; one that talks is left alone."""

from __future__ import annotations

from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st
from isthmus.transports.core.errors import RemoteProtocolError
from isthmus.transports.core.interfaces import Side
from isthmus.transports.yamux.config import YamuxConfig
from isthmus.transports.yamux.keepalive import KeepAlive
from isthmus.transports.yamux.machine import YamuxMachine

from .frames import ACK, SYN, drain, go_away, ping


@pytest.fixture
def machine() -> YamuxMachine:
    return YamuxMachine(Side.DIALER, 100.0)


def test_it_is_due_after_the_interval_and_then_after_the_timeout():
    clock = KeepAlive(0.0, YamuxConfig())
    assert clock.due == 30.0
    assert clock.check(30.0, 0.0)
    assert clock.due == 40.0


def test_bytes_received_meanwhile_move_it():
    clock = KeepAlive(0.0, YamuxConfig())
    assert not clock.check(30.0, 12.0)
    assert clock.due == 42.0


@given(st.floats(0, 1e6), st.floats(0.001, 1e4))
def test_checking_at_the_due_time_always_asks(start: float, interval: float):
    """By rounding, (start + interval) - start may be less than the interval."""
    clock = KeepAlive(start, YamuxConfig(keepalive_interval=interval))
    assert clock.check(clock.due, start)


def test_a_silent_peer_is_pinged_and_its_answer_counts(machine: YamuxMachine):
    assert machine.next_timeout() == 130.0
    assert machine.handle_timeout(129.0) == []
    assert drain(machine) == b""
    assert machine.handle_timeout(130.0) == []
    assert drain(machine, 130.0) == ping(SYN, 0)
    (pong,) = machine.receive_data(ping(ACK, 0), 130.5)
    assert pong.round_trip_time == 0.5
    assert machine.next_timeout() == 140.0
    assert machine.handle_timeout(140.0) == []
    assert machine.next_timeout() == 160.5


def test_a_peer_that_stays_silent_is_given_up(machine: YamuxMachine):
    machine.handle_timeout(130.0)
    with pytest.raises(RemoteProtocolError, match="keepalive_timeout") as caught:
        machine.handle_timeout(140.0)
    assert caught.value.code == 2
    assert drain(machine, 140.0) == go_away(2)
    assert machine.next_timeout() == inf
    assert machine.handle_timeout(200.0) == []
    assert drain(machine, 200.0) == b""


def test_any_bytes_are_a_sign_of_life_but_going_on_after_congestion_is_none(machine):
    machine.handle_timeout(130.0)
    machine.receive_data(b"", 135.0)
    with pytest.raises(RemoteProtocolError):
        machine.handle_timeout(140.0)
    other = YamuxMachine(Side.DIALER, 100.0)
    other.handle_timeout(130.0)
    other.receive_data(b"\x00", 135.0)
    assert other.handle_timeout(140.0) == []
    assert other.next_timeout() == 165.0
