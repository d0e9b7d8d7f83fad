"""The decoders behind the streams: whatever they are given, they raise what they say, or answer."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from isthmus.node.protocols.identify import (
    MAX_PARTS,
    MAX_READ_ADDRESSES,
    MAX_READ_PROTOCOLS,
    MAX_TEXT,
    IdentifyReader,
    compose,
    frame,
    verified,
)
from isthmus.relay.autonat.machine import RequestClient, RequestServer
from isthmus.relay.autonat.wire import (
    MAX_DATA,
    DialData,
    DialDataRequest,
    DialRequest,
    DialResponse,
    DialStatus,
    ResponseStatus,
    decode_dial_back,
    encode_dial_back,
    encode_message,
)
from isthmus.relay.circuit.wire import (
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
)
from isthmus.relay.dcutr.machine import Initiator, Responder
from isthmus.relay.dcutr.wire import MAX_ADDRESSES as MAX_PUNCHED
from isthmus.relay.dcutr.wire import HolePunch, HolePunchType
from isthmus.relay.dcutr.wire import encode as encode_punch
from isthmus.relay.kad.wire import (
    MAX_ADDRESSES,
    MAX_CLOSER,
    MAX_PROVIDERS,
    FoundPeer,
    KadMessage,
    MessageType,
    decode,
    encode,
)
from isthmus.transports.core.envelope import (
    PEER_RECORD_DOMAIN,
    PEER_RECORD_TYPE,
    PeerRecord,
    seal_envelope,
)
from isthmus.transports.core.errors import P2PError, RemoteProtocolError
from isthmus.transports.core.keys import PrivateKey
from isthmus.transports.core.multiaddr import Multiaddr
from isthmus.transports.core.peer_id import PeerId
from isthmus.transports.core.varint import decode_varint, length_prefixed

KEY = PrivateKey.from_seed(b"\x05" * 32)
PEER = PeerId.from_public_key(KEY.public_key)
ADDRESS = Multiaddr.parse("/ip4/192.0.2.1/tcp/4001")
MESSAGE = frame(compose(KEY, addresses=[ADDRESS], protocols=["/x/1", "/y/1"], seq=1))
RECORD = (
    b"\x0a"
    + length_prefixed(bytes(PEER))
    + b"\x10\x05\x1a"
    + length_prefixed(b"\x0a" + length_prefixed(bytes(ADDRESS)))
)

FOUND = FoundPeer(PEER, (ADDRESS, ADDRESS.with_peer(PEER)))
ANSWER = encode(KadMessage(MessageType.GET_PROVIDERS, b"key", (FOUND, FOUND), (FOUND,)))

CHANGES = st.lists(st.tuples(st.integers(0, 600), st.integers(1, 255)), max_size=4)
PIECES = st.lists(
    st.binary(max_size=40)
    | st.binary(max_size=200).map(length_prefixed)
    | st.sampled_from([MESSAGE, length_prefixed(b""), b"\xff\xff"]),
    max_size=2 * MAX_PARTS,
)


def changed(data: bytes, changes: list[tuple[int, int]]) -> bytes:
    result = bytearray(data)
    for position, change in changes:
        result[position % len(result)] ^= change
    return bytes(result)


def read(pieces: list[bytes]) -> None:
    reader = IdentifyReader()
    try:
        for piece in pieces:
            reader.receive_data(piece)
        reader.receive_eof()
        message = verified(reader.message, PEER).message
    except P2PError as error:
        assert str(error)  # noqa: PT017 - the only exception that may come
    else:
        assert len(message.listen_addrs) <= MAX_READ_ADDRESSES
        assert len(message.protocols) <= MAX_READ_PROTOCOLS
        assert max(len(message.agent_version), len(message.protocol_version)) <= MAX_TEXT


@given(PIECES)
def test_fuzz_identify(pieces):
    read(pieces)


@given(CHANGES, st.integers(1, len(MESSAGE)))
def test_fuzz_identify_near_the_truth(changes, cut):
    data = changed(MESSAGE, changes)
    read([data[:cut], data[cut:]])


@given(CHANGES | st.none(), st.binary(max_size=200))
def test_fuzz_signed_records(changes, data):
    """The signature holds, so that the payload is read whatever it is."""
    payload = data if changes is None else changed(RECORD, changes) + data
    envelope = seal_envelope(KEY, PEER_RECORD_DOMAIN, PEER_RECORD_TYPE, payload)
    try:
        record = PeerRecord.from_envelope(envelope)
    except RemoteProtocolError as error:
        assert str(error)  # noqa: PT017 - the only exception that may come
    else:
        assert record.peer_id == PEER


AUTONAT = b"".join(
    map(
        encode_message,
        (
            DialRequest((ADDRESS, ADDRESS), 7),
            DialData(bytes(200)),
            DialDataRequest(0, 500),
            DialResponse(ResponseStatus.OK, 0, DialStatus.OK),
        ),
    )
)
PUNCHES = encode_punch(HolePunch(HolePunchType.CONNECT, (ADDRESS, ADDRESS))) + encode_punch(
    HolePunch(HolePunchType.SYNC)
)


@given(CHANGES | st.none(), st.binary(max_size=200), st.integers(0, 300))
def test_fuzz_autonat(changes, data, start):
    """Neither end is made to send more than a dial may cost, or to dial more than once."""
    data = data if changes is None else changed(AUTONAT, changes)[start:] + data
    client = RequestClient((ADDRESS,), 1)
    server = RequestServer(observed=ADDRESS.ip, may_dial=lambda _: True, price=500)
    for end in (client, server):
        try:
            end.receive_data(data)
        except P2PError as error:
            assert str(error)  # noqa: PT017 - the only exception that may come
    sent = 0
    while part := client.data_to_send():
        sent += len(part)
    assert sent < MAX_DATA + 8192
    assert len(server.data_to_send()) < 64
    try:
        assert 0 <= decode_dial_back(data[: len(encode_dial_back(1))]) < 2**64
    except P2PError as error:
        assert str(error)  # noqa: PT017 - the only exception that may come


@given(CHANGES | st.none(), st.binary(max_size=200), st.integers(0, 60))
def test_fuzz_dcutr(changes, data, start):
    data = data if changes is None else changed(PUNCHES, changes)[start:] + data
    initiator, responder = Initiator([ADDRESS]), Responder([ADDRESS])
    initiator.begin(0)
    for end in (initiator, responder):
        try:
            punch = end.receive_data(data, 1)
        except P2PError as error:
            assert str(error)  # noqa: PT017 - the only exception that may come
        else:
            assert punch is None or len(punch.addresses) <= MAX_PUNCHED


def unframed(data: bytes) -> bytes:
    header = decode_varint(data)
    assert header is not None
    return data[header[1] :]


VOUCHER = Voucher(PEER, PEER, 1_900_000_000)
RELAY_MESSAGES = [
    unframed(message.frame())
    for message in (
        HopMessage(HopType.RESERVE),
        HopMessage(HopType.CONNECT, Peer(PEER, (ADDRESS,))),
        HopMessage(
            HopType.STATUS,
            reservation=Reservation(5, (ADDRESS,), VOUCHER.seal(KEY)),
            limit=Limit(120, 1 << 17),
            status=Status.OK,
        ),
        StopMessage(StopType.CONNECT, Peer(PEER), Limit(0, 0)),
        StopMessage(StopType.STATUS, status=Status.CONNECTION_FAILED),
    )
]
RELAY_TYPES = st.sampled_from([HopMessage, StopMessage])


def read_relay_message(kind: type[HopMessage] | type[StopMessage], data: bytes) -> None:
    try:
        message = kind.decode(data)
    except RemoteProtocolError as error:
        assert error.code == Status.MALFORMED_MESSAGE  # noqa: PT017 - the only one that may come
    else:
        # What was read can be written, if it was not full of what we leave out.
        assert kind.decode(unframed(message.frame())) == message


@given(RELAY_TYPES, st.binary(max_size=200))
def test_fuzz_relay_messages(kind, data):
    read_relay_message(kind, data)


@given(RELAY_TYPES, st.sampled_from(RELAY_MESSAGES), CHANGES, st.integers(0, 600))
def test_fuzz_relay_messages_near_the_truth(kind, message, changes, cut):
    read_relay_message(kind, changed(message, changes))
    read_relay_message(kind, message[: cut % len(message)])


@given(st.binary(max_size=120))
def test_fuzz_signed_vouchers(payload):
    envelope = seal_envelope(KEY, VOUCHER_DOMAIN, VOUCHER_TYPE, payload)
    try:
        voucher = Voucher.from_envelope(envelope, relay=PEER, peer=PEER)
    except RemoteProtocolError as error:
        assert str(error)  # noqa: PT017 - the only exception that may come
    else:
        assert (voucher.relay, voucher.peer) == (PEER, PEER)


def read_kad(data: bytes) -> None:
    try:
        message = decode(data)
    except RemoteProtocolError as error:
        assert str(error)  # noqa: PT017 - the only exception that may come
        return
    assert len(message.closer) <= MAX_CLOSER
    assert len(message.providers) <= MAX_PROVIDERS
    for found in (*message.closer, *message.providers):
        assert len(found.addresses) <= MAX_ADDRESSES
        assert all(each.peer_id is None for each in found.addresses)


@given(st.binary(max_size=300))
def test_fuzz_kad(data):
    read_kad(data)


@given(CHANGES, st.integers(0, len(ANSWER)))
def test_fuzz_kad_near_the_truth(changes, cut):
    read_kad(changed(ANSWER, changes))
    read_kad(changed(ANSWER, changes)[:cut])
