"""When to ask a silent peer for a sign of life, and when to give it up."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..core.errors import RemoteProtocolError
from .wire import GoAwayCode

if TYPE_CHECKING:
    from .config import YamuxConfig


class KeepAlive:
    """A clock that received bytes wind up; `due` is when `check` is to be called."""

    __slots__ = ("_asked_at", "_interval", "_timeout", "due")

    def __init__(self, now: float, config: YamuxConfig) -> None:
        self._interval = config.keepalive_interval
        self._timeout = config.keepalive_timeout
        self._asked_at: float | None = None
        self.due = now + self._interval

    def check(self, now: float, last_received_at: float) -> bool:
        """Say whether to ask the peer now; raises RemoteProtocolError if it has not answered."""
        if self._asked_at is not None and last_received_at < self._asked_at:
            raise RemoteProtocolError(
                f"the peer has been silent for {now - last_received_at:.0f} s "
                "(setting: yamux.keepalive_timeout)",
                GoAwayCode.INTERNAL_ERROR,
            )
        self._asked_at = None
        due = last_received_at + self._interval
        # Compared as it is set: by rounding, a difference of times could be less at that very time.
        if now < due:
            self.due = due
            return False
        self._asked_at = now
        self.due = now + self._timeout
        return True
