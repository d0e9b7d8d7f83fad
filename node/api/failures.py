"""What went wrong in an endpoint, as the answer that its client is given."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import anyio

from ...transports.core.errors import (
    AddressError,
    ConfigError,
    ControlError,
    DialError,
    LimitExceeded,
    LocalProtocolError,
    P2PError,
    StoreError,
)
from ..printable import printable
from ..sentences import describe, describe_attempt

if TYPE_CHECKING:
    from ...transports.core.errors import FailedAttempt

logger = logging.getLogger(__name__)

BAD_REQUEST = 400
INTERNAL = 500
BAD_GATEWAY = 502
UNAVAILABLE = 503
GATEWAY_TIMEOUT = 504

_STATUS: tuple[tuple[type[Exception], int], ...] = (
    (AddressError, BAD_REQUEST),
    (ConfigError, BAD_REQUEST),
    (StoreError, INTERNAL),
    # Of the node, not of a peer: it stops, or has no room.
    (LimitExceeded, UNAVAILABLE),
    (LocalProtocolError, UNAVAILABLE),
    (TimeoutError, GATEWAY_TIMEOUT),
    # The peer, or the way to it.
    (P2PError, BAD_GATEWAY),
    (OSError, BAD_GATEWAY),
    (anyio.BrokenResourceError, BAD_GATEWAY),
    (anyio.ClosedResourceError, BAD_GATEWAY),
    (anyio.EndOfStream, BAD_GATEWAY),
)
"""The first that fits counts; whatever fits none is a bug."""


def explained(error: Exception) -> ControlError:
    """Return what to answer; a bug is logged besides."""
    if isinstance(error, ControlError):
        return error
    kind = type(error).__name__
    for expected, status in _STATUS:
        if isinstance(error, expected):
            attempts = error.attempts if isinstance(error, DialError) else ()
            return ControlError(
                describe(error),
                status=status,
                kind=kind,
                attempts=[attempt_json(each) for each in attempts],
            )
    logger.error("a control request failed: %r", error)
    logger.debug("its traceback", exc_info=error)
    why = printable(f"internal error: {kind}: {error}")
    return ControlError(why, status=INTERNAL, kind=kind)


def attempt_json(attempt: FailedAttempt) -> dict[str, str | float]:
    """Return one address that was tried: which phase failed, after how long, and why."""
    return {
        "address": str(attempt.address),
        "phase": attempt.phase,
        "seconds": round(attempt.duration, 6),
        "cause": describe_attempt(attempt),
    }
