"""Every error that isthmus raises, in one tree.

P2PError
├── ConfigError                      a setting that cannot be used
│   └── ConfigRefused                problems: every such setting, and where it was made
├── AddressError                     it does not parse
│   └── NoTransport                  nothing claims it
├── StoreError                       a file or lock below the data directory
├── DialError                        every attempt, with phase and cause
│   ├── DialTimeout
│   ├── SelfDial
│   └── CircuitRefused               relay, status: it leads nowhere now
├── NegotiationError                 offered, answered
├── HandshakeError
│   ├── NoiseError
│   └── PeerIdMismatch               expected, actual
├── ProtocolError
│   ├── LocalProtocolError           our bug: a command that the state forbids
│   └── RemoteProtocolError          their breach; code = what to send
├── ConnectionClosed                 by whom, code, cause
├── StreamReset (BrokenResourceError)    code, remote
├── LimitExceeded                    which, value, limit, setting
│   └── RelayLimitReached (BrokenResourceError)
├── ReservationRefused               relay, status
├── NotRunning                       no node serves this control socket
└── ControlError                     what a node answers on it: status, kind, attempts

Streams speak anyio besides: EndOfStream, ClosedResourceError, BrokenResourceError.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import anyio

from .codes import ConnectionCode, StreamCode, explain_code

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from .multiaddr import Multiaddr
    from .peer_id import PeerId

__all__ = [
    "AddressError",
    "CircuitRefused",
    "ConfigError",
    "ConfigProblem",
    "ConfigRefused",
    "ConnectionClosed",
    "ControlError",
    "DialError",
    "DialTimeout",
    "FailedAttempt",
    "HandshakeError",
    "LimitExceeded",
    "LocalProtocolError",
    "NegotiationError",
    "NoTransport",
    "NoiseError",
    "NotRunning",
    "P2PError",
    "PeerIdMismatch",
    "ProtocolError",
    "RelayLimitReached",
    "RemoteProtocolError",
    "ReservationRefused",
    "SelfDial",
    "StoreError",
    "StreamReset",
    "map_errors",
    "phase_of",
    "unwrap_group",
]


class P2PError(Exception):
    """The root of the tree: whatever isthmus raises about peers, addresses and settings."""


class ConfigError(P2PError):
    """A setting that cannot be used; the text names the setting and what would do."""


class ConfigProblem:
    """One setting that cannot be used: which, why, and where it was made.

    `line` is that of the file, where it is known. `where` is empty if nothing is known.
    """

    __slots__ = ("key", "line", "where", "why")

    def __init__(self, key: str, why: str, *, where: str = "", line: int | None = None) -> None:
        self.key = key
        self.why = why
        self.where = where
        self.line = line

    def __str__(self) -> str:
        return f"{self.why} ({self.where})" if self.where else self.why


class ConfigRefused(ConfigError):
    """Settings that cannot be used; `problems` has each of them."""

    def __init__(self, problems: Sequence[ConfigProblem]) -> None:
        self.problems = tuple(problems)
        count = len(self.problems)
        start = f"{count} settings cannot be used: " if count > 1 else ""
        super().__init__(start + "; ".join(map(str, self.problems)))


class AddressError(P2PError):
    """A multiaddr, peer id or address that does not parse."""


class NoTransport(AddressError):
    """An address that parses, but that no transport of this node claims."""

    def __init__(self, address: Multiaddr) -> None:
        self.address = address
        super().__init__(f"no transport of this node can use {address}")


class StoreError(P2PError):
    """A file or a lock below the data directory that cannot be used."""


class FailedAttempt:
    """One address that was tried: which phase failed, after how many seconds, and why."""

    __slots__ = ("address", "cause", "duration", "phase")

    def __init__(
        self, address: Multiaddr, phase: str, duration: float, cause: BaseException
    ) -> None:
        self.address = address
        self.phase = phase
        self.duration = duration
        self.cause = cause

    def __str__(self) -> str:
        text = str(self.cause) or type(self.cause).__name__
        return f"{self.address}: {self.phase} failed after {self.duration * 1e3:.0f} ms: {text}"


def phase_of(cause: BaseException) -> str:
    """Return the phase of a dial that an error of one attempt shows."""
    if isinstance(cause, HandshakeError):
        return "handshake"
    if isinstance(cause, NegotiationError):
        return "negotiation"
    if isinstance(cause, AddressError):
        return "address"
    return cause.phase if isinstance(cause, DialError) else "connect"


class DialError(P2PError):
    """No connection could be made; `attempts` says what happened at each address.

    `phase` is what failed where there was one address: find, resolve, connect, relay, tls,
    websocket or upgrade.
    """

    def __init__(
        self, why: str, attempts: Sequence[FailedAttempt] = (), *, phase: str = "connect"
    ) -> None:
        self.attempts = tuple(attempts)
        self.phase = phase
        super().__init__("; ".join([why, *map(str, self.attempts)]))


class DialTimeout(DialError):
    """No connection within the time allowed."""


class SelfDial(DialError):
    """The address leads to this very node."""


class CircuitRefused(DialError):
    """A relay was asked for a circuit and said no; `status` is its number for why."""

    def __init__(self, relay: PeerId, status: int, why: str) -> None:
        self.relay = relay
        self.status = status
        super().__init__(f"the relay {relay} made no circuit: {why}", phase="relay")


class ReservationRefused(P2PError):
    """A relay was asked for a reservation and said no; `status` is its number for why."""

    def __init__(self, relay: PeerId, status: int, why: str) -> None:
        self.relay = relay
        self.status = status
        super().__init__(f"the relay {relay} gives no reservation: {why}")


class NegotiationError(P2PError):
    """The peer speaks none of the protocols offered to it."""

    def __init__(self, offered: Sequence[str], answered: str) -> None:
        self.offered = tuple(offered)
        self.answered = answered
        super().__init__(f"offered {', '.join(self.offered)}; the peer answered {answered!r}")


class HandshakeError(P2PError):
    """The peer did not prove who it is."""


class NoiseError(HandshakeError):
    """A Noise message that is malformed or does not authenticate."""


class PeerIdMismatch(HandshakeError):
    """Another peer than the expected one answered."""

    def __init__(self, expected: PeerId, actual: PeerId) -> None:
        self.expected = expected
        self.actual = actual
        super().__init__(f"expected peer {expected}, but {actual} answered")


class ProtocolError(P2PError):
    """A breach of a protocol, ours or theirs."""


class LocalProtocolError(ProtocolError):
    """A command that the state of the machine forbids: a bug on this side."""


class RemoteProtocolError(ProtocolError):
    """A breach by the peer; `code` is what to send it (a go-away code, a relay status)."""

    def __init__(self, why: str, code: int = 1) -> None:
        self.code = code
        super().__init__(why)


class ConnectionClosed(P2PError):
    """The connection has ended: which side ended it, with which code, and why.

    `remote` is True if the peer ended it, False if this side did, None if the path failed.
    `code` is the go-away code, if one was seen. `cause` is the error behind it, if any.
    """

    def __init__(
        self, *, remote: bool | None, code: int | None = None, cause: BaseException | None = None
    ) -> None:
        self.remote = remote
        self.code = code
        self.cause = cause
        who = {True: "by the peer", False: "by this side", None: "because the path failed"}[remote]
        why = str(cause or "") or (explain_code(ConnectionCode, code or 0) if remote else "")
        super().__init__(f"the connection was closed {who}{why and ': ' + why}")


class StreamReset(P2PError, anyio.BrokenResourceError):
    """The stream was reset; `code` is the wire's error code.

    By the peer if `remote`, by this side if not; None: its connection's path broke.
    """

    def __init__(self, code: int = 0, *, remote: bool | None, why: str = "") -> None:
        self.code = code
        self.remote = remote
        self.why = why
        if remote is None:
            text = "the stream ended with its connection, whose path broke"
        else:
            text = f"the stream was reset by {'the peer' if remote else 'this side'} (code {code})"
            why = why or (explain_code(StreamCode, code) if remote else "")
        super().__init__(f"{text}{why and ': ' + why}")


class LimitExceeded(P2PError):
    """A bound was reached: its name, the value, the bound, and the setting that moves it."""

    def __init__(self, which: str, *, value: float, limit: float, setting: str) -> None:
        self.which = which
        self.value = value
        self.limit = limit
        self.setting = setting
        super().__init__(f"{which}: {value:g} is over the limit of {limit:g} (setting: {setting})")


class RelayLimitReached(LimitExceeded, anyio.BrokenResourceError):
    """A circuit ended as its relay had said: after so many bytes, or seconds."""

    def __init__(self, which: str, *, value: float, limit: float) -> None:
        super().__init__(which, value=value, limit=limit, setting="one of the relay's own")


class NotRunning(P2PError):
    """No node serves the control socket that was asked for."""


class ControlError(P2PError):
    """A request of the control API that was refused, or that failed.

    `status` is HTTP's. `kind` is the name of the error's class in the node, if it is one of this
    tree; `attempts` has, of a DialError, what happened at each address.
    """

    def __init__(
        self,
        why: str,
        *,
        status: int,
        kind: str = "ControlError",
        attempts: Sequence[Mapping[str, str | float]] = (),
    ) -> None:
        self.status = status
        self.kind = kind
        self.attempts = tuple(attempts)
        super().__init__(why)


@contextmanager
def map_errors(
    mapping: Mapping[type[BaseException] | tuple[type[BaseException], ...], type[BaseException]],
) -> Iterator[None]:
    """Translate foreign exceptions at the one edge of a transport, keeping the text and cause."""
    try:
        yield
    except BaseException as error:
        for source, target in mapping.items():
            if isinstance(error, source):
                raise target(str(error) or type(error).__name__) from error
        raise


@contextmanager
def unwrap_group() -> Iterator[None]:
    """Raise the single exception out of a group of one, however deep, at a task group's edge."""
    try:
        yield
    except BaseExceptionGroup as group:
        error: BaseException = group
        while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
            error = error.exceptions[0]
        if error is group:
            raise
        raise error from error.__cause__
