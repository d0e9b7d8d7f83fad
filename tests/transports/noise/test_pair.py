"""Two parties over two pipes that cut bytes anywhere: bytes out are bytes in, in order."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from isthmus.transports.core.interfaces import Side
from isthmus.transports.noise.wire import MAX_MESSAGE

from .peers import handshake

SIDES = st.sampled_from(Side)


class Pair(RuleBasedStateMachine):
    """Handshake and session together, as a driver would use them."""

    def __init__(self) -> None:
        super().__init__()
        self.machines = [handshake(side) for side in Side]
        self.sessions = [None, None]
        self.pipes = [bytearray(), bytearray()]  # by who sent
        self.sent = [bytearray(), bytearray()]
        self.received = [bytearray(), bytearray()]
        self.buffer = bytearray(2000)
        for side in Side:
            self.pump(side)

    def pump(self, side):
        """Take what the handshake of a side wants to send, and its session once there is one."""
        machine = self.machines[side]
        self.pipes[side] += machine.data_to_send()
        if self.sessions[side] is None and machine.is_complete:
            self.sessions[side] = machine.result.session
            self.deliver(side, machine.result.trailing)

    def deliver(self, side, data):
        for plaintext in self.sessions[side].receive_data(data):
            self.received[side.other] += plaintext

    @rule(side=SIDES, size=st.integers(1, 700))
    def carry(self, side, size):
        """Bring at most `size` bytes of what `side` sent to the other."""
        pipe, other = self.pipes[side], side.other
        data = bytes(pipe[:size])
        del pipe[:size]
        if self.sessions[other] is not None:
            self.deliver(other, data)
        elif data:
            self.machines[other].receive_data(data)
            self.pump(other)

    @precondition(lambda self: any(self.sessions))
    @rule(side=SIDES, plaintext=st.binary(min_size=1, max_size=1000), in_place=st.booleans())
    def send(self, side, plaintext, in_place):
        session = self.sessions[side]
        if session is None:
            return
        if in_place:
            size = session.seal_into(plaintext, self.buffer)
            self.pipes[side] += self.buffer[:size]
        else:
            self.pipes[side] += session.seal(plaintext)
        self.sent[side] += plaintext

    @invariant()
    def bytes_out_are_bytes_in(self):
        for side in Side:
            assert self.sent[side].startswith(self.received[side])
            if self.sessions[side.other] is not None and not self.pipes[side]:
                assert self.sent[side] == self.received[side]

    @invariant()
    def memory_is_bounded(self):
        for machine, session in zip(self.machines, self.sessions, strict=True):
            held = session._partial if session else machine._received
            assert len(held) <= MAX_MESSAGE + 1

    def teardown(self):
        """Carry everything over; every handshake ends, every byte arrives."""
        for side in (Side.DIALER, Side.LISTENER, Side.DIALER):
            while self.pipes[side]:
                self.carry(side, 700)
        for side in Side:
            while self.pipes[side]:
                self.carry(side, 700)
        self.bytes_out_are_bytes_in()
        bindings = [machine.result.channel_binding for machine in self.machines]
        assert bindings[0] == bindings[1]
        for session in self.sessions:
            session.receive_eof()


TestPair = Pair.TestCase
TestPair.settings = settings(max_examples=40, stateful_step_count=40, deadline=None)
