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
from isthmus.transports.core.varint import length_prefixed

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
