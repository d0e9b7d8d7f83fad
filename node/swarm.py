"""The table of connections: dials them, takes them in, runs them, and picks one per peer.

Every connection runs in the node's task group, in a group of its own; nothing that its peer
does leaves that.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from contextlib import nullcontext
from dataclasses import replace
from math import inf
from typing import TYPE_CHECKING, TypeAlias

import anyio

from ..transports.core.addresses import prefix_of
from ..transports.core.codes import ConnectionCode
from ..transports.core.errors import (
    DialError,
    DialTimeout,
    LimitExceeded,
    LocalProtocolError,
    NoTransport,
    P2PError,
    PeerIdMismatch,
    SelfDial,
)
from ..transports.core.interfaces import Priority, Side
from ..transports.core.multiaddr import Component, Multiaddr
from .dialing import Dial, Target, explain
from .dialreport import Reports
from .entries import Entry, run_alone
from .events import (
    ConnectionEnded,
    ConnectionOpened,
    ConnectionRefused,
    DialFailed,
    StreamRefused,
)
from .limits import (
    BecameIdle,
    ConnectionTable,
    DialAllowed,
    DialRefused,
    DrainExpired,
    Evicted,
    Standing,
)
from .paths import Paths
from .prefixes import Doorway
from .refusals import RefusalDigest
from .selection import rank_of

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Sequence
    from contextlib import AbstractContextManager

    from anyio.abc import TaskGroup

    from ..transports.core.errors import ConnectionClosed
    from ..transports.core.interfaces import Connection, Transport
    from ..transports.core.peer_id import PeerId
    from .config import NodeConfig
    from .events import NodeEvent
    from .limits import Fullness, TableEvent
    from .links import Links
    from .path import Rank
    from .peerstore import PeerStore

REFUSAL_TIME = 1.0
"""Seconds for telling a peer that its connection is not wanted."""

logger = logging.getLogger(__name__)


def _nobody_is_known(_: PeerId) -> Standing:
    return Standing.UNKNOWN


def _nobody_is_wanted(_: PeerId) -> bool:
    return False


Serve: TypeAlias = Callable[[Entry, "TaskGroup", Callable[[], None]], Awaitable[None]]


class Swarm:
    """All connections of a node.

    `serve(entry, tasks, on_end)` is run for each connection, in a task of `tasks`, its own group;
    it calls `on_end` as soon as it learns that the connection has ended. `standing` and
    `is_wanted` are asked by the table of limits: see `ConnectionTable`.
    """

    def __init__(  # noqa: PLR0913
        self,
        *,
        peer_id: PeerId,
        transports: Sequence[Transport],
        config: NodeConfig,
        peers: PeerStore,
        publish: Callable[[NodeEvent], None],
        serve: Serve,
        links: Links,
        is_on_link: Callable[[Multiaddr], bool] = lambda _: False,
        standing: Callable[[PeerId], Standing] = _nobody_is_known,
        is_wanted: Callable[[PeerId], bool] = _nobody_is_wanted,
    ) -> None:
        self._peer_id = peer_id
        self._transports = {name: each for each in transports for name in each.protocols}
        self._config = config
        self._peers = peers
        self._publish = publish
        self._serve = serve
        self._links = links
        self._is_on_link = is_on_link
        self._tasks: TaskGroup | None = None
        self._entries: dict[Connection, Entry] = {}
        self._by_address: dict[Multiaddr, Entry] = {}
        self._dials: dict[Hashable, Dial] = {}
        self.reports = Reports()
        self._doorway = Doorway(config.limits)
        self._table: ConnectionTable[Entry, Dial] = ConnectionTable(
            config.limits, standing=standing, usage=Entry.usage, is_wanted=is_wanted
        )
        self.paths = Paths(
            peer_id,
            rank_of=self.rank_of,
            can_dial=self._can_dial,
            peers=peers,
            publish=publish,
            dial=self._look,
            close=self._give_up,
            is_held=self._table.is_held,
            is_wanted=lambda peer: standing(peer) is Standing.KEPT,
        )
        self._turns: dict[Dial, anyio.Event] = {}
        self._refusals: RefusalDigest[ConnectionRefused | StreamRefused] = RefusalDigest()
        self._poke = anyio.Event()
        self._sleeps_until = -inf

    @property
    def entries(self) -> tuple[Entry, ...]:
        """The connections that stand."""
        return tuple(entry for entry in self._entries.values() if not entry.is_ended)

    def entry(self, connection: Connection) -> Entry | None:
        """Return a connection's entry, until everything that ran on it has ended."""
        return self._entries.get(connection)

    def usage(self) -> tuple[Fullness, ...]:
        """Return how full each limit is."""
        return self._table.fullness()

    def transport_for(self, address: Multiaddr) -> Transport | None:
        """Return the transport that claims an address, by its last protocol."""
        return self._transports.get(address.last_transport)

    def best(self, peer: PeerId, *, allow_limited: bool = True) -> Connection | None:
        """Return the connection for what this side opens, if there is one."""
        entry = self.paths.best(peer, allow_limited=allow_limited)
        return None if entry is None else entry.connection

    def start(self, tasks: TaskGroup) -> None:
        """Start to take and make connections, each of which runs in `tasks`."""
        self._tasks = tasks
        tasks.start_soon(self._prune)
        tasks.start_soon(self.paths.run)

    async def stop(self) -> None:
        """Take and make no more connections; flush and close the ones that stand."""
        self._tasks = None
        for dial in tuple(self._dials.values()):
            dial.scope.cancel()
        async with anyio.create_task_group() as closing:
            for entry in self.entries:
                closing.start_soon(entry.connection.aclose)

    async def connect(
        self,
        target: Target,
        *,
        allow_limited: bool = True,
        side: Side = Side.DIALER,
        fresh: bool = False,
        is_quiet: bool = False,
        priority: Priority = Priority.MEDIUM,
    ) -> Connection:
        """Return a connection to the target: one that stands, unless `fresh`, or a new one.

        While the table is full a dial waits for a place, the more urgent first. A failure is an
        event, too, unless all who wait for it are quiet. Raises DialError,
        NoTransport, LimitExceeded.
        """
        self._refuse_self(target)
        if not fresh and self._standing(target, allow_limited=allow_limited):
            # A connection that was closed just now shows it within two turns of either loop.
            await anyio.lowlevel.checkpoint()
            await anyio.lowlevel.checkpoint()
            if standing := self._standing(target, allow_limited=allow_limited):
                return standing
        dial = self.dial(target, side=side, fresh=fresh, is_quiet=is_quiet, priority=priority)
        return await dial.wait(allow_limited=allow_limited)

    def dial(
        self,
        target: Target,
        *,
        side: Side = Side.DIALER,
        fresh: bool = False,
        is_quiet: bool = False,
        is_extra: bool = False,
        priority: Priority = Priority.MEDIUM,
    ) -> Dial:
        """Return the dial to a target that is under way, unless `fresh`, or one that begins.

        An extra one looks for a better path: it concerns neither the link nor the last report.
        Its `wait` is to be awaited; see `connect`. Raises SelfDial.
        """
        self._refuse_self(target)
        key: Hashable = object() if fresh else target.peer or target.addresses
        dial = self._dials.get(key)
        if dial is None or dial.is_finished or dial.scope.cancel_called:
            dial = self._start_dial(key, target, side, priority, (is_quiet, is_extra))
        dial.add(target.addresses, self.rank_of, circuits={} if fresh else self._by_address)
        dial.has_limited |= not fresh and bool(self._standing(target, allow_limited=True))
        dial.is_quiet = dial.is_quiet and is_quiet
        self._table.hurry_dial(dial, priority)
        return dial

    def attend(self, connection: Connection) -> AbstractContextManager[object]:
        """Have it noticed at once if a connection does not answer, as long as the context lasts."""
        entry = self._entries.get(connection)
        return nullcontext() if entry is None or entry.is_ended else self.paths.attend(entry)

    def adopt(self, connection: Connection) -> None:
        """Enter a connection that this node has opened by other means; raises P2PError."""
        if self._tasks is None:
            raise LocalProtocolError("the node is not running")
        self._admit(connection)

    def discard(self, connection: Connection) -> None:
        """Choose a connection no more, since it takes no new streams; it ends by itself."""
        if entry := self._entries.get(connection):
            self._remove(entry)

    def abandon(self, connection: Connection, reason: str) -> None:
        """Choose a connection no more, and close it; `reason` is told as why it has ended."""
        if entry := self._entries.get(connection):
            self._end(entry, reason, is_idle=False)

    def hold(self, connection: Connection, holder: str) -> None:
        """Have a connection neither evicted nor ended as idle until `holder` releases it."""
        if entry := self._entries.get(connection):
            self._table.hold(entry, holder)

    def release(self, connection: Connection, holder: str) -> None:
        """Take back a `hold`; harmless without one."""
        if entry := self._entries.get(connection):
            self._table.release(entry, holder)

    def begin_upgrade(self, address: Multiaddr) -> bool:
        """Say whether a connection that comes in may begin its upgrade; `end_upgrade` follows."""
        try:
            self._doorway.enter(address, anyio.current_time())
        except LimitExceeded as refusal:
            self._tell_refusal(None, address, refusal)
            return False
        return True

    def end_upgrade(self, address: Multiaddr) -> None:
        """Note that such an upgrade has ended, either way."""
        self._doorway.leave(address)

    async def accept(self, connection: Connection) -> None:
        """Take a connection that came in, or turn it away."""
        entry, peer = Entry(connection), connection.remote_peer
        refusal = self._inbound_refusal(entry)
        if refusal is None:
            self._admit(connection, entry)
            return
        code = ConnectionCode.NO_ERROR
        if isinstance(refusal, LimitExceeded):
            self._tell_refusal(peer, connection.remote_addr, refusal)
            code = ConnectionCode.RESOURCE_LIMIT_EXCEEDED
        logger.debug("turned %s away: %s", peer, refusal)
        await self._refuse(connection, code)

    def refused_stream(self, connection: Connection, refusal: LimitExceeded) -> None:
        """Have it told that a stream of a peer was reset because of a limit."""
        peer = connection.remote_peer
        self._tell(peer, StreamRefused(peer, str(refusal), refusal.setting))

    def _tell_refusal(
        self, peer: PeerId | None, address: Multiaddr, refusal: LimitExceeded
    ) -> None:
        event = ConnectionRefused(peer, address, str(refusal), refusal.setting)
        self._tell(prefix_of(address), event)

    def _tell(self, source: Hashable, refused: ConnectionRefused | StreamRefused) -> None:
        self._publish_refusals(self._refusals.add(source, refused, anyio.current_time()))
        self._keep(self._refusals.next_timeout())

    def _publish_refusals(
        self, refused: Iterable[tuple[ConnectionRefused | StreamRefused, int]]
    ) -> None:
        for event, count in refused:
            self._publish(replace(event, count=count))

    def _standing(self, target: Target, *, allow_limited: bool) -> Connection | None:
        if target.peer is not None:
            return self.best(target.peer, allow_limited=allow_limited)
        for address in target.addresses:
            entry = self._by_address.get(address.without_peer())
            if entry is not None and (allow_limited or entry.connection.limit is None):
                return entry.connection
        return None

    def _refuse_self(self, target: Target) -> None:
        if target.peer == self._peer_id:
            raise SelfDial(f"{target.peer} is this very node")

    def _start_dial(
        self, key: Hashable, target: Target, side: Side, priority: Priority, how: tuple[bool, bool]
    ) -> Dial:
        if self._tasks is None:
            raise LocalProtocolError("the node is not running")
        dial = self._dials[key] = Dial(target.peer, anyio.current_time())
        dial.is_quiet, dial.is_extra = how  # before it asks for a place, which may be refused
        if not target.addresses and target.peer is not None:
            known = self._peers.addresses(target.peer)
            dial.add(known, self.rank_of, circuits=self._by_address)
            by_id = Multiaddr((Component("p2p", bytes(target.peer)),))
            if self.transport_for(by_id) is not None:
                dial.add([by_id], self.rank_of)
        now = anyio.current_time()
        self._turns[dial] = anyio.Event()
        self._apply(self._table.request_dial(dial, target.peer, priority, now))
        self._tasks.start_soon(self._dial_in_turn, key, dial, side)
        return dial

    async def _dial_in_turn(self, key: Hashable, dial: Dial, side: Side) -> None:
        try:
            await self._dial(key, dial, side)
        finally:
            del self._turns[dial]
            self._apply(self._table.dial_ended(dial, anyio.current_time()))

    async def _dial(self, key: Hashable, dial: Dial, side: Side) -> None:
        if dial.peer is not None and not (dial.is_extra or dial.is_quiet):
            self._links.dialling(dial.peer)
        try:
            with dial.scope:
                await self._turns[dial].wait()  # until it has a place, or is refused one
                async with anyio.create_task_group() as attempts:
                    await self._follow(dial, side, attempts)
                if not dial.is_finished:
                    error = explain(dial)
                    if not dial.is_quiet:
                        self._publish(DialFailed(dial.peer, str(error)))
                    dial.fail(error)
        finally:
            if self._dials.get(key) is dial:
                del self._dials[key]
            why = "the node stops" if self._tasks is None else "nobody waits for it any more"
            dial.fail(DialError(f"the dial was cancelled: {why}"))
            if (
                dial.peer is not None
                and dial.error is not None
                and not (dial.is_extra or dial.is_quiet)
            ):
                self._links.dial_failed(dial.peer, dial.error)
            if not dial.has_won and not dial.is_extra:
                self.reports.keep(dial.report(anyio.current_time()))

    async def _follow(self, dial: Dial, side: Side, attempts: TaskGroup) -> None:
        """Start attempts as planned, until there is a connection or nothing is left to try."""
        plan = dial.plan
        while not dial.is_finished and not plan.is_exhausted:
            dial.changed = anyio.Event()
            for address in plan.take(anyio.current_time()):
                attempts.start_soon(self._attempt, dial, address, side)
            if (deadline := plan.next_timeout()) == inf:
                await dial.changed.wait()
                continue
            with anyio.CancelScope(deadline=deadline):
                await dial.changed.wait()
        if dial.has_won and plan.has_several:
            attempts.cancel_scope.cancel()
        # Where one came in instead, what is under way goes on: of crossed dials each side might
        # otherwise cancel the one that the other has taken.

    async def _attempt(self, dial: Dial, address: Multiaddr, side: Side) -> None:
        timeout = dial.timeout or self._config.dial_timeout
        transport = self.transport_for(address)
        dial.begin(address, anyio.current_time())
        cause: Exception | None = None
        try:
            if transport is None or not transport.can_dial(address):
                raise NoTransport(address)
            with anyio.fail_after(timeout):
                connection = await transport.dial(address, peer=dial.peer, side=side)
            await self._check(connection, dial)
            self._win(dial, address, connection)
        except TimeoutError:
            cause = DialTimeout(f"no connection within {timeout:g} s")
        except Exception as error:  # noqa: BLE001  # boundary
            cause = error
        if cause is not None:
            logger.debug("dialling %s failed: %r", address, cause)
        dial.end(address, anyio.current_time(), cause)
        if dial.has_won:
            # Before whoever waits goes on, and may ask for it.
            self.reports.keep(dial.report(anyio.current_time()))

    def _win(self, dial: Dial, address: Multiaddr, connection: Connection) -> None:
        is_first = not dial.is_finished
        entry = self._admit(connection)
        # Where the peer was reached; the address may have been its id alone.
        bare = (address if address.host else connection.remote_addr).without_peer()
        self._by_address[bare] = entry
        self._peers.add_addresses(connection.remote_peer, [bare])
        dial.finish(connection)
        dial.has_won = is_first and dial.is_finished

    def rank_of(self, address: Multiaddr) -> Rank:
        """Return the kind of path that an address shows, from this machine."""
        return rank_of(address, self._is_on_link)

    async def _check(self, connection: Connection, dial: Dial) -> None:
        actual, expected = connection.remote_peer, dial.peer
        error: P2PError | None = None
        if self._tasks is None:
            error = LocalProtocolError("the node is not running")
        elif actual == self._peer_id:
            error = SelfDial("the address leads to this very node")
        elif expected is not None and expected != actual:
            error = PeerIdMismatch(expected, actual)
        elif dial.has_won:
            error = DialError("another address of the peer was faster")
        if error is not None:
            await self._refuse(connection)
            raise error

    def _inbound_refusal(self, entry: Entry) -> P2PError | None:
        connection = entry.connection
        peer, address = connection.remote_peer, connection.remote_addr
        if self._tasks is None:
            return LocalProtocolError("the node is not running")
        if peer == self._peer_id:
            return SelfDial("it is this very node")
        now = anyio.current_time()
        try:
            self._apply(self._table.admit(entry, peer, address, is_inbound=True, now=now))
        except LimitExceeded as refusal:
            return refusal
        return None

    def _admit(self, connection: Connection, entry: Entry | None = None) -> Entry:
        """Enter a connection; without an entry it is one that this side has dialled."""
        assert self._tasks is not None
        peer, address = connection.remote_peer, connection.remote_addr
        now = anyio.current_time()
        if entry is None:
            entry = Entry(connection)
            self._table.admit(entry, peer, address, is_inbound=False, now=now)
        self._entries[connection] = entry
        self.paths.add(entry, now)
        self._keep(self._table.next_timeout())
        self._peers.met(peer)
        limited = connection.limit is not None
        if not limited and (dial := self._dials.get(peer)):
            dial.finish(connection)
            self._turns[dial].set()
        self._publish(ConnectionOpened(peer, address, connection.side, limited))
        self._links.connected(peer, str(address))
        self._tasks.start_soon(self._hold, entry)
        return entry

    async def _hold(self, entry: Entry) -> None:
        connection = entry.connection
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._serve_entry, entry, tasks)
                await run_alone(connection)
                self._remove(entry)
                ended = await connection.wait_closed()
                logger.debug("%s: %s", connection.remote_peer, ended)
                why = f"{ended}: {entry.reason}" if entry.reason else str(ended)
                self._publish(
                    ConnectionEnded(
                        connection.remote_peer, connection.remote_addr, ended.remote, why
                    )
                )
                self._tell_link(entry, ended)
        finally:
            # It counts against the limits until its last handler has ended.
            self._remove(entry)
            del self._entries[connection]
            self._apply(self._table.ended(entry, anyio.current_time()))

    async def _serve_entry(self, entry: Entry, tasks: TaskGroup) -> None:
        await self._serve(entry, tasks, lambda: self._remove(entry))

    def _remove(self, entry: Entry) -> None:
        if entry.is_ended:
            return
        entry.is_ended = True
        self._table.leave(entry, anyio.current_time())
        peer = entry.connection.remote_peer
        for address in [each for each, held in self._by_address.items() if held is entry]:
            del self._by_address[address]
        if self.paths.remove(entry, anyio.current_time()):
            self._peers.parted(peer)
        self._keep(self._table.next_timeout())

    def _tell_link(self, entry: Entry, ended: ConnectionClosed) -> None:
        connection, peer = entry.connection, entry.connection.remote_peer
        if peer not in self.paths:
            broke = entry.is_silent or ended.remote is None or (ended.remote and ended.code is None)
            was_dialled = connection.side is Side.DIALER
            self._links.ended(
                peer, entry.reason or str(ended), broke=broke, was_dialled=was_dialled
            )

    def _keep(self, deadline: float | None) -> None:
        if deadline is not None and deadline < self._sleeps_until:
            self._poke.set()

    async def _prune(self) -> None:
        while True:
            self._poke = anyio.Event()
            timeouts = (self._table.next_timeout(), self._refusals.next_timeout())
            deadline = min((each for each in timeouts if each is not None), default=inf)
            self._sleeps_until = deadline
            with anyio.CancelScope(deadline=deadline) as scope:
                await self._poke.wait()
            if scope.cancelled_caught:
                now = anyio.current_time()
                self._apply(self._table.handle_timeout(now))
                self._publish_refusals(self._refusals.handle_timeout(now))

    def _apply(self, events: Iterable[TableEvent[Entry, Dial]]) -> None:
        """Do what the table of limits has decided."""
        for event in events:
            match event:
                case Evicted(entry, reason) | BecameIdle(entry, reason):
                    self._end(entry, reason, is_idle=isinstance(event, BecameIdle))
                case DrainExpired(entry):
                    self._close(entry)
                case DialAllowed(dial):
                    self._turns[dial].set()
                case DialRefused(dial, error):
                    if not dial.is_quiet:
                        self._publish(DialFailed(dial.peer, str(error)))
                    dial.fail(error)
                    if not dial.is_extra:
                        self.reports.keep(dial.report(anyio.current_time()))
                    self._turns[dial].set()
        self._keep(self._table.next_timeout())

    def _can_dial(self, address: Multiaddr) -> bool:
        transport = self.transport_for(address)
        return transport is not None and transport.can_dial(address)

    async def _look(self, peer: PeerId, addresses: tuple[Multiaddr, ...]) -> None:
        target = Target(peer, addresses)
        dial = self.dial(target, fresh=True, is_quiet=True, is_extra=True, priority=Priority.LOW)
        await dial.wait()

    def _give_up(self, entry: Entry, reason: str) -> None:
        entry.is_silent = True
        self._end(entry, reason, is_idle=False)

    def _end(self, entry: Entry, reason: str, *, is_idle: bool) -> None:
        logger.debug("ending the connection to %s: %s", entry.connection.remote_peer, reason)
        entry.reason = reason
        self._remove(entry)
        if is_idle:
            entry.connection.drain()
        else:
            self._close(entry)

    def _close(self, entry: Entry) -> None:
        if self._tasks is not None:
            code = ConnectionCode.GARBAGE_COLLECTED
            self._tasks.start_soon(self._refuse, entry.connection, code)

    async def _refuse(self, connection: Connection, code: int = ConnectionCode.NO_ERROR) -> None:
        # Shielded, since a dial that is cancelled as it succeeds must not leave its socket behind.
        with anyio.move_on_after(REFUSAL_TIME, shield=True):
            await connection.aclose(code=code)
