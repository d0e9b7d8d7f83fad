"""The protobuf wire format, for the small messages of libp2p.

A message is a `Schema` of `Field`s; decoded it is a dict of what was present. Presence is explicit:
what is given is sent, zero included, as go's proto2 and js expect. Unknown fields are ignored, the
last of several scalars wins, several messages are merged, groups and foreign wire types are refused
(https://protobuf.dev/programming-guides/encoding/). How long a message may be is for its reader to
say.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any

from .errors import LocalProtocolError, RemoteProtocolError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["Field", "Kind", "Schema"]

MAX_FIELDS = 4096
"""Fields of a message: identify's, the largest, may have 1,024 protocols and 500 addresses."""

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_MAX_VARINT = 10  # Bytes of 64 bits.
_MAX_NUMBER = (1 << 29) - 1
_MAX_UINT = (1 << 64) - 1


class Kind(Enum):
    """How a field's value is encoded."""

    UINT = "uint"
    BYTES = "bytes"
    STRING = "string"
    FIXED64 = "fixed64"
    MESSAGE = "message"


@dataclass(frozen=True, slots=True)
class Field:
    """One field; `schema` is a MESSAGE's, `repeated` makes its value a list."""

    number: int
    name: str
    kind: Kind
    repeated: bool = False
    schema: Schema | None = None


class Schema:
    """The fields of one message type."""

    def __init__(self, *fields: Field) -> None:
        self.fields = tuple(sorted(fields, key=lambda field: field.number))
        self._by_number = {field.number: field for field in fields}

    def encode(self, values: Mapping[str, Any]) -> bytes:
        """Return the encoding, fields in ascending order; None stands for absent.

        Raises LocalProtocolError for a number that does not fit into 64 bits.
        """
        out = bytearray()
        for field in self.fields:
            value = values.get(field.name)
            if value is None:
                continue
            for item in value if field.repeated else (value,):
                out += _encode_field(field, item)
        return bytes(out)

    def decode(self, data: bytes) -> dict[str, Any]:
        """Return what is present; repeated fields are always there, as lists.

        Raises RemoteProtocolError for anything that is not such a message.
        """
        values: dict[str, Any] = {field.name: [] for field in self.fields if field.repeated}
        parts: dict[int, list[bytes]] = {}
        for number, wire_type, raw in _split(data):
            field = self._by_number.get(number)
            if field is None:
                continue
            if wire_type != _WIRE_TYPES[field.kind]:
                raise RemoteProtocolError(f"field {field.name} has wire type {wire_type}")
            value = _decode_field(field, raw)
            if field.repeated:
                values[field.name].append(value)
                continue
            values[field.name] = value
            if field.kind is Kind.MESSAGE:
                parts.setdefault(number, []).append(raw)
        for number, found in parts.items():
            if len(found) > 1:
                # Messages one behind the other are, decoded, their merger.
                field = self._by_number[number]
                values[field.name] = _decode_field(field, b"".join(found))
        return values


_WIRE_TYPES = {
    Kind.UINT: _VARINT,
    Kind.FIXED64: _FIXED64,
    Kind.BYTES: _BYTES,
    Kind.STRING: _BYTES,
    Kind.MESSAGE: _BYTES,
}


def _encode_field(field: Field, value: Any) -> bytes:  # noqa: ANN401
    tag = _encode_uint(field.number << 3 | _WIRE_TYPES[field.kind])
    match field.kind:
        case Kind.UINT:
            return tag + _encode_uint(value)
        case Kind.FIXED64:
            return tag + _fitting(value).to_bytes(8, "little")
        case Kind.STRING:
            body: bytes = value.encode()
        case Kind.MESSAGE:
            assert field.schema is not None
            body = field.schema.encode(value)
        case _:
            body = value
    return tag + _encode_uint(len(body)) + body


def _encode_uint(number: int) -> bytes:
    number = _fitting(number)
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def _fitting(number: int) -> int:
    if not 0 <= number <= _MAX_UINT:
        raise LocalProtocolError(f"{number} does not fit into 64 bits")
    return number


def _decode_field(field: Field, raw: Any) -> Any:  # noqa: ANN401
    if field.kind is Kind.STRING:
        try:
            return raw.decode()
        except UnicodeDecodeError:
            raise RemoteProtocolError(f"field {field.name} is not UTF-8") from None
    if field.kind is Kind.MESSAGE:
        assert field.schema is not None
        return field.schema.decode(raw)
    return raw


def _split(data: bytes) -> Iterator[tuple[int, int, Any]]:
    offset = count = 0
    while offset < len(data):
        count += 1
        if count > MAX_FIELDS:
            raise RemoteProtocolError(f"a message of more than {MAX_FIELDS} fields")
        tag, offset = _read_varint(data, offset)
        number, wire_type = tag >> 3, tag & 7
        if not 0 < number <= _MAX_NUMBER:
            raise RemoteProtocolError(f"a field with number {number}")
        if wire_type == _VARINT:
            value, offset = _read_varint(data, offset)
            yield number, wire_type, value
            continue
        if wire_type == _BYTES:
            length, offset = _read_varint(data, offset)
        elif wire_type in (_FIXED64, _FIXED32):
            length = 8 if wire_type == _FIXED64 else 4
        else:
            raise RemoteProtocolError(f"a field with wire type {wire_type}")
        if length > len(data) - offset:
            raise RemoteProtocolError("a message that ends within a field")
        body = data[offset : offset + length]
        offset += length
        yield number, wire_type, body if wire_type == _BYTES else int.from_bytes(body, "little")


def _read_varint(data: bytes, offset: int) -> tuple[int, int]:
    number = shift = 0
    for index in range(offset, min(len(data), offset + _MAX_VARINT)):
        byte = data[index]
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number & _MAX_UINT, index + 1
        shift += 7
    raise RemoteProtocolError("a message with a varint that does not end")
