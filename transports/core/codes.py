"""libp2p's error codes: what a go-away and a reset may say of their reason.

https://github.com/libp2p/specs/blob/master/error-codes/README.md; peers that do not know them take
each for an end like any other.
"""

from __future__ import annotations

from enum import IntEnum

__all__ = ["ConnectionCode", "StreamCode", "explain_code"]


class ConnectionCode(IntEnum):
    """Why a connection was ended; what is below 0x1000 is the transport's own."""

    NO_ERROR = 0
    PROTOCOL_NEGOTIATION_FAILED = 0x1000
    RESOURCE_LIMIT_EXCEEDED = 0x1001
    RATE_LIMITED = 0x1002
    PROTOCOL_VIOLATION = 0x1003
    SUPPLANTED = 0x1004
    GARBAGE_COLLECTED = 0x1005
    SHUTDOWN = 0x1006
    GATED = 0x1007


class StreamCode(IntEnum):
    """Why a stream was reset."""

    NO_ERROR = 0
    PROTOCOL_NEGOTIATION_FAILED = 0x1001
    RESOURCE_LIMIT_EXCEEDED = 0x1002
    RATE_LIMITED = 0x1003
    PROTOCOL_VIOLATION = 0x1004
    SUPPLANTED = 0x1005
    GARBAGE_COLLECTED = 0x1006
    SHUTDOWN = 0x1007
    GATED = 0x1008


def explain_code(kind: type[ConnectionCode] | type[StreamCode], code: int) -> str:
    """Return what a peer means by a code, as the end of a sentence; empty if that is not known."""
    try:
        return _MEANINGS.get(kind(code).name, "")
    except ValueError:
        return ""


_MEANINGS = {
    "PROTOCOL_NEGOTIATION_FAILED": "no protocol was agreed",
    "RESOURCE_LIMIT_EXCEEDED": "a limit of it is reached",
    "RATE_LIMITED": "this came too fast for it",
    "PROTOCOL_VIOLATION": "it saw a breach of the protocol",
    "SUPPLANTED": "another took its place",
    "GARBAGE_COLLECTED": "it made room for others",
    "SHUTDOWN": "it stops",
    "GATED": "it does not want this one",
}
