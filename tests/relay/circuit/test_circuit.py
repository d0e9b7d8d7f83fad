"""What is left of a circuit, and how its end is told."""

from __future__ import annotations

import anyio
import pytest
from isthmus.relay.circuit.circuit import CircuitLimit, CircuitStream
from isthmus.relay.circuit.reserving import MAX_TTL, MIN_TTL, ttl_of
from isthmus.relay.circuit.wire import Limit, Reservation
from isthmus.transports.core.errors import LimitExceeded, RelayLimitReached, StreamReset
from isthmus.transports.core.interfaces import PathAttribute


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Line:
    """A stream that has some chunks to give and then ends by an error."""

    def __init__(self, *chunks: bytes, end: Exception) -> None:
        self._chunks = list(chunks)
        self._end = end
        self.sent = b""
        self.is_closed = self.is_finished = False

    async def receive(self, max_bytes: int) -> bytes:
        if self._chunks:
            return self._chunks.pop(0)
        raise self._end

    async def send(self, item: bytes) -> None:
        if self.sent:
            raise self._end
        self.sent = item

    async def send_eof(self) -> None:
        self.is_finished = True

    async def aclose(self) -> None:
        self.is_closed = True


def limit(duration: int | None = None, data: int | None = None) -> tuple[CircuitLimit, Clock]:
    clock = Clock()
    return CircuitLimit(Limit(duration, data), clock), clock


def test_it_counts_down_to_nothing():
    found, clock = limit(120, 1000)
    assert (found.seconds_left, found.bytes_left) == (120, 1000)
    clock.now += 50
    found.count(400)
    assert (found.seconds_left, found.bytes_left) == (70, 600)
    clock.now += 500
    found.count(4000)
    assert (found.seconds_left, found.bytes_left) == (0, 0)


@pytest.mark.parametrize("nothing", [None, 0])
def test_what_the_relay_does_not_name_is_not_known(nothing):
    found, clock = limit(nothing, nothing)
    clock.now += 1e6
    found.count(10**9)
    assert (found.seconds_left, found.bytes_left) == (None, None)
    assert found.reached() is None


def test_milliseconds_in_the_place_of_seconds():
    assert limit(120_000)[0].seconds_left == 120
    assert limit(86_400)[0].seconds_left == 86_400


def test_which_limit_was_reached():
    found, clock = limit(120, 1000)
    found.count(800)
    clock.now += 100
    assert found.reached() is None
    found.count(100)
    assert "bytes of a circuit: 900 is over" in str(found.reached())
    found, clock = limit(120, 1000)
    clock.now += 119.5
    reached = found.reached()
    assert isinstance(reached, LimitExceeded)
    assert isinstance(reached, anyio.BrokenResourceError)
    assert "seconds of a circuit" in str(reached)


@pytest.mark.parametrize(
    "end", [anyio.EndOfStream(), StreamReset(0, remote=True), anyio.BrokenResourceError()]
)
async def test_an_end_that_a_limit_explains(end):
    found, _ = limit(data=100)
    stream = CircuitStream(Line(bytes(60), bytes(40), end=end), found)
    assert len(await stream.receive()) == 60
    assert found.bytes_left == 40
    await stream.receive()
    with pytest.raises(RelayLimitReached) as caught:
        await stream.receive()
    assert caught.value.__cause__ is end


async def test_an_end_that_no_limit_explains():
    found, _ = limit(data=1000)
    for each in (found, None):
        stream = CircuitStream(Line(bytes(60), end=anyio.EndOfStream()), each)
        await stream.receive()
        with pytest.raises(anyio.EndOfStream):
            await stream.receive()


async def test_sending_counts_and_is_explained_too():
    found, _ = limit(data=1000)
    line = Line(end=StreamReset(0, remote=True))
    stream = CircuitStream(line, found)
    await stream.send(bytes(300))
    assert found.bytes_left == 700
    with pytest.raises(StreamReset):
        await stream.send(b"x")
    found.count(700)
    with pytest.raises(RelayLimitReached):
        await stream.send(b"x")
    await stream.send_eof()
    assert line.is_finished


async def test_closing_is_told_to_who_waits():
    line = Line(end=anyio.EndOfStream())
    stream = CircuitStream(line, None)
    assert stream.extra(PathAttribute.limit, None) is None
    assert stream.extra(PathAttribute.peer, None) is None
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(stream.wait_closed)
        await anyio.wait_all_tasks_blocked()
        await stream.aclose()
    assert line.is_closed


@pytest.mark.parametrize(
    ("expire", "ttl"), [(4600, 3600), (1000, MIN_TTL), (0, MIN_TTL), (1030, 30), (10**12, MAX_TTL)]
)
def test_how_long_a_reservation_is_taken_to_stand(expire, ttl):
    assert ttl_of(Reservation(expire), 1000.0) == ttl
