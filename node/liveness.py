"""Whether a connection still answers, while somebody waits for what it carries.

Sans-IO: `attend` and `release` say that it matters; do what `handle_timeout` returns at
`next_timeout`, and say `answered` with what a probe measured.
"""

from __future__ import annotations

from enum import Enum, auto
from math import inf

PROBE_INTERVAL = 0.1
"""Seconds from an answer to the next probe while somebody waits: one small frame."""

IDLE_INTERVAL = 30.0
"""Seconds between probes of the other paths to a peer, which have their round trips compared."""

MIN_PATIENCE = 0.4
"""Seconds without an answer after which a path is suspect, at least: a lost packet is sent again
after 0.2 s (RFC 6298 and Linux), or after twice that."""

PATIENCE = 4
"""Round trips without an answer after which it is, if those are more."""

SILENCE = 10.0
"""Seconds of silence after which a path that is suspect is given up."""


UNKNOWN_RTT = 0.25
"""Seconds taken for the round trip of a connection that has not been measured yet."""


class Beat(Enum):
    """What is to be done about a connection."""

    PROBE = auto()
    """Probe it, and say `answered` when the answer comes."""

    SUSPECT = auto()
    """It does not answer: what can goes elsewhere."""

    ALIVE = auto()
    """It gives signs of life again."""

    SILENT = auto()
    """It is to be closed."""


class Pulse:
    """The probes of one connection; times are in seconds."""

    __slots__ = (
        "_asked_at",
        "_attention",
        "_idle_interval",
        "_last_rtt",
        "_next",
        "_rtt",
        "is_suspect",
    )

    def __init__(self) -> None:
        self.is_suspect = False
        self._attention = 0
        self._asked_at: float | None = None
        self._idle_interval = inf
        self._next = inf
        self._rtt = UNKNOWN_RTT
        self._last_rtt = 0.0

    @property
    def is_attended(self) -> bool:
        """Whether somebody waits for what it carries."""
        return self._attention > 0

    @property
    def is_needless(self) -> bool:
        """Whether nothing is to be watched any more."""
        return self.next_timeout() == inf

    def attend(self, now: float) -> None:
        """Note that somebody waits for what it carries; `release` follows."""
        self._attention += 1
        if self._attention == 1:
            self._next = min(self._next, now + PROBE_INTERVAL)

    def release(self, now: float) -> None:
        """Note that somebody waits no more."""
        self._attention -= 1
        if not self._attention and not self.is_suspect:
            self._next = now + self._idle_interval

    @property
    def is_compared(self) -> bool:
        """Whether it is probed now and then though nobody waits."""
        return self._idle_interval != inf

    def compare(self, now: float, *, is_one_of_several: bool) -> None:
        """Have it probed now and then, since there are other paths to compare it with, or not."""
        if self.is_compared is is_one_of_several:
            return
        self._idle_interval = IDLE_INTERVAL if is_one_of_several else inf
        if not self._attention and not self.is_suspect:
            self._next = now if is_one_of_several else inf

    def next_timeout(self) -> float:
        """When `handle_timeout` has something to say; infinite if never."""
        if self._asked_at is None:
            return self._next
        return self._asked_at + (SILENCE if self.is_suspect else self._patience)

    def handle_timeout(self, now: float, last_received_at: float, rtt: float | None) -> Beat | None:
        """Say what is to be done now.

        `last_received_at` is when the last byte came, `rtt` the usual round trip, if it is known.
        """
        if now < self.next_timeout():
            return None
        if self._asked_at is None:
            self._asked_at = now
            self._rtt = max(UNKNOWN_RTT if rtt is None else rtt, self._last_rtt)
            return Beat.PROBE
        if last_received_at > self._asked_at:
            # The answer is late, but it lives: the answer has that long again.
            self._asked_at = last_received_at
            if now - last_received_at < self._patience:
                return self._revive()
            # It lived and has fallen silent again: what is suspect stays so.
            return None
        if self.is_suspect:
            return Beat.SILENT
        self.is_suspect = True
        return Beat.SUSPECT

    def answered(self, now: float, rtt: float) -> Beat | None:
        """Take an answer and its round trip in seconds; say whether it has come back to life."""
        self._asked_at = None
        self._last_rtt = rtt
        revived = self._revive()
        self._next = now + (PROBE_INTERVAL if self._attention else self._idle_interval)
        return revived

    @property
    def _patience(self) -> float:
        return max(PATIENCE * self._rtt, MIN_PATIENCE)

    def _revive(self) -> Beat | None:
        if not self.is_suspect:
            return None
        self.is_suspect = False
        return Beat.ALIVE
