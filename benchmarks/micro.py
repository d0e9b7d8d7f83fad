"""`python -m isthmus.benchmarks.micro [WORD...]`: what each machine costs, without any IO.

One JSON line a case, with the environment: microseconds per operation, one sample a repetition.
Words choose the cases whose names contain one of them. `compare` reads two such files.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from typing import TYPE_CHECKING, Any

from ..node.protocols import identify
from ..transports.core.interfaces import Priority, Side
from ..transports.core.keys import PrivateKey
from ..transports.core.multiaddr import Multiaddr
from ..transports.multistream import DialerNegotiation, ListenerNegotiation
from ..transports.noise.machine import NoiseHandshake, NoiseSession, StaticKey
from ..transports.scheduler import Flow, Scheduler
from ..transports.sockets import settle_allocator
from ..transports.yamux.machine import YamuxMachine
from ..transports.yamux.wire import DATA, HEADER, window_update
from . import environment

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from ..transports.yamux.flow import StreamState

    Operation = Callable[[], object]

REPETITIONS = 7
LEAST_TIME = 0.02
"""Seconds that a repetition takes at least: the clock and a loop are then nothing beside it."""
MAX_COUNT = 1 << 20
RECORD = 65_448
"""What the drivers put into one record: four frames of 16 350 bytes with their headers."""
LARGE_WRITE = 65_436
"""A write that fills a record with one frame."""
SCHEDULED = 100
RECORDS = 64
ADDRESS = "/ip4/198.51.100.7/tcp/4001/p2p/12D3KooWGbcnDJYVRVcBBmrHUE4QE9gGWhW2XJnHvWGXxSpLhmoj"


def seal(size: int) -> Operation:
    """Seal records of this size into one buffer, as the drivers do."""
    session, buffer, plaintext = NoiseSession(bytes(32), bytes(32)), bytearray(70_000), bytes(size)
    return lambda: session.seal_into(plaintext, buffer)


def open_record(size: int) -> Operation:
    """Open one record after the other; a new session every so often, which costs little of it."""
    sender = NoiseSession(bytes(32), bytes(32))
    records = [sender.seal(bytes(size)) for _ in range(RECORDS)]

    def opened() -> Iterator[list[bytes]]:
        while True:
            session = NoiseSession(bytes(32), bytes(32))
            for record in records:
                yield session.receive_data(record)

    return opened().__next__


def handshake() -> Operation:
    """Do both sides of Noise XX; the static keys are made once, as in a process."""
    statics = [StaticKey.generate(PrivateKey.from_seed(bytes([number]) * 32)) for number in (1, 2)]

    def operation() -> None:
        dialer = NoiseHandshake(Side.DIALER, statics[0], ephemeral=bytes([3]) * 32)
        listener = NoiseHandshake(Side.LISTENER, statics[1], ephemeral=bytes([4]) * 32)
        listener.receive_data(dialer.data_to_send())
        dialer.receive_data(listener.data_to_send())
        listener.receive_data(dialer.data_to_send())

    return operation


def yamux_send(size: int) -> Operation:
    """Queue a write, frame it, and get credit for it."""
    machine = YamuxMachine(Side.DIALER, 0.0)
    stream, data = machine.open_stream(0.0), memoryview(bytes(size))
    clock = _clock()

    def operation() -> None:
        now = next(clock)
        machine.send(stream, data)
        while machine.data_to_send(RECORD, now):
            pass
        machine.receive_data(window_update(0, stream.id, size), now)

    return operation


def yamux_receive(size: int) -> Operation:
    """Take a frame apart, hand its data over, and grant credit for it."""
    machine = YamuxMachine(Side.LISTENER, 0.0)
    stream = _accepted(machine)
    frame = HEADER.pack(0, DATA, 0, stream.id, size) + bytes(size)
    clock = _clock()

    def operation() -> None:
        now = next(clock)
        machine.receive_data(frame, now)
        machine.take(stream, size, now)
        machine.data_to_send(RECORD, now)

    return operation


def yamux_stream() -> Operation:
    """Open a stream, one byte there, one byte back, close; both sides."""
    dialer, listener = YamuxMachine(Side.DIALER, 0.0), YamuxMachine(Side.LISTENER, 0.0)
    clock, byte = _clock(), memoryview(b"\1")

    def operation() -> None:
        now = next(clock)
        ours = dialer.open_stream(now)
        dialer.send(ours, byte)
        listener.receive_data(dialer.data_to_send(RECORD, now), now)
        theirs = listener.streams[ours.id]
        listener.accept(theirs, now)
        listener.take(theirs, 1, now)
        listener.send(theirs, byte)
        listener.close(theirs, now)
        while answer := listener.data_to_send(RECORD, now):
            dialer.receive_data(answer, now)
        dialer.take(ours, 1, now)
        dialer.close(ours, now)
        listener.receive_data(dialer.data_to_send(RECORD, now), now)

    return operation


def schedule() -> Operation:
    """Choose among many flows of every class, all of them ready."""
    scheduler, classes = Scheduler(), list(Priority)
    for number in range(SCHEDULED):
        scheduler.join(Flow(number, classes[number % len(classes)]))

    def operation() -> None:
        flow = scheduler.next()
        if flow is not None:
            scheduler.charge(flow)

    return operation


def negotiate() -> Operation:
    """Agree on the second of two protocols; both sides."""

    def operation() -> None:
        dialer = DialerNegotiation(("/other/1.0.0", "/echo/1.0.0"))
        listener = ListenerNegotiation("/echo/1.0.0".__eq__)
        while not dialer.is_complete:
            listener.receive_data(dialer.data_to_send())
            dialer.receive_data(listener.data_to_send())

    return operation


def parse_text() -> Operation:
    """Parse an address with a peer id."""
    return lambda: Multiaddr.parse(ADDRESS)


def parse_bytes() -> Operation:
    """Parse the same address from its bytes."""
    encoded = bytes(Multiaddr.parse(ADDRESS))
    return lambda: Multiaddr.from_bytes(encoded)


def decode_identify() -> Operation:
    """Decode an identify message with a signed record, as peers send one on each connection."""
    key = PrivateKey.from_seed(bytes(32))
    addresses = [Multiaddr.parse(f"/ip4/198.51.100.7/tcp/{4001 + index}") for index in range(4)]
    protocols = [f"/isthmus-test/protocol/{index}.0.0" for index in range(12)]
    message = identify.compose(key, addresses=addresses, protocols=protocols, seq=1)
    return lambda: identify.decode(message)


def cases() -> dict[str, Callable[[], Operation]]:
    """Return every case by name: a function that prepares it and returns one operation."""
    return {
        "noise seal 1 KiB": lambda: seal(1024),
        "noise seal 64 KiB": lambda: seal(RECORD),
        "noise open 1 KiB": lambda: open_record(1024),
        "noise open 64 KiB": lambda: open_record(RECORD),
        "noise handshake, both sides": handshake,
        "yamux send 1 KiB": lambda: yamux_send(1024),
        "yamux send 64 KiB": lambda: yamux_send(LARGE_WRITE),
        "yamux receive 1 KiB": lambda: yamux_receive(1024),
        "yamux receive 64 KiB": lambda: yamux_receive(LARGE_WRITE),
        "yamux stream, both sides": yamux_stream,
        f"scheduler next of {SCHEDULED}": schedule,
        "multistream negotiation, both sides": negotiate,
        "multiaddr from text": parse_text,
        "multiaddr from bytes": parse_bytes,
        "protobuf identify decode": decode_identify,
    }


def measure(operation: Operation, *, repetitions: int, least_time: float) -> list[float]:
    """Return microseconds per operation, one for each repetition, after one that only warms up."""
    count = 1
    while (seconds := _timed(operation, count)) < least_time and count < MAX_COUNT:
        count = min(MAX_COUNT, max(2 * count, int(count * least_time / max(seconds, 1e-9))))
    return [_timed(operation, count) / count * 1e6 for _ in range(repetitions)]


def run(
    words: Sequence[str], *, repetitions: int = REPETITIONS, least_time: float = LEAST_TIME
) -> Iterator[dict[str, Any]]:
    """Yield the line of every case whose name contains one of the words, or of all without any."""
    settle_allocator()
    where = environment.describe()
    for name, prepare in cases().items():
        if not words or any(word in name for word in words):
            samples = measure(prepare(), repetitions=repetitions, least_time=least_time)
            yield {
                "case": name,
                "unit": "us",
                "median": round(statistics.median(samples), 4),
                "samples": [round(sample, 4) for sample in samples],
                "environment": where,
            }


def _timed(operation: Operation, count: int) -> float:
    start = time.perf_counter()
    for _ in range(count):
        operation()
    return time.perf_counter() - start


def _clock() -> Iterator[float]:
    """Yield times a millisecond apart: enough for the guard against floods of control frames."""
    now = 0.0
    while True:
        now += 0.001
        yield now


def _accepted(machine: YamuxMachine) -> StreamState:
    """Return a stream that a dialer has opened and the machine has accepted."""
    dialer = YamuxMachine(Side.DIALER, 0.0)
    stream = dialer.open_stream(0.0)
    machine.receive_data(dialer.data_to_send(RECORD, 0.0), 0.0)
    accepted = machine.streams[stream.id]
    machine.accept(accepted, 0.0)
    return accepted


if __name__ == "__main__":
    for line in run(sys.argv[1:]):
        sys.stdout.write(json.dumps(line) + "\n")
        sys.stdout.flush()
