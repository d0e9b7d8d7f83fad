"""The protobuf wire format, beside Google's own package."""

from __future__ import annotations

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st
from isthmus.transports.core.errors import LocalProtocolError, P2PError, RemoteProtocolError
from isthmus.transports.core.protobuf import MAX_FIELDS, Field, Kind, Schema
from isthmus.transports.core.varint import length_prefixed

INNER = Schema(
    Field(1, "id", Kind.BYTES),
    Field(2, "numbers", Kind.FIXED64, repeated=True),
    Field(16, "name", Kind.STRING),
)
OUTER = Schema(
    Field(2000, "last", Kind.BYTES),
    Field(1, "type", Kind.UINT),
    Field(2, "nonce", Kind.FIXED64),
    Field(3, "data", Kind.BYTES),
    Field(4, "text", Kind.STRING),
    Field(5, "one", Kind.MESSAGE, schema=INNER),
    Field(6, "many", Kind.MESSAGE, repeated=True, schema=INNER),
    Field(7, "texts", Kind.STRING, repeated=True),
)
GOOGLE_TYPES = {
    Kind.UINT: "TYPE_UINT64",
    Kind.FIXED64: "TYPE_FIXED64",
    Kind.BYTES: "TYPE_BYTES",
    Kind.STRING: "TYPE_STRING",
    Kind.MESSAGE: "TYPE_MESSAGE",
}


def google_class():
    """Build Google's class of OUTER: proto2, so that presence is explicit there too."""
    proto = descriptor_pb2.FileDescriptorProto(name="test.proto", package="test", syntax="proto2")
    constants = descriptor_pb2.FieldDescriptorProto
    for name, schema in (("Inner", INNER), ("Outer", OUTER)):
        described = proto.message_type.add(name=name)
        for field in schema.fields:
            label = "LABEL_REPEATED" if field.repeated else "LABEL_OPTIONAL"
            described.field.add(
                name=field.name,
                number=field.number,
                type=getattr(constants, GOOGLE_TYPES[field.kind]),
                label=getattr(constants, label),
                type_name=".test.Inner" if field.kind is Kind.MESSAGE else None,
            )
    pool = descriptor_pool.DescriptorPool()
    pool.Add(proto)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("test.Outer"))


GOOGLE = google_class()


def values_of(message, schema=OUTER):
    """Return what a message of Google's has, in the form of `Schema.decode`."""
    values = {}
    for field in schema.fields:
        value = getattr(message, field.name)
        if field.repeated:
            is_message = field.schema is not None
            values[field.name] = [
                values_of(item, field.schema) if is_message else item for item in value
            ]
        elif message.HasField(field.name):
            values[field.name] = values_of(value, field.schema) if field.schema else value
    return values


UINT64 = st.integers(0, (1 << 64) - 1) | st.integers(0, 300)
TEXT = st.text(st.characters(codec="utf-8"), max_size=8)
INNER_VALUES = st.fixed_dictionaries(
    {"numbers": st.lists(UINT64, max_size=3)},
    optional={"id": st.binary(max_size=8), "name": TEXT},
)
OUTER_VALUES = st.fixed_dictionaries(
    {"many": st.lists(INNER_VALUES, max_size=3), "texts": st.lists(TEXT, max_size=3)},
    optional={
        "type": UINT64,
        "nonce": UINT64,
        "data": st.binary(max_size=200),
        "text": TEXT,
        "one": INNER_VALUES,
        "last": st.binary(max_size=8),
    },
)


@given(OUTER_VALUES)
def test_we_write_what_google_writes_and_read_it(values):
    encoded = OUTER.encode(values)
    assert OUTER.decode(encoded) == values
    assert GOOGLE(**values).SerializeToString(deterministic=True) == encoded
    assert values_of(GOOGLE.FromString(encoded)) == values


@given(OUTER_VALUES, OUTER_VALUES)
def test_messages_one_behind_the_other_are_merged(first, second):
    encoded = OUTER.encode(first) + OUTER.encode(second)
    assert OUTER.decode(encoded) == values_of(GOOGLE.FromString(encoded))


UNKNOWN = st.sampled_from(
    [bytes.fromhex(text) for text in ("c0de0105", "c1de010102030405060708", "c5de0101020304")]
) | st.binary(max_size=5).map(lambda data: bytes.fromhex("c2de01") + length_prefixed(data))


@given(OUTER_VALUES, UNKNOWN, UNKNOWN)
def test_unknown_fields_are_ignored(values, before, behind):
    assert OUTER.decode(before + OUTER.encode(values) + behind) == values


@given(OUTER_VALUES.map(OUTER.encode), st.integers(0, 500), st.integers(1, 255))
def test_where_we_understand_a_changed_message_google_does_too(encoded, position, change):
    data = bytearray(encoded or b"\x00")
    data[position % len(data)] ^= change
    assert_no_more_lenient_than_google(bytes(data))


TAGS = st.sampled_from([bytes((number << 3 | kind,)) for number in range(8) for kind in range(8)])


@given(st.lists(TAGS | st.binary(max_size=4), max_size=8).map(b"".join))
def test_where_we_understand_random_bytes_google_does_too(data):
    assert_no_more_lenient_than_google(data)


def assert_no_more_lenient_than_google(data):
    try:
        values = OUTER.decode(data)
    except P2PError:
        return
    try:
        message = GOOGLE.FromString(data)
    except DecodeError:
        pytest.fail(f"Google refuses {data.hex()}")
    assert values_of(message) == values


@pytest.mark.parametrize(
    "encoded",
    [
        "08",
        "0880",
        "08" + "80" * 10 + "01",
        "0a01",  # known fields of another wire type
        "1001",
        "1801",
        "2801",
        "2d01020304",
        "11010203",
        "1a05aa",
        "1aff",
        "2201ff",  # not UTF-8
        "2a0108",
        "2a020a02" + "2a026162",  # two halves, of which neither is a message
        "0001",  # number 0
        "03",  # groups
        "0b0c",
        "f3dd01f4dd01",
        "06",
        "07",
        "f8ffffff7f01",  # a number above 2**29 - 1
        "ff" * 11,
    ],
)
def test_what_is_no_message_is_refused(encoded):
    with pytest.raises(RemoteProtocolError):
        OUTER.decode(bytes.fromhex(encoded))


def test_zero_is_sent_and_absence_is_not():
    assert OUTER.encode({"type": 0, "data": b"", "text": None}).hex() == "08001a00"
    assert OUTER.encode({}) == b""
    assert OUTER.decode(b"\x08\x00") == {"type": 0, "many": [], "texts": []}


def test_the_last_of_several_scalars_wins():
    assert OUTER.decode(bytes.fromhex("080108021a01611a0162"))["type"] == 2
    assert OUTER.decode(bytes.fromhex("1a01611a0162"))["data"] == b"b"


def test_two_parts_of_one_message_are_its_merger():
    first, second = {"one": {"id": b"a", "numbers": [1]}}, {"one": {"name": "b", "numbers": [2]}}
    merged = OUTER.decode(OUTER.encode(first) + OUTER.encode(second))
    assert merged["one"] == {"id": b"a", "name": "b", "numbers": [1, 2]}


def test_varints_of_64_bits():
    assert OUTER.decode(bytes.fromhex("08" + "ff" * 9 + "01"))["type"] == (1 << 64) - 1
    assert OUTER.decode(bytes.fromhex("08" + "8000"))["type"] == 0


@pytest.mark.parametrize("values", [{"type": -1}, {"type": 1 << 64}, {"nonce": -1}])
def test_numbers_that_do_not_fit_are_our_bug(values):
    with pytest.raises(LocalProtocolError):
        OUTER.encode(values)


def test_the_number_of_fields_has_a_bound():
    assert OUTER.decode(b"\x08\x01" * MAX_FIELDS)["type"] == 1
    with pytest.raises(RemoteProtocolError):
        OUTER.decode(b"\x08\x01" * (MAX_FIELDS + 1))
