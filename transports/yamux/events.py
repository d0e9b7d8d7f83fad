"""What a Yamux machine reports; each names what has happened to which stream."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .flow import StreamState


@dataclass(frozen=True, slots=True)
class StreamOpened:
    """The peer opened a stream."""

    stream: StreamState


@dataclass(frozen=True, slots=True)
class DataReceived:
    """A stream that had nothing to take has something."""

    stream: StreamState


@dataclass(frozen=True, slots=True)
class StreamFinished:
    """The peer has sent its last byte on a stream."""

    stream: StreamState


@dataclass(frozen=True, slots=True)
class StreamWasReset:
    """A stream was reset, by either side."""

    stream: StreamState


@dataclass(frozen=True, slots=True)
class SendResumed:
    """A stream whose `send` took less than it was given takes more."""

    stream: StreamState


@dataclass(frozen=True, slots=True)
class OpenResumed:
    """The peer acknowledged a stream, so that another may be opened."""


@dataclass(frozen=True, slots=True)
class PongReceived:
    """The peer answered `ping`: the value, and the round trip in seconds."""

    value: int
    round_trip_time: float


@dataclass(frozen=True, slots=True)
class GoAwayReceived:
    """The peer ends the session."""

    code: int


Event = (
    StreamOpened
    | DataReceived
    | StreamFinished
    | StreamWasReset
    | SendResumed
    | OpenResumed
    | PongReceived
    | GoAwayReceived
)
