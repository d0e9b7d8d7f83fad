"""What travels between the two ends of a connection in memory: objects, never bytes."""

from __future__ import annotations

from dataclasses import dataclass

# What every frame counts beside its content, on the link and in the statistics: a Yamux header.
OVERHEAD = 12


@dataclass(frozen=True, slots=True)
class Opened:
    """A stream was opened."""

    stream: int


@dataclass(frozen=True, slots=True)
class Accepted:
    """A stream was accepted."""

    stream: int


@dataclass(frozen=True, slots=True)
class Data:
    """Bytes of a stream."""

    stream: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Credit:
    """The receiver of a stream has taken so many bytes."""

    stream: int
    size: int


@dataclass(frozen=True, slots=True)
class Finished:
    """No more bytes of a stream will come."""

    stream: int


@dataclass(frozen=True, slots=True)
class Reset:
    """A stream has ended in both directions."""

    stream: int
    code: int


@dataclass(frozen=True, slots=True)
class PipeOpened:
    """A pipe was opened; messages that overtake this are lost."""

    pipe: int
    label: str


@dataclass(frozen=True, slots=True)
class Message:
    """A message of a pipe."""

    pipe: int
    data: bytes


@dataclass(frozen=True, slots=True)
class PipeFinished:
    """A pipe's peer sends no more; a message that was held back may still come."""

    pipe: int


@dataclass(frozen=True, slots=True)
class Ping:
    """Asks for a pong."""

    value: int


@dataclass(frozen=True, slots=True)
class Pong:
    """Answers a ping."""

    value: int


@dataclass(frozen=True, slots=True)
class Goodbye:
    """The connection has ended, as this side wanted."""

    code: int


Frame = (
    Opened
    | Accepted
    | Data
    | Credit
    | Finished
    | Reset
    | PipeOpened
    | Message
    | PipeFinished
    | Ping
    | Pong
    | Goodbye
)
