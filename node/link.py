"""Our relation to one peer, which outlives its connections.

Sans-IO: say what has happened to connections and attempts; `next_timeout` and `handle_timeout` say
when to dial. What changes is told to the listeners, and kept in `history`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from math import inf
from typing import TYPE_CHECKING

from ..transports.core.errors import LocalProtocolError
from .reconnect import Backoff

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from ..transports.core.peer_id import PeerId
    from .reconnect import ReconnectPolicy

HISTORY = 256
"""Changes kept of one link: a day of a peer that comes and goes."""

MAX_REASON = 500
"""Characters of a reason; that of a dial names sixteen addresses."""

KEPT_INTERVAL = 60.0
"""Seconds after which a kept peer that has failed, or was left, is dialled again."""


NEWS_INTERVAL = 1.0
"""Seconds between signs of a peer that count: anybody on the LAN can make some up."""


class LinkState(Enum):
    """Where a link stands."""

    DISCONNECTED = "disconnected"
    CONNECTING = "connecting"
    SIGNALING = "signaling"
    """Offers and answers travel through a third peer."""
    GATHERING = "gathering"
    """Addresses for a direct path are found out."""
    CONNECTED = "connected"
    RECONNECTING = "reconnecting"
    FAILED = "failed"
    CLOSED = "closed"
    """Forgotten: nothing follows."""

    def can_transition_to(self, other: LinkState) -> bool:
        """Say whether a link may go from this state to the other one."""
        if self is LinkState.CLOSED or other is self:
            return False
        return other in _ALWAYS or other in _FOLLOWS[self]


_ALWAYS = frozenset({LinkState.FAILED, LinkState.CLOSED})

_FOLLOWS = {
    LinkState.DISCONNECTED: {LinkState.CONNECTING, LinkState.CONNECTED},
    LinkState.CONNECTING: {LinkState.SIGNALING, LinkState.CONNECTED, LinkState.DISCONNECTED},
    LinkState.SIGNALING: {LinkState.GATHERING, LinkState.CONNECTED},
    LinkState.GATHERING: {LinkState.CONNECTING, LinkState.CONNECTED},
    LinkState.CONNECTED: {LinkState.RECONNECTING, LinkState.DISCONNECTED},
    LinkState.RECONNECTING: {LinkState.CONNECTED, LinkState.SIGNALING, LinkState.DISCONNECTED},
    LinkState.FAILED: {LinkState.CONNECTING, LinkState.CONNECTED},
}
"""Besides what the design names: a peer that comes in connects whatever this side was doing, and a
connection that was ended in order leads back to the beginning, not to attempts."""


@dataclass(frozen=True, slots=True)
class LinkChange:
    """One change: the state since `time` (seconds since 1970), and why."""

    state: LinkState
    time: float
    reason: str


class Link:
    """What this node and one peer are to each other.

    `clock` tells the seconds since 1970 for the history; all other times are the loop's.
    """

    def __init__(
        self,
        peer: PeerId,
        *,
        policy: ReconnectPolicy,
        clock: Callable[[], float],
        known: Iterable[LinkChange] = (),
        is_kept: bool = False,
    ) -> None:
        self.peer = peer
        self.state = LinkState.DISCONNECTED
        # Lists: a deque takes 760 bytes before it holds anything, and most links have two changes.
        self.history: list[LinkChange] = list(known)[-HISTORY:]
        self._policy = policy
        self._clock = clock
        self._listeners: list[Callable[[Link, LinkChange], None]] = []
        self._backoff: Backoff | None = None
        self._is_kept = is_kept
        self._is_dialling = False
        self._news_at = -inf
        self._due = -inf if is_kept else inf

    def __repr__(self) -> str:
        return f"<Link to {self.peer}: {self.state.value}>"

    @property
    def reason(self) -> str:
        """Why it is in this state."""
        return self.history[-1].reason if self.history else ""

    @property
    def is_kept(self) -> bool:
        """Whether it is connected again whenever it is lost, without end."""
        return self._is_kept

    def on_state(self, listener: Callable[[Link, LinkChange], None]) -> Callable[[], None]:
        """Call `listener(link, change)` at every change; returns a function that stops it."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    # What its owner says

    def keep(self, now: float, *, is_kept: bool = True) -> None:
        """Have it connected from now on, without end; or no longer."""
        self._is_kept = is_kept
        if is_kept and not self._is_up:
            self._news_at = -inf
            self.news(now)
        elif not is_kept and self.state in (LinkState.FAILED, LinkState.DISCONNECTED):
            self._due = inf

    def dialling(self, now: float) -> None:
        """Note that an attempt has begun, whoever asked for it."""
        self._is_dialling = True
        self._due = inf
        if self.state in (LinkState.DISCONNECTED, LinkState.FAILED):
            self._change(LinkState.CONNECTING, "")

    def connected(self, now: float, reason: str = "") -> None:
        """Note that a connection stands."""
        self._is_dialling = False
        self._backoff = None
        self._due = inf
        self._change(LinkState.CONNECTED, reason)

    def dial_failed(self, now: float, random: float, reason: str) -> None:
        """Note, once, that an attempt has failed; `random` from 0 to 1 spreads the next one."""
        if not self._is_dialling:
            return
        self._is_dialling = False
        if self.state is LinkState.CONNECTING:
            # Nobody waits but who asked, and has been told; a kept peer is tried again.
            self._fail(now, reason)
        elif self.state is LinkState.RECONNECTING:
            self._retry(now, random, reason)

    def lost(self, now: float, random: float, reason: str) -> None:
        """Note that the last connection has broken: attempts follow."""
        if self.state is LinkState.CONNECTED:
            self._change(LinkState.RECONNECTING, reason)
            self._backoff = Backoff(self._policy, now)
            self._retry(now, random, reason)

    def left(self, now: float, reason: str) -> None:
        """Note that the last connection was ended in order, by either side."""
        self._change(LinkState.DISCONNECTED, reason)
        self._backoff = None
        self._due = now + KEPT_INTERVAL if self._is_kept else inf

    def news(self, now: float) -> None:
        """Note a sign of the peer, or a change of the network: what waits is tried at once."""
        if self._is_up or self._is_dialling or self.state is LinkState.CLOSED:
            return
        if now - self._news_at < NEWS_INTERVAL:
            return
        self._news_at = now
        if self._backoff is not None:
            self._backoff.reset(now)
        if self._is_kept or self.state is LinkState.RECONNECTING:
            self._due = now

    def close(self) -> None:
        """Forget the peer: nothing follows."""
        self._due = inf
        self._change(LinkState.CLOSED, "forgotten")
        self._listeners.clear()

    # When to dial

    def next_timeout(self) -> float:
        """When `handle_timeout` has an attempt to ask for; infinite if never."""
        return inf if self._is_dialling else self._due

    def handle_timeout(self, now: float) -> bool:
        """Say whether to dial now; then `dialling` is to be called."""
        return now >= self.next_timeout()

    # Helpers

    @property
    def _is_up(self) -> bool:
        return self.state is LinkState.CONNECTED

    def _retry(self, now: float, random: float, reason: str) -> None:
        if self._backoff is None:
            raise LocalProtocolError("a link that is reconnecting has its attempts")
        if self._backoff.is_over and not self._is_kept:
            self._fail(now, reason)
        else:
            self._due = now + self._backoff.delay(now, random)

    def _fail(self, now: float, reason: str) -> None:
        self._change(LinkState.FAILED, reason)
        self._backoff = None
        self._due = now + KEPT_INTERVAL if self._is_kept else inf

    def _change(self, state: LinkState, reason: str) -> None:
        if not self.state.can_transition_to(state):
            return
        self.state = state
        change = LinkChange(state, self._clock(), reason[:MAX_REASON])
        self.history.append(change)
        del self.history[:-HISTORY]
        for listener in tuple(self._listeners):
            listener(self, change)
