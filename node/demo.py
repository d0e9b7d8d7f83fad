"""The demonstration behind `isthmus demo`: real nodes on this machine, one step after another.

It prints nothing: a `Watcher` is told which step begins, what it measures meanwhile, and what came
of it. Another step is another line in STEPS; the nodes that it needs are started by an earlier one.
"""

from __future__ import annotations

import time
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, TypeAlias

import anyio

from ..transports.core.errors import P2PError, unwrap_group
from ..transports.core.interfaces import Priority
from .daemon import ECHO_PROTOCOL
from .demo_nodes import NodeProcess, caller
from .protocols.perf import BLOCK_BYTES, HEADER_BYTES, PERF_PROTOCOL
from .router import open_negotiated

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from types import TracebackType
    from typing import Self

    from ..transports.core.interfaces import Connection, Stream
    from ..transports.core.multiaddr import Multiaddr
    from ..transports.core.peer_id import PeerId
    from .events import Json
    from .node import Node

MEASURED_SHARE = 0.25
"""Of the whole time, for each of three measurements; the rest goes for starting the nodes, and for
the relay."""

RELAYED_SHARE = 0.05
"""Of the whole time, for the echo through the relay."""

MAX_RELAYED_TIME = 0.5
"""Seconds of it at most: some 100 bytes an echo, and a stranger's relay carries 128 KiB."""

HANDOVER_ECHOES = 20
"""Echoes on the old and the new stream in turn, once there are both: to be seen to go on."""

DRAIN_TIME = 3.0
"""Seconds for the relayed connection to end, once nothing uses it any more."""

ECHO_BYTES = 32

MAX_LAG = 0.01
"""Seconds of echoes that are made up for at once, after a pause of this machine's."""

ECHO_INTERVAL = 0.001
"""Seconds between two echoes: as a fast mouse reports. Without a pause, bulk would pay for them."""

STEP_PATIENCE = 45.0
"""Seconds; starting a process alone may take thirty before that is given up."""

RAMP_SHARE = 0.1
"""Of a measurement, that runs before it counts: a stream's window grows meanwhile."""

WATCH_INTERVAL = 0.25
"""Seconds between two figures for a watcher: as often as a person reads them."""

RECENT_ECHOES = 500
"""Those that the figures in between are of: half a second's."""

_BROKEN = (
    P2PError,
    OSError,
    anyio.BrokenResourceError,
    anyio.ClosedResourceError,
    anyio.EndOfStream,
)
"""What a step raises if the node at the other end goes away."""


@dataclass(frozen=True, slots=True)
class RelayStarted:
    """The relay, with a key that was made just now."""

    peer: PeerId
    pid: int
    address: Multiaddr

    def to_json(self) -> dict[str, Json]:
        """Return plain values by name."""
        return {"peer_id": str(self.peer), "pid": self.pid, "address": str(self.address)}


@dataclass(frozen=True, slots=True)
class NodesStarted:
    """This process's node and the other one, each with a key that was made just now.

    `address` leads to the other one through the relay.
    """

    own_peer: PeerId
    other_peer: PeerId
    other_pid: int
    address: Multiaddr

    def to_json(self) -> dict[str, Json]:
        """Return plain values by name."""
        return {
            "peer_id": str(self.own_peer),
            "other_peer_id": str(self.other_peer),
            "other_pid": self.other_pid,
            "address": str(self.address),
        }


@dataclass(frozen=True, slots=True)
class Connected:
    """The two are connected; `peer` is whom the handshake proved, `seconds` what it all took.

    `limit_bytes` and `limit_seconds` are what the relay lets pass and how long; None: no limit.
    """

    peer: PeerId
    seconds: float
    limit_bytes: float | None = None
    limit_seconds: float | None = None

    def to_json(self) -> dict[str, Json]:
        """Return plain values by name."""
        return {
            "proven_peer_id": str(self.peer),
            "connect_ms": _ms(self.seconds),
            "limit_bytes": self.limit_bytes,
            "limit_seconds": None if self.limit_seconds is None else round(self.limit_seconds, 3),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Moved:
    """A direct connection has taken the relayed one's place, `seconds` after that stood.

    `echoes` went through the relay and directly meanwhile, and all came back; `ended` is how the
    relayed connection ended, None if it still stands.
    """

    address: Multiaddr
    seconds: float
    echoes: int
    ended: str | None

    def to_json(self) -> dict[str, Json]:
        """Return plain values by name."""
        return {
            "address": str(self.address),
            "direct_ms": _ms(self.seconds),
            "echoes": self.echoes,
            "relayed_ended": self.ended,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What flowed in `seconds`; None where a step has no echo, or no bulk. Rates are bytes/s."""

    seconds: float
    echoes: int | None = None
    echo_p50: float | None = None
    echo_p99: float | None = None
    bulk_bytes: int | None = None
    bulk_alone: float | None = None
    """The rate of bulk by itself, where that was measured before."""

    @property
    def bulk_rate(self) -> float | None:
        """Bytes a second."""
        return None if self.bulk_bytes is None else self.bulk_bytes / max(self.seconds, 1e-9)

    @property
    def bulk_share(self) -> float | None:
        """The part of bulk's own speed that it keeps."""
        return self.bulk_rate / self.bulk_alone if self.bulk_rate and self.bulk_alone else None

    def to_json(self) -> dict[str, Json]:
        """Return plain values by name."""
        rate, share = self.bulk_rate, self.bulk_share
        return {
            "seconds": round(self.seconds, 3),
            "echoes": self.echoes,
            "echo_p50_ms": _ms(self.echo_p50),
            "echo_p99_ms": _ms(self.echo_p99),
            "bulk_bytes": self.bulk_bytes,
            "bulk_mb_s": None if rate is None else round(rate / 1e6, 3),
            "bulk_share": None if share is None else round(share, 4),
        }


Outcome: TypeAlias = RelayStarted | NodesStarted | Connected | Measured | Moved


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that is shown: its name in JSON, what is said before, and what is done."""

    name: str
    text: str
    act: Callable[[Stage], Awaitable[Outcome]]


class Watcher(Protocol):
    """Who is told what happens; what a method raises ends the demonstration."""

    is_live: bool
    """Whether `measuring` is worth calling."""

    def begin(self, step: Step) -> None:
        """Take note of a step before it begins."""

    def measuring(self, step: Step, so_far: Measured) -> None:
        """Take note of what a step has measured so far, a few times a second."""

    def done(self, step: Step, outcome: Outcome) -> None:
        """Take note of what came of a step."""


@dataclass(slots=True, kw_only=True)
class Stage:
    """What steps work on: this process's node, the others by name, what was found so far.

    An asynchronous context manager: entering starts this process's node, leaving ends them all.
    """

    seconds: float
    """For all of it, about."""

    arguments: Sequence[str] = ()
    """Options for the processes that are started."""

    is_quiet: bool = True
    """Whether what they write to the standard error is kept from this process's own."""

    patience: float = STEP_PATIENCE
    """Seconds above `seconds` after which a step is given up."""

    node: Node = field(default_factory=caller)
    others: dict[str, NodeProcess] = field(default_factory=dict)
    found: dict[str, Outcome] = field(default_factory=dict)
    watch: Callable[[Measured], None] | None = None
    circuit: Connection | None = None
    """The connection through the relay."""

    relayed: Stream | None = None
    """The echo's stream on it, until the direct connection has taken over."""

    _context: AsyncExitStack = field(default_factory=AsyncExitStack)
    _tasks: anyio.abc.TaskGroup = field(default_factory=anyio.create_task_group)

    @property
    def measured_seconds(self) -> float:
        """Seconds for each measurement."""
        return self.seconds * MEASURED_SHARE

    @property
    def direct(self) -> Connection | None:
        """The connection without a relay that what is opened to the other node takes, if any."""
        peer = self.others["other"].peer_id
        for each in self.node.connections:
            if each.remote_peer == peer and each.limit is None and self.node.is_used(each):
                return each
        return None

    async def start_process(
        self, name: str, role: str, *, relays: Sequence[Multiaddr] = ()
    ) -> NodeProcess:
        """Start another node, to be ended with this stage; raises NodeProcessFailed."""
        process = await NodeProcess.start(
            f"the {name} node",
            role,
            tasks=self._tasks,
            relays=[*map(str, relays)],
            arguments=self.arguments,
            is_quiet=self.is_quiet,
        )
        self._context.push_async_callback(process.aclose)
        self.others[name] = process
        return process

    async def open_stream(self, name: str, protocol: str, priority: Priority) -> Stream:
        """Open a stream to another node."""
        return await self.node.open_stream(self.others[name].peer_id, protocol, priority=priority)

    async def __aenter__(self) -> Self:
        self._context.enter_context(unwrap_group())
        await self._context.enter_async_context(self._tasks)
        await self._context.enter_async_context(self.node)
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_val: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> bool | None:
        return await self._context.__aexit__(exc_type, exc_val, exc_tb)


async def perform(steps: Sequence[Step], stage: Stage, watcher: Watcher) -> None:
    """Do the steps in order; what came of each is in `stage.found`, by its name.

    Raises NodeProcessFailed if another node's process does not start or ends, TimeoutError if a
    step stands still, and what the node's methods do.
    """
    for step in steps:
        watcher.begin(step)
        stage.watch = _watch(step, watcher)
        try:
            outcome = await _within(stage.seconds + stage.patience, step, stage)
        except (*_BROKEN, BaseExceptionGroup) as error:
            for process in stage.others.values():
                ended = await process.why_ended()
                if ended is not None:
                    raise ended from error
            raise
        stage.found[step.name] = outcome
        watcher.done(step, outcome)


async def _within(seconds: float, step: Step, stage: Stage) -> Outcome:
    with anyio.move_on_after(seconds):
        return await step.act(stage)
    raise TimeoutError(f"the step {step.name!r} of the demonstration stood still")


def _watch(step: Step, watcher: Watcher) -> Callable[[Measured], None] | None:
    return (lambda so_far: watcher.measuring(step, so_far)) if watcher.is_live else None


async def _relay(stage: Stage) -> RelayStarted:
    relay = await stage.start_process("relay", "relay")
    return RelayStarted(relay.peer_id, relay.pid, relay.addresses[0])


async def _start(stage: Stage) -> NodesStarted:
    other = await stage.start_process("other", "peer", relays=stage.others["relay"].addresses)
    return NodesStarted(stage.node.peer_id, other.peer_id, other.pid, other.addresses[0])


async def _connect(stage: Stage) -> Connected:
    # Not the loop's clock: uvloop's counts milliseconds.
    started = time.perf_counter()
    connection = await stage.node.connect(stage.others["other"].addresses)
    seconds = time.perf_counter() - started
    stage.circuit, limit = connection, connection.limit
    if limit is None:
        return Connected(connection.remote_peer, seconds)
    return Connected(connection.remote_peer, seconds, limit.bytes_left, limit.seconds_left)


async def _echo_relayed(stage: Stage) -> Measured:
    assert stage.circuit is not None
    # On this very connection: what is opened to the peer may take another one by now.
    stage.relayed = await open_negotiated(
        stage.circuit, (ECHO_PROTOCOL,), known=None, timeout=STEP_PATIENCE, priority=Priority.HIGH
    )
    meter = _Meter(has_echo=True, has_bulk=False, bulk_alone=None)
    ended = anyio.Event()
    with unwrap_group():
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_echo_on, stage.relayed, meter, ended)
            await anyio.sleep(min(stage.seconds * RELAYED_SHARE, MAX_RELAYED_TIME))
            found = meter.read()
            ended.set()
    return found


async def _move(stage: Stage) -> Moved:
    assert stage.circuit is not None
    assert stage.relayed is not None
    echoes = 0
    async with stage.relayed as relayed:
        while (direct := stage.direct) is None:
            await _echo_once(relayed)
            echoes += 1
            await anyio.sleep(ECHO_INTERVAL)
        async with await stage.open_stream("other", ECHO_PROTOCOL, Priority.HIGH) as stream:
            for _ in range(HANDOVER_ECHOES):
                await _echo_once(relayed)
                await _echo_once(stream)
                echoes += 2
    stage.relayed = None
    # As the node does by itself, half a minute later.
    stage.circuit.drain()
    ended = None
    with anyio.move_on_after(DRAIN_TIME):
        ended = str(await stage.circuit.wait_closed())
    opened_at = direct.statistics().opened_at
    return Moved(
        address=direct.remote_addr,
        seconds=max(opened_at - stage.circuit.statistics().opened_at, 0.0),
        echoes=echoes,
        ended=ended,
    )


async def _echo_alone(stage: Stage) -> Measured:
    return await _measure(stage, has_echo=True, has_bulk=False)


async def _bulk_alone(stage: Stage) -> Measured:
    return await _measure(stage, has_echo=False, has_bulk=True)


async def _both(stage: Stage) -> Measured:
    return await _measure(stage, has_echo=True, has_bulk=True)


STEPS = (
    Step("relay", "Start a relay here: it leads others to who has reserved a place at it.", _relay),
    Step(
        "start",
        "Start two nodes, each with a new key; the other one reserves, and is told of to nobody.",
        _start,
    ),
    Step(
        "connect",
        "Connect through the relay; the handshake proves to each which key the other holds.",
        _connect,
    ),
    Step(
        "relayed",
        "An echo through the relay, which sees that they talk, and not what they say.",
        _echo_relayed,
    ),
    Step(
        "direct",
        "Go direct: over the relay they tell each other where they are (DCUtR). The echo goes on.",
        _move,
    ),
    Step(
        "echo",
        f"An urgent echo alone: {ECHO_BYTES} bytes there and back each millisecond, on HIGH.",
        _echo_alone,
    ),
    Step(
        "bulk",
        "Bulk alone: a stream on LOW sends as fast as the connection takes it.",
        _bulk_alone,
    ),
    Step("both", "Both at once, on the same connection.", _both),
)


class _Meter:
    """Counts what flows during one step, from the last `restart` on."""

    def __init__(self, *, has_echo: bool, has_bulk: bool, bulk_alone: float | None) -> None:
        self.times: list[float] = []
        self.sent = 0
        self._has_echo = has_echo
        self._has_bulk = has_bulk
        self._bulk_alone = bulk_alone
        self._started = time.perf_counter()

    def restart(self) -> None:
        self.times.clear()
        self.sent = 0
        self._started = time.perf_counter()

    def read(self, *, recent: int | None = None) -> Measured:
        """Return the figures; the echoes' are of the `recent` last ones, or of all."""
        ordered = sorted(self.times if recent is None else self.times[-recent:])
        return Measured(
            seconds=time.perf_counter() - self._started,
            echoes=len(self.times) if self._has_echo else None,
            echo_p50=percentile(ordered, 0.5),
            echo_p99=percentile(ordered, 0.99),
            bulk_bytes=self.sent if self._has_bulk else None,
            bulk_alone=self._bulk_alone if self._has_bulk else None,
        )


async def _measure(stage: Stage, *, has_echo: bool, has_bulk: bool) -> Measured:
    alone = stage.found.get("bulk")
    meter = _Meter(
        has_echo=has_echo,
        has_bulk=has_bulk,
        bulk_alone=alone.bulk_rate if isinstance(alone, Measured) else None,
    )
    ended = anyio.Event()
    with unwrap_group():
        async with anyio.create_task_group() as tasks:
            if has_bulk:
                tasks.start_soon(_saturate, stage, meter, ended)
            if has_echo:
                tasks.start_soon(_echo, stage, meter, ended)
            await anyio.sleep(stage.measured_seconds * RAMP_SHARE)
            meter.restart()
            await _wait(stage, meter)
            found = meter.read()
            ended.set()
    return found


async def _wait(stage: Stage, meter: _Meter) -> None:
    """Wait while a step measures; tell the watcher what it has so far."""
    deadline = anyio.current_time() + stage.measured_seconds * (1 - RAMP_SHARE)
    while (left := deadline - anyio.current_time()) > 0:
        await anyio.sleep(left if stage.watch is None else min(left, WATCH_INTERVAL))
        if stage.watch is not None:
            stage.watch(meter.read(recent=RECENT_ECHOES))


async def _echo(stage: Stage, meter: _Meter, ended: anyio.Event) -> None:
    async with await stage.open_stream("other", ECHO_PROTOCOL, Priority.HIGH) as stream:
        await _echo_on(stream, meter, ended)


async def _echo_on(stream: Stream, meter: _Meter, ended: anyio.Event) -> None:
    due = time.perf_counter()
    while not ended.is_set():
        started = time.perf_counter()
        await _echo_once(stream)
        now = time.perf_counter()
        meter.times.append(now - started)
        # Loops sleep for whole milliseconds, and so too long: the next one makes up for it.
        due = max(due + ECHO_INTERVAL, now - MAX_LAG)
        if due > now:
            await anyio.sleep(due - now)


async def _echo_once(stream: Stream) -> None:
    await stream.send(bytes(ECHO_BYTES))
    missing = ECHO_BYTES
    while missing:
        missing -= len(await stream.receive(missing))


async def _saturate(stage: Stage, meter: _Meter, ended: anyio.Event) -> None:
    block = bytes(BLOCK_BYTES)
    async with await stage.open_stream("other", PERF_PROTOCOL, Priority.LOW) as stream:
        # perf begins with the number of bytes wanted back: none.
        await stream.send(bytes(HEADER_BYTES))
        while not ended.is_set():
            await stream.send(block)
            meter.sent += BLOCK_BYTES
        await stream.send_eof()
        # The peer ends its side when it has read it all.
        async for _ in stream:
            pass


def percentile(ordered: Sequence[float], share: float) -> float | None:
    """Return the value below which `share` of the sorted ones lie; None if there are none."""
    return ordered[min(int(len(ordered) * share), len(ordered) - 1)] if ordered else None


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1e3, 4)
