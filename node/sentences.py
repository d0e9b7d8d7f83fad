"""Errors as one sentence each: what went wrong, why, and where known what to do."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import anyio

from ..transports.core.errors import (
    DialError,
    DialTimeout,
    NegotiationError,
    NoTransport,
    P2PError,
    PeerIdMismatch,
    RemoteProtocolError,
    SelfDial,
)
from .hints import OTHER_PROTOCOL, hint_for
from .printable import printable

if TYPE_CHECKING:
    from ..transports.core.errors import FailedAttempt

EXAMPLE_ADDRESS = "/ip4/192.0.2.7/tcp/4001/p2p/12D3KooW..."

MAX_SENTENCE = 2000
"""Characters of an error's line; the report of a dial with sixteen addresses fits."""

EXPECTED: tuple[type[BaseException], ...] = (
    P2PError,
    OSError,
    anyio.BrokenResourceError,
    anyio.ClosedResourceError,
    anyio.EndOfStream,
    ImportError,
)
"""What may go wrong without a bug of ours; an ImportError is a package that is not installed."""

NOT_AVAILABLE = "na"
"""How multistream-select refuses a protocol."""

_HOW_TO_SERVE = {
    "/perf/1.0.0": "; a node of isthmus does if it is started with: isthmus run --perf",
}

_SILENT: dict[type[BaseException], str] = {
    anyio.EndOfStream: "the peer ended the stream too early",
    anyio.ClosedResourceError: "the connection was closed",
    anyio.BrokenResourceError: "the connection broke",
    TimeoutError: "no answer in time",
}
"""For errors that come without a text."""


def describe(error: BaseException) -> str:
    """Return one line on an error, safe for a terminal whatever a peer put into it."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return printable(_sentence(error), limit=MAX_SENTENCE)


def describe_attempt(attempt: FailedAttempt) -> str:
    """Return one line on why one address of a dial failed, without the address."""
    return printable(_cause(attempt), limit=MAX_SENTENCE)


def _sentence(error: BaseException) -> str:
    if isinstance(error, SelfDial):
        return "the address leads to this very node"
    if isinstance(error, DialError):
        return _dial(error)
    if isinstance(error, NegotiationError):
        return _negotiation(error)
    if isinstance(error, NoTransport):
        return f"{error}; an address that it can use looks like {EXAMPLE_ADDRESS}"
    if isinstance(error, OSError):
        return _os_error(error)
    return str(error) or _SILENT.get(type(error), type(error).__name__)


def _negotiation(error: NegotiationError) -> str:
    offered = " or ".join(error.offered)
    if error.answered != NOT_AVAILABLE:
        return f"no agreement on {offered}: the peer answered {error.answered!r}"
    advice = "".join(_HOW_TO_SERVE.get(each, "") for each in error.offered)
    return f"the peer does not serve {offered}{advice}"


def _dial(error: DialError) -> str:
    attempts = error.attempts
    if not attempts:
        return str(error)
    if len(attempts) == 1:
        attempt = attempts[0]
        advice = f": {hint_for(attempt)}" if isinstance(attempt.cause, DialTimeout) else ""
        return f"cannot connect to {attempt.address}: {_cause(attempt)}{advice}"
    tried = "; ".join(f"{attempt.address}: {_cause(attempt)}" for attempt in attempts)
    return f"cannot connect by any of {len(attempts)} addresses: {tried}"


def _cause(attempt: FailedAttempt) -> str:
    cause = attempt.cause
    if isinstance(cause, (NoTransport, DialTimeout)):
        return str(cause)
    if isinstance(cause, PeerIdMismatch):
        return f"{cause}: {hint_for(attempt)}"
    if isinstance(cause, OSError):
        return _os_error(cause)
    if isinstance(cause, DialError) and not cause.attempts:
        return _one_dial(cause, attempt)
    text = _sentence(cause)
    if isinstance(cause, (RemoteProtocolError, NegotiationError)):
        return f"{OTHER_PROTOCOL}: {text}"
    return text if attempt.phase == "connect" else f"the {attempt.phase} failed: {text}"


def _one_dial(error: DialError, attempt: FailedAttempt) -> str:
    text = str(error)
    for each in (attempt.address, attempt.address.without_peer()):
        text = text.removeprefix(f"cannot connect to {each}: ").removeprefix(f"{each} ")
    cause, hint = error.__cause__, hint_for(attempt)
    if isinstance(cause, OSError) and not isinstance(cause, socket.gaierror):
        text = _os_error(cause)
    return f"{text}: {hint}" if hint else text


def _os_error(error: OSError) -> str:
    text = error.strerror or str(error)
    if not text:
        return _SILENT.get(type(error), type(error).__name__)
    return f"{error.filename}: {text}" if error.filename is not None else text
