"""The messages of circuit relay v2, hop and stop, and the voucher of a reservation.

https://github.com/libp2p/specs/blob/master/relay/circuit-v2.md; one message each way, with its
length in front. What follows the last one on a stream that became a circuit is the circuit's.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Any, TypeVar

from ...transports.core.envelope import open_envelope, seal_envelope
from ...transports.core.errors import AddressError, LocalProtocolError, RemoteProtocolError
from ...transports.core.multiaddr import Multiaddr
from ...transports.core.peer_id import PeerId
from ...transports.core.protobuf import Field, Kind, Schema
from ...transports.core.varint import length_prefixed

if TYPE_CHECKING:
    from collections.abc import Callable

    from ...transports.core.keys import PrivateKey

HOP_PROTOCOL = "/libp2p/circuit/relay/0.2.0/hop"
STOP_PROTOCOL = "/libp2p/circuit/relay/0.2.0/stop"

MAX_MESSAGE = 4096
"""Bytes of a message without its length, as in go, js and rust."""

VOUCHER_DOMAIN = "libp2p-relay-rsvp"
VOUCHER_TYPE = bytes((0x03, 0x02))
"""Two bytes, not a number, as those of the peer record."""

_MAX_DURATION = (1 << 32) - 1

_PEER = Schema(Field(1, "id", Kind.BYTES), Field(2, "addrs", Kind.BYTES, repeated=True))
_RESERVATION = Schema(
    Field(1, "expire", Kind.UINT),
    Field(2, "addrs", Kind.BYTES, repeated=True),
    Field(3, "voucher", Kind.BYTES),
)
_LIMIT = Schema(Field(1, "duration", Kind.UINT), Field(2, "data", Kind.UINT))
_HOP = Schema(
    Field(1, "type", Kind.UINT),
    Field(2, "peer", Kind.MESSAGE, schema=_PEER),
    Field(3, "reservation", Kind.MESSAGE, schema=_RESERVATION),
    Field(4, "limit", Kind.MESSAGE, schema=_LIMIT),
    Field(5, "status", Kind.UINT),
)
_STOP = Schema(
    Field(1, "type", Kind.UINT),
    Field(2, "peer", Kind.MESSAGE, schema=_PEER),
    Field(3, "limit", Kind.MESSAGE, schema=_LIMIT),
    Field(4, "status", Kind.UINT),
)
_VOUCHER = Schema(
    Field(1, "relay", Kind.BYTES), Field(2, "peer", Kind.BYTES), Field(3, "expiration", Kind.UINT)
)


class Status(IntEnum):
    """How a request went."""

    OK = 100
    RESERVATION_REFUSED = 200
    RESOURCE_LIMIT_EXCEEDED = 201
    PERMISSION_DENIED = 202
    CONNECTION_FAILED = 203
    NO_RESERVATION = 204
    MALFORMED_MESSAGE = 400
    UNEXPECTED_MESSAGE = 401


class HopType(IntEnum):
    """What a message between a peer and its relay is."""

    RESERVE = 0
    CONNECT = 1
    STATUS = 2


class StopType(IntEnum):
    """What a message between a relay and a circuit's target is."""

    CONNECT = 0
    STATUS = 1


@dataclass(frozen=True, slots=True)
class Peer:
    """Whom a circuit leads to (hop) or comes from (stop).

    `addresses` are anybody's claims, and nobody uses them any more.
    """

    id: PeerId
    addresses: tuple[Multiaddr, ...] = ()


@dataclass(frozen=True, slots=True)
class Limit:
    """A circuit's limits: seconds, and bytes in each direction; None or 0: no such limit.

    That there is a limit at all makes the circuit a limited connection. js sends milliseconds:
    over 86,400 seconds is suspicious.
    """

    duration: int | None = None
    data: int | None = None


@dataclass(frozen=True, slots=True)
class Reservation:
    """A slot at a relay: until when, in Unix seconds, and the addresses of the relay.

    `addresses` end in the relay's /p2p, without /p2p-circuit; there may be none. `voucher` is a
    sealed `Voucher`, unchecked; None where the relay gives none.
    """

    expire: int
    addresses: tuple[Multiaddr, ...] = ()
    voucher: bytes | None = None


@dataclass(frozen=True, slots=True)
class HopMessage:
    """A message of the hop protocol; a CONNECT has a peer, a STATUS has a status.

    `status` is a `Status` where it is a known one.
    """

    type: HopType
    peer: Peer | None = None
    reservation: Reservation | None = None
    limit: Limit | None = None
    status: int | None = None

    def frame(self) -> bytes:
        """Return the message with its length in front.

        Raises LocalProtocolError if a part that its type needs is missing, or if it is too long.
        """
        _check_parts(self, self.type, HopType.CONNECT, HopType.STATUS, LocalProtocolError)
        reservation = self.reservation
        return _frame(
            _HOP,
            {
                "type": self.type,
                "peer": _peer_values(self.peer),
                "reservation": None if reservation is None else _reservation_values(reservation),
                "limit": _limit_values(self.limit),
                "status": self.status,
            },
        )

    @classmethod
    def decode(cls, data: bytes) -> HopMessage:
        """Read a message without its length; addresses that do not parse are left out.

        Raises RemoteProtocolError, whose code is the `Status` to answer.
        """
        values = _decode(_HOP, data)
        reservation = values.get("reservation")
        message = cls(
            _type(HopType, values),
            _peer(values),
            None if reservation is None else _reservation(reservation),
            _limit(values),
            _status(values),
        )
        _check_parts(message, message.type, HopType.CONNECT, HopType.STATUS, _malformed)
        return message


@dataclass(frozen=True, slots=True)
class StopMessage:
    """A message of the stop protocol; a CONNECT has a peer, a STATUS has a status.

    `status` is a `Status` where it is a known one.
    """

    type: StopType
    peer: Peer | None = None
    limit: Limit | None = None
    status: int | None = None

    def frame(self) -> bytes:
        """Return the message with its length in front.

        Raises LocalProtocolError if a part that its type needs is missing, or if it is too long.
        """
        _check_parts(self, self.type, StopType.CONNECT, StopType.STATUS, LocalProtocolError)
        return _frame(
            _STOP,
            {
                "type": self.type,
                "peer": _peer_values(self.peer),
                "limit": _limit_values(self.limit),
                "status": self.status,
            },
        )

    @classmethod
    def decode(cls, data: bytes) -> StopMessage:
        """Read a message without its length; addresses that do not parse are left out.

        Raises RemoteProtocolError, whose code is the `Status` to answer.
        """
        values = _decode(_STOP, data)
        message = cls(_type(StopType, values), _peer(values), _limit(values), _status(values))
        _check_parts(message, message.type, StopType.CONNECT, StopType.STATUS, _malformed)
        return message


@dataclass(frozen=True, slots=True)
class Voucher:
    """A relay's signed word that it serves a peer until `expiration`, in Unix seconds."""

    relay: PeerId
    peer: PeerId
    expiration: int

    def seal(self, key: PrivateKey) -> bytes:
        """Return the voucher in an envelope; raises LocalProtocolError for another's key."""
        if not self.relay.matches(key.public_key):
            raise LocalProtocolError("a voucher can be signed by its own relay only")
        payload = _VOUCHER.encode(
            {
                "relay": bytes(self.relay),
                "peer": bytes(self.peer),
                "expiration": self.expiration,
            }
        )
        return seal_envelope(key, VOUCHER_DOMAIN, VOUCHER_TYPE, payload)

    @classmethod
    def from_envelope(cls, data: bytes, *, relay: PeerId, peer: PeerId) -> Voucher:
        """Open and check a voucher that `relay` gave to `peer`; its time is not looked at.

        Raises RemoteProtocolError if it is forged, malformed, or about others.
        """
        key, payload = open_envelope(data, VOUCHER_DOMAIN, VOUCHER_TYPE)
        fields = _VOUCHER.decode(payload)
        try:
            voucher = cls(
                PeerId.from_bytes(fields.get("relay", b"")),
                PeerId.from_bytes(fields.get("peer", b"")),
                fields.get("expiration", 0),
            )
        except AddressError as error:
            raise RemoteProtocolError(f"a voucher with {error}") from None
        if voucher.relay != relay or not relay.matches(key):
            raise RemoteProtocolError("a voucher that another peer has signed")
        if voucher.peer != peer:
            raise RemoteProtocolError("a voucher for another peer")
        return voucher


def explain_status(status: int) -> str:
    """Return what a relay means by a status, as the end of a sentence."""
    return _MEANINGS.get(status, f"it answered with the unknown status {status}")


_MEANINGS: dict[int, str] = {
    Status.OK: "it agreed",
    Status.RESERVATION_REFUSED: "it takes no reservation from this peer now",
    Status.RESOURCE_LIMIT_EXCEEDED: "a limit of it is reached",
    Status.PERMISSION_DENIED: "it does not serve this peer",
    Status.CONNECTION_FAILED: "it could not reach the other peer",
    Status.NO_RESERVATION: "the other peer has no reservation there",
    Status.MALFORMED_MESSAGE: "it could not read the request",
    Status.UNEXPECTED_MESSAGE: "it did not expect this request",
}

_Type = TypeVar("_Type", HopType, StopType)


def _malformed(why: str) -> RemoteProtocolError:
    return RemoteProtocolError(why, Status.MALFORMED_MESSAGE)


def _check_parts(
    message: HopMessage | StopMessage,
    kind: IntEnum,
    connect: IntEnum,
    status: IntEnum,
    error: Callable[[str], Exception],
) -> None:
    if kind is connect and message.peer is None:
        raise error("a CONNECT that names no peer")
    if kind is status and message.status is None:
        raise error("a STATUS without a status")


def _frame(schema: Schema, values: dict[str, Any]) -> bytes:
    data = schema.encode(values)
    if len(data) > MAX_MESSAGE:
        raise LocalProtocolError(f"a relay message of {len(data)} bytes would be refused")
    return length_prefixed(data)


def _decode(schema: Schema, data: bytes) -> dict[str, Any]:
    if len(data) > MAX_MESSAGE:
        raise _malformed(f"a relay message of {len(data)} bytes")
    try:
        return schema.decode(data)
    except RemoteProtocolError as error:
        raise _malformed(str(error)) from None


def _type(types: type[_Type], values: dict[str, Any]) -> _Type:
    try:
        return types(values["type"])
    except (KeyError, ValueError):
        raise _malformed(f"a relay message of type {values.get('type')}") from None


def _status(values: dict[str, Any]) -> int | None:
    status: int | None = values.get("status")
    try:
        return None if status is None else Status(status)
    except ValueError:
        return status


def _peer(values: dict[str, Any]) -> Peer | None:
    fields = values.get("peer")
    if fields is None:
        return None
    try:
        return Peer(PeerId.from_bytes(fields.get("id", b"")), _addresses(fields))
    except AddressError as error:
        raise _malformed(f"a relay message about a peer with {error}") from None


def _addresses(fields: dict[str, Any]) -> tuple[Multiaddr, ...]:
    return tuple(Multiaddr.parse_many(fields["addrs"]))


def _reservation(fields: dict[str, Any]) -> Reservation:
    # Without a time it has expired long ago.
    return Reservation(fields.get("expire", 0), _addresses(fields), fields.get("voucher"))


def _limit(values: dict[str, Any]) -> Limit | None:
    fields = values.get("limit")
    if fields is None:
        return None
    duration: int | None = fields.get("duration")
    # A uint32 is what its lowest 32 bits say, as in Google's package.
    return Limit(None if duration is None else duration & _MAX_DURATION, fields.get("data"))


def _peer_values(peer: Peer | None) -> dict[str, Any] | None:
    if peer is None:
        return None
    return {"id": bytes(peer.id), "addrs": [bytes(address) for address in peer.addresses]}


def _reservation_values(reservation: Reservation) -> dict[str, Any]:
    return {
        "expire": reservation.expire,
        "addrs": [bytes(address) for address in reservation.addresses],
        "voucher": reservation.voucher,
    }


def _limit_values(limit: Limit | None) -> dict[str, Any] | None:
    if limit is None:
        return None
    if limit.duration is not None and limit.duration > _MAX_DURATION:
        raise LocalProtocolError(f"a circuit's duration of {limit.duration} s does not fit")
    return {"duration": limit.duration, "data": limit.data}
