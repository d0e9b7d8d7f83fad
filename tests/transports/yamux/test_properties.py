"""Whatever comes, in whatever state: events or a P2PError, never anything else."""

from __future__ import annotations

from contextlib import suppress
from itertools import pairwise
from math import inf

from hypothesis import given, settings
from hypothesis import strategies as st
from isthmus.transports.core.errors import P2PError
from isthmus.transports.core.interfaces import Priority, Side
from isthmus.transports.yamux.config import YamuxConfig
from isthmus.transports.yamux.events import StreamOpened
from isthmus.transports.yamux.machine import YamuxMachine
from isthmus.transports.yamux.wire import HEADER

from .frames import drain, go_away

SMALL = YamuxConfig(
    max_inbound_streams=3, accept_backlog=2, max_unacknowledged=2, receive_budget=1000
)


def chunks(wire: bytes, cuts: list[int]):
    edges = sorted({0, len(wire), *(cut % (len(wire) + 1) for cut in cuts)})
    return [wire[a:b] for a, b in pairwise(edges)]


def fuzz(side: Side, wire: bytes, cuts: list[int]) -> None:
    """Feed anything; the entry point for a fuzzer."""
    machine, alive = YamuxMachine(side, 0.0, config=SMALL), True
    for step, chunk in enumerate(chunks(wire, cuts)):
        try:
            opened = machine.streams_opened
            machine.receive_data(chunk, step / 100)
            assert alive or machine.streams_opened == opened
        except P2PError:
            assert alive
            alive = False
            assert drain(machine) == go_away(1)
            assert machine.next_timeout() == inf
        else:
            drain(machine)
    machine.receive_eof()
    assert not machine.streams
    assert machine.is_finished


CUTS = st.lists(st.integers(0, 2**16), max_size=6)
HEADERS = st.builds(
    HEADER.pack,
    st.sampled_from([0, 0, 0, 0, 0, 0, 0, 1]),
    st.sampled_from([0, 0, 0, 1, 1, 1, 2, 3, 4]),
    st.one_of(st.integers(0, 15), st.integers(0, 0xFFFF)),
    st.integers(0, 8),
    st.one_of(st.integers(0, 40), st.integers(0, 0xFFFF_FFFF)),
)
FRAMES = st.lists(st.one_of(HEADERS, st.binary(max_size=40)), max_size=30).map(b"".join)


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(Side), st.binary(max_size=400), CUTS)
def test_random_bytes(side: Side, wire: bytes, cuts: list[int]):
    fuzz(side, wire, cuts)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(Side), FRAMES, CUTS)
def test_random_frames(side: Side, wire: bytes, cuts: list[int]):
    fuzz(side, wire, cuts)


def command(machine: YamuxMachine, streams: list, name: str, pick: int, now: float) -> None:
    """One command; what the machine forbids is a P2PError."""
    stream = streams[pick % len(streams)] if streams else None
    match name:
        case "open":
            streams.append(machine.open_stream(now, list(Priority)[pick % 4]))
        case "ping":
            machine.ping(now)
        case "go_away":
            machine.go_away()
        case "abort":
            machine.abort(pick % 3)
        case "shed":
            machine.shed()
        case "eof":
            machine.receive_eof()
        case "timeout":
            machine.handle_timeout(now)
        case "pull":
            assert len(machine.data_to_send(64 + pick, now)) <= 64 + pick
        case _ if stream is not None:
            for_stream(machine, stream, name, pick, now)


def for_stream(machine: YamuxMachine, stream, name: str, pick: int, now: float) -> None:
    match name:
        case "send":
            machine.send(stream, memoryview(bytes(pick)))
        case "finish":
            machine.finish(stream)
        case "close":
            machine.close(stream, now)
        case "reset":
            machine.reset(stream, pick)
        case "take":
            machine.take(stream, pick + 1, now)
        case "unread":
            machine.unread(stream, bytes(pick % 100 + 1))
        case _:
            machine.set_priority(stream, list(Priority)[pick % 4])


NAMES = [
    *("open", "ping", "go_away", "abort", "shed", "eof", "timeout", "pull"),
    *("send", "finish", "close", "reset", "take", "unread", "priority"),
]
ACTIONS = st.one_of(
    st.tuples(st.sampled_from(NAMES), st.integers(0, 70_000)),
    st.tuples(st.just("wire"), HEADERS),
    st.tuples(st.just("wire"), st.binary(max_size=40)),
)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(Side), st.lists(ACTIONS, max_size=40))
def test_every_command_and_input_in_every_state(side: Side, actions):
    machine, streams, now = YamuxMachine(side, 0.0, config=SMALL), [], 0.0
    for name, argument in actions:
        now += 7.0 if name == "timeout" else 0.01
        was_closing = machine.is_closing
        with suppress(P2PError):
            if name == "wire":
                events = machine.receive_data(argument, now)
                opened = [event.stream for event in events if isinstance(event, StreamOpened)]
                for stream in opened:
                    machine.accept(stream, now)
                streams += opened
            else:
                command(machine, streams, name, argument, now)
        assert machine.is_closing >= was_closing
        assert machine.next_timeout() > 0
    machine.receive_eof()
    for stream in streams:
        machine.close(stream, now)
    assert machine.unread_bytes == machine.queued == 0
    drain(machine, now)
    assert machine.is_finished
