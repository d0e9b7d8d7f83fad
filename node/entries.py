"""A connection of the table, and how it is used."""

from __future__ import annotations

import logging
from collections import Counter
from typing import TYPE_CHECKING, Protocol

import anyio

from ..transports.core.errors import P2PError
from .limits import Usage

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from anyio import CancelScope

    from ..transports.core.interfaces import Connection
    from .liveness import Pulse

logger = logging.getLogger(__name__)


class Upkeep(Counter[str]):
    """Open streams by protocol, of those that do not keep a connection in use; `opened`: ever."""

    opened = 0

    def __setitem__(self, protocol: str, count: int) -> None:
        self.opened += max(0, count - self[protocol])
        super().__setitem__(protocol, count)


class Entry:
    """One connection of the table; `reason` says why this side ends it, if it does.

    `pulse` is there once somebody has waited for what the connection carries; `until_suspect` are
    those who do something else when it does not answer.
    """

    __slots__ = (
        "connection",
        "is_ended",
        "is_silent",
        "pulse",
        "reason",
        "until_suspect",
        "upkeep",
    )

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.upkeep = Upkeep()
        self.is_ended = False
        self.is_silent = False
        self.pulse: Pulse | None = None
        self.until_suspect: set[CancelScope] = set()
        self.reason = ""

    def usage(self) -> Usage:
        """Say how it is used, beyond upkeep."""
        counts = self.connection.statistics()
        open_streams = counts.data_channels_opened - counts.data_channels_closed
        return Usage(
            open_streams > self.upkeep.total(), counts.data_channels_opened - self.upkeep.opened
        )

    def is_busy(self) -> bool:
        """Say whether a stream is open that is not mere upkeep."""
        return self.usage().is_busy


class _Table(Protocol):
    """What knows the entries."""

    @property
    def entries(self) -> Sequence[Entry]:
        """Those of the connections that stand."""

    def entry(self, connection: Connection) -> Entry | None:
        """Return the one of a connection."""


class StandingConnections:
    """The connections of a table that stand; one is looked up without looking at the others."""

    def __init__(self, table: _Table) -> None:
        self._table = table

    def __iter__(self) -> Iterator[Connection]:
        """Yield all that stand now."""
        return (entry.connection for entry in self._table.entries)

    def __contains__(self, connection: Connection) -> bool:
        """Say whether this one stands."""
        entry = self._table.entry(connection)
        return entry is not None and not entry.is_ended


async def run_alone(connection: Connection) -> None:
    """Run a connection to its end; what breaks it is logged, and leaves the others alone."""
    try:
        await connection.run()
    except (P2PError, OSError, anyio.BrokenResourceError, anyio.ClosedResourceError) as error:
        logger.warning("a connection to %s broke: %r", connection.remote_peer, error)
