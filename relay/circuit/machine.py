"""All relays of a node: which are wanted, and what is to be done about each.

Sans-IO, of `RelaySelection` and a `Supervisor` each. Call `handle_timeout` at `next_timeout` and
after every command; it returns what is to be done: an `Attempt` ends in `reserved`, `refused` or
`failed`, and what was `Released` is let go of. Times are the loop's, in seconds.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING, TypeAlias

from ...transports.core.errors import LimitExceeded
from .selection import Health, RelaySelection, place_of
from .supervisor import Supervisor, SupervisorPolicy, SupervisorState

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from ...transports.core.multiaddr import Multiaddr
    from ...transports.core.peer_id import PeerId

MAX_CONFIGURED = 16
"""Relays that a user may name: each is tried again and again while it is away."""

MAX_ADDRESSES = 8
"""Addresses of a relay that are remembered; the ones told first are dialled first."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """Ask a relay for a reservation now, and give up after `patience` seconds."""

    relay: PeerId
    patience: float


@dataclass(frozen=True, slots=True)
class Released:
    """A relay is not wanted any more: hold nothing there."""

    relay: PeerId


Action: TypeAlias = Attempt | Released

_HEALTH = {
    SupervisorState.RESTING: Health.RESTING,
    SupervisorState.CONNECTING: Health.TRYING,
    SupervisorState.RESERVING: Health.TRYING,
    SupervisorState.RESERVED: Health.STANDING,
    SupervisorState.WAITING: Health.FAILING,
    SupervisorState.REFUSED: Health.FAILING,
}


class Relays:
    """The relays that a node knows; iterating yields them.

    `draw` returns a number from 0 to 1, below 1.
    """

    def __init__(
        self,
        *,
        draw: Callable[[], float],
        wanted: int = 2,
        policy: SupervisorPolicy | None = None,
    ) -> None:
        self._draw = draw
        self._policy = policy
        self.selection = RelaySelection(wanted=wanted, draw=draw)
        self._supervisors: dict[PeerId, Supervisor] = {}
        self._addresses: dict[PeerId, tuple[Multiaddr, ...]] = {}
        self._released: list[Released] = []
        self._has_changed = True

    def __iter__(self) -> Iterator[PeerId]:
        return iter(tuple(self._supervisors))

    def __contains__(self, relay: object) -> bool:
        return relay in self._supervisors

    def supervisor(self, relay: PeerId) -> Supervisor:
        """Return the supervisor of a relay; raises KeyError if it is not known."""
        return self._supervisors[relay]

    def addresses(self, relay: PeerId) -> tuple[Multiaddr, ...]:
        """Return where a relay is, without /p2p; empty if that is not known."""
        return self._addresses.get(relay, ())

    # What relays there are

    def add(
        self, relay: PeerId, addresses: Iterable[Multiaddr], *, is_configured: bool, now: float
    ) -> bool:
        """Take note of a relay, or of more addresses of one; say whether there was room.

        What the user has named comes first, and stays. Raises LimitExceeded for too many of these.
        """
        if is_configured and not self.selection.is_configured(relay):
            count = 1 + sum(map(self.selection.is_configured, self))
            if count > MAX_CONFIGURED:
                raise LimitExceeded(
                    "relays", value=count, limit=MAX_CONFIGURED, setting="relays.via"
                )
        before, told = self._addresses.get(relay, ()), tuple(addresses)
        merged = (*told, *before) if is_configured else (*before, *told)
        merged = tuple(dict.fromkeys(merged))[:MAX_ADDRESSES]
        dropped = self.selection.add(relay, place_of(merged), is_configured=is_configured)
        if dropped == relay:
            return False
        if dropped is not None:
            self.remove(dropped)
        self._addresses[relay] = merged
        self._has_changed = True
        if relay not in self._supervisors:
            self._supervisors[relay] = Supervisor(self._policy)
        else:
            self._supervisors[relay].news(now)
        return True

    def remove(self, relay: PeerId) -> None:
        """Forget a relay, and let go of what is held there; harmless if it is not known."""
        self.selection.remove(relay)
        self._addresses.pop(relay, None)
        if (supervisor := self._supervisors.pop(relay, None)) is not None:
            self._has_changed = True
            if supervisor.is_wanted:
                self._released.append(Released(relay))

    # What happens

    def connected(self, relay: PeerId) -> None:
        """Note that an attempt has its connection."""
        if (supervisor := self._supervisors.get(relay)) and supervisor.is_attempting:
            supervisor.connected()

    def measured(self, relay: PeerId, times: Sequence[float], *, load: float | None = None) -> None:
        """Take note of round trips in seconds, and of the used part of what a relay gives."""
        if (supervisor := self._supervisors.get(relay)) is not None:
            supervisor.round_trip = min(times, default=supervisor.round_trip)
            self.selection.measured(relay, times, load=load)

    def reserved(self, relay: PeerId, ttl: float, now: float) -> bool:
        """Note that an attempt succeeded, for `ttl` seconds; say whether it is still wanted."""
        if (supervisor := self._attempting(relay)) is None:
            return False
        supervisor.reserved(ttl, now)
        return supervisor.is_reserved

    def refused(self, relay: PeerId, reason: str, now: float) -> None:
        """Note that the relay has said no to an attempt."""
        if (supervisor := self._attempting(relay)) is not None:
            is_alone = not any(each.is_reserved for each in self._supervisors.values())
            supervisor.refused(now, self._draw(), reason, is_alone=is_alone)

    def failed(self, relay: PeerId, reason: str, now: float) -> None:
        """Note that an attempt got no connection, or no answer."""
        if (supervisor := self._attempting(relay)) is not None:
            supervisor.failed(now, self._draw(), reason)

    def lost(self, relay: PeerId, reason: str, now: float) -> None:
        """Note that the connection to a relay has ended, which carries the reservation."""
        supervisor = self._supervisors.get(relay)
        if supervisor is None:
            return
        was_reserved = supervisor.is_reserved
        supervisor.lost(now, self._draw(), reason)
        self._has_changed = True
        if was_reserved:
            self._hurry(relay, now)

    def news(self, now: float, relay: PeerId | None = None) -> None:
        """Try at once what waits: there was a sign of a relay, or, without one, of the network."""
        for each, supervisor in self._supervisors.items():
            if relay in (None, each):
                supervisor.news(now)

    def renew(self, relay: PeerId, now: float) -> None:
        """Have a reservation made again at once, as on a better connection."""
        if (supervisor := self._supervisors.get(relay)) is not None:
            supervisor.renew(now)

    # When to act

    def next_timeout(self) -> float:
        """When `handle_timeout` has something to decide."""
        if self._has_changed or self._released:
            return -inf
        times = [each.next_timeout() for each in self._supervisors.values()]
        return min([*times, self.selection.next_timeout()])

    def handle_timeout(self, now: float) -> list[Action]:
        """Return what is to be done now."""
        actions: list[Action] = []
        # Twice, since an expired reservation is one more reason to choose anew.
        for _ in range(2):
            self._choose(now)
            for relay, supervisor in self._supervisors.items():
                was_reserved = supervisor.is_reserved
                if supervisor.handle_timeout(now):
                    actions.append(Attempt(relay, supervisor.patience(now)))
                if was_reserved and not supervisor.is_reserved:
                    self._hurry(relay, now)
        self._has_changed = False
        released, self._released = self._released, []
        return [*released, *actions]

    # Helpers

    def _choose(self, now: float) -> None:
        health = {relay: _HEALTH[each.state] for relay, each in self._supervisors.items()}
        chosen = self.selection.choose(health, now)
        for relay, supervisor in self._supervisors.items():
            if relay in chosen:
                supervisor.want(now)
            elif supervisor.is_wanted:
                supervisor.rest()
                self._released.append(Released(relay))

    def _hurry(self, lost: PeerId, now: float) -> None:
        """Try the others at once: a relay that was lost leaves one less to be reached by."""
        for relay, supervisor in self._supervisors.items():
            if relay != lost:
                supervisor.news(now)

    def _attempting(self, relay: PeerId) -> Supervisor | None:
        supervisor = self._supervisors.get(relay)
        if supervisor is None or not supervisor.is_attempting:
            return None
        self._has_changed = True
        return supervisor
