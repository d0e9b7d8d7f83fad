"""The stores of a node: tables in memory that answer at once, and the file behind them."""

from __future__ import annotations

import logging
import time
from contextlib import asynccontextmanager
from functools import partial
from math import inf
from typing import TYPE_CHECKING

import anyio
import anyio.to_thread

from ...transports.core.errors import StoreError
from ..events import StoreDegraded, StoreRecovered
from ..peerstore import PeerStore
from .kept import KeptPeers
from .links import LinkHistories
from .machine import Table, WriteBehind
from .records import Batch, StoreUnavailable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable
    from pathlib import Path

    from ...transports.core.peer_id import PeerId
    from ..events import NodeEvent
    from .database import Database, Opened
    from .machine import Key

STORE_FILE = "isthmus.sqlite3"

FLUSH_TIME = 1.0
"""Seconds in which transactions still begin when the node stops; mostly one is left."""

logger = logging.getLogger(__name__)


class Stores:
    """Peers, kept peers and link histories; in memory alone unless there is a data directory.

    The tables are used at once and at any time. `opened` reads the file, which neither needs to be
    there nor to be usable; `run` writes what changes; leaving `opened` writes the rest. `machine`
    and `flush_time` are other ones in tests alone.
    """

    def __init__(
        self,
        data_dir: Path | None = None,
        *,
        machine: WriteBehind | None = None,
        flush_time: float = FLUSH_TIME,
    ) -> None:
        self.peers = PeerStore(
            changed=partial(self._mark, Table.PEERS), dropped=partial(self._unmark, Table.PEERS)
        )
        self.kept = KeptPeers(changed=partial(self._mark, Table.KEPT))
        self.links = LinkHistories(
            changed=partial(self._mark, Table.LINKS), dropped=partial(self._unmark, Table.LINKS)
        )
        self._path = None if data_dir is None else data_dir / STORE_FILE
        self._database: Database | None = None
        self._machine = WriteBehind() if machine is None else machine
        self._flush_time = flush_time
        self._wake = anyio.Event()
        # What happens before `run` is told when that begins; it is two events at most.
        self._held: list[NodeEvent] = []
        self._publish: Callable[[NodeEvent], None] = self._held.append
        self._trouble = ""

    @property
    def path(self) -> Path | None:
        """The file; None if all is in memory alone."""
        return self._path

    @property
    def trouble(self) -> str:
        """Why the file is not written at present; empty if it is."""
        return self._trouble if self._machine.is_degraded else ""

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[None]:
        """Read the file, and at the end write what is left and close it.

        Raises StoreError for a file of a newer isthmus, and for nothing else.
        """
        if self._path is None:
            yield
            return
        try:
            # Loaded only where it is used; some builds of Python do without SQLite.
            from .database import Database
        except ImportError as error:
            self._fail(self._path, f"this Python has no SQLite ({error})")
            yield
            return
        database = self._database = Database(self._path)
        try:
            await self._turn(self._path, database, is_first=True)
            yield
        finally:
            with anyio.CancelScope(shield=True):
                await self._finish(self._path, database)

    async def run(self, publish: Callable[[NodeEvent], None]) -> None:
        """Write what changes, until cancelled; `publish` is told when that fails and works again.

        To be run within `opened`; returns at once if there is no file.
        """
        self._publish = publish
        for event in self._held:
            publish(event)
        if self._path is None or self._database is None:
            return
        while True:
            self._wake = anyio.Event()
            deadline = self._machine.next_timeout()
            with anyio.CancelScope(deadline=inf if deadline is None else deadline) as scope:
                await self._wake.wait()
            if scope.cancelled_caught:
                # What has been taken to be written is written, or not: no third way.
                with anyio.CancelScope(shield=True):
                    await self._turn(self._path, self._database)

    async def _turn(self, path: Path, database: Database, *, is_first: bool = False) -> bool:
        """Open the file unless it is open, and write once; return whether that worked."""
        try:
            if not database.is_open:
                self._take_in(path, await anyio.to_thread.run_sync(database.open, time.time()))
            batch = self._batch(self._machine.take())
            if batch:
                await anyio.to_thread.run_sync(database.write, batch, time.time())
        except StoreUnavailable as error:
            self._fail(path, error.reason)
            return False
        except StoreError as error:
            if is_first:
                raise
            self._fail(path, str(error))
            return False
        for link in batch.links:
            self.links.saved(link)
        if self._machine.written(anyio.current_time()):
            self._publish(StoreRecovered(path))
        return True

    async def _finish(self, path: Path, database: Database) -> None:
        deadline = anyio.current_time() + self._flush_time
        while len(self._machine) and await self._turn(path, database):
            if anyio.current_time() > deadline:
                break
        if len(self._machine) and not self._machine.is_degraded:
            logger.warning("%s: the last %d changes were not written", path, len(self._machine))
        await anyio.to_thread.run_sync(database.close)

    def _take_in(self, path: Path, opened: Opened) -> None:
        if opened.damage is not None:
            self._fail(path, opened.damage)
        contents = opened.contents
        # What was forgotten meanwhile may be in a file that could not be read until now.
        kept = [each for each in contents.kept if (Table.KEPT, each.peer) not in self._machine]
        peers = [each for each in contents.peers if not self._is_forgotten(each.peer)]
        self.peers.restore(peers)
        self.kept.restore(kept)
        self.links.restore(contents.links)

    def _fail(self, path: Path, reason: str) -> None:
        self._trouble = reason
        if self._machine.failed(anyio.current_time()):
            self._publish(StoreDegraded(path, reason))

    def _batch(self, keys: Iterable[Key]) -> Batch:
        named: dict[Table, list[PeerId]] = {table: [] for table in Table}
        for table, peer in keys:
            named[table].append(peer)
        kept = [(peer, self.kept.info(peer)) for peer in named[Table.KEPT]]
        peers = [(peer, self.peers.stored(peer)) for peer in named[Table.PEERS]]
        return Batch(
            peers=tuple(each for _, each in peers if each is not None),
            forgotten=tuple(peer for peer, each in peers if each is None),
            kept=tuple(each for _, each in kept if each is not None),
            not_kept=tuple(peer for peer, each in kept if each is None),
            links=tuple(link for peer in named[Table.LINKS] if (link := self.links.unsaved(peer))),
        )

    def _is_forgotten(self, peer: PeerId) -> bool:
        return (Table.PEERS, peer) in self._machine and self.peers.stored(peer) is None

    def _mark(self, table: Table, peer: PeerId) -> None:
        if self._path is not None and self._machine.mark((table, peer)):
            self._wake.set()

    def _unmark(self, table: Table, peer: PeerId) -> None:
        self._machine.unmark((table, peer))
