"""The table of connections: dials them, takes them in, runs them, and picks one per peer.

Every connection runs in the node's task group, in a group of its own; nothing that its peer
does leaves that.
"""

from __future__ import annotations

import logging
from collections import Counter, OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING, TypeAlias

import anyio

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
from ..transports.core.interfaces import Side
from ..transports.core.multiaddr import Component, Multiaddr
from .dialing import Dial, explain
from .dialreport import DialReport
from .events import ConnectionEnded, ConnectionOpened, ConnectionRefused, DialFailed
from .selection import Selection, rank_of

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

    from anyio.abc import TaskGroup

    from ..transports.core.errors import ConnectionClosed
    from ..transports.core.interfaces import Connection, Transport
    from ..transports.core.peer_id import PeerId
    from .config import NodeConfig
    from .dialing import Target
    from .events import NodeEvent
    from .links import Links
    from .peerstore import PeerStore
    from .selection import Rank

MAX_REPORTS = 256
"""Reports of dials that are kept, each of some KiB."""

REFUSAL_TIME = 1.0
"""Seconds for telling a peer that its connection is not wanted."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Usage:
    """How full a limit is, and the setting that moves it."""

    name: str
    used: int
    bound: int
    setting: str


class Entry:
    """One connection of the table; `upkeep` counts its streams that do not keep it in use."""

    __slots__ = ("connection", "is_ended", "upkeep")

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.upkeep: Counter[str] = Counter()
        self.is_ended = False

    def is_busy(self) -> bool:
        """Say whether a stream is open that is not mere upkeep."""
        counts = self.connection.statistics()
        open_streams = counts.data_channels_opened - counts.data_channels_closed
        return open_streams > self.upkeep.total()


Serve: TypeAlias = Callable[[Entry, "TaskGroup", Callable[[], None]], Awaitable[None]]


class Swarm:
    """All connections of a node.

    `serve(entry, tasks, on_end)` is run for each connection, in a task of `tasks`, its own group;
    it calls `on_end` as soon as it learns that the connection has ended.
    """

    def __init__(
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
        self._selections: dict[PeerId, Selection[Entry]] = {}
        self._dials: dict[Hashable, Dial] = {}
        self.reports: OrderedDict[PeerId | None, DialReport] = OrderedDict()
        """The last dial to each peer, the newest last; None is whoever was not known to the end."""
        self._poke = anyio.Event()

    @property
    def entries(self) -> tuple[Entry, ...]:
        """The connections that stand."""
        return tuple(entry for entry in self._entries.values() if not entry.is_ended)

    def entry(self, connection: Connection) -> Entry | None:
        """Return a connection's entry, until everything that ran on it has ended."""
        return self._entries.get(connection)

    def usage(self) -> tuple[Usage, ...]:
        """Return how full each limit is; of those for one peer, for the peer that uses it most."""
        limits = self._config.limits
        total = len(self._entries)
        of_peers = Counter(connection.remote_peer for connection in self._entries)
        most = max(of_peers.values(), default=0)
        return tuple(
            Usage(name, used, bound, f"limits.{setting}")
            for name, used, bound, setting in (
                ("connections", total, limits.connections, "connections"),
                ("inbound connections", total, limits.inbound_connections, "outbound_share"),
                (
                    "connections of one peer",
                    most,
                    limits.connections_per_peer,
                    "connections_per_peer",
                ),
                ("dials under way", len(self._dials), limits.waiting_dials, "waiting_dials"),
            )
        )

    def transport_for(self, address: Multiaddr) -> Transport | None:
        """Return the transport that claims an address, by its last protocol."""
        return self._transports.get(address.last_transport)

    def best(self, peer: PeerId, *, allow_limited: bool = True) -> Connection | None:
        """Return the connection for what this side opens, if there is one."""
        selection = self._selections.get(peer)
        if selection is None:
            return None
        entry = selection.best(allow_limited=allow_limited)
        return None if entry is None else entry.connection

    def start(self, tasks: TaskGroup) -> None:
        """Start to take and make connections, each of which runs in `tasks`."""
        self._tasks = tasks
        tasks.start_soon(self._prune)

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
    ) -> Connection:
        """Return a connection to the target: one that stands, unless `fresh`, or a new one.

        A failure is an event, too, unless all who wait for it are quiet. Raises DialError,
        NoTransport, LimitExceeded.
        """
        if target.peer == self._peer_id:
            raise SelfDial(f"{target.peer} is this very node")
        if not fresh and self._standing(target, allow_limited=allow_limited):
            # A connection that was closed just now shows it within two turns of either loop.
            await anyio.lowlevel.checkpoint()
            await anyio.lowlevel.checkpoint()
            if standing := self._standing(target, allow_limited=allow_limited):
                return standing
        key: Hashable = object() if fresh else target.peer or target.addresses
        dial = self._dials.get(key)
        if dial is None or dial.is_finished or dial.scope.cancel_called:
            try:
                dial = self._start_dial(key, target, side)
            except LimitExceeded as error:
                self._keep_report(DialReport.refused(target.peer, error))
                raise
        dial.add(target.addresses, self._rank)
        dial.is_quiet = dial.is_quiet and is_quiet
        return await dial.wait()

    def discard(self, connection: Connection) -> None:
        """Choose a connection no more, since it takes no new streams; it ends by itself."""
        if entry := self._entries.get(connection):
            self._remove(entry)

    async def accept(self, connection: Connection) -> None:
        """Take a connection that came in, or turn it away."""
        peer = connection.remote_peer
        refusal = self._inbound_refusal(peer)
        if refusal is None:
            self._admit(connection)
            return
        if isinstance(refusal, LimitExceeded):
            address = connection.remote_addr
            self._publish(ConnectionRefused(peer, address, str(refusal), refusal.setting))
        logger.debug("turned %s away: %s", peer, refusal)
        await self._refuse(connection)

    def _standing(self, target: Target, *, allow_limited: bool) -> Connection | None:
        if target.peer is not None:
            return self.best(target.peer, allow_limited=allow_limited)
        for address in target.addresses:
            entry = self._by_address.get(address.without_peer())
            if entry is not None and (allow_limited or entry.connection.limit is None):
                return entry.connection
        return None

    def _start_dial(self, key: Hashable, target: Target, side: Side) -> Dial:
        limits = self._config.limits
        if self._tasks is None:
            raise LocalProtocolError("the node is not running")
        if len(self._dials) >= limits.waiting_dials:
            raise _limit("dials under way", len(self._dials), limits.waiting_dials, "waiting_dials")
        total = len(self._entries) + len(self._dials)
        if total >= limits.connections:
            raise _limit("connections", total, limits.connections, "connections")
        dial = self._dials[key] = Dial(target.peer, anyio.current_time())
        if not target.addresses and target.peer is not None:
            dial.add(self._peers.addresses(target.peer), self._rank)
            by_id = Multiaddr((Component("p2p", bytes(target.peer)),))
            if self.transport_for(by_id) is not None:
                dial.add([by_id], self._rank)
        self._tasks.start_soon(self._dial, key, dial, side)
        return dial

    async def _dial(self, key: Hashable, dial: Dial, side: Side) -> None:
        if dial.peer is not None:
            self._links.dialling(dial.peer)
        try:
            with dial.scope:
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
            if dial.peer is not None and dial.error is not None:
                self._links.dial_failed(dial.peer, dial.error)
            self._keep_report(dial.report(anyio.current_time()))

    async def _follow(self, dial: Dial, side: Side, attempts: TaskGroup) -> None:
        """Start attempts as planned, until there is a connection or nothing is left to try."""
        plan = dial.plan
        while not dial.is_finished and not plan.is_exhausted:
            dial.changed = anyio.Event()
            for address in plan.take(anyio.current_time()):
                attempts.start_soon(self._attempt, dial, address, side)
            with anyio.CancelScope(deadline=plan.next_timeout()):
                await dial.changed.wait()
        if dial.has_won:
            attempts.cancel_scope.cancel()
        # Where one came in instead, what is under way goes on: of crossed dials each side might
        # otherwise cancel the one that the other has taken.

    async def _attempt(self, dial: Dial, address: Multiaddr, side: Side) -> None:
        timeout = self._config.dial_timeout
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
            self._keep_report(dial.report(anyio.current_time()))

    def _win(self, dial: Dial, address: Multiaddr, connection: Connection) -> None:
        dial.has_won = not dial.is_finished
        entry = self._admit(connection)
        # Where the peer was reached; the address may have been its id alone.
        bare = (address if address.host else connection.remote_addr).without_peer()
        self._by_address[bare] = entry
        self._peers.add_addresses(connection.remote_peer, [bare])
        dial.finish(connection)

    def _rank(self, address: Multiaddr) -> Rank:
        return rank_of(address, self._is_on_link)

    def _keep_report(self, report: DialReport) -> None:
        self.reports[report.peer] = report
        self.reports.move_to_end(report.peer)
        if len(self.reports) > MAX_REPORTS:
            self.reports.popitem(last=False)

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

    def _inbound_refusal(self, peer: PeerId) -> P2PError | None:
        limits = self._config.limits
        if self._tasks is None:
            return LocalProtocolError("the node is not running")
        if peer == self._peer_id:
            return SelfDial("it is this very node")
        total, bound = len(self._entries), limits.inbound_connections
        if total >= bound:
            return _limit("inbound connections", total, bound, "connections")
        own = sum(not each.is_ended for each in self._of(peer))
        if own >= limits.connections_per_peer:
            bound = limits.connections_per_peer
            return _limit("connections of one peer", own, bound, "connections_per_peer")
        return None

    def _admit(self, connection: Connection) -> Entry:
        assert self._tasks is not None
        peer, address = connection.remote_peer, connection.remote_addr
        limited = connection.limit is not None
        entry = self._entries[connection] = Entry(connection)
        selection = self._selections.get(peer)
        if selection is None:
            selection = Selection(is_local_lower=self._peer_id < peer)
            self._selections[peer] = selection
        selection.add(
            entry,
            self._rank(address),
            dialled=connection.side is Side.DIALER,
            limited=limited,
            now=anyio.current_time(),
        )
        self._look_at(selection)
        self._peers.met(peer)
        self._links.connected(peer, str(address))
        if not limited and (dial := self._dials.get(peer)):
            dial.finish(connection)
        self._publish(ConnectionOpened(peer, address, connection.side, limited))
        self._tasks.start_soon(self._hold, entry)
        return entry

    async def _hold(self, entry: Entry) -> None:
        connection = entry.connection
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._serve_entry, entry, tasks)
                await _run(connection)
                self._remove(entry)
                ended = await connection.wait_closed()
                logger.debug("%s: %s", connection.remote_peer, ended)
                self._publish(
                    ConnectionEnded(
                        connection.remote_peer, connection.remote_addr, ended.remote, str(ended)
                    )
                )
                self._tell_link(connection, ended)
        finally:
            # It counts against the limits until its last handler has ended.
            self._remove(entry)
            del self._entries[connection]

    async def _serve_entry(self, entry: Entry, tasks: TaskGroup) -> None:
        await self._serve(entry, tasks, lambda: self._remove(entry))

    def _remove(self, entry: Entry) -> None:
        if entry.is_ended:
            return
        entry.is_ended = True
        peer = entry.connection.remote_peer
        for address in [each for each, held in self._by_address.items() if held is entry]:
            del self._by_address[address]
        selection = self._selections[peer]
        selection.remove(entry, anyio.current_time())
        if all(each.is_ended for each in self._of(peer)):
            del self._selections[peer]
            self._peers.parted(peer)
        self._look_at(selection)

    def _tell_link(self, connection: Connection, ended: ConnectionClosed) -> None:
        peer = connection.remote_peer
        if peer not in self._selections:
            self._links.ended(peer, ended, was_dialled=connection.side is Side.DIALER)

    def _look_at(self, selection: Selection[Entry]) -> None:
        """Have a selection's deadline kept, which only several connections to a peer have."""
        if selection.next_timeout() is not None:
            self._poke.set()

    def _of(self, peer: PeerId) -> list[Entry]:
        return [each for each in self._entries.values() if each.connection.remote_peer == peer]

    async def _prune(self) -> None:
        while True:
            self._poke = anyio.Event()
            timeouts = [each.next_timeout() for each in self._selections.values()]
            deadline = min((each for each in timeouts if each is not None), default=inf)
            with anyio.CancelScope(deadline=deadline) as scope:
                await self._poke.wait()
            if scope.cancelled_caught:
                self._close_needless(anyio.current_time())

    def _close_needless(self, now: float) -> None:
        for selection in self._selections.values():
            for entry in selection.handle_timeout(now, Entry.is_busy):
                logger.debug("closing a needless connection to %s", entry.connection.remote_peer)
                entry.connection.drain()

    async def _refuse(self, connection: Connection) -> None:
        # Shielded, since a dial that is cancelled as it succeeds must not leave its socket behind.
        with anyio.move_on_after(REFUSAL_TIME, shield=True):
            await connection.aclose()


async def _run(connection: Connection) -> None:
    try:
        await connection.run()
    except (P2PError, OSError, anyio.BrokenResourceError, anyio.ClosedResourceError) as error:
        logger.warning("a connection to %s broke: %r", connection.remote_peer, error)


def _limit(which: str, value: int, limit: int, setting: str) -> LimitExceeded:
    return LimitExceeded(which, value=value, limit=limit, setting=f"limits.{setting}")
