"""One of several ways to a peer: what it is worth, and for how long.

Sans-IO. `score` is the one place that says which of two paths is better.
"""

from __future__ import annotations

from enum import IntEnum
from math import inf
from typing import NamedTuple

MAX_LOSS = 0.10
"""The share of packets lost from which a path loses its class."""

FAR = 5.0
"""How many times the round trip of the next path its own must be for the same."""

BAD_FOR = 5.0
"""Seconds for which it must be so: a burst is over before a move would have paid."""

GOOD_FOR = 30.0
"""Seconds for which it must have been good to have its class again."""

LESS = 0.20
MIN_LESS = 0.005
"""The share, and the seconds, by which a round trip must be shorter to count as better."""

BETTER_FOR = 30.0
"""Seconds for which a path of the same worth must be better to be moved to."""

MEMORY = 300.0
"""Seconds in which a path that falls silent a second time is one that comes and goes, and for which
a way that lost its class is remembered without a connection."""

LAST_FOR = 300.0
"""Seconds for which such a path ranks last."""


def is_less(rtt: float, other: float) -> bool:
    """Say whether a round trip is shorter than another one by what counts."""
    return other - rtt > max(MIN_LESS, LESS * other)


class Rank(IntEnum):
    """The kind of a path, best first."""

    LAN = 0
    DIRECT = 1
    WEBSOCKET = 2
    WEBRTC = 3
    TURN = 4
    RELAY = 5


class Score(NamedTuple):
    """What a path is worth, the least first; equal ones are told apart by their round trips."""

    is_suspect: bool
    comes_and_goes: bool
    is_demoted: bool
    rank: Rank


class Silences:
    """When the paths to one place fell silent; it outlives the connections there."""

    __slots__ = ("_last", "demoted_at", "last_until")

    def __init__(self) -> None:
        self._last = -inf
        self.last_until = -inf
        """Until when a path to there ranks last."""
        self.demoted_at = -inf
        """When one to there was last seen without its class."""

    def is_demoted(self, now: float) -> bool:
        """Say whether a new path to there begins without its class: the way is the same."""
        return now - self.demoted_at < MEMORY

    def add(self, now: float, *, heard_at: float) -> None:
        """Note that a path to there is silent that was last heard at `heard_at`.

        Several connections to one place fall silent together, and not all are noticed at once:
        what was not heard since the last silence is still that one.
        """
        if heard_at < self._last:
            return
        if now - self._last < MEMORY:
            self.last_until = now + LAST_FOR
        self._last = now


class Path:
    """How one connection does; `is_preferred` is what both sides of crossed dials agree on."""

    __slots__ = (
        "_bad_since",
        "_good_since",
        "_heard_at",
        "_silences",
        "close_at",
        "dialled",
        "is_demoted",
        "is_preferred",
        "is_suspect",
        "limited",
        "number",
        "rank",
        "rtt",
    )

    def __init__(
        self,
        rank: Rank,
        silences: Silences,
        *,
        limited: bool,
        dialled: bool,
        is_preferred: bool,
        number: int,
        now: float,
    ) -> None:
        self.rank = rank
        self.limited = limited
        self.dialled = dialled
        self.is_preferred = is_preferred
        self.number = number
        self.rtt: float | None = None
        self.is_suspect = False
        self.is_demoted = silences.is_demoted(now)
        self.close_at: float | None = None
        self._silences = silences
        self._heard_at = now
        self._bad_since: float | None = None
        self._good_since: float | None = None

    def score(self, now: float) -> Score:
        """Return what it is worth now."""
        return Score(self.is_suspect, now < self._silences.last_until, self.is_demoted, self.rank)

    def changes_at(self, now: float) -> float:
        """When its score changes though nothing happens; infinite if never."""
        until = self._silences.last_until
        return until if now < until else inf

    def suspect(self, now: float) -> None:
        """Note that it does not answer."""
        if not self.is_suspect:
            self.is_suspect = True
            self._silences.add(now, heard_at=self._heard_at)

    def answered(self, now: float) -> None:
        """Note that it answers again."""
        self.is_suspect = False
        self._heard_at = now

    def measured(self, now: float, rtt: float, loss: float | None, next_rtt: float | None) -> None:
        """Take a round trip in seconds, the share lost, and the round trip of the next path."""
        self.rtt = rtt
        self._heard_at = now
        lossy = loss is not None and loss > MAX_LOSS
        far = next_rtt is not None and rtt > FAR * next_rtt and rtt > next_rtt + MIN_LESS
        if lossy or far:
            self._good_since = None
            self._bad_since = now if self._bad_since is None else self._bad_since
            self.is_demoted = self.is_demoted or now - self._bad_since >= BAD_FOR
        else:
            self._bad_since = None
            self._good_since = now if self._good_since is None else self._good_since
            self.is_demoted = self.is_demoted and now - self._good_since < GOOD_FOR
        self._silences.demoted_at = now if self.is_demoted else -inf

    def is_nearer(self, rtt: float | None) -> bool:
        """Say whether its round trip is shorter than that of another path by what counts."""
        return rtt is not None and self.rtt is not None and is_less(self.rtt, rtt)
