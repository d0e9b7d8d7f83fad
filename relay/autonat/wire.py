"""AutoNAT v2's messages: values to bytes and back; each is preceded by its length.

https://github.com/libp2p/specs/blob/master/autonat/autonat-v2.md
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Any, TypeAlias

from ...transports.core.errors import AddressError, RemoteProtocolError
from ...transports.core.multiaddr import Multiaddr
from ...transports.core.protobuf import Field, Kind, Schema
from ...transports.core.varint import length_prefixed

if TYPE_CHECKING:
    from collections.abc import Iterable

DIAL_REQUEST_PROTOCOL = "/libp2p/autonat/2/dial-request"
DIAL_BACK_PROTOCOL = "/libp2p/autonat/2/dial-back"

MAX_MESSAGE_BYTES = 8192
"""A message of the dial-request stream, its length not counted; as go."""

MAX_REQUEST_BYTES = 4096
"""A request that we send: rust reads 4,104 bytes, its length included."""

MAX_DIAL_BACK_BYTES = 64
"""A message of the dial-back stream; both kinds are smaller than a dozen bytes."""

MAX_ADDRESSES = 50
"""Addresses of a request that are looked at, as go."""

MAX_CHUNK = 4096
"""Bytes of data in one message, by the specification."""

MIN_DATA = 30_000
MAX_DATA = 100_000
"""Bytes that a dial to another IP address costs: three to ten times what a handshake takes, so that
nobody gains by having us do it."""


class ResponseStatus(IntEnum):
    """What became of a request."""

    INTERNAL_ERROR = 0
    REQUEST_REJECTED = 100
    DIAL_REFUSED = 101
    OK = 200


class DialStatus(IntEnum):
    """What became of the dial."""

    UNUSED = 0
    DIAL_ERROR = 100
    DIAL_BACK_ERROR = 101
    OK = 200


@dataclass(frozen=True, slots=True)
class DialRequest:
    """Addresses to try, best first, and the number to prove it by; None is one not understood."""

    addresses: tuple[Multiaddr | None, ...]
    nonce: int


@dataclass(frozen=True, slots=True)
class DialResponse:
    """The end of a request; `index` is of the address that was dialled."""

    status: ResponseStatus
    index: int = 0
    dial_status: DialStatus = DialStatus.UNUSED


@dataclass(frozen=True, slots=True)
class DialDataRequest:
    """What the dial of the address at `index` costs, in bytes."""

    index: int
    count: int


@dataclass(frozen=True, slots=True)
class DialData:
    """A part of that cost."""

    data: bytes


Message: TypeAlias = DialRequest | DialResponse | DialDataRequest | DialData


def encode_message(message: Message) -> bytes:
    """Return a message of the dial-request stream, with its length."""
    values: dict[str, Any]
    match message:
        case DialRequest(addresses, nonce):
            encoded = [b"" if each is None else bytes(each) for each in addresses]
            values = {"request": {"addresses": encoded, "nonce": nonce}}
        case DialResponse(status, index, dial_status):
            values = {"response": {"status": status, "index": index, "dial_status": dial_status}}
        case DialDataRequest(index, count):
            values = {"data_request": {"index": index, "count": count}}
        case _:
            values = {"data": {"data": message.data}}
    return length_prefixed(_MESSAGE.encode(values))


def decode_message(data: bytes) -> Message:
    """Return a message without its length; raises RemoteProtocolError."""
    values = {name: value for name, value in _MESSAGE.decode(data).items() if value is not None}
    if len(values) != 1:
        raise RemoteProtocolError(f"an AutoNAT message is one of four kinds, not {len(values)}")
    ((kind, inner),) = values.items()
    if kind == "request":
        addresses = [_parse(each) for each in inner["addresses"][:MAX_ADDRESSES]]
        return DialRequest(tuple(addresses), inner.get("nonce", 0))
    if kind == "response":
        status = _status(ResponseStatus, inner.get("status", 0))
        dial_status = _status(DialStatus, inner.get("dial_status", 0))
        return DialResponse(status, inner.get("index", 0), dial_status)
    if kind == "data_request":
        return DialDataRequest(inner.get("index", 0), inner.get("count", 0))
    return DialData(inner.get("data", b""))


def encode_dial_back(nonce: int) -> bytes:
    """Return the message that proves a dial, with its length."""
    return length_prefixed(_DIAL_BACK.encode({"nonce": nonce}))


def decode_dial_back(data: bytes) -> int:
    """Return the number in such a message, which comes without its length.

    Raises RemoteProtocolError.
    """
    nonce: int = _DIAL_BACK.decode(data).get("nonce", 0)
    return nonce


DIAL_BACK_OK = length_prefixed(b"")
"""The answer to it, with its length: the one status that there is, which is 0, is left out."""


def fitting(addresses: Iterable[Multiaddr]) -> tuple[Multiaddr, ...]:
    """Return the first addresses, as many as fit into a request that everyone reads."""
    kept: list[Multiaddr] = []
    for address in addresses:
        kept.append(address)
        if len(encode_message(DialRequest(tuple(kept), 2**64 - 1))) > MAX_REQUEST_BYTES:
            kept.pop()
    return tuple(kept[:MAX_ADDRESSES])


def _parse(data: bytes) -> Multiaddr | None:
    try:
        return Multiaddr.from_bytes(data)
    except AddressError:
        return None


def _status(kind: type[Any], value: int) -> Any:  # noqa: ANN401
    try:
        return kind(value)
    except ValueError:
        raise RemoteProtocolError(f"{value} is no status of AutoNAT") from None


_REQUEST = Schema(Field(1, "addresses", Kind.BYTES, repeated=True), Field(2, "nonce", Kind.FIXED64))
_RESPONSE = Schema(
    Field(1, "status", Kind.UINT), Field(2, "index", Kind.UINT), Field(3, "dial_status", Kind.UINT)
)
_DATA_REQUEST = Schema(Field(1, "index", Kind.UINT), Field(2, "count", Kind.UINT))
_DATA = Schema(Field(1, "data", Kind.BYTES))
_MESSAGE = Schema(
    Field(1, "request", Kind.MESSAGE, schema=_REQUEST),
    Field(2, "response", Kind.MESSAGE, schema=_RESPONSE),
    Field(3, "data_request", Kind.MESSAGE, schema=_DATA_REQUEST),
    Field(4, "data", Kind.MESSAGE, schema=_DATA),
)
_DIAL_BACK = Schema(Field(1, "nonce", Kind.FIXED64))
