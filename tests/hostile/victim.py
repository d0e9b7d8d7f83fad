"""A node under attack, and beside it the honest peer that it has to go on serving."""

from __future__ import annotations

import logging
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import anyio
from isthmus import LimitsConfig, Node, NodeConfig
from isthmus.transports.core.errors import unwrap_group
from isthmus.transports.tcp import TcpTransport
from isthmus.transports.upgrade import Upgraded

from .attacker import PATIENCE

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from isthmus.node.events import NodeEvent
    from isthmus.transports.core.interfaces import RawTransport
    from isthmus.transports.core.multiaddr import Multiaddr
    from isthmus.transports.core.peer_id import PeerId
    from isthmus.transports.upgrade import UpgradeConfig
    from isthmus.transports.yamux.driver import YamuxConnection

LOOPBACK = "/ip4/127.0.0.1/tcp/0"
ECHO = "/echo/1.0.0"

ROOMY = LimitsConfig(
    connections_per_prefix=512,
    connection_burst=10_000,
    pending_inbound=512,
    inbound_streams_unknown=LimitsConfig().inbound_streams,
)
"""All attackers come from one address, and are to meet the bounds behind those of the address."""

MAX_LATENCY = 1.0
"""Seconds that the honest peer waits for one echo at the most; attackers share its event loop."""

PAUSE = 0.005
"""Seconds between two of its echoes."""

MAX_LEAVING = 2.5
"""Seconds to leave the node in, whatever peers do: `stop_timeout` and what a busy machine adds."""


async def echo(stream) -> None:
    """Send back what comes."""
    async for received in stream:
        await stream.send(received)


class Victim:
    """The node, what it reported, and how well the honest peer was served meanwhile."""

    def __init__(self, node: Node, transport: Upgraded, honest: Node, log: _Log) -> None:
        self.node = node
        self.transport = transport
        self.honest = honest
        self.events: list[NodeEvent] = []
        self.latencies: list[float] = []
        self.most_held = 0
        self._log = log
        self._news = anyio.Event()
        self._stop = anyio.Event()
        self._tasks = 0

    @property
    def address(self) -> Multiaddr:
        """Where to attack."""
        return self.node.addresses[0]

    @property
    def listener(self):
        """The listener, for its counters."""
        return self.node._own.listeners[0]

    @property
    def failed_upgrades(self) -> list[BaseException]:
        """Why upgrades failed."""
        return self._log.errors("isthmus.transports.upgrade")

    @property
    def failed_negotiations(self) -> list[BaseException]:
        """Why streams found no handler."""
        return self._log.errors("isthmus.node.router")

    def connection_of(self, peer: PeerId) -> YamuxConnection:
        """The connection that an attacker made."""
        return next(each for each in self.node.connections if each.remote_peer == peer)

    async def event(self, kind: type[NodeEvent], peer: PeerId | None = None) -> NodeEvent:
        """Wait for the first event of the kind that is about this peer."""
        with anyio.fail_after(PATIENCE):
            while True:
                news = self._news
                for event in self.events:
                    if isinstance(event, kind) and peer in (None, event.peer):
                        return event
                await news.wait()

    async def until(self, condition: Callable[[], object]) -> None:
        """Look at every turn of the loop until the condition holds."""
        with anyio.fail_after(PATIENCE):
            while not condition():
                await anyio.lowlevel.checkpoint()

    async def settled(self) -> None:
        """Wait until nothing of any attack is left."""
        with anyio.move_on_after(PATIENCE):
            while self._remains():
                await anyio.lowlevel.checkpoint()
        assert self._remains() == {}

    async def record(self) -> None:
        """Keep every event."""
        async for event in self.node.events():
            self.events.append(event)
            self._news.set()
            self._news = anyio.Event()

    async def meet(self) -> None:
        """Connect the honest peer, and count what runs when nobody attacks."""
        await self.echo()
        await self.until(lambda: self.honest.peers.protocols(self.node.peer_id) is not None)
        await self.until(lambda: self.node.peers.protocols(self.honest.peer_id) is not None)
        await self.until(lambda: all(not each.machine.streams for each in self._connections()))
        await anyio.wait_all_tasks_blocked()
        self._tasks = len(anyio.get_running_tasks())

    async def echo(self) -> None:
        """Have the honest peer ask for one echo on a new stream, and note how long that took."""
        started = anyio.current_time()
        with anyio.fail_after(PATIENCE):
            assert await self.honest.request(self.node.addresses, ECHO, b"hello") == b"hello"
        self.latencies.append(anyio.current_time() - started)

    async def keep_echoing(self) -> None:
        """Do so again and again, and note what attackers make the node hold."""
        self._tasks += 1
        while not self._stop.is_set():
            await self.echo()
            self.most_held = max([self.most_held, *map(held, self._foreign())])
            with anyio.move_on_after(PAUSE):
                await self._stop.wait()

    async def finish(self) -> None:
        """See that the attack is over and the honest peer was served all the time."""
        await self.settled()
        await self.echo()
        self._stop.set()
        assert max(self.latencies) < MAX_LATENCY
        assert len(self.node.connections) == len(self.honest.connections) == 1

    def _connections(self) -> tuple[YamuxConnection, ...]:
        return self.node.connections + self.honest.connections

    def _foreign(self) -> list[YamuxConnection]:
        honest = self.honest.peer_id
        return [each for each in self.node.connections if each.remote_peer != honest]

    def _remains(self) -> dict[str, int]:
        node, budget = self.node, self.transport.budget
        tasks = len(anyio.get_running_tasks())
        counts = {
            "connections": len(node._swarm._entries) - 1,
            "peers": len(node._swarm.paths) - 1,
            "identified": len(node._identify._told) - 1,
            "budgeted": len(budget._holders) - 1,
            "upgrades": self.listener.pending,
            "tasks": max(tasks - self._tasks, 0),
        }
        return {name: count for name, count in counts.items() if count}


def held(connection: YamuxConnection) -> int:
    """Bytes that a connection keeps for its peer, whichever way they go."""
    machine = connection.machine
    return (
        machine.unread_bytes
        + machine.queued
        + len(machine._partial)
        + sum(map(len, machine._control.frames))
        + len(connection._session._partial)
        + len(connection._unsent or b"")
    )


@asynccontextmanager
async def attacked(
    *,
    upgrade: UpgradeConfig | None = None,
    config: NodeConfig | None = None,
    raw: RawTransport | None = None,
    listen: str = LOOPBACK,
) -> AsyncIterator[Victim]:
    """Lend a node that serves echo and perf; see afterwards that it has taken no harm."""
    transport = Upgraded(raw or TcpTransport(), config=upgrade)
    settings = replace(config or NodeConfig(serve_perf=True), limits=ROOMY)
    node = Node(listen=listen, transports=[transport], config=settings)
    node.handle(ECHO, echo)
    with _recorded_log() as log, unwrap_group():
        async with Node() as honest:
            async with node, anyio.create_task_group() as tasks:
                victim = Victim(node, transport, honest, log)
                tasks.start_soon(victim.record)
                await victim.meet()
                tasks.start_soon(victim.keep_echoing)
                yield victim
                await victim.finish()
                tasks.cancel_scope.cancel()
                started = anyio.current_time()
            assert anyio.current_time() - started < MAX_LEAVING
        assert log.complaints == []


class _Log(logging.Handler):
    """What the project logged: nothing that asks for attention, and never a traceback."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.complaints: list[str] = []
        self._errors: list[tuple[str, BaseException]] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno > logging.DEBUG or record.exc_info:
            self.complaints.append(record.getMessage())
        for argument in record.args or ():
            if isinstance(argument, BaseException):
                self._errors.append((record.name, argument))

    def errors(self, logger: str) -> list[BaseException]:
        return [error for name, error in self._errors if name == logger]


@contextmanager
def _recorded_log() -> Iterator[_Log]:
    handler, logger = _Log(), logging.getLogger("isthmus")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    try:
        yield handler
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
