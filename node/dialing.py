"""What a dial is asked for, and the state of one that is under way."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import anyio

from ..transports.core.errors import (
    AddressError,
    DialError,
    DialTimeout,
    FailedAttempt,
    HandshakeError,
    NegotiationError,
    NoTransport,
    SelfDial,
)
from ..transports.core.multiaddr import Multiaddr
from ..transports.core.peer_id import PeerId

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from ..transports.core.errors import P2PError
    from ..transports.core.interfaces import Connection

Destination: TypeAlias = "PeerId | Multiaddr | str | Sequence[Multiaddr | str]"

MAX_ADDRESSES = 16
"""Addresses tried in one dial; addresses are claims, and each may cost its full timeout."""


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


def _target(addresses: Sequence[Multiaddr]) -> Target:
    if not addresses:
        raise AddressError("no address to connect to: the sequence is empty")
    peers = {address.peer_id for address in addresses} - {None}
    if len(peers) > 1:
        raise AddressError(f"the addresses name {len(peers)} peers; connect to one at a time")
    return Target(peers.pop() if peers else None, tuple(addresses))


class Dial:
    """One dial, shared by all who wait for it; the last one to give up cancels it."""

    def __init__(self, peer: PeerId | None) -> None:
        self.peer = peer
        self.scope = anyio.CancelScope()
        self.attempts: list[FailedAttempt] = []
        self._finished = anyio.Event()
        self._queue: list[Multiaddr] = []
        self._next = 0
        self._waiters = 0
        self._connection: Connection | None = None
        self._error: Exception | None = None

    @property
    def is_finished(self) -> bool:
        """Say whether those who wait have been given a connection or an error."""
        return self._finished.is_set()

    def add(self, addresses: Iterable[Multiaddr]) -> None:
        """Queue addresses that are not queued yet, up to the bound of one dial."""
        for address in addresses:
            if address not in self._queue and len(self._queue) < MAX_ADDRESSES:
                self._queue.append(address)

    def next_address(self) -> Multiaddr | None:
        """Take the next address to try."""
        if self._next == len(self._queue):
            return None
        self._next += 1
        return self._queue[self._next - 1]

    def finish(self, connection: Connection) -> None:
        """Give everyone a connection; the first one counts."""
        if self._error is None and self._connection is None:
            self._connection = connection
            self._finished.set()

    def fail(self, error: Exception) -> None:
        """Give everyone an error, unless there is a connection already."""
        if self._error is None and self._connection is None:
            self._error = error
            self._finished.set()

    async def wait(self) -> Connection:
        """Wait for the connection; raises what `fail` was given."""
        self._waiters += 1
        try:
            await self._finished.wait()
        finally:
            self._waiters -= 1
            if not self._waiters and not self._finished.is_set():
                self.scope.cancel()
        if self._connection is None:
            assert self._error is not None
            raise self._error
        return self._connection


def explain(dial: Dial) -> P2PError:
    """Return the error of a dial all of whose attempts failed."""
    attempts = dial.attempts
    whom = str(dial.peer) if dial.peer is not None else "the peer"
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
    phase = "connect"
    if isinstance(cause, HandshakeError):
        phase = "handshake"
    elif isinstance(cause, NegotiationError):
        phase = "negotiation"
    elif isinstance(cause, AddressError):
        phase = "address"
    elif isinstance(cause, DialError) and len(cause.attempts) == 1:
        return cause.attempts[0]
    return FailedAttempt(address, phase, duration, cause)
