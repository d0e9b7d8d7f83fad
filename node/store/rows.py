"""Values to rows of the file and back.

SQLite has no checksums: a byte that changed on the disk may come back in a row that looks right to
it. So whatever a row holds is checked here, and a row that cannot have been written is None.
"""

from __future__ import annotations

from math import isfinite
from typing import TYPE_CHECKING, TypeAlias

from ...transports.core.errors import AddressError, RemoteProtocolError
from ...transports.core.multiaddr import Multiaddr
from ...transports.core.peer_id import PeerId
from ...transports.core.varint import LengthPrefixReader, length_prefixed
from ..peerstore import MAX_ADDRESS_BYTES, bounded_addresses
from .records import KeptPeer, StoredChange, StoredPeer

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

Cell: TypeAlias = "int | float | str | bytes | None"
"""What SQLite gives for one column, whatever the column was made for."""

MAX_TEXT = 256
"""Characters of an agent, an alias, a state or a reason; identify keeps as many of an agent."""

MAX_NUMBER = 1 << 62
"""What is counted in the file stays below: so many changes take longer than any disk lasts."""

_SIGN = 1 << 63


def peer_to_row(stored: StoredPeer) -> tuple[Cell, ...]:
    """Return id, addresses, agent, record_seq, last_seen."""
    return (
        bytes(stored.peer),
        _packed(stored.addresses),
        text_to_cell(stored.agent),
        # Peers choose it from all 64 bits; SQLite's integers have a sign.
        (min(stored.record_seq, 2 * _SIGN - 1) ^ _SIGN) - _SIGN,
        stored.last_seen,
    )


def peer_from_row(row: Sequence[object]) -> StoredPeer | None:
    """Read what `peer_to_row` has made; None if this is something else."""
    peer, addresses = _peer(row[0]), _unpacked(row[1])
    agent, seq, last_seen = _text(row[2]), row[3], _time(row[4])
    if peer is None or addresses is None or agent is None or last_seen is None:
        return None
    if not isinstance(seq, int):
        return None
    return StoredPeer(peer, addresses, agent, seq % (2 * _SIGN), last_seen)


def kept_to_row(kept: KeptPeer) -> tuple[Cell, ...]:
    """Return id, addresses, alias, since."""
    return bytes(kept.peer), _packed(kept.addresses), text_to_cell(kept.alias), kept.since


def kept_from_row(row: Sequence[object]) -> KeptPeer | None:
    """Read what `kept_to_row` has made; None if this is something else."""
    peer, addresses, alias, since = _peer(row[0]), _unpacked(row[1]), _text(row[2]), _time(row[3])
    if peer is None or addresses is None or alias is None or since is None:
        return None
    return KeptPeer(peer, addresses, alias, since)


def change_to_row(change: StoredChange) -> tuple[Cell, ...]:
    """Return state, reason, time."""
    return text_to_cell(change.state), text_to_cell(change.reason), change.time


def change_from_row(row: Sequence[object]) -> tuple[int, StoredChange] | None:
    """Read a number and what `change_to_row` has made; None if this is something else."""
    number, state, reason, when = row[0], _text(row[1]), _text(row[2]), _time(row[3])
    if not isinstance(number, int) or not 0 <= number < MAX_NUMBER:
        return None
    if state is None or reason is None or when is None:
        return None
    return number, StoredChange(state, reason, when)


def peer_from_cell(cell: object) -> PeerId | None:
    """Read the bytes of a peer id; None if this is something else."""
    return _peer(cell)


def text_to_cell(text: str) -> str:
    """Return a text within its bound, without what no UTF-8 can hold."""
    return text[:MAX_TEXT].encode("utf-8", "replace").decode("utf-8")


def _peer(cell: object) -> PeerId | None:
    if not isinstance(cell, bytes):
        return None
    try:
        return PeerId.from_bytes(cell)
    except AddressError:
        return None


def _text(cell: object) -> str | None:
    # The connection is told to hand out texts as bytes, since it raises for what is no UTF-8.
    return cell.decode("utf-8", "replace")[:MAX_TEXT] if isinstance(cell, bytes) else None


def _time(cell: object) -> float | None:
    return cell if isinstance(cell, float) and isfinite(cell) else None


def _packed(addresses: Iterable[Multiaddr]) -> bytes:
    # What leads to this very process now leads nowhere in the next run.
    kept = [each for each in addresses if not each.is_process_local]
    return b"".join(length_prefixed(bytes(each)) for each in kept)


def _unpacked(cell: object) -> tuple[Multiaddr, ...] | None:
    if not isinstance(cell, bytes):
        return None
    reader = LengthPrefixReader(MAX_ADDRESS_BYTES)
    try:
        encoded = reader.receive_data(cell)
    except RemoteProtocolError:
        return None
    if reader.trailing:
        return None
    return bounded_addresses(Multiaddr.parse_many(encoded))
