"""The file of the stores: one SQLite database, used by one thread of one process at a time.

Its errors come out as `StoreUnavailable`, which the node survives. A damaged file is moved aside,
so that a new one can be begun.
"""

from __future__ import annotations

import errno
import os
import re
import sqlite3
import stat
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from ...transports.core.errors import StoreError
from ..keystore import make_directory
from ..peerstore import MAX_PEERS
from .links import MAX_HISTORY, MAX_LINKS
from .records import Contents, StoredLink, StoreUnavailable
from .rows import (
    MAX_NUMBER,
    change_from_row,
    change_to_row,
    kept_from_row,
    kept_to_row,
    peer_from_cell,
    peer_from_row,
    peer_to_row,
)
from .schema import MIGRATIONS, has_tables, migrate, version_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from .records import Batch
    from .schema import Migrations

MAX_BYTES = 256 * 1024 * 1024
"""The file's bound: its tables, each full of the longest entries, take some 180 MiB. Of a node that
has met thousands of peers it is a few."""

MAX_LOG_BYTES = 4 * 1024 * 1024
"""What SQLite's log keeps on the disk between transactions; 1000 pages are where it is emptied."""

MAX_DAMAGED = 3
"""Damaged files that stay, for whoever wants to look what became of them."""

BUSY_TIME = 0.2
"""Seconds that another program, such as a backup, may have the file open without being noticed."""

_DAMAGE = {
    sqlite3.SQLITE_ERROR,  # a table is not as it was made
    sqlite3.SQLITE_CORRUPT,
    sqlite3.SQLITE_CONSTRAINT,
    sqlite3.SQLITE_FORMAT,
    sqlite3.SQLITE_MISMATCH,
    sqlite3.SQLITE_NOTADB,
    sqlite3.SQLITE_TOOBIG,
}
"""Errors of the file's content; all others are of the system around it, and may pass."""

_FULL = frozenset({sqlite3.SQLITE_FULL})
"""After which the file is as it was, and can be tried again as it is."""

_FORBIDDEN = "this account may not write it; see --data-dir and --ephemeral"
_NO_ROOM = f"no room: the disk is full, or the file has {MAX_BYTES >> 20} MiB"
_REASONS = {
    sqlite3.SQLITE_BUSY: "another program has it open",
    sqlite3.SQLITE_CANTOPEN: _FORBIDDEN,
    sqlite3.SQLITE_FULL: _NO_ROOM,
    sqlite3.SQLITE_LOCKED: "another program has it open",
    sqlite3.SQLITE_PERM: _FORBIDDEN,
    sqlite3.SQLITE_READONLY: _FORBIDDEN,
}
_SYSTEM_REASONS = {
    errno.EACCES: _FORBIDDEN,
    errno.EDQUOT: _NO_ROOM,
    errno.ENOSPC: _NO_ROOM,
    errno.EPERM: _FORBIDDEN,
    errno.EROFS: _FORBIDDEN,
}

_PRAGMAS = (
    # One process has the file: no shared memory beside it, and a second one is turned away.
    "locking_mode = EXCLUSIVE",
    "journal_mode = WAL",
    # After a power failure the last transactions may be missing, but nothing is half written.
    "synchronous = NORMAL",
    f"journal_size_limit = {MAX_LOG_BYTES}",
    "cell_size_check = ON",
    "trusted_schema = OFF",
)


@dataclass(frozen=True, slots=True)
class Opened:
    """What was found in the file, and, if there was a damaged one, what became of that."""

    contents: Contents
    damage: str | None = None


class Database:
    """One file; `open` first, then `write` any number of times, then `close`.

    All three block. After a StoreUnavailable it is closed, unless only room was missing: `open`
    tries anew. The bounds and `migrations` are other ones in tests alone.
    """

    def __init__(
        self,
        path: Path,
        *,
        max_peers: int = MAX_PEERS,
        max_links: int = MAX_LINKS,
        max_bytes: int = MAX_BYTES,
        migrations: Migrations = MIGRATIONS,
    ) -> None:
        self._path = path
        self._max_peers = max_peers
        self._max_links = max_links
        self._max_bytes = max_bytes
        self._migrations = migrations
        self._connection: sqlite3.Connection | None = None
        self._place: tuple[int, int] | None = None
        self._used = 0

    @property
    def is_open(self) -> bool:
        """Say whether `write` can be called."""
        return self._connection is not None

    def open(self, now: float) -> Opened:
        """Open the file, or begin it, and return what it holds; `now` is in seconds since 1970.

        Raises StoreUnavailable, and StoreError for a file of a newer isthmus.
        """
        try:
            with self._errors():
                return Opened(self._load(now))
        except _Damaged as error:
            damage = self._move_aside(now, error)
        try:
            with self._errors():
                return Opened(self._load(now), damage)
        except _Damaged as error:
            raise StoreUnavailable(self._path, f"a new file is damaged, too ({error})") from error

    def write(self, batch: Batch, now: float) -> None:
        """Write all of a batch or nothing of it; raises StoreUnavailable."""
        assert self._connection is not None
        try:
            with self._errors(lasting=_FULL), self._transaction() as connection:
                self._look_at_place()
                self._write_peers(connection, batch)
                _write_kept(connection, batch)
                self._write_links(connection, batch.links)
        except _Damaged as error:
            raise StoreUnavailable(self._path, self._move_aside(now, error)) from error

    def close(self) -> None:
        """Close the file; harmless if it is not open."""
        connection, self._connection = self._connection, None
        if connection is not None:
            # What is in SQLite's log stays there, if it cannot be brought into the file now.
            with suppress(sqlite3.Error):
                connection.close()

    @contextmanager
    def _errors(self, *, lasting: frozenset[int] = frozenset()) -> Iterator[None]:
        """Turn what SQLite and the system raise into StoreUnavailable or _Damaged, and close.

        The file stays open after SQLite's errors of the codes `lasting`.
        """
        try:
            yield
        except BaseException as error:
            code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_OK) & 0xFF
            if code not in lasting:
                self.close()
            if code in _DAMAGE:
                raise _Damaged(str(error)) from error
            if code != sqlite3.SQLITE_OK:
                raise StoreUnavailable(self._path, _REASONS.get(code, str(error))) from error
            if isinstance(error, OSError):
                reason = _SYSTEM_REASONS.get(error.errno or 0, error.strerror or str(error))
                raise StoreUnavailable(self._path, reason) from error
            # Also what the module finds wrong with what it was given, which is a bug of ours.
            raise

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        connection = self._connection
        assert connection is not None
        connection.execute("BEGIN IMMEDIATE")
        try:
            yield connection
            connection.execute("COMMIT")
        except BaseException:
            # A full disk may have undone it already.
            if connection.in_transaction:
                with suppress(sqlite3.Error):
                    connection.execute("ROLLBACK")
            raise

    def _load(self, now: float) -> Contents:
        place = self._begin_file()
        connection = self._connection = sqlite3.connect(
            f"{self._path.absolute().as_uri()}?mode=rw",
            uri=True,
            timeout=BUSY_TIME,
            isolation_level=None,  # transactions begin where it is said
            check_same_thread=False,  # one thread at a time, but not always the same
        )
        connection.text_factory = bytes
        for pragma in _PRAGMAS:
            connection.execute(f"PRAGMA {pragma}")
        page_size = connection.execute("PRAGMA page_size").fetchone()[0]
        connection.execute(f"PRAGMA max_page_count = {self._max_bytes // page_size}")
        self._check(connection)
        contents = self._read(connection)
        # Writes at once, to know whether that is possible.
        with self._transaction():
            connection.execute("UPDATE about SET value = ? WHERE name = 'opened'", (int(now),))
        self._place = place
        return contents

    def _begin_file(self) -> tuple[int, int]:
        """Make an empty file unless there is one, its owner's alone; return which one it is."""
        make_directory(self._path.parent)
        try:
            status = os.stat(self._path)
        except FileNotFoundError:
            flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            os.close(os.open(self._path, flags, 0o600))
            status = os.stat(self._path)
        # Looked at without opening it: closing it would give up the locks of a node beside this.
        if not stat.S_ISREG(status.st_mode):
            raise StoreUnavailable(self._path, "it is no regular file; move it away")
        if status.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            os.chmod(self._path, 0o600)
        # SQLite would take it for a broken disk.
        if not os.access(self._path, os.R_OK | os.W_OK):
            raise StoreUnavailable(self._path, _FORBIDDEN)
        return status.st_dev, status.st_ino

    def _look_at_place(self) -> None:
        """Raise StoreUnavailable if the file has been removed or replaced since it was opened."""
        try:
            status = os.stat(self._path)
        except FileNotFoundError:
            raise StoreUnavailable(self._path, "the file is gone") from None
        if (status.st_dev, status.st_ino) != self._place:
            raise StoreUnavailable(self._path, "another file is in its place")

    def _check(self, connection: sqlite3.Connection) -> None:
        (found,) = connection.execute("PRAGMA quick_check(1)").fetchone()
        if found != b"ok":
            raise _Damaged(found.decode("utf-8", "replace"))
        known, version = len(self._migrations), version_of(connection)
        if version is None:
            raise _Damaged("its version is not clear")
        if version > known:
            raise StoreError(
                f"{self._path}: written by a newer isthmus (version {version} of the file, and"
                f" this one knows {known}); use that one, or move the file away"
            )
        migrate(connection, self._migrations, version)
        if not has_tables(connection, self._migrations):
            raise _Damaged("its tables are not as they were made")

    def _read(self, connection: sqlite3.Connection) -> Contents:
        peers = connection.execute(
            "SELECT id, addresses, agent, record_seq, last_seen FROM peers"
            " ORDER BY used DESC LIMIT ?",
            (self._max_peers,),
        )
        kept = connection.execute("SELECT id, addresses, alias, since FROM kept ORDER BY since")
        links = connection.execute(
            "SELECT id FROM links ORDER BY used DESC LIMIT ?", (self._max_links,)
        )
        contents = Contents(
            peers=_present(map(peer_from_row, peers)),
            kept=_present(map(kept_from_row, kept)),
            links=_present(_read_link(connection, cell) for (cell,) in links),
        )
        (used,) = connection.execute(
            "SELECT max((SELECT coalesce(max(used), 0) FROM peers),"
            " (SELECT coalesce(max(used), 0) FROM links))"
        ).fetchone()
        if used >= MAX_NUMBER:
            raise _Damaged("more has been counted than can have been")
        self._used = max(used, 0)
        return contents

    def _write_peers(self, connection: sqlite3.Connection, batch: Batch) -> None:
        connection.executemany(
            "INSERT INTO peers (used, id, addresses, agent, record_seq, last_seen)"
            " VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO UPDATE SET"
            " used = excluded.used, addresses = excluded.addresses, agent = excluded.agent,"
            " record_seq = excluded.record_seq, last_seen = excluded.last_seen",
            [(self._next_used(), *peer_to_row(each)) for each in batch.peers],
        )
        connection.executemany(
            "DELETE FROM peers WHERE id = ?", [(bytes(peer),) for peer in batch.forgotten]
        )
        _trim(connection, "peers", self._max_peers)

    def _write_links(self, connection: sqlite3.Connection, links: tuple[StoredLink, ...]) -> None:
        for link in links:
            peer, end = bytes(link.peer), link.first + len(link.changes)
            connection.execute(
                "INSERT INTO links (used, id) VALUES (?, ?)"
                " ON CONFLICT (id) DO UPDATE SET used = excluded.used",
                (self._next_used(), peer),
            )
            connection.execute(
                "DELETE FROM link_changes WHERE id = ? AND (number >= ? OR number < ?)",
                (peer, link.first, end - MAX_HISTORY),
            )
            connection.executemany(
                "INSERT INTO link_changes (id, number, state, reason, time) VALUES (?, ?, ?, ?, ?)",
                [
                    (peer, number, *change_to_row(change))
                    for number, change in enumerate(link.changes, link.first)
                ],
            )
        if _trim(connection, "links", self._max_links):
            connection.execute("DELETE FROM link_changes WHERE id NOT IN (SELECT id FROM links)")

    def _next_used(self) -> int:
        self._used += 1
        return self._used

    def _move_aside(self, now: float, why: _Damaged) -> str:
        """Give a damaged file another name, forget the oldest such files; return what was done."""
        with self._errors():
            number = int(now)
            while (moved := self._path.with_name(f"{self._path.name}.corrupt-{number}")).exists():
                number += 1
            os.rename(self._path, moved)
            for suffix in _COMPANIONS:
                with suppress(FileNotFoundError):
                    os.rename(f"{self._path}{suffix}", f"{moved}{suffix}")
            for old in _damaged_files(self._path)[:-MAX_DAMAGED]:
                for suffix in ("", *_COMPANIONS):
                    with suppress(FileNotFoundError):
                        os.unlink(f"{old}{suffix}")
        return f"damaged ({why}), and moved to {moved}"


_COMPANIONS = ("-wal", "-journal", "-shm")
"""What SQLite puts behind the name of a file for files of its own."""


class _Damaged(Exception):
    """What is in the file is not what was written; the text says where it shows."""


T = TypeVar("T")


def _present(values: Iterable[T | None]) -> tuple[T, ...]:
    return tuple(each for each in values if each is not None)


def _read_link(connection: sqlite3.Connection, cell: object) -> StoredLink | None:
    peer = peer_from_cell(cell)
    if peer is None:
        return None
    rows = connection.execute(
        "SELECT number, state, reason, time FROM link_changes WHERE id = ?"
        " ORDER BY number DESC LIMIT ?",
        (cell, MAX_HISTORY),
    )
    changes = [change for row in rows if (change := change_from_row(row))]
    if not changes:
        return None
    end = changes[0][0] + 1
    return StoredLink(peer, end - len(changes), tuple(change for _, change in reversed(changes)))


def _write_kept(connection: sqlite3.Connection, batch: Batch) -> None:
    connection.executemany(
        "INSERT OR REPLACE INTO kept (id, addresses, alias, since) VALUES (?, ?, ?, ?)",
        map(kept_to_row, batch.kept),
    )
    connection.executemany(
        "DELETE FROM kept WHERE id = ?", [(bytes(peer),) for peer in batch.not_kept]
    )


def _trim(connection: sqlite3.Connection, table: str, most: int) -> bool:
    """Delete the rows used least recently beyond a bound; return whether there were any."""
    (count,) = connection.execute(f"SELECT count(*) FROM {table}").fetchone()
    if count <= most:
        return False
    connection.execute(
        f"DELETE FROM {table} WHERE used <="
        f" (SELECT used FROM {table} ORDER BY used DESC LIMIT 1 OFFSET ?)",
        (most,),
    )
    return True


def _damaged_files(path: Path) -> list[Path]:
    """Return the files that were moved aside, oldest first."""
    pattern = re.compile(re.escape(path.name) + r"\.corrupt-(\d+)")
    names = [match for each in path.parent.iterdir() if (match := pattern.fullmatch(each.name))]
    return [path.with_name(match[0]) for match in sorted(names, key=lambda match: int(match[1]))]
