"""Floods end the session; habits of real peers do not."""

from __future__ import annotations

import pytest
from isthmus.transports.core.errors import RemoteProtocolError
from isthmus.transports.core.interfaces import Side
from isthmus.transports.yamux.config import YamuxConfig
from isthmus.transports.yamux.events import StreamOpened
from isthmus.transports.yamux.guard import CONTROL_RATE, RESET_RATE, SAVINGS, FloodGuard
from isthmus.transports.yamux.machine import YamuxMachine

from .frames import ACK, FIN, RST, SYN, WINDOW, data, drain, go_away, parse, ping, update


def accept_all(machine: YamuxMachine, wire: bytes, now: float) -> list:
    opened = [e.stream for e in machine.receive_data(wire, now) if isinstance(e, StreamOpened)]
    for stream in opened:
        machine.accept(stream, 0.0)
    return opened


def overflow(machine: YamuxMachine, wire: bytes, match: str) -> None:
    """Feed `wire` a hundred times within a tenth of a second; it must end in GoAway(1)."""

    def flood() -> None:
        for turn in range(100):
            now = turn / 1000
            accept_all(machine, wire, now)
            drain(machine, now)

    with pytest.raises(RemoteProtocolError, match=match) as caught:
        flood()
    assert caught.value.code == 1
    assert drain(machine) == go_away(1)


@pytest.fixture
def machine() -> YamuxMachine:
    return YamuxMachine(Side.LISTENER, 0.0)


def test_a_flood_of_pings(machine: YamuxMachine):
    overflow(machine, ping(SYN, 1) * 20, "control")


def test_a_flood_of_unsolicited_pongs(machine: YamuxMachine):
    overflow(machine, ping(ACK, 1) * 20, "control")


@pytest.mark.parametrize("flags", [0, 0x10, 0xFFF0])
def test_a_flood_of_window_updates(machine: YamuxMachine, flags: int):
    accept_all(machine, update(1, flags=SYN), 0.0)
    overflow(machine, update(1, 1, flags) * 20, "control")


def test_a_flood_of_window_updates_for_streams_that_never_were(machine: YamuxMachine):
    overflow(machine, update(77, 1) * 20, "control")


def test_a_flood_of_empty_frames(machine: YamuxMachine):
    accept_all(machine, update(1, flags=SYN), 0.0)
    overflow(machine, data(1) * 20, "control")


def test_rapid_reset(machine: YamuxMachine):
    def flood() -> None:
        for turn in range(1000):
            stream_id = 2 * turn + 1
            wire = data(stream_id, b"x", SYN) + update(stream_id, 0, RST)
            accept_all(machine, wire, turn / 1000)

    with pytest.raises(RemoteProtocolError, match="resets") as caught:
        flood()
    assert caught.value.code == 1
    assert machine.streams_opened >= RESET_RATE


def test_resets_of_our_own_streams_are_no_rapid_reset():
    machine = YamuxMachine(Side.DIALER, 0.0)
    for _ in range(2000):
        stream = machine.open_stream(0.0)
        machine.send(stream, memoryview(b"x"))
        drain(machine)
        machine.receive_data(update(stream.id, 0, RST), 0.0)
    assert not machine.is_closing


def test_pings_below_the_rate_go_on_for_ever(machine: YamuxMachine):
    for turn in range(5000):
        machine.receive_data(ping(SYN, turn), turn / (CONTROL_RATE * 0.95))
        assert drain(machine) == ping(ACK, turn)


def test_a_window_update_for_every_data_frame_is_a_habit_of_js(machine: YamuxMachine):
    """Ten thousand frames within a second, each granted back at once."""
    (stream,) = accept_all(machine, data(1, b"get", SYN), 0.0)
    frames = 0
    while frames < 10_000:
        now = frames / 10_000
        machine.send(stream, memoryview(bytes(WINDOW)))
        for frame in parse(drain(machine, now)):
            if frame.body:
                frames += 1
                machine.receive_data(update(1, frame.length), now)
    assert frames >= 10_000
    assert not machine.is_closing


def test_window_updates_that_come_a_whole_window_late(machine: YamuxMachine):
    (stream,) = accept_all(machine, data(1, b"get", SYN) + update(1, 16 * 2**20), 0.0)
    sizes = []
    while machine.send(stream, memoryview(bytes(WINDOW))):
        wire = drain(machine, max_bytes=8192)
        sizes += [frame.length for frame in parse(wire) if frame.body]
    assert len(sizes) > CONTROL_RATE
    for size in sizes:
        machine.receive_data(update(1, size), 0.1)
    assert not machine.is_closing


@pytest.mark.parametrize("payload", [b"", b"request"])
def test_five_thousand_sequential_streams_a_second(machine: YamuxMachine, payload: bytes):
    for turn in range(10_000):
        now, stream_id = turn / 5000, 2 * turn + 1
        first = data(stream_id, payload, SYN) if payload else update(stream_id, 0, SYN)
        (stream,) = accept_all(machine, first + update(stream_id, 0, FIN), now)
        machine.send(stream, memoryview(b"answer"))
        machine.close(stream, now)
        assert [frame.flags for frame in parse(drain(machine, now))] == [ACK, FIN]
        assert not machine.streams
    assert machine.unread_bytes == 0


def test_savings_are_bounded_and_do_not_grow_by_waiting():
    guard = FloodGuard(0.0)
    guard.exchanged = 10
    guard.check(0.0)
    guard.check(1000.0)
    guard.control = 10 + int(CONTROL_RATE) + 1
    with pytest.raises(RemoteProtocolError, match="control"):
        guard.check(1000.0)
    guard = FloodGuard(0.0)
    guard.exchanged = 10**6
    guard.check(0.0)
    guard.control = int(SAVINGS + CONTROL_RATE)
    guard.check(0.0)
    guard.control = 1
    with pytest.raises(RemoteProtocolError, match="control"):
        guard.check(0.0)


def test_streams_refused_do_not_end_the_session():
    machine = YamuxMachine(Side.LISTENER, 0.0, config=YamuxConfig(max_inbound_streams=1))
    machine.receive_data(update(1, flags=SYN), 0.0)
    for stream_id in range(3, 2003, 2):
        machine.receive_data(data(stream_id, b"x", SYN), 0.0)
        assert parse(drain(machine))[0].flags == RST
    assert machine.streams_refused == 1000
