"""The tables of the file, version by version. What has been released is never changed, only added
to: a file of any earlier version is brought forward step by step, each step whole or not at all."""

from __future__ import annotations

import sqlite3
from functools import cache
from typing import TypeAlias

Migrations: TypeAlias = tuple[tuple[str, ...], ...]

MIGRATIONS: Migrations = (
    (
        # `user_version` once more: a byte that has changed on the disk is not taken for the future.
        "CREATE TABLE about (name TEXT PRIMARY KEY, value INTEGER) WITHOUT ROWID",
        "INSERT INTO about VALUES ('version', 0), ('opened', 0)",
        # `used` puts the peers in the order in which they were met.
        "CREATE TABLE peers (used INTEGER PRIMARY KEY, id BLOB NOT NULL UNIQUE,"
        " addresses BLOB NOT NULL, agent TEXT NOT NULL, record_seq INTEGER NOT NULL,"
        " last_seen REAL NOT NULL)",
        "CREATE TABLE kept (id BLOB PRIMARY KEY, addresses BLOB NOT NULL, alias TEXT NOT NULL,"
        " since REAL NOT NULL) WITHOUT ROWID",
        "CREATE TABLE links (used INTEGER PRIMARY KEY, id BLOB NOT NULL UNIQUE)",
        "CREATE TABLE link_changes (id BLOB NOT NULL, number INTEGER NOT NULL,"
        " state TEXT NOT NULL, reason TEXT NOT NULL, time REAL NOT NULL,"
        " PRIMARY KEY (id, number)) WITHOUT ROWID",
    ),
)
"""The statements that lead from each version to the next; the first ones from nothing."""


def version_of(connection: sqlite3.Connection) -> int | None:
    """Return the version of a file, 0 if it is new; None if the file contradicts itself."""
    version = int(connection.execute("PRAGMA user_version").fetchone()[0])
    if version == 0:
        is_new = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0
        return 0 if is_new else None
    row = connection.execute("SELECT value FROM about WHERE name = 'version'").fetchone()
    return version if row == (version,) and version > 0 else None


def migrate(connection: sqlite3.Connection, migrations: Migrations, version: int) -> None:
    """Bring a file from a version to the newest, each step in a transaction of its own."""
    for number, statements in enumerate(migrations[version:], version + 1):
        connection.execute("BEGIN IMMEDIATE")
        for statement in statements:
            connection.execute(statement)
        connection.execute("UPDATE about SET value = ? WHERE name = 'version'", (number,))
        connection.execute(f"PRAGMA user_version = {number:d}")
        connection.execute("COMMIT")


def has_tables(connection: sqlite3.Connection, migrations: Migrations) -> bool:
    """Say whether all tables are there, to the letter; a damaged file may say otherwise."""
    return _tables_after(migrations) <= _tables(connection)


@cache
def _tables_after(migrations: Migrations) -> frozenset[tuple[object, ...]]:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    try:
        connection.text_factory = bytes
        migrate(connection, migrations, 0)
        return _tables(connection)
    finally:
        connection.close()


def _tables(connection: sqlite3.Connection) -> frozenset[tuple[object, ...]]:
    return frozenset(connection.execute("SELECT type, name, sql FROM sqlite_master"))
