"""What a person can do about a dial that failed, by its cause."""

from __future__ import annotations

import errno
import socket
from typing import TYPE_CHECKING

import anyio

from ..relay.circuit.wire import Status
from ..transports.core.errors import (
    CircuitRefused,
    DialError,
    DialTimeout,
    LimitExceeded,
    NegotiationError,
    NoTransport,
    PeerIdMismatch,
    RemoteProtocolError,
    SelfDial,
)

if TYPE_CHECKING:
    from ..transports.core.errors import FailedAttempt

NO_NODE = "is it a libp2p node that listens there?"

OTHER_PROTOCOL = "what answers there does not speak libp2p as isthmus does"

_SYSTEM = {
    errno.ECONNREFUSED: "nothing listens there",
    errno.ENETUNREACH: "this machine has no network that leads there",
    errno.EHOSTUNREACH: "no machine answers there",
    errno.EADDRNOTAVAIL: "this machine has no address of this kind to call from",
    errno.EAFNOSUPPORT: "this machine has no addresses of this kind",
    errno.ECONNRESET: NO_NODE,
    errno.EPIPE: NO_NODE,
}

_REFUSED: dict[int, str] = {
    Status.RESERVATION_REFUSED: "try another relay",
    Status.RESOURCE_LIMIT_EXCEEDED: "the relay is full: try later, or through another one",
    Status.PERMISSION_DENIED: "ask whoever runs the relay to allow this peer",
    Status.CONNECTION_FAILED: "the peer may have just left; try again, or through another relay",
    Status.NO_RESERVATION: "does the peer run, and with this relay?",
    Status.MALFORMED_MESSAGE: "the relay does not speak circuit relay v2 as isthmus does",
    Status.UNEXPECTED_MESSAGE: "the relay does not speak circuit relay v2 as isthmus does",
}
"""By the status with which a relay refuses a circuit."""

_NAMES = {
    socket.EAI_NONAME: "is it spelled right?",
    socket.EAI_AGAIN: "no name server answers; is this machine on a network?",
}
"""The same for names that cannot be resolved; these numbers are not the system's."""

_LATE = {
    "connect": "is that machine on, and does a firewall let this port through?",
    "websocket": NO_NODE,
    "upgrade": NO_NODE,
    "relay": "is the relay on, and is the peer?",
}
"""By the phase in which nothing came any more."""

_BY_PHASE = {
    "relay": "is that a relay, and is it on?",
    "find": "is it on, on this network, and does it run with --lan?",
    "tls": "is that the right server, and does this machine trust who vouches for it?",
}

_BY_TYPE: tuple[tuple[type[BaseException], str], ...] = (
    (SelfDial, "the address leads to this very node; name another one"),
    (PeerIdMismatch, "has it a new key, or is the address old?"),
    (NoTransport, "an address that it can use looks like /ip4/192.0.2.7/tcp/4001"),
    (LimitExceeded, "raise the setting, or close what is not needed"),
    (RemoteProtocolError, OTHER_PROTOCOL),
    (NegotiationError, OTHER_PROTOCOL),
    (anyio.BrokenResourceError, NO_NODE),
)


def hint_for(attempt: FailedAttempt) -> str:
    """Return what may be done about an attempt that failed; empty if its cause says it all."""
    cause = attempt.cause
    if isinstance(cause, CircuitRefused):
        return _REFUSED.get(cause.status, "try another relay")
    if isinstance(cause, DialError) and isinstance(relay := cause.__cause__, DialError):
        # What failed is the way to the relay.
        return next(filter(None, map(hint_for, relay.attempts)), "")
    if isinstance(cause, DialTimeout):
        return _LATE.get(attempt.phase, _LATE["connect"])
    if isinstance(cause, DialError) and (hint := hint_of(cause.__cause__)):
        return hint
    return hint_of(cause) or _BY_PHASE.get(attempt.phase, "")


def hint_of(cause: BaseException | None) -> str:
    """Return what may be done about the error at the root of a failure; empty if it says it all."""
    if isinstance(cause, socket.gaierror):
        return _NAMES.get(cause.errno or 0, "")
    if isinstance(cause, OSError):
        return _SYSTEM.get(cause.errno or 0, "")
    return next((hint for kind, hint in _BY_TYPE if isinstance(cause, kind)), "")
