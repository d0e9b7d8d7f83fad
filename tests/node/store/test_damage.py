"""Whatever has become of the file: it is read, or moved aside and begun anew. Nothing raises."""

from __future__ import annotations

import shutil
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from isthmus.node.store.database import Database
from isthmus.node.store.records import Batch, StoreUnavailable

from .values import BATCH, kept, link, peer, stored

if TYPE_CHECKING:
    import random
    from pathlib import Path

PAGE = 4096


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """A directory with a file of many pages, and with a log as a killed process leaves it."""
    path = tmp_path_factory.mktemp("whole") / "isthmus.sqlite3"
    database = Database(path)
    database.open(1.0)
    numbers = range(300)
    database.write(
        Batch(
            peers=tuple(map(stored, numbers)),
            kept=tuple(map(kept, range(20))),
            links=tuple(link(number, count=20) for number in range(20)),
        ),
        1.0,
    )
    database.close()
    database.open(2.0)
    database.write(Batch(peers=tuple(map(stored, range(200, 400))), links=(link(5),)), 2.0)
    copy = tmp_path_factory.mktemp("copy")
    for name in ("isthmus.sqlite3", "isthmus.sqlite3-wal"):
        shutil.copy(path.with_name(name), copy)
    database.close()
    return copy


def overwrite(data: bytearray, chance: random.Random) -> None:
    """Put random bytes somewhere."""
    at = chance.randrange(len(data))
    count = chance.choice([1, 4, 100, PAGE])
    data[at : at + count] = chance.randbytes(min(count, len(data) - at))


def flip(data: bytearray, chance: random.Random) -> None:
    """Turn some bits over, often in the header."""
    for _ in range(chance.randint(1, 8)):
        data[chance.randrange(chance.choice([100, PAGE, len(data)])) % len(data)] ^= (
            1 << chance.randrange(8)
        )


def exchange(data: bytearray, chance: random.Random) -> None:
    """Put one page where another is."""
    pages = max(1, len(data) // PAGE)
    first, second = (chance.randrange(pages) * PAGE for _ in range(2))
    data[first : first + PAGE], data[second : second + PAGE] = (
        data[second : second + PAGE],
        data[first : first + PAGE],
    )


def cut(data: bytearray, chance: random.Random) -> None:
    """Leave the beginning."""
    del data[chance.randrange(len(data) + 1) :]


def zero(data: bytearray, chance: random.Random) -> None:
    """Have a page read as zeros, as after a power failure."""
    at = chance.randrange(max(1, len(data) // PAGE)) * PAGE
    data[at : at + PAGE] = bytes(len(data[at : at + PAGE]))


def replace(data: bytearray, chance: random.Random) -> None:
    """Have it be something else."""
    data[:] = chance.randbytes(chance.choice([0, 1, 100, 5000, 100_000]))


HARMS = (overwrite, flip, exchange, cut, zero, replace)


def harmed(file: Path, harm, chance: random.Random) -> None:
    data = bytearray(file.read_bytes())
    if data:
        harm(data, chance)
    file.write_bytes(data)


@given(
    st.sampled_from(HARMS),
    st.sampled_from(HARMS),
    st.sampled_from(["main", "log", "both", "no log"]),
    st.randoms(use_true_random=False),
)
def test_any_damage_is_read_or_moved_aside(whole, tmp_path_factory, harm, other, where, chance):
    folder = tmp_path_factory.mktemp("harmed")
    path, log = folder / "isthmus.sqlite3", folder / "isthmus.sqlite3-wal"
    for file in (path, log):
        shutil.copy(whole / file.name, folder)
    if where in ("main", "both", "no log"):
        harmed(path, harm, chance)
    if where in ("log", "both"):
        harmed(log, other, chance)
    if where == "no log":
        log.unlink()
    look_at(path)
    shutil.rmtree(folder)


def look_at(path: Path) -> None:
    """Use the file as a node does: whatever shows, nothing but StoreUnavailable is raised."""
    database = Database(path)
    with closing(database):
        found = database.open(5.0)
        count = len(found.contents.peers)
        assert count <= 400
        assert bool(found.damage) == bool(list(path.parent.glob("*.corrupt-*")))
        written = use(database)
    with closing(database):
        again = database.open(7.0)
        if written and not again.damage:
            assert again.contents.peers[0].peer == BATCH.peers[-1].peer
            assert peer(7) in {each.peer for each in again.contents.kept}


def use(database: Database) -> bool:
    """Write; say whether it worked. Damage that shows only now costs one batch."""
    try:
        database.write(BATCH, 6.0)
    except StoreUnavailable as error:
        assert error.reason.startswith("damaged (")  # noqa: PT017 - it need not be raised
        return False
    return True
