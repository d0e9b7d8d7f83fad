"""The messages of circuit relay v2 and vouchers, beside Google's package and js-libp2p's bytes."""

from __future__ import annotations

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from hypothesis import given
from hypothesis import strategies as st
from isthmus.relay.circuit.wire import (
    MAX_MESSAGE,
    VOUCHER_DOMAIN,
    VOUCHER_TYPE,
    HopMessage,
    HopType,
    Limit,
    Peer,
    Reservation,
    Status,
    StopMessage,
    StopType,
    Voucher,
    explain_status,
)
from isthmus.transports.core.envelope import seal_envelope
from isthmus.transports.core.errors import LocalProtocolError, RemoteProtocolError
from isthmus.transports.core.keys import PrivateKey
from isthmus.transports.core.multiaddr import Multiaddr
from isthmus.transports.core.peer_id import PeerId
from isthmus.transports.core.varint import decode_varint, length_prefixed

RELAY_KEY, PEER_KEY = (PrivateKey.from_seed(bytes([n]) * 32) for n in (1, 2))
RELAY, PEER = (PeerId.from_public_key(key.public_key) for key in (RELAY_KEY, PEER_KEY))
ADDRESS = Multiaddr.parse("/ip4/127.0.0.1/tcp/4001")
LIMIT = Limit(duration=120, data=131072)

# Written by js-libp2p's circuit-relay-v2, from the same keys.
PEER_BYTES = "260024080112208139770ea87d175f56a35466c34c7ecccb8d8a91b4ee37a25df60f5b8fc9b394"
RELAY_BYTES = "260024080112208a88e3dd7409f195fd52db2d3cba5d72ca6709bf1d94121bf3748801b40f6f5c"
HOP_VECTORS = {
    "0800": HopMessage(HopType.RESERVE),
    "080112280a" + PEER_BYTES: HopMessage(HopType.CONNECT, Peer(PEER)),
    "08021a120880e6fe89071208047f000001060fa11a0022060878108080082864": HopMessage(
        HopType.STATUS,
        reservation=Reservation(1900000000, (ADDRESS,), b""),
        limit=LIMIT,
        status=Status.OK,
    ),
    "080228cc01": HopMessage(HopType.STATUS, status=Status.NO_RESERVATION),
}
STOP_VECTORS = {
    "080012280a" + RELAY_BYTES + "1a06087810808008": StopMessage(
        StopType.CONNECT, Peer(RELAY), LIMIT
    ),
    "08012064": StopMessage(StopType.STATUS, status=Status.OK),
}
VOUCHER = bytes.fromhex(
    "0a24080112208a88e3dd7409f195fd52db2d3cba5d72ca6709bf1d94121bf3748801b40f6f5c120203021a56"
    "0a260024080112208a88e3dd7409f195fd52db2d3cba5d72ca6709bf1d94121bf3748801b40f6f5c"
    "12260024080112208139770ea87d175f56a35466c34c7ecccb8d8a91b4ee37a25df60f5b8fc9b394"
    "1880e6fe89072a40"
    "2f78fdeb414eba5b2e1f2970937b919a9d7d27d65d66bcf4a385dd9e760eb3e1"
    "e31e3af6da6b55b0cd7114c0c14ba21486a9aebeed000400f7602c744fd80304"
)

MESSAGES = {
    "Peer": "id bytes, addrs bytes*",
    "Reservation": "expire uint64, addrs bytes*, voucher bytes",
    "Limit": "duration uint32, data uint64",
    "HopMessage": "type uint32, peer Peer, reservation Reservation, limit Limit, status uint32",
    "StopMessage": "type uint32, peer Peer, limit Limit, status uint32",
}


def google_classes():
    """Build Google's classes of the messages: proto2, as in the specification."""
    proto = descriptor_pb2.FileDescriptorProto(name="circuit.proto", package="c", syntax="proto2")
    constants = descriptor_pb2.FieldDescriptorProto
    for name, fields in MESSAGES.items():
        described = proto.message_type.add(name=name)
        for number, field in enumerate(fields.split(", "), 1):
            field_name, kind = field.split()
            repeated, kind = kind.endswith("*"), kind.rstrip("*")
            described.field.add(
                name=field_name,
                number=number,
                type=getattr(
                    constants, "TYPE_" + ("MESSAGE" if kind in MESSAGES else kind.upper())
                ),
                type_name=f".c.{kind}" if kind in MESSAGES else None,
                label=constants.LABEL_REPEATED if repeated else constants.LABEL_OPTIONAL,
            )
    pool = descriptor_pool.DescriptorPool()
    pool.Add(proto)
    return (
        message_factory.GetMessageClass(pool.FindMessageTypeByName("c." + name))
        for name in ("HopMessage", "StopMessage")
    )


GOOGLE_HOP, GOOGLE_STOP = google_classes()

UINT64 = st.integers(0, (1 << 64) - 1) | st.integers(0, 300)
ADDRESSES = st.lists(
    st.builds(
        lambda host, port: Multiaddr.parse(f"/ip4/192.0.2.{host}/tcp/{port}"),
        st.integers(0, 255),
        st.integers(1, 65535),
    ),
    max_size=4,
).map(tuple)
PEERS = st.builds(Peer, st.sampled_from([RELAY, PEER]), ADDRESSES)
LIMITS = st.builds(
    Limit,
    st.none() | st.integers(0, (1 << 32) - 1),
    st.none() | UINT64,
)
RESERVATIONS = st.builds(Reservation, UINT64, ADDRESSES, st.none() | st.binary(max_size=300))
STATUSES = st.sampled_from(Status) | st.integers(0, 500)
HOP_MESSAGES = st.builds(
    HopMessage,
    st.just(HopType.RESERVE),
    peer=st.none() | PEERS,
    reservation=st.none() | RESERVATIONS,
    limit=st.none() | LIMITS,
    status=st.none() | STATUSES,
) | st.builds(
    HopMessage,
    st.sampled_from(HopType),
    PEERS,
    st.none() | RESERVATIONS,
    st.none() | LIMITS,
    STATUSES,
)
STOP_MESSAGES = st.builds(
    StopMessage, st.sampled_from(StopType), PEERS, st.none() | LIMITS, STATUSES
)


def body(framed):
    length, start = decode_varint(framed)
    assert length == len(framed) - start
    return framed[start:]


def google_values(message):
    """Return a message of ours as keyword arguments of Google's class."""
    values = {"type": message.type, "status": message.status}
    if message.peer is not None:
        values["peer"] = {
            "id": bytes(message.peer.id),
            "addrs": [bytes(address) for address in message.peer.addresses],
        }
    if message.limit is not None:
        values["limit"] = {"duration": message.limit.duration, "data": message.limit.data}
    if getattr(message, "reservation", None) is not None:
        values["reservation"] = {
            "expire": message.reservation.expire,
            "addrs": [bytes(address) for address in message.reservation.addresses],
            "voucher": message.reservation.voucher,
        }
    return values


@given(HOP_MESSAGES)
def test_hop_messages_are_written_as_google_does_and_read_back(message):
    data = body(message.frame())
    expected = GOOGLE_HOP(**google_values(message)).SerializeToString(deterministic=True)
    assert data == expected
    assert HopMessage.decode(data) == message


@given(STOP_MESSAGES)
def test_stop_messages_are_written_as_google_does_and_read_back(message):
    data = body(message.frame())
    expected = GOOGLE_STOP(**google_values(message)).SerializeToString(deterministic=True)
    assert data == expected
    assert StopMessage.decode(data) == message


@pytest.mark.parametrize(("text", "message"), HOP_VECTORS.items())
def test_hop_vectors_of_js(text, message):
    assert message.frame() == length_prefixed(bytes.fromhex(text))
    assert HopMessage.decode(bytes.fromhex(text)) == message


@pytest.mark.parametrize(("text", "message"), STOP_VECTORS.items())
def test_stop_vectors_of_js(text, message):
    assert message.frame() == length_prefixed(bytes.fromhex(text))
    assert StopMessage.decode(bytes.fromhex(text)) == message


@pytest.mark.parametrize("data", [b"", b"\x08\x03", b"\x08\x01", b"\x08\x02", b"\x0a\x00", b"\x08"])
def test_a_malformed_hop_message_says_what_to_answer(data):
    with pytest.raises(RemoteProtocolError) as raised:
        HopMessage.decode(data)
    assert raised.value.code == Status.MALFORMED_MESSAGE


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x08\x02",
        b"\x08\x00",
        b"\x08\x01",
        b"\x08\x00\x12\x04\x0a\x02ab",
        b"\x08\x00\x12\x00",
    ],
)
def test_a_malformed_stop_message_says_what_to_answer(data):
    with pytest.raises(RemoteProtocolError) as raised:
        StopMessage.decode(data)
    assert raised.value.code == Status.MALFORMED_MESSAGE


def test_messages_have_a_bound_both_ways():
    many = Peer(PEER, (ADDRESS,) * 1000)
    with pytest.raises(LocalProtocolError):
        HopMessage(HopType.CONNECT, many).frame()
    for decode in (HopMessage.decode, StopMessage.decode):
        with pytest.raises(RemoteProtocolError) as raised:
            decode(b"\x08\x00" * MAX_MESSAGE)
        assert raised.value.code == Status.MALFORMED_MESSAGE


def test_incomplete_messages_are_not_sent():
    for message in (
        HopMessage(HopType.CONNECT),
        HopMessage(HopType.STATUS),
        StopMessage(StopType.CONNECT),
        StopMessage(StopType.STATUS),
        HopMessage(HopType.STATUS, limit=Limit(1 << 32), status=Status.OK),
    ):
        with pytest.raises(LocalProtocolError):
            message.frame()


def test_addresses_that_do_not_parse_are_left_out():
    """What a client puts into CONNECT may be anything: nobody uses it."""
    peer = b"\x0a" + length_prefixed(bytes(PEER)) + b"\x12\x03\xff\xff\x7f"
    peer += b"\x12" + length_prefixed(bytes(ADDRESS))
    message = HopMessage.decode(b"\x08\x01\x12" + length_prefixed(peer))
    assert message.peer == Peer(PEER, (ADDRESS,))


def test_a_limit_that_is_there_counts_even_empty():
    message = HopMessage.decode(b"\x08\x02\x22\x00\x28\x64")
    assert message.limit == Limit()
    assert HopMessage.decode(b"\x08\x02\x28\x64").limit is None


def test_a_reservation_without_a_time_has_expired():
    message = HopMessage.decode(b"\x08\x02\x1a\x00\x28\x64")
    assert message.reservation == Reservation(0)


def test_a_duration_is_read_as_32_bits():
    data = b"\x08\x02\x22\x06\x08\x85\x80\x80\x80\x10\x28\x64"
    assert HopMessage.decode(data).limit == Limit(5)
    assert GOOGLE_HOP.FromString(data).limit.duration == 5


def test_every_status_has_its_words():
    texts = {explain_status(status) for status in Status}
    assert len(texts) == len(Status)
    assert "299" in explain_status(299)
    assert HopMessage.decode(b"\x08\x02\x28\x07").status == 7


def test_voucher_vector_of_js():
    voucher = Voucher(RELAY, PEER, 1900000000)
    assert voucher.seal(RELAY_KEY) == VOUCHER
    assert Voucher.from_envelope(VOUCHER, relay=RELAY, peer=PEER) == voucher


def test_a_voucher_holds_for_its_own_relay_and_peer_only():
    for relay, peer in ((PEER, PEER), (RELAY, RELAY)):
        with pytest.raises(RemoteProtocolError):
            Voucher.from_envelope(VOUCHER, relay=relay, peer=peer)
    with pytest.raises(LocalProtocolError):
        Voucher(RELAY, PEER, 1).seal(PEER_KEY)


def test_a_voucher_in_another_relays_name_is_refused():
    """The signature holds, but it is another peer's than the voucher's relay."""
    payload = b"".join(
        (b"\x0a", length_prefixed(bytes(RELAY)), b"\x12", length_prefixed(bytes(PEER)), b"\x18\x05")
    )
    forged = seal_envelope(PEER_KEY, VOUCHER_DOMAIN, VOUCHER_TYPE, payload)
    with pytest.raises(RemoteProtocolError):
        Voucher.from_envelope(forged, relay=RELAY, peer=PEER)


@pytest.mark.parametrize("payload", [b"", b"\x0a\x03abc", b"\x0a", b"\x18\x05"])
def test_a_signed_voucher_may_still_be_wrong(payload):
    sealed = seal_envelope(RELAY_KEY, VOUCHER_DOMAIN, VOUCHER_TYPE, payload)
    with pytest.raises(RemoteProtocolError):
        Voucher.from_envelope(sealed, relay=RELAY, peer=PEER)


@given(st.integers(0, len(VOUCHER) - 1), st.integers(1, 255))
def test_no_byte_of_a_voucher_may_change(position, change):
    data = bytearray(VOUCHER)
    data[position] ^= change
    with pytest.raises(RemoteProtocolError):
        Voucher.from_envelope(bytes(data), relay=RELAY, peer=PEER)
