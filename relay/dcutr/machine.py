"""Both roles of DCUtR; sans-IO, the time is an argument.

Whoever accepted the circuit opens the stream: the `Initiator`. Call its `begin` for each new
stream, three times at most, feed `receive_data`, and dial what `Punch` says when it says so.
Whoever dialled the circuit is the `Responder`, once for each stream.

They agree on roles by the circuit: who dialled that is the dialer of the direct connection at every
layer, though both call connect().
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto
from typing import TYPE_CHECKING

from ...transports.core.errors import LocalProtocolError, RemoteProtocolError
from ...transports.core.interfaces import Side
from ...transports.core.varint import LengthPrefixReader
from .wire import MAX_MESSAGE_BYTES, HolePunch, HolePunchType, decode, encode, fitting

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ...transports.core.multiaddr import Multiaddr

MAX_ATTEMPTS = 3
"""By the specification: each measures the round trip anew, since one may have been disturbed."""

MAX_WAIT = 2.5
"""Seconds before the dial at most: half the round trip of the worst relay worth using."""


@dataclass(frozen=True, slots=True)
class Punch:
    """Dial these addresses of the peer at `at`, all at once, in this role."""

    addresses: tuple[Multiaddr, ...]
    at: float
    side: Side


class _State(Enum):
    IDLE = auto()
    CONNECT_SENT = auto()
    WAITING = auto()
    """The responder's, for SYNC."""
    DONE = auto()


class Initiator:
    """The side that accepted the circuit; `addresses` are its own, which the peer will dial."""

    def __init__(self, addresses: Iterable[Multiaddr]) -> None:
        self.addresses = fitting(addresses)
        self.attempts = 0
        self.round_trip: float | None = None
        """The last one measured, in seconds."""
        self._state = _State.IDLE
        self._sent_at = 0.0
        self._reader = LengthPrefixReader(MAX_MESSAGE_BYTES)
        self._waiting = b""

    @property
    def may_begin(self) -> bool:
        """Say whether there is an attempt left."""
        return self.attempts < MAX_ATTEMPTS

    def begin(self, now: float) -> None:
        """Begin an attempt, on a new stream; raises LocalProtocolError after the last one."""
        if not self.may_begin:
            raise LocalProtocolError(f"a circuit is upgraded in {MAX_ATTEMPTS} attempts at most")
        self.attempts += 1
        self._state = _State.CONNECT_SENT
        self._sent_at = now
        self._reader = LengthPrefixReader(MAX_MESSAGE_BYTES)
        self._waiting = encode(HolePunch(HolePunchType.CONNECT, self.addresses))

    def data_to_send(self) -> bytes:
        """Return what is to be sent now: the time it takes is measured."""
        data, self._waiting = self._waiting, b""
        return data

    def receive_data(self, data: bytes, now: float) -> Punch | None:
        """Take bytes of the peer; return when to dial what, once it has answered.

        Raises RemoteProtocolError.
        """
        self._reader.feed(data)
        if self._state is not _State.CONNECT_SENT or (frame := self._reader.next_frame()) is None:
            return None
        message = _expect(frame, HolePunchType.CONNECT)
        self._state = _State.DONE
        self.round_trip = now - self._sent_at
        self._waiting = encode(HolePunch(HolePunchType.SYNC))
        # Our SYNC is at the peer by then, which dials at once.
        at = now + min(self.round_trip / 2, MAX_WAIT)
        return Punch(message.addresses, at, Side.LISTENER)


class Responder:
    """The side that dialled the circuit; `addresses` are its own."""

    def __init__(self, addresses: Iterable[Multiaddr]) -> None:
        self.addresses = fitting(addresses)
        self._state = _State.IDLE
        self._theirs: tuple[Multiaddr, ...] = ()
        self._reader = LengthPrefixReader(MAX_MESSAGE_BYTES)
        self._waiting = b""

    def data_to_send(self) -> bytes:
        """Return what is to be sent."""
        data, self._waiting = self._waiting, b""
        return data

    def receive_data(self, data: bytes, now: float) -> Punch | None:
        """Take bytes of the peer; return what to dial, at once, when it says so.

        Raises RemoteProtocolError.
        """
        self._reader.feed(data)
        while self._state is not _State.DONE:
            frame = self._reader.next_frame()
            if frame is None:
                break
            if self._state is _State.IDLE:
                self._theirs = _expect(frame, HolePunchType.CONNECT).addresses
                self._waiting = encode(HolePunch(HolePunchType.CONNECT, self.addresses))
                self._state = _State.WAITING
                continue
            _expect(frame, HolePunchType.SYNC)
            self._state = _State.DONE
            return Punch(self._theirs, now, Side.DIALER)
        return None


def _expect(frame: bytes, kind: HolePunchType) -> HolePunch:
    message = decode(frame)
    if message.type is not kind:
        raise RemoteProtocolError(f"{message.type.name} where {kind.name} belongs")
    return message
