"""What a dial did at every address, for who asks why there is no connection."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from .hints import hint_for

if TYPE_CHECKING:
    from ..transports.core.errors import FailedAttempt
    from ..transports.core.multiaddr import Multiaddr
    from ..transports.core.peer_id import PeerId
    from .events import Json
    from .path import Rank

MAX_TEXT = 1000
"""Characters of a cause; texts of peers and of libraries have no bound of their own."""


class Outcome(Enum):
    """What became of one address."""

    CONNECTED = "connected"
    FAILED = "failed"
    CANCELLED = "cancelled"
    """Another address was faster, or who asked gave up."""
    NOT_TRIED = "not tried"


@dataclass(frozen=True, slots=True)
class DialStep:
    """One address of a dial; times are in seconds, `started` counted from the dial's beginning."""

    address: Multiaddr
    rank: Rank
    outcome: Outcome
    started: float | None = None
    duration: float | None = None
    phase: str = ""
    cause: str = ""
    hint: str = ""

    @classmethod
    def failed(cls, attempt: FailedAttempt, rank: Rank, started: float) -> DialStep:
        """Return the step of an attempt that failed."""
        cause = str(attempt.cause) or type(attempt.cause).__name__
        return cls(
            attempt.address,
            rank,
            Outcome.FAILED,
            started,
            attempt.duration,
            attempt.phase,
            cause[:MAX_TEXT],
            hint_for(attempt),
        )

    def to_json(self) -> dict[str, Json]:
        """Return plain JSON values; seconds become milliseconds, what is not known None."""
        return {
            "address": str(self.address),
            "rank": self.rank.name.lower(),
            "outcome": self.outcome.value,
            "started_ms": _milliseconds(self.started),
            "duration_ms": _milliseconds(self.duration),
            "phase": self.phase or None,
            "cause": self.cause or None,
            "hint": self.hint or None,
        }


@dataclass(frozen=True, slots=True)
class DialReport:
    """One dial: to whom, when (seconds since 1970), for how long, and every address of it.

    `error` is empty if a connection was made; `hint` is what to do where no address was tried.
    """

    peer: PeerId | None
    time: float
    duration: float
    steps: tuple[DialStep, ...]
    error: str = ""
    hint: str = ""

    def to_json(self) -> dict[str, Json]:
        """Return plain JSON values."""
        return {
            "peer_id": None if self.peer is None else str(self.peer),
            "time": self.time,
            "duration_ms": _milliseconds(self.duration),
            "connected": not self.error,
            "error": self.error or None,
            "hint": self.hint or None,
            "steps": [step.to_json() for step in self.steps],
        }


def _milliseconds(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1e3, 3)


MAX_REPORTS = 256
"""Reports of dials that are kept, each of some KiB."""


class Reports(OrderedDict["PeerId | None", DialReport]):
    """The last dial to each peer, the newest last; None is whoever was not known to the end."""

    def keep(self, report: DialReport) -> None:
        """Take the report of a dial that has ended; the oldest goes for it."""
        self[report.peer] = report
        self.move_to_end(report.peer)
        if len(self) > MAX_REPORTS:
            self.popitem(last=False)
