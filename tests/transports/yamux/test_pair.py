"""Two machines over lossless pipes, in whatever order: nothing is lost, all is bounded."""

from __future__ import annotations

import random
from collections import deque
from dataclasses import dataclass, field

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
)
from isthmus.transports.core.errors import LimitExceeded
from isthmus.transports.core.interfaces import Priority, Side
from isthmus.transports.yamux.config import YamuxConfig
from isthmus.transports.yamux.control import MAX_CONTROL
from isthmus.transports.yamux.events import (
    GoAwayReceived,
    SendResumed,
    StreamFinished,
    StreamOpened,
    StreamWasReset,
)
from isthmus.transports.yamux.flow import (
    LINGER,
    MAX_RECEIVE_WINDOW,
    SEND_QUEUE,
    NodeBudget,
    StreamState,
)
from isthmus.transports.yamux.machine import YamuxMachine
from isthmus.transports.yamux.wire import INITIAL_WINDOW

BLOCK = random.Random(4).randbytes(1 << 17)
CONFIG = YamuxConfig(
    max_inbound_streams=12,
    accept_backlog=6,
    max_unacknowledged=8,
    receive_budget=INITIAL_WINDOW,
    keepalive_interval=1e9,
)
SIDES = st.sampled_from(Side)
PICK = st.integers(0, 2**16)


def content(side: Side, stream_id: int, start: int, size: int) -> bytes:
    """What `side` sends on a stream from an offset on: every place looks different."""
    offset = (start + 7919 * stream_id + 104_729 * side) % len(BLOCK)
    return (BLOCK[offset:] + BLOCK * (size // len(BLOCK) + 1))[:size]


@dataclass(eq=False)
class End:
    """What the application at one end of a stream has done and seen."""

    state: StreamState
    given: int = 0
    taken: int = 0
    has_finished: bool = False
    has_closed: bool = False
    is_finished: bool = False
    is_reset: bool = False
    is_stalled: bool = False


@dataclass(eq=False)
class Peer:
    """One machine with its application and the pipe of bytes towards the other."""

    side: Side
    machine: YamuxMachine
    pipe: bytearray = field(default_factory=bytearray)
    ends: list[End] = field(default_factory=list)
    waiting: deque[End] = field(default_factory=deque)

    def end_of(self, state: StreamState) -> End:
        return next(end for end in self.ends if end.state is state)


class Pair(RuleBasedStateMachine):
    """The rules are what two applications and a path may do."""

    peers: dict[Side, Peer]

    @initialize()
    def start(self) -> None:
        self.now = 0.0
        self.budget = NodeBudget(2**40)
        self.peers = {
            side: Peer(side, YamuxMachine(side, 0.0, config=CONFIG, budget=self.budget))
            for side in Side
        }
        for side in Side:
            self.peers[side].machine.ping(0.0)
            for pick, size in enumerate((2 * SEND_QUEUE, 100, 0)):
                self.open_stream(side, Priority.MEDIUM)
                self.send(side, pick, [size, size])
        for side in Side:
            self.write(side, 10, 65_519)
            self.deliver(side, [10, 60_000, 30])

    def pick(self, side: Side, pick: int) -> End | None:
        ends = self.peers[side].ends
        return ends[pick % len(ends)] if ends else None

    def note(self, peer: Peer, events: list) -> None:
        for event in events:
            match event:
                case StreamOpened(state):
                    end = End(state)
                    peer.ends.append(end)
                    peer.waiting.append(end)
                case StreamWasReset(state):
                    end = peer.end_of(state)
                    assert not end.is_reset
                    end.is_reset = True
                case StreamFinished(state):
                    end = peer.end_of(state)
                    assert not end.is_finished
                    assert not end.is_reset
                    end.is_finished = True
                case SendResumed(state):
                    end = peer.end_of(state)
                    assert end.is_stalled
                    end.is_stalled = False
                case _:
                    assert not isinstance(event, GoAwayReceived)

    # The applications

    @rule(side=SIDES, priority=st.sampled_from(Priority))
    def open_stream(self, side: Side, priority: Priority) -> None:
        peer = self.peers[side]
        if peer.machine.can_open:
            peer.ends.append(End(peer.machine.open_stream(self.now, priority)))
        else:
            with pytest.raises(LimitExceeded):
                peer.machine.open_stream(self.now, priority)

    @rule(side=SIDES)
    def accept(self, side: Side) -> None:
        peer = self.peers[side]
        if peer.waiting:
            peer.machine.accept(peer.waiting.popleft().state, self.now)

    @rule(
        side=SIDES,
        pick=PICK,
        sizes=st.lists(
            st.one_of(st.integers(0, 100), st.integers(10_000, 2 * SEND_QUEUE)),
            min_size=1,
            max_size=4,
        ),
    )
    def send(self, side: Side, pick: int, sizes: list[int]) -> None:
        end = self.pick(side, pick)
        if end is not None and not end.has_finished and not end.is_reset:
            for size in sizes:
                self.send_on(side, end, size)

    def send_on(self, side: Side, end: End, size: int) -> None:
        data = content(side, end.state.id, end.given, size)
        taken = self.peers[side].machine.send(end.state, memoryview(data))
        end.given += taken
        assert taken == size or end.state.queued == SEND_QUEUE
        end.is_stalled = end.is_stalled or taken < size

    @rule(side=SIDES, pick=PICK)
    def finish(self, side: Side, pick: int) -> None:
        if end := self.pick(side, pick):
            self.peers[side].machine.finish(end.state)
            end.has_finished = True

    @rule(side=SIDES, pick=PICK)
    def close(self, side: Side, pick: int) -> None:
        if end := self.pick(side, pick):
            self.peers[side].machine.close(end.state, self.now)
            end.has_finished = end.has_closed = True

    @rule(side=SIDES, pick=PICK, code=st.integers(0, 3))
    def reset(self, side: Side, pick: int, code: int) -> None:
        if end := self.pick(side, pick):
            peer = self.peers[side]
            self.note(peer, peer.machine.reset(end.state, code))

    @rule(side=SIDES, pick=PICK, priority=st.sampled_from(Priority))
    def set_priority(self, side: Side, pick: int, priority: Priority) -> None:
        if end := self.pick(side, pick):
            self.peers[side].machine.set_priority(end.state, priority)

    @rule(side=SIDES, pick=PICK, size=st.one_of(st.integers(1, 100), st.just(2**20)))
    def take(self, side: Side, pick: int, size: int) -> None:
        end = self.pick(side, pick)
        if end is not None and not end.has_closed:
            self.take_from(self.peers[side], end, size)

    def take_from(self, peer: Peer, end: End, size: int) -> None:
        data = peer.machine.take(end.state, size, self.now)
        assert data == content(peer.side.other, end.state.id, end.taken, len(data))
        end.taken += len(data)

    @rule(side=SIDES, pick=PICK, size=st.integers(1, 1000))
    def take_and_put_back(self, side: Side, pick: int, size: int) -> None:
        end = self.pick(side, pick)
        if end is not None and not end.has_closed and end.state.received:
            machine = self.peers[side].machine
            machine.unread(end.state, machine.take(end.state, size, self.now))

    @rule(side=SIDES)
    def ping(self, side: Side) -> None:
        self.peers[side].machine.ping(self.now)

    # The path

    @rule(side=SIDES, records=st.integers(1, 12), max_bytes=st.integers(64, 65_519))
    def write(self, side: Side, records: int, max_bytes: int) -> None:
        peer = self.peers[side]
        for _ in range(records):
            record = peer.machine.data_to_send(max_bytes, self.now)
            assert len(record) <= max_bytes
            peer.pipe += record
        self.note(peer, peer.machine.events())

    @rule(side=SIDES, sizes=st.lists(st.one_of(st.integers(1, 40), st.just(60_000)), max_size=8))
    def deliver(self, side: Side, sizes: list[int]) -> None:
        peer, other = self.peers[side], self.peers[side.other]
        for size in sizes:
            congested = other.machine.is_congested
            chunk = b"" if congested else bytes(peer.pipe[:size])
            del peer.pipe[: len(chunk)]
            self.note(other, other.machine.receive_data(chunk, self.now))

    @rule(side=SIDES, sizes=st.lists(st.integers(1, 70_000), min_size=1, max_size=3))
    def exchange(self, side: Side, sizes: list[int]) -> None:
        """All that one side has, cut as the path likes, taken as it comes."""
        peer, other = self.peers[side], self.peers[side.other]
        self.write(side, 40, 65_519)
        for turn in range(200):
            if peer.pipe and not other.machine.is_congested:
                self.deliver(side, [sizes[turn % len(sizes)]])
        for end in other.ends:
            if not end.has_closed:
                self.take_from(other, end, 2**20)

    @rule(seconds=st.one_of(st.floats(0, 0.05), st.floats(1, 12)))
    def wait(self, seconds: float) -> None:
        self.now += seconds
        for peer in self.peers.values():
            if peer.machine.next_timeout() <= self.now:
                self.note(peer, peer.machine.handle_timeout(self.now))
                assert peer.machine.next_timeout() > self.now

    # What holds at any time

    @invariant()
    def windows_hold(self) -> None:
        for peer in self.peers.values():
            for end in peer.ends:
                state = end.state
                assert state.credit >= 0
                assert 0 <= state.granted <= state.window <= MAX_RECEIVE_WINDOW
                assert 0 <= state.queued <= SEND_QUEUE
                assert state.queued == sum(map(len, state.queue))
                assert state.bytes_sent + state.queued == end.given or end.is_reset

    @invariant()
    def counts_agree(self) -> None:
        for peer in self.peers.values():
            machine, table = peer.machine, peer.machine._table
            unread = [end.state.unread for end in peer.ends]
            assert table.unread == sum(unread)
            assert table.grown == sum(max(size - INITIAL_WINDOW, 0) for size in unread)
            assert table.grown <= CONFIG.receive_budget or not [
                stream for stream in machine.streams.values() if stream.unread > INITIAL_WINDOW
            ]
            streams = machine.streams.values()
            assert table.inbound == sum(stream.is_remote for stream in streams)
            assert table.inbound <= CONFIG.max_inbound_streams
            assert table.unacknowledged == sum(not stream.acked for stream in streams)
            assert table.unacknowledged <= CONFIG.max_unacknowledged
            assert machine.queued == sum(stream.queued for stream in streams)
            assert machine._backlog == len(peer.waiting) <= CONFIG.accept_backlog
            ranks = sorted({stream.flow.rank for stream in streams})
            assert table.highest_open == (ranks[0] if ranks else 3)
            assert table.is_mixed == (len(ranks) > 1)
            assert all(stream.is_open for stream in streams)
            assert set(table.lingering) <= set(streams)
            assert set(machine._control.announced) <= set(streams)
            assert set(machine._control.acks) <= set(streams)
            assert len(machine._control.frames) <= 2 * MAX_CONTROL + len(peer.ends)
        assert self.budget.used == sum(p.machine.unread_bytes for p in self.peers.values())

    # The end

    def settle(self) -> None:
        """Let everything through: whoever waits is accepted, all that came is taken."""
        for _ in range(2000):
            self.now += 0.001
            moved = 0
            for side in Side:
                peer, other = self.peers[side], self.peers[side.other]
                if peer.machine.next_timeout() <= self.now:
                    self.note(peer, peer.machine.handle_timeout(self.now))
                    moved += 1
                while record := peer.machine.data_to_send(65_519, self.now):
                    peer.pipe += record
                self.note(peer, peer.machine.events())
                moved += len(peer.pipe) + len(peer.waiting)
                chunk = b"" if other.machine.is_congested else bytes(peer.pipe)
                del peer.pipe[: len(chunk)]
                self.note(other, other.machine.receive_data(chunk, self.now))
                while other.waiting:
                    other.machine.accept(other.waiting.popleft().state, self.now)
                for end in other.ends:
                    if not end.has_closed:
                        moved += end.state.unread
                        self.take_from(other, end, 2**30)
            if not moved and not any(p.machine._control.acks for p in self.peers.values()):
                return
        raise AssertionError("the pair never comes to rest")

    def teardown(self) -> None:
        if not hasattr(self, "peers"):
            return
        self.settle()
        for peer in self.peers.values():
            for end in peer.ends:
                peer.machine.finish(end.state)
        self.settle()
        closed = {e.state.id for p in self.peers.values() for e in p.ends if e.has_closed}
        for peer in self.peers.values():
            # Only those stay that one side has closed while the other waits for credit.
            assert set(peer.machine.streams) <= closed
        self.now += LINGER
        self.settle()
        self.counts_agree()
        dialer, listener = self.peers[Side.DIALER], self.peers[Side.LISTENER]
        for peer, other in ((dialer, listener), (listener, dialer)):
            assert peer.machine.streams == {}
            assert peer.machine.unread_bytes == peer.machine.queued == 0
            assert peer.machine.can_open
            assert peer.machine.is_flushed
            by_id = {end.state.id: end for end in other.ends}
            for end in peer.ends:
                twin = by_id.get(end.state.id)
                assert twin is not None or end.is_reset
                if twin and not (end.is_reset or twin.is_reset or twin.has_closed):
                    assert twin.taken == end.given
                    assert twin.is_finished
        assert self.budget.used == 0


TestPair = Pair.TestCase
TestPair.settings = settings(
    max_examples=100,
    stateful_step_count=50,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
