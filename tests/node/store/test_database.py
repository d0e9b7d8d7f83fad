"""The file: what is written is there after it was closed, within bounds, and its owner's alone."""

from __future__ import annotations

import os
import sqlite3
import stat
import subprocess
import sys
from contextlib import closing, contextmanager

import pytest
from isthmus.node.store.database import MAX_DAMAGED, Database
from isthmus.node.store.links import MAX_HISTORY
from isthmus.node.store.records import Batch, Contents, StoreUnavailable
from isthmus.node.store.schema import MIGRATIONS
from isthmus.transports.core.errors import StoreError

from .values import BATCH, change, kept, link, peer, stored

NOW = 1_800_000_000.7
OPEN = (
    "import sys; from pathlib import Path;"
    "from isthmus.node.store.database import Database;"
    "Database(Path(sys.argv[1])).open(0.0)"
)
"""A program that opens a file."""
LATER = (*MIGRATIONS, ("ALTER TABLE peers ADD COLUMN colour TEXT",))


@pytest.fixture
def path(tmp_path):
    return tmp_path / "data" / "isthmus.sqlite3"


@contextmanager
def opened(path, **options):
    """A database, and what was in it."""
    database = Database(path, **options)
    try:
        yield database, database.open(NOW)
    finally:
        database.close()


def contents(path, **options) -> Contents:
    with opened(path, **options) as (_, found):
        assert found.damage is None
        return found.contents


def fill(path, *batches, **options) -> None:
    with opened(path, **options) as (database, _):
        for batch in batches:
            database.write(batch, NOW)


def execute(path, statement: str):
    """Do something to the file that isthmus would not."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        return connection.execute(statement).fetchall()


def names(path) -> list[str]:
    return sorted(file.name for file in path.parent.iterdir())


def test_what_is_written_is_there_the_next_time(path):
    fill(path, BATCH)
    found = contents(path)
    assert found.peers == tuple(reversed(BATCH.peers))
    assert found.kept == BATCH.kept
    assert found.links == tuple(reversed(BATCH.links))
    assert names(path) == ["isthmus.sqlite3"]


def test_it_is_its_owners_alone(path):
    with opened(path) as (database, _):
        database.write(BATCH, NOW)
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        files = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}
    assert files == {"isthmus.sqlite3": 0o600, "isthmus.sqlite3-wal": 0o600}
    path.chmod(0o644)
    contents(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_an_entry_is_replaced_and_moves_to_the_front(path):
    fill(path, BATCH, Batch(peers=(stored(1, seq=9),), kept=(kept(7, alias="seven"),)))
    found = contents(path)
    assert found.peers == (stored(1, seq=9), stored(3), stored(2))
    assert found.kept == (kept(1, alias="one"), kept(7, alias="seven"))
    fill(path, Batch(not_kept=(peer(1), peer(99))))
    assert contents(path).kept == (kept(7, alias="seven"),)


def test_the_peers_met_least_recently_are_forgotten_also_in_the_file(path):
    every = tuple(map(stored, range(8)))
    fill(path, Batch(peers=every[:4]), Batch(peers=every[4:]), max_peers=5)
    assert contents(path).peers == every[:2:-1]
    fill(path, Batch(peers=(every[3], stored(50))), max_peers=5)
    assert contents(path).peers == (stored(50), every[3], *every[:4:-1])
    assert contents(path, max_peers=2).peers == (stored(50), every[3])


def test_a_history_grows_at_its_end_and_is_bounded(path):
    parts = [Batch(links=(link(1, first=number, count=3),)) for number in range(0, 300, 3)]
    fill(path, *parts)
    (found,) = contents(path).links
    assert found.first == 300 - MAX_HISTORY
    assert found.changes == tuple(map(change, range(300 - MAX_HISTORY, 300)))
    fill(path, Batch(links=(link(1, first=0, count=2),)))
    assert contents(path).links == (link(1, first=0, count=2),)


def test_the_links_changed_least_recently_are_forgotten_with_their_changes(path):
    fill(
        path, Batch(links=(link(1), link(2))), Batch(links=(link(1, first=3), link(3))), max_links=2
    )
    assert [each.peer for each in contents(path).links] == [peer(3), peer(1)]
    assert execute(path, "SELECT count(*) FROM link_changes") == [(9,)]


def test_a_transaction_is_whole_or_not_at_all(path):
    fill(path, BATCH)
    with opened(path, max_bytes=120_000) as (database, _):
        many = tuple(map(stored, range(100, 2000)))
        with pytest.raises(StoreUnavailable, match="no room") as caught:
            database.write(Batch(peers=many, not_kept=(peer(1),)), NOW)
        assert caught.value.reason == "no room: the disk is full, or the file has 256 MiB"
        assert database.is_open
        database.write(Batch(peers=(stored(4),)), NOW)
    found = contents(path)
    assert found.peers == (stored(4), *reversed(BATCH.peers))
    assert found.kept == BATCH.kept


def test_it_has_one_user(path):
    with opened(path) as (first, _):
        first.write(BATCH, NOW)
        with pytest.raises(StoreUnavailable, match="another program has it open"):
            Database(path).open(NOW)
        # Having looked at the file must not have given up the lock of the first.
        done = subprocess.run(
            [sys.executable, "-c", OPEN, path], capture_output=True, text=True, check=False
        )
        assert "another program has it open" in done.stderr
    assert len(contents(path).peers) == 3


def test_a_file_that_was_removed_or_replaced_is_begun_again(path, tmp_path):
    with opened(path) as (database, _):
        path.unlink()
        with pytest.raises(StoreUnavailable, match="the file is gone"):
            database.write(BATCH, NOW)
        assert not database.is_open
        database.open(NOW)
        database.write(BATCH, NOW)
        (tmp_path / "other").touch()
        (tmp_path / "other").rename(path)
        with pytest.raises(StoreUnavailable, match="another file is in its place"):
            database.write(BATCH, NOW)


@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo])
def test_what_is_no_file_is_left_alone(path, make):
    path.parent.mkdir()
    make(path)
    with pytest.raises(StoreUnavailable, match="no regular file; move it away"):
        Database(path).open(NOW)
    assert names(path) == ["isthmus.sqlite3"]


def test_a_file_that_may_only_be_read_is_named(path, unprivileged):
    fill(path, BATCH)
    path.chmod(0o400)
    done = subprocess.run(
        [*unprivileged, sys.executable, "-c", OPEN, path],
        capture_output=True,
        text=True,
        check=False,
    )
    assert f"StoreUnavailable: {path}: this account may not write it" in done.stderr


def test_a_directory_that_cannot_be_made_is_no_catastrophe(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(StoreUnavailable, match=r"Not a directory|File exists"):
        Database(tmp_path / "file" / "isthmus.sqlite3").open(NOW)


def test_a_newer_file_is_refused_and_left_as_it_is(path):
    fill(path, BATCH, migrations=LATER)
    before = path.read_bytes()
    with pytest.raises(StoreError, match=f"{path}: written by a newer isthmus .version 2 of"):
        Database(path).open(NOW)
    assert names(path) == ["isthmus.sqlite3"]
    assert path.read_bytes() == before
    assert len(contents(path, migrations=LATER).peers) == 3


def test_an_older_file_is_brought_forward(path):
    fill(path, BATCH)
    found = contents(path, migrations=LATER)
    assert found.peers == tuple(reversed(BATCH.peers))
    assert execute(path, "SELECT count(colour), count(*) FROM peers") == [(0, 3)]
    assert execute(path, "PRAGMA user_version") == [(2,)]


def test_a_step_forward_that_fails_is_not_half_done(path):
    fill(path, BATCH)
    broken = (
        *MIGRATIONS,
        ("ALTER TABLE peers ADD COLUMN colour TEXT", "SELECT nothing FROM peers"),
    )
    before = execute(path, "SELECT sql FROM sqlite_master")
    with pytest.raises(StoreUnavailable, match="damaged"):
        Database(path, migrations=broken).open(NOW)
    (moved,) = [file for file in path.parent.iterdir() if "corrupt" in file.name]
    assert execute(moved, "SELECT sql FROM sqlite_master") == before
    assert execute(moved, "PRAGMA user_version") == [(1,)]


@pytest.mark.parametrize(
    ("harm", "why"),
    [
        ("PRAGMA user_version = 9", "its version is not clear"),
        ("PRAGMA user_version = 0", "its version is not clear"),
        ("PRAGMA user_version = -1", "its version is not clear"),
        ("DROP TABLE about", "no such table: about"),
        ("DROP TABLE kept", "its tables are not as they were made"),
        ("ALTER TABLE links RENAME COLUMN used TO dused", "its tables are not as they were made"),
        (f"UPDATE peers SET used = {2**62} WHERE used = 1", "more has been counted"),
    ],
)
def test_a_file_that_cannot_be_right_is_moved_aside(path, harm, why):
    fill(path, BATCH)
    execute(path, harm)
    with opened(path) as (database, found):
        assert found.contents == Contents()
        moved = path.with_name("isthmus.sqlite3.corrupt-1800000000")
        assert found.damage.startswith(f"damaged ({why}")
        assert found.damage.endswith(f"), and moved to {moved}")
        assert moved.exists()
        database.write(BATCH, NOW)
    assert len(contents(path).peers) == 3


def test_what_somebody_has_added_does_no_harm(path):
    fill(path, BATCH)
    execute(path, "CREATE INDEX by_agent ON peers (agent)")
    execute(path, "ANALYZE")
    assert len(contents(path).peers) == 3


def test_a_row_that_cannot_be_right_is_left_out(path):
    fill(path, BATCH)
    execute(path, "UPDATE peers SET id = x'05' WHERE used = 1")
    execute(path, "UPDATE kept SET addresses = x'ff' WHERE alias = 'one'")
    execute(path, "UPDATE links SET id = x'05' WHERE used = 4")
    execute(path, "UPDATE link_changes SET state = CAST(x'ff' AS TEXT) WHERE number = 4")
    execute(path, "UPDATE link_changes SET number = -1 WHERE number = 0")
    found = contents(path)
    assert found.peers == (stored(3), stored(2))
    assert found.kept == (kept(7),)
    (only,) = found.links
    assert only.changes == (*map(change, range(1, 4)), change(4, state="\ufffd"))
    execute(path, "DELETE FROM link_changes")
    assert contents(path).links == ()


def test_damage_of_what_is_not_read_at_the_start_is_found_then(path):
    fill(path, BATCH, Batch(peers=tuple(map(stored, range(300)))))
    # The index by which an entry is found when it is written again.
    ((page,),) = execute(
        path, "SELECT rootpage FROM sqlite_master WHERE name = 'sqlite_autoindex_peers_1'"
    )
    with path.open("r+b") as file:
        file.seek((page - 1) * 4096)
        file.write(b"\xa5" * 4096)
    with opened(path) as (_, found):
        assert found.damage


def test_damage_that_shows_late_is_moved_aside_too(path):
    fill(path, BATCH, Batch(peers=tuple(map(stored, range(1000)))))
    with opened(path) as (database, _):
        with path.open("r+b") as file:
            for page in range(1, path.stat().st_size // 4096):
                file.seek(page * 4096)
                file.write(b"\xa5" * 4096)
        # What SQLite has read is in its memory; what it has not, it finds as it is now.
        execute_in(database, "PRAGMA shrink_memory")
        with pytest.raises(StoreUnavailable, match=r"damaged \(.*\), and moved to"):
            database.write(Batch(peers=tuple(map(stored, range(1000)))), NOW)
        assert not database.is_open
        assert database.open(NOW).contents == Contents()


def execute_in(database, statement):
    database._connection.execute(statement)


def test_the_newest_three_damaged_files_stay(path):
    path.parent.mkdir()
    for number in range(6):
        path.write_bytes(b"%d" % number * 3000)
        path.with_name("isthmus.sqlite3-wal").write_bytes(b"log")
        database = Database(path)
        assert database.open(NOW + number // 2).damage
        database.close()
    found = [name for name in names(path) if not name.endswith("-wal")]
    numbers = [1_800_000_003, 1_800_000_004, 1_800_000_005]
    assert found == ["isthmus.sqlite3", *(f"isthmus.sqlite3.corrupt-{each}" for each in numbers)]
    assert len(numbers) == MAX_DAMAGED
    assert path.with_name(f"{found[-1]}").read_bytes() == b"5" * 3000
    assert all(name.removesuffix("-wal") in found for name in names(path))


def test_a_bug_of_ours_is_not_taken_for_damage(path):
    with opened(path) as (database, _), pytest.raises(sqlite3.ProgrammingError):
        database.write(Batch(peers=(stored(1),) * 2, kept=(Odd(),)), NOW)
    assert names(path) == ["isthmus.sqlite3"]


class Odd:
    """A kept peer whose time is no time."""

    peer, addresses, alias, since = peer(1), (), "", object()
