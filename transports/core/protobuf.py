"""The protobuf wire format, for the small messages of libp2p.

A message is a `Schema` of `Field`s; decoded it is a dict of what was present. Presence is explicit:
what is given is sent, zero included, as go's proto2 and js expect. Unknown fields are ignored, the
last of several scalars wins (https://protobuf.dev/programming-guides/encoding/).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any

from .errors import RemoteProtocolError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["Field", "Kind", "Schema"]

# libp2p's largest message has a few dozen addresses and protocols; a thousand of each is plenty.
MAX_FIELDS = 4096
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
# Protobuf's varints may have ten bytes, for negative numbers.
_MAX_VARINT = 10
_MAX_TAG = (1 << 29) - 1


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
        self.fields = fields
        self._by_number = {field.number: field for field in fields}

    def encode(self, values: Mapping[str, Any]) -> bytes:
        """Return the encoding, fields in ascending order; None stands for absent."""
        out = bytearray()
        for field in sorted(self.fields, key=lambda item: item.number):
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
        for number, wire_type, raw in _split(data):
            field = self._by_number.get(number)
            if field is None:
                continue
            value = _decode_field(field, wire_type, raw)
            if field.repeated:
                values[field.name].append(value)
            else:
                values[field.name] = value
        return values


def _encode_field(field: Field, value: Any) -> bytes:  # noqa: ANN401
    match field.kind:
        case Kind.UINT:
            return encode_leb128(field.number << 3 | _VARINT) + encode_leb128(value)
        case Kind.FIXED64:
            return encode_leb128(field.number << 3 | _FIXED64) + int(value).to_bytes(8, "little")
        case Kind.STRING:
            body = value.encode()
        case Kind.MESSAGE:
            assert field.schema is not None
            body = field.schema.encode(value)
        case Kind.BYTES:
            body = value
    return encode_leb128(field.number << 3 | _BYTES) + encode_leb128(len(body)) + body


def encode_leb128(number: int) -> bytes:
    """Return a varint of up to 64 bits."""
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def _decode_field(field: Field, wire_type: int, raw: int | bytes) -> Any:  # noqa: ANN401
    expected = {Kind.UINT: _VARINT, Kind.FIXED64: _FIXED64}.get(field.kind, _BYTES)
    if wire_type != expected:
        raise RemoteProtocolError(f"field {field.name} has wire type {wire_type}")
    if isinstance(raw, int):
        return raw
    if field.kind is Kind.STRING:
        try:
            return raw.decode()
        except UnicodeDecodeError:
            raise RemoteProtocolError(f"field {field.name} is not UTF-8") from None
    if field.kind is Kind.MESSAGE:
        assert field.schema is not None
        return field.schema.decode(raw)
    return raw


def _split(data: bytes) -> Iterator[tuple[int, int, int | bytes]]:
    offset = count = 0
    while offset < len(data):
        count += 1
        if count > MAX_FIELDS:
            raise RemoteProtocolError(f"a message of more than {MAX_FIELDS} fields")
        tag, offset = _read_varint(data, offset)
        number, wire_type = tag >> 3, tag & 7
        if not 0 < number <= _MAX_TAG:
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
            return number & 0xFFFF_FFFF_FFFF_FFFF, index + 1
        shift += 7
    raise RemoteProtocolError("a message with a varint that does not end")
