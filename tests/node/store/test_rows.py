"""Rows are what their values were; whatever else stands in a row is no value, and no error."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st
from isthmus.node.peerstore import MAX_ADDRESSES
from isthmus.node.store.records import KeptPeer, StoredChange, StoredPeer
from isthmus.node.store.rows import (
    MAX_NUMBER,
    MAX_TEXT,
    change_from_row,
    change_to_row,
    kept_from_row,
    kept_to_row,
    peer_from_cell,
    peer_from_row,
    peer_to_row,
)
from isthmus.transports.core.multiaddr import Multiaddr

from .values import address, change, kept, peer, stored

ADDRESSES = st.lists(st.integers(1, 65_535).map(address), unique=True, max_size=MAX_ADDRESSES)
TIMES = st.floats(allow_nan=False, allow_infinity=False)
CELLS = st.none() | st.integers(-(1 << 63), (1 << 63) - 1) | st.floats() | st.binary(max_size=80)


def as_read(row):
    """A row as the connection hands it out: texts are bytes."""
    return [cell.encode() if isinstance(cell, str) else cell for cell in row]


@given(st.integers(0, 1 << 64), ADDRESSES, st.text(max_size=MAX_TEXT), st.integers(0), TIMES)
def test_a_peer_comes_back_as_it_was(number, addresses, agent, seq, last_seen):
    before = StoredPeer(peer(number), tuple(addresses), agent, min(seq, 2**64 - 1), last_seen)
    row = peer_to_row(before)
    assert -(1 << 63) <= row[3] < 1 << 63
    assert peer_from_row(as_read(row)) == before


def test_any_number_of_a_record_fits():
    for seq in (0, 1, 2**63 - 1, 2**63, 2**64 - 1):
        assert peer_from_row(as_read(peer_to_row(stored(1, seq=seq)))).record_seq == seq
    assert peer_from_row(as_read(peer_to_row(stored(1, seq=2**70)))).record_seq == 2**64 - 1


@given(ADDRESSES, st.text(max_size=MAX_TEXT), TIMES)
def test_a_kept_peer_comes_back_as_it_was(addresses, alias, since):
    before = KeptPeer(peer(1), tuple(addresses), alias, since)
    assert kept_from_row(as_read(kept_to_row(before))) == before


@given(st.integers(0, MAX_NUMBER - 1), st.text(max_size=MAX_TEXT), TIMES)
def test_a_change_comes_back_as_it_was(number, reason, time):
    before = StoredChange("connected", reason, time)
    assert change_from_row([number, *as_read(change_to_row(before))]) == (number, before)


@given(st.lists(CELLS, min_size=5, max_size=5))
def test_any_row_is_a_value_or_none(row):
    for read in (peer_from_row, kept_from_row, change_from_row):
        value = read(row)
        assert value is None or repr(value)
    assert peer_from_cell(row[0]) is None or isinstance(row[0], bytes)


def test_each_cell_is_looked_at():
    good = as_read(peer_to_row(stored(1)))
    assert peer_from_row(good) == stored(1)
    bad = {0: (b"", None, 5), 1: (None, b"\x05", b"\xff\xff\xff"), 2: (None, 7)}
    for column, cells in (bad | {3: (None, 1.5, b""), 4: (None, math.nan, math.inf, 3)}).items():
        for cell in cells:
            assert peer_from_row([*good[:column], cell, *good[column + 1 :]]) is None
    good = as_read(kept_to_row(kept(1)))
    for column, cell in enumerate((b"", b"\x05", None, None)):
        assert kept_from_row([*good[:column], cell, *good[column + 1 :]]) is None
    good = [4, *as_read(change_to_row(change(1)))]
    for column, cells in {0: (-1, MAX_NUMBER, None), 1: (None,), 2: (None,), 3: (None,)}.items():
        for cell in cells:
            assert change_from_row([*good[:column], cell, *good[column + 1 :]]) is None


def test_an_address_of_this_process_is_not_for_the_next_one():
    local = Multiaddr.parse("/memory/7")
    row = peer_to_row(StoredPeer(peer(1), (local, address(5)), "", 0, 0.0))
    assert peer_from_row(as_read(row)).addresses == (address(5),)


def test_texts_are_bounded_and_always_fit():
    row = change_to_row(StoredChange("x" * 1000, "caf\udce9", 0.0))
    assert row[:2] == ("x" * MAX_TEXT, "caf?")
    assert change_from_row([0, b"\xff" * 1000, b"caf\xe9", 0.0])[1].state == "\ufffd" * MAX_TEXT
