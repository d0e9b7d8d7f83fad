"""What a dial is asked for, and the state of one that is under way."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeAlias

import anyio

from ..transports.core.errors import (
    AddressError,
    DialError,
    DialTimeout,
    FailedAttempt,
    NoTransport,
    SelfDial,
    phase_of,
)
from ..transports.core.multiaddr import Multiaddr
from ..transports.core.peer_id import PeerId
from .dialplan import DialPlan
from .dialreport import MAX_TEXT, DialReport, DialStep, Outcome
from .hints import hint_of
from .path import Rank

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from ..transports.core.errors import P2PError
    from ..transports.core.interfaces import Connection
    from .entries import Entry

Destination: TypeAlias = "PeerId | Multiaddr | str | Sequence[Multiaddr | str]"


@dataclass(frozen=True, slots=True)
class Target:
    """A peer, if it is known which, and addresses to find it at, if any are given."""

    peer: PeerId | None
    addresses: tuple[Multiaddr, ...] = ()


def parse_target(to: Destination) -> Target:
    """Read what a caller may name a peer by.

    Raises AddressError if it does not parse, is empty, or names several peers.
    """
    if isinstance(to, PeerId):
        return Target(to)
    if isinstance(to, Multiaddr):
        return _target((to,))
    if isinstance(to, str):
        if not to.startswith("/"):
            try:
                return Target(PeerId.parse(to))
            except AddressError as error:
                example = "/ip4/192.0.2.7/tcp/4001"
                why = f"{to!r} is neither a peer id nor an address such as {example}: {error}"
                raise AddressError(why) from error
        return _target((Multiaddr.parse(to),))
    return _target([each if isinstance(each, Multiaddr) else Multiaddr.parse(each) for each in to])


def parse_listen(listen: str | Multiaddr | Sequence[str | Multiaddr]) -> tuple[Multiaddr, ...]:
    """Read one or several addresses to listen on; raises AddressError."""
    each = (listen,) if isinstance(listen, (str, Multiaddr)) else listen
    return tuple(item if isinstance(item, Multiaddr) else Multiaddr.parse(item) for item in each)


def _target(addresses: Sequence[Multiaddr]) -> Target:
    if not addresses:
        raise AddressError("no address to connect to: the sequence is empty")
    peers = {address.peer_id for address in addresses} - {None}
    if len(peers) > 1:
        raise AddressError(f"the addresses name {len(peers)} peers; connect to one at a time")
    return Target(peers.pop() if peers else None, tuple(addresses))


_NONE: Mapping[Multiaddr, Entry] = {}


class Dial:
    """One dial, shared by all who wait for it; the last one to give up cancels it."""

    def __init__(self, peer: PeerId | None, now: float) -> None:
        self.peer = peer
        self.scope = anyio.CancelScope()
        self.plan = DialPlan(now)
        self.changed = anyio.Event()
        self.attempts: list[FailedAttempt] = []
        self.steps: dict[Multiaddr, DialStep] = {}
        self.timeout: float | None = None
        """Seconds for each address, where it is not to be what the node has set."""
        self.has_limited = False
        """Whether a connection stands that will not do for all who wait, as it has a limit."""
        self.is_quiet = True
        """Whether nobody who waits wants to see an event of its failure."""
        self.is_extra = False
        """Whether it looks for a better path than the one that stands."""
        self.has_won = False
        """Whether an attempt of this dial made the connection, and none came in meanwhile."""
        self._began = now
        self._time = time.time()
        self._ranks: dict[Multiaddr, Rank] = {}
        self._failures: dict[Multiaddr, FailedAttempt] = {}
        self._finished = anyio.Event()
        self._has_any = anyio.Event()
        self._waiters = 0
        self._strict_waiters = 0
        self._limited: Connection | None = None
        self._connection: Connection | None = None
        self.error: Exception | None = None

    @property
    def is_limited(self) -> bool:
        """Say whether there is a connection, but only one with a limit."""
        return self.has_limited or self._limited is not None

    @property
    def is_finished(self) -> bool:
        """Say whether those who wait have been given a connection or an error."""
        return self._finished.is_set()

    def add(
        self,
        addresses: Iterable[Multiaddr],
        rank: Callable[[Multiaddr], Rank],
        circuits: Mapping[Multiaddr, Entry] = _NONE,
    ) -> None:
        """Plan addresses that are not planned yet, or have failed, up to the bound of one dial.

        Not those where a connection with a limit stands already, by `circuits`: whoever still
        dials needs one without.
        """
        for address in addresses:
            kind = rank(address)
            entry = circuits.get(address.without_peer()) if kind is Rank.RELAY else None
            if (
                entry
                and entry.connection.limit is not None
                and entry.connection.remote_peer == self.peer
            ):
                self.has_limited = True
                continue
            if self.plan.add(address, kind):
                self._ranks[address] = kind
                self.changed.set()

    def begin(self, address: Multiaddr, now: float) -> None:
        """Note that an attempt begins; it was cancelled unless more is heard of it."""
        self.steps[address] = DialStep(
            address, self._ranks[address], Outcome.CANCELLED, now - self._began
        )

    def end(self, address: Multiaddr, now: float, cause: BaseException | None = None) -> None:
        """Note what became of an attempt: it has failed if there is a cause."""
        step = self.steps[address]
        started = step.started or 0.0
        duration = now - self._began - started
        if cause is None:
            self.steps[address] = replace(step, outcome=Outcome.CONNECTED, duration=duration)
            if not self.is_finished:
                # It has a limit, and somebody waits for one without: the plan goes on.
                self.plan.ended(address, now)
                self.changed.set()
            return
        attempt = failed_attempt(address, duration, cause)
        if (before := self._failures.get(address)) is not None:
            # Of an address that was tried twice the last attempt is told.
            self.attempts.remove(before)
        self._failures[address] = attempt
        self.attempts.append(attempt)
        self.steps[address] = DialStep.failed(attempt, step.rank, started)
        self.plan.failed(address, now)
        self.changed.set()

    def report(self, now: float) -> DialReport:
        """Return what has happened so far."""
        steps = [
            # One that was cancelled ran until now.
            replace(step, duration=now - self._began - (step.started or 0.0))
            if step.duration is None
            else step
            for step in self.steps.values()
        ]
        steps += [
            DialStep(address, self._ranks[address], Outcome.NOT_TRIED)
            for address in self.plan.waiting
            if address not in self.steps
        ]
        error = "" if self.error is None else str(self.error)
        hint = "" if self.steps else hint_of(self.error)
        duration = now - self._began
        return DialReport(self.peer, self._time, duration, tuple(steps), error[:MAX_TEXT], hint)

    def finish(self, connection: Connection) -> None:
        """Give everyone a connection; the first one counts.

        One with a limit is only for those who take such; the others wait on.
        """
        if self.error is not None or self._connection is not None:
            return
        if connection.limit is not None and self._strict_waiters:
            self._limited = self._limited or connection
            self._has_any.set()
            return
        self._connection = connection
        self._finish()

    def fail(self, error: Exception) -> None:
        """Give everyone an error, unless there is a connection already."""
        if self.error is None and self._connection is None:
            self.error = error
            self._finish()

    async def wait(self, *, allow_limited: bool = True) -> Connection:
        """Wait for the connection, or one without a limit; raises what `fail` was given."""
        self._waiters += 1
        self._strict_waiters += not allow_limited
        try:
            await (self._has_any if allow_limited else self._finished).wait()
        finally:
            self._waiters -= 1
            self._strict_waiters -= not allow_limited
            if not self._waiters and not self._finished.is_set():
                self.scope.cancel()
        if self._connection is not None:
            return self._connection
        if allow_limited and self._limited is not None:
            return self._limited
        assert self.error is not None
        raise self.error

    def _finish(self) -> None:
        self._finished.set()
        self._has_any.set()
        self.changed.set()


def explain(dial: Dial) -> P2PError:
    """Return the error of a dial all of whose attempts failed."""
    attempts = dial.attempts
    whom = str(dial.peer) if dial.peer is not None else "the peer"
    if dial.is_limited:
        return DialError(
            f"{whom} is reached only through a relay that sets limits;"
            " pass allow_limited=True to use it",
            attempts,
        )
    if not attempts:
        return DialError(f"no address of {whom} is known")
    causes = [attempt.cause for attempt in attempts]
    if len(causes) == 1 and isinstance(causes[0], NoTransport):
        return causes[0]
    why = f"cannot connect to {whom}"
    for kind in (DialTimeout, SelfDial):
        if all(isinstance(cause, kind) for cause in causes):
            return kind(why, attempts)
    return DialError(why, attempts)


def failed_attempt(address: Multiaddr, duration: float, cause: BaseException) -> FailedAttempt:
    """Return the record of one attempt, with the phase that its cause shows."""
    if isinstance(cause, DialError) and len(cause.attempts) == 1:
        return cause.attempts[0]
    return FailedAttempt(address, phase_of(cause), duration, cause)
