"""A process may be killed at any moment: the next one reads all that was written, and no half of
a transaction."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path
from time import perf_counter

import pytest
from isthmus.node.store.database import Database

from .writer import PEERS

WRITER = Path(__file__).with_name("writer.py")


def killed_writer(path: Path, number: int, chance: random.Random) -> int:
    """Let a process write until a random moment; return the last number that it has told."""
    process = subprocess.Popen(
        [sys.executable, str(WRITER), str(path), str(number)], stdout=subprocess.PIPE
    )
    # The first line comes before the file is opened, each further one after a transaction.
    told = [process.stdout.readline() for _ in range(chance.choice([1, 1, 2, 10, 40]))]
    end = perf_counter() + chance.uniform(0, 0.05)
    while perf_counter() < end:
        pass
    process.kill()
    rest, _ = process.communicate(timeout=10)
    lines = b"".join([*told, rest]).split(b"\n")
    return int(lines[-2])  # what comes behind the last line's end is cut off


@pytest.mark.timeout(300)
@pytest.mark.parametrize("kills", [20, pytest.param(200, marks=pytest.mark.slow)])
def test_every_start_after_a_kill_reads_its_stores(tmp_path, seed, kills):
    chance = random.Random(seed)
    path = tmp_path / "isthmus.sqlite3"
    number = 0
    for _ in range(kills):
        told = killed_writer(path, number, chance)
        database = Database(path)
        found = database.open(0.0)
        database.close()
        assert found.damage is None
        if not found.contents.kept:
            assert told == 0
            continue
        (kept,) = found.contents.kept
        number = int(kept.alias)
        # What has been told is there; more may be, but of every table alike.
        assert number >= told
        newest = found.contents.peers[:PEERS]
        assert {each.record_seq for each in newest} == {number}
        assert len(found.contents.peers) <= 3 * PEERS
        (link,) = found.contents.links
        assert link.changes[-1].time == number
    assert number > kills
    assert list(tmp_path.iterdir()) == [path]
