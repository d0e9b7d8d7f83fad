"""Moves the bytes of a circuit between its two streams, as fast as the slower one takes them.

What is held is what the streams hold: a chunk is received only when the one before it has been
taken, so that a target that does not read stops its source.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from math import inf
from typing import TYPE_CHECKING

import anyio

from ...transports.core.codes import StreamCode
from ...transports.core.errors import P2PError, StreamReset, unwrap_group
from ...transports.wakeup import new_wakeup
from ...transports.yamux.nested import FastWay
from .fairness import FairShare
from .limits import Allowance

if TYPE_CHECKING:
    from collections.abc import Callable

    from ...transports.core.interfaces import Stream
    from ...transports.core.peer_id import PeerId
    from ...transports.wakeup import Wakeup
    from .limits import RelayLimits


class CircuitEnd(Enum):
    """Why a circuit ended."""

    FINISHED = "both peers had finished"
    RESET = "a peer or its connection ended it"
    BYTES = "it had carried its bytes"
    DURATION = "its time was over"


@dataclass(slots=True, eq=False)
class Circuit:
    """One circuit: who is behind it, and how much it has carried each way."""

    source: PeerId
    target: PeerId
    opened_at: float
    bytes_to_target: int = 0
    bytes_to_source: int = 0


class Turns:
    """Lets circuits move in fair turns: the driver of `FairShare`."""

    def __init__(self, bandwidth: float | None, clock: Callable[[], float]) -> None:
        self._share: FairShare[PeerId, Wakeup] = FairShare(bandwidth, clock())
        self._clock = clock
        self._poke: anyio.Event | None = None

    @property
    def share(self) -> FairShare[PeerId, Wakeup]:
        """The balances."""
        return self._share

    async def wait(self, source: PeerId) -> None:
        """Wait until a circuit of this source may move on."""
        ticket = new_wakeup()
        self._share.wait(source, ticket)
        if self._poke is not None:
            self._poke.set()
        try:
            await ticket.wait()
        finally:
            self._share.forget(source, ticket)

    async def run(self) -> None:
        """Release those who wait, for ever."""
        share, clock = self._share, self._clock
        while True:
            # No await between the look and the new event, so that no poke is lost.
            due = share.next_release(clock())
            if due == inf:
                self._poke = anyio.Event()
                await self._poke.wait()
                self._poke = None
                continue
            await anyio.sleep(max(due - clock(), 0))
            for ticket in share.release(clock()):
                ticket.set()


class Splice:
    """Joins the two streams of a circuit; `run` it once.

    Half-closes and resets are carried over; `count` is told of each chunk, and when it had passed.
    At the end of its bytes a circuit is closed, so that
    what has passed arrives; at the end of its time it is reset.
    """

    def __init__(
        self,
        circuit: Circuit,
        *,
        limits: RelayLimits,
        turns: Turns,
        clock: Callable[[], float],
        count: Callable[[int, float], None],
    ) -> None:
        self._circuit = circuit
        self._limits = limits
        self._turns = turns
        self._clock = clock
        self._count = count
        self._end: CircuitEnd | None = None
        self._running = anyio.CancelScope()

    async def run(self, near: Stream, far: Stream) -> CircuitEnd:
        """Carry bytes between the source's stream and the target's until the circuit ends.

        Both streams have ended then.
        """
        share, source = self._turns.share, self._circuit.source
        duration = self._limits.circuit_duration
        if duration is not None:
            self._running.deadline = anyio.current_time() + duration
        share.join(source)
        try:
            with unwrap_group(), self._running:
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(self._carry, near, far, self._to_target)
                    tasks.start_soon(self._carry, far, near, self._to_source)
                self._end = self._end or CircuitEnd.FINISHED
            if self._end is None:
                self._end = CircuitEnd.DURATION
                _reset(StreamCode.RESOURCE_LIMIT_EXCEEDED, near, far)
        finally:
            share.leave(source)
            if self._end is None:
                _reset(StreamCode.SHUTDOWN, near, far)
        for stream in (near, far):
            await stream.aclose()
        return self._end

    async def _carry(self, origin: Stream, sink: Stream, moved: Callable[[int], None]) -> None:
        """Carry one direction to its end."""
        limits, turns, clock = self._limits, self._turns, self._clock
        share, source = turns.share, self._circuit.source
        allowance = Allowance(total=limits.circuit_bytes, rate=limits.circuit_rate, now=clock())
        rate = limits.circuit_rate or inf

        def note(size: int) -> None:
            moved(size)
            self._count(size, now := clock())
            allowance.spend(size, now)

        passage = _Passage(origin, sink, allowance, share, source, note)
        try:
            while not allowance.is_spent:
                pace = min(share.rate(source, clock()), rate)
                if pace < inf:
                    # What the two send is to wait at them, not in the queues of the line.
                    origin.move_in_steps(share.chunk, pace)
                if not await passage.move(is_paced=pace < inf):
                    await turns.wait(source)
                if (wait := allowance.ready_at(now := clock()) - now) > 0:
                    await anyio.sleep(wait)
            self._stop(CircuitEnd.BYTES)
        except anyio.EndOfStream:
            await self._finish(origin, sink)
        except _BROKEN as error:
            self._break(error, origin, sink)

    async def _finish(self, origin: Stream, sink: Stream) -> None:
        """Carry over that one side has finished."""
        try:
            await sink.send_eof()
        except _BROKEN as error:
            self._break(error, origin, sink)

    def _break(self, error: Exception, *streams: Stream) -> None:
        """Carry over that one side was reset."""
        _reset(error.code if isinstance(error, StreamReset) else 0, *streams)
        self._stop(CircuitEnd.RESET)

    def _stop(self, end: CircuitEnd) -> None:
        self._end = self._end or end
        self._running.cancel()

    def _to_target(self, size: int) -> None:
        self._circuit.bytes_to_target += size

    def _to_source(self, size: int) -> None:
        self._circuit.bytes_to_source += size


class _Passage:
    """Moves the chunks of one direction.

    `note` is told of each that has passed. Where neither a rate nor a bandwidth is set, chunks pass
    in the turn of the loop in which they arrive, as long as the sink takes them.
    """

    def __init__(
        self,
        origin: Stream,
        sink: Stream,
        allowance: Allowance,
        share: FairShare[PeerId, Wakeup],
        source: PeerId,
        note: Callable[[int], None],
    ) -> None:
        self._origin = origin
        self._sink = sink
        self._allowance = allowance
        self._share = share
        self._source = source
        self._note = note
        self._from, self._to = FastWay.of(origin), FastWay.of(sink)
        self._rest: memoryview | None = None
        self._size = 0
        self._may_go_on = True

    async def move(self, *, is_paced: bool) -> bool:
        """Move a chunk, or as many as may pass at once; False if others have their turn then.

        Raises EndOfStream, and what the streams raise.
        """
        if is_paced or self._from is None or self._to is None:
            chunk = await self._origin.receive(self._most())
            await self._sink.send(chunk)
            self._size = len(chunk)
        else:
            if not await self._from.receive_each(self._pass_on, self._most):
                raise anyio.EndOfStream
            if self._rest is None:
                # Counted already.
                return self._may_go_on
            rest, self._rest = self._rest, None
            await self._sink.send(bytes(rest))
        self._note(self._size)
        return self._share.spend(self._source, self._size)

    def _most(self) -> int:
        return self._allowance.most(self._share.chunk)

    def _pass_on(self, chunk: memoryview) -> bool:
        """Move a chunk at once; False if the next one is not to follow at once."""
        assert self._to is not None
        sent, self._size = self._to.send_nowait(chunk), len(chunk)
        if sent < self._size:
            self._rest = chunk[sent:]
            return False
        self._note(self._size)
        self._may_go_on = self._share.spend(self._source, self._size)
        return self._may_go_on and not self._allowance.is_spent


_BROKEN = (P2PError, anyio.BrokenResourceError, anyio.ClosedResourceError)


def _reset(code: int, *streams: Stream) -> None:
    for stream in streams:
        stream.reset(code)
