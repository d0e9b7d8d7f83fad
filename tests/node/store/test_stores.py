"""A node with a data directory knows tomorrow whom it met today, and gets along without a disk."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import anyio
import anyio.lowlevel
import pytest
from isthmus import Node
from isthmus.node.events import Listening, PeerIdentified, StoreDegraded, StoreRecovered
from isthmus.node.store.database import Database
from isthmus.node.store.machine import WriteBehind
from isthmus.node.store.records import Batch
from isthmus.node.store.schema import MIGRATIONS
from isthmus.node.store.stores import Stores
from isthmus.transports.core.errors import DialError, StoreError
from isthmus.transports.core.keys import PrivateKey
from isthmus.transports.core.peer_id import PeerId

from .values import BATCH, address, kept, link, peer, stored

LOOPBACK = "/ip4/127.0.0.1/tcp/0"
ECHO = "/echo/1.0.0"
KEEPER = Path(__file__).with_name("keeper.py")
NEVER = 1e9


async def echo(stream):
    async for data in stream:
        await stream.send(data)


async def until(events, kind):
    with anyio.fail_after(10):
        async for event in events:
            if isinstance(event, kind):
                return event
    raise AssertionError(f"no {kind.__name__}")


def fill(folder: Path, *batches: Batch, **options) -> Path:
    """Write a file as an earlier run would; return where it is."""
    path = folder / "isthmus.sqlite3"
    with closing(Database(path, **options)) as database:
        database.open(0.0)
        for batch in batches:
            database.write(batch, 0.0)
    return path


def contents(folder: Path):
    """Return what is in the file now, though a node has it open."""
    copy = folder.with_name("copy")
    shutil.copytree(folder, copy)
    try:
        with closing(Database(copy / "isthmus.sqlite3")) as database:
            return database.open(0.0).contents
    finally:
        shutil.rmtree(copy)


async def test_who_was_met_before_is_dialled_by_id_alone(tmp_path):
    async with Node(listen=LOOPBACK) as alice:
        alice.handle(ECHO, echo)
        async with Node(data_dir=tmp_path) as bob:
            events = bob.events()
            await bob.connect(alice.addresses)
            await until(events, PeerIdentified)
        async with Node() as stranger:
            with pytest.raises(DialError, match="no address of"):
                await stranger.connect(alice.peer_id)
        async with Node(data_dir=tmp_path) as bob:
            assert list(bob.peers) == [alice.peer_id]
            assert bob.peers.info(alice.peer_id).agent.startswith("isthmus/")
            assert await bob.request(alice.peer_id, ECHO, b"again") == b"again"


async def test_what_is_kept_comes_back_with_the_next_node(tmp_path):
    async with Node(data_dir=tmp_path) as node:
        node.stores.kept.keep(peer(1), now=5.0, addresses=[address(1)], alias="one")
        node.stores.kept.keep(peer(2), now=6.0)
        node.stores.links.add(peer(1), "connected", now=7.0, reason="dialled")
        node.stores.kept.forget(peer(2))
    async with Node(data_dir=tmp_path) as node:
        (only,) = node.stores.kept
        assert (only.peer, only.addresses, only.alias, only.since) == (
            peer(1),
            (address(1),),
            "one",
            5.0,
        )
        assert node.stores.links.history(peer(1))[0].reason == "dialled"
        node.stores.links.add(peer(1), "reconnecting", now=8.0)
    async with Node(data_dir=tmp_path) as node:
        states = [each.state for each in node.stores.links.history(peer(1))]
        # It is kept, so it is dialled besides, in vain.
        assert [each for each in states if each.endswith(("connected", "reconnecting"))] == [
            "connected",
            "reconnecting",
        ]


async def test_who_is_forgotten_is_gone_from_the_file(tmp_path):
    fill(tmp_path, Batch(peers=BATCH.peers))
    async with Node(data_dir=tmp_path) as node:
        node.forget(peer(3))
        assert peer(3) not in node.peers
    assert [each.peer for each in contents(tmp_path).peers] == [peer(2), peer(1)]
    async with Node(data_dir=tmp_path) as node:
        node.forget(peer(2))
        node.peers.met(peer(2))
    assert contents(tmp_path).peers[0].addresses == ()


async def test_a_node_that_has_got_the_key_of_a_kept_peer_dials_it_no_more(tmp_path):
    key = PrivateKey.from_seed(bytes(32))
    async with Node(data_dir=tmp_path) as node:
        node.keep(PeerId.from_public_key(key.public_key))
    async with Node(data_dir=tmp_path, identity=key) as node:
        assert len(node.stores.kept) == 1
        assert len(node.links) == 0


async def test_without_a_directory_there_is_memory_and_no_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    stores = Stores()
    async with stores.opened():
        stores.kept.keep(peer(1), now=0.0)
        stores.links.add(peer(1), "connected", now=0.0)
        stores.peers.met(peer(1))
        with anyio.fail_after(1):
            await stores.run(lambda event: None)
    assert len(stores.kept) == len(stores.links) == len(stores.peers) == 1
    assert len(stores._machine) == 0
    Node(data_dir=tmp_path / "data")
    assert list(tmp_path.iterdir()) == [], "nothing is written before a node is entered"


def without_coverage(script, *arguments):
    """Run a script in a process that is not measured, since what measures it uses SQLite."""
    environment = {name: text for name, text in os.environ.items() if "COV" not in name}
    return subprocess.run(
        [sys.executable, "-c", script, *arguments],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )


def test_sqlite_is_loaded_only_by_those_who_keep(tmp_path):
    script = (
        "import sys, anyio; from pathlib import Path; from isthmus import Node\n"
        "async def main(data_dir):\n"
        "    async with Node(data_dir=data_dir): pass\n"
        "    print('sqlite3' in sys.modules)\n"
        "anyio.run(main, None); anyio.run(main, Path(sys.argv[1]))"
    )
    done = without_coverage(script, tmp_path)
    assert done.stdout.split() == ["False", "True"]


def test_a_python_without_sqlite_keeps_nothing_and_says_so(tmp_path):
    script = (
        "import sys, anyio; from pathlib import Path; from isthmus import Node\n"
        "sys.modules['_sqlite3'] = None\n"
        "async def main():\n"
        "    node = Node(data_dir=Path(sys.argv[1]))\n"
        "    events = node.events()\n"
        "    async with node:\n"
        "        await anext(events)\n"
        "        print((await anext(events)).reason)\n"
        "anyio.run(main)"
    )
    done = without_coverage(script, tmp_path)
    assert done.stdout.startswith("this Python has no SQLite (")
    assert list(tmp_path.iterdir()) == []


async def test_a_change_is_written_soon_and_the_next_not_before_its_time(tmp_path):
    stores = Stores(tmp_path / "data", machine=WriteBehind(interval=NEVER))
    async with stores.opened(), anyio.create_task_group() as tasks:
        stores._machine._not_before = 0.0
        tasks.start_soon(stores.run, print)
        stores.peers.met(peer(1))
        with anyio.fail_after(10):
            while not contents(tmp_path / "data").peers:
                await anyio.lowlevel.checkpoint()
        stores.peers.met(peer(2))
        for _ in range(10):
            await anyio.wait_all_tasks_blocked()
        assert [each.peer for each in contents(tmp_path / "data").peers] == [peer(1)]
        tasks.cancel_scope.cancel()
    assert [each.peer for each in contents(tmp_path / "data").peers] == [peer(2), peer(1)]


async def test_all_that_is_left_is_written_at_the_end(tmp_path):
    stores = Stores(tmp_path / "data", machine=WriteBehind(interval=NEVER, max_batch=10))
    async with stores.opened():
        for number in range(95):
            stores.peers.met(peer(number))
    assert len(contents(tmp_path / "data").peers) == 95


async def test_a_write_under_way_is_finished_when_the_node_stops(tmp_path):
    stores = Stores(tmp_path / "data", machine=WriteBehind(interval=0.0))
    async with stores.opened():
        for turn in range(20):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(stores.run, print)
                for number in range(50):
                    stores.peers.met(peer(100 * turn + number))
                for _ in range(turn % 5):
                    await anyio.lowlevel.checkpoint()
                tasks.cancel_scope.cancel()
    assert len(contents(tmp_path / "data").peers) == 1000


async def test_a_damaged_file_is_told_after_the_start_and_begun_anew(tmp_path):
    path = tmp_path / "isthmus.sqlite3"
    path.write_bytes(b"nonsense" * 1000)
    node = Node(data_dir=tmp_path)
    events = node.events()
    async with node:
        node.peers.met(peer(1))
        told = [await anext(events) for _ in range(3)]
    assert [type(event) for event in told] == [Listening, StoreDegraded, StoreRecovered]
    assert told[1].path == told[2].path == path
    (moved,) = tmp_path.glob("isthmus.sqlite3.corrupt-*")
    assert told[1].reason.endswith(f"moved to {moved}")
    assert moved.read_bytes() == b"nonsense" * 1000
    assert [event async for event in events] == []
    assert len(contents(tmp_path).peers) == 1


async def test_damage_that_shows_while_it_runs_loses_nothing_that_is_known(tmp_path):
    fill(tmp_path, BATCH)
    node = Node(data_dir=tmp_path)
    node.stores._machine = WriteBehind(interval=0.0, retry_time=0.01)
    events = node.events()
    async with node:
        node.stores._database._connection.execute("DROP TABLE kept")
        node.stores.kept.keep(peer(30), now=1.0)
        degraded = await until(events, StoreDegraded)
        assert degraded.reason.startswith("damaged (no such table")
        await until(events, StoreRecovered)
    found = contents(tmp_path)
    assert {each.peer for each in found.peers} == {*(each.peer for each in BATCH.peers), peer(7)}
    assert {each.peer for each in found.kept} == {peer(1), peer(7), peer(30)}
    known = {each.peer: each.changes for each in found.links}
    for each in BATCH.links:
        assert known[each.peer][: len(each.changes)] == each.changes


async def test_a_file_that_is_removed_is_written_anew(tmp_path):
    path = fill(tmp_path, BATCH)
    node = Node(data_dir=tmp_path)
    node.stores._machine = WriteBehind(interval=0.0, retry_time=0.01)
    events = node.events()
    async with node:
        path.unlink()
        node.peers.met(peer(30))
        assert (await until(events, StoreDegraded)).reason == "the file is gone"
        await until(events, StoreRecovered)
    found = {each.peer for each in contents(tmp_path).peers}
    assert found >= {peer(30), *(each.peer for each in BATCH.peers)}


async def test_a_file_that_another_program_holds_is_read_when_it_is_free(tmp_path):
    path = fill(tmp_path, BATCH)
    node = Node(data_dir=tmp_path)
    node.stores._machine = WriteBehind(interval=0.0, retry_time=0.01)
    events = node.events()
    with closing(sqlite3.connect(path, isolation_level=None)) as holder:
        holder.execute("PRAGMA locking_mode = EXCLUSIVE")
        holder.execute("BEGIN EXCLUSIVE")
        async with node:
            assert (await until(events, StoreDegraded)).reason == "another program has it open"
            assert len(node.peers) == 0
            node.peers.met(peer(2))
            node.stores.kept.forget(peer(7))
            node.peers.forget(peer(3))
            node.stores.links.add(peer(1), "connected", now=99.0)
            holder.close()
            await until(events, StoreRecovered)
            assert node.peers.addresses(peer(2)) == stored(2).addresses
            assert list(node.stores.kept) == [kept(1, alias="one")]
            assert node.stores.links.history(peer(1))[:3] == link(1).changes
    found = contents(tmp_path)
    assert [each.peer for each in found.peers] == [peer(2), peer(1)]
    assert found.kept == (kept(1, alias="one"),)
    assert [len(each.changes) for each in found.links if each.peer == peer(1)] == [4]


async def test_two_nodes_on_one_directory(tmp_path):
    async with Node(data_dir=tmp_path) as first:
        second = Node(data_dir=tmp_path)
        events = second.events()
        async with second:
            assert (await until(events, StoreDegraded)).reason == "another program has it open"
            second.peers.met(peer(2))
        first.peers.met(peer(1))
    assert [each.peer for each in contents(tmp_path).peers] == [peer(1)]


async def test_what_there_is_no_time_for_at_the_end_is_logged(tmp_path, caplog):
    stores = Stores(tmp_path / "data", machine=WriteBehind(max_batch=10), flush_time=-1.0)
    async with stores.opened():
        for number in range(95):
            stores.peers.met(peer(number))
    assert "isthmus.sqlite3: the last 85 changes were not written" in caplog.text
    assert len(contents(tmp_path / "data").peers) == 10


async def test_a_failure_at_the_end_is_told(tmp_path):
    node = Node(data_dir=tmp_path)
    events = node.events()
    async with node:
        node.stores._database._connection.execute("DROP TABLE kept")
        node.stores.kept.keep(peer(30), now=1.0)
    assert isinstance([event async for event in events][-1], StoreDegraded)


async def test_a_newer_file_stops_the_start_and_a_newer_one_later_does_not(tmp_path):
    later = (*MIGRATIONS, ("CREATE TABLE more (id)",))
    path = fill(tmp_path, BATCH, migrations=later)
    with pytest.raises(StoreError, match=f"{path}: written by a newer isthmus"):
        async with Node(data_dir=tmp_path):
            raise AssertionError("it started")
    path.rename(tmp_path / "newer")
    node = Node(data_dir=tmp_path)
    node.stores._machine = WriteBehind(interval=0.0, retry_time=0.0)
    events = node.events()
    async with node:
        (tmp_path / "newer").rename(path)
        node.peers.met(peer(1))
        assert (await until(events, StoreDegraded)).reason == "another file is in its place"
        for _ in range(5):
            await anyio.wait_all_tasks_blocked()
    assert path.stat().st_size > 0


def keeper(scenario: str, folder: Path, backend: str, *prefix: str) -> list[str]:
    """Run a scenario of `keeper.py` in a process of its own; return what it wrote."""
    done = subprocess.run(
        [*prefix, sys.executable, str(KEEPER), scenario, str(folder), backend],
        capture_output=True,
        text=True,
        check=False,
        timeout=15,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


@pytest.fixture
def small_disk(tmp_path):
    """Put before a command, what runs it where `tmp_path` is a disk of one MiB."""
    script = 'mount -t tmpfs -o size=1m tmpfs "$1" && shift && exec "$@"'
    prefix = ("unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script, "sh")
    prefix = (*prefix, str(tmp_path))
    try:
        works = subprocess.run([*prefix, "true"], capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        works = False
    if not works:
        pytest.skip("needs unshare(1) and user namespaces")
    return prefix


BACKENDS = pytest.mark.parametrize("backend", ["asyncio", "trio"])


@BACKENDS
@pytest.mark.parametrize(
    ("scenario", "rest"), [("full_disk", "3000 1"), ("full_from_the_start", "3 0")]
)
def test_a_full_disk_is_told_and_so_is_its_end(tmp_path, small_disk, scenario, rest, backend):
    first, second, found = keeper(scenario, tmp_path, backend, *small_disk)
    degraded, recovered = json.loads(first), json.loads(second)
    assert degraded["event"] == "store_degraded"
    assert degraded["path"] == str(tmp_path / "data" / "isthmus.sqlite3")
    assert degraded["reason"].startswith("no room: ")
    assert recovered["event"] == "store_recovered"
    assert found == rest


@BACKENDS
@pytest.mark.parametrize("harm", ["directory", "file"])
def test_what_may_only_be_read_is_told(tmp_path, unprivileged, harm, backend):
    folder = tmp_path / "data"
    folder.mkdir()
    if harm == "file":
        fill(folder, BATCH).chmod(0o400)
    folder.chmod(0o500)
    (line,) = keeper("forbidden", tmp_path, backend, *unprivileged)
    assert json.loads(line)["event"] == "store_degraded"
    assert json.loads(line)["reason"].startswith("this account may not write it")
