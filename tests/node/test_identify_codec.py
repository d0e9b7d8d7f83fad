"""identify's messages: what is written fits everyone, what is read is bounded."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from isthmus.node.protocols.identify import (
    MAX_PART_BYTES,
    MAX_PARTS,
    MAX_SENT_ADDRESSES,
    MAX_SENT_BYTES,
    MAX_TEXT,
    PROTOCOL_VERSION,
    IdentifyMessage,
    IdentifyReader,
    agent_version,
    compose,
    decode,
    encode,
    frame,
    merge,
    sendable,
    verified,
)
from isthmus.transports.core.envelope import PeerRecord
from isthmus.transports.core.errors import P2PError, PeerIdMismatch, RemoteProtocolError
from isthmus.transports.core.keys import PrivateKey
from isthmus.transports.core.multiaddr import Multiaddr
from isthmus.transports.core.peer_id import PeerId
from isthmus.transports.core.varint import length_prefixed

KEY = PrivateKey.from_seed(b"\x01" * 32)
OTHER_KEY = PrivateKey.from_seed(b"\x02" * 32)
PEER = PeerId.from_public_key(KEY.public_key)
OTHER = PeerId.from_public_key(OTHER_KEY.public_key)
ADDRESS = Multiaddr.parse("/ip4/192.0.2.1/tcp/4001")
SECOND = Multiaddr.parse("/ip6/2001:db8::1/tcp/4001/ws")

FULL = IdentifyMessage(
    public_key=KEY.public_key.to_protobuf(),
    listen_addrs=(ADDRESS, SECOND),
    protocols=("/ipfs/id/1.0.0", "/echo/1.0.0"),
    observed_addr=ADDRESS,
    protocol_version="ipfs/0.1.0",
    agent_version="other/1.2",
    signed_peer_record=b"record",
)


def read(data: bytes) -> IdentifyMessage | None:
    reader = IdentifyReader()
    reader.receive_data(data)
    reader.receive_eof()
    return reader.message


def addresses(count: int, *, size: int = 0) -> list[Multiaddr]:
    name = "x" * size or "a"
    return [Multiaddr.parse(f"/dns4/{name}.example/tcp/{port}") for port in range(1, count + 1)]


@pytest.mark.parametrize("message", [FULL, IdentifyMessage()])
def test_what_is_written_is_read(message):
    assert decode(encode(message)) == message


def test_a_message_comes_whole_by_the_byte_and_in_parts():
    data = length_prefixed(encode(FULL))
    assert read(data) == FULL
    reader = IdentifyReader()
    for index in range(len(data)):
        assert reader.message is None
        reader.receive_data(data[index : index + 1])
    reader.receive_eof()
    assert reader.message == FULL
    first = IdentifyMessage(FULL.public_key, FULL.listen_addrs, FULL.protocols, FULL.observed_addr)
    rest = IdentifyMessage(
        protocol_version=FULL.protocol_version,
        agent_version=FULL.agent_version,
        signed_peer_record=FULL.signed_peer_record,
    )
    assert merge(first, rest) == merge(rest, first) == FULL
    assert read(length_prefixed(encode(first)) + length_prefixed(encode(rest))) == FULL


def test_of_single_values_the_last_wins_and_lists_are_joined():
    both = merge(FULL, IdentifyMessage(OTHER_KEY.public_key.to_protobuf(), (SECOND,), ("/x",)))
    assert both.public_key == OTHER_KEY.public_key.to_protobuf()
    assert both.listen_addrs == (ADDRESS, SECOND, SECOND)
    assert both.protocols == (*FULL.protocols, "/x")


def test_the_reader_is_done_after_ten_parts_or_at_the_end():
    part = length_prefixed(encode(IdentifyMessage(protocols=("/a",))))
    reader = IdentifyReader()
    for _ in range(MAX_PARTS):
        assert not reader.is_done
        reader.receive_data(part)
    assert reader.is_done
    reader.receive_data(b"\xff" * 9)
    reader.receive_eof()
    assert reader.message is not None
    assert len(reader.message.protocols) == MAX_PARTS


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x80",
        length_prefixed(encode(FULL))[:-1],
        length_prefixed(encode(FULL)) + b"\x01",
        length_prefixed(bytes(MAX_PART_BYTES + 1)),
        b"\xff\xff\xff\xff",
        length_prefixed(b"\x0a\x05a"),
    ],
)
def test_what_is_no_message_is_refused(data):
    with pytest.raises(RemoteProtocolError):
        read(data)


def test_one_bad_address_or_text_does_not_cost_the_rest():
    good = encode(IdentifyMessage(listen_addrs=(ADDRESS,), protocols=("/a",)))
    bad = (
        b"\x12\x03\xff\xff\x01"
        + b"\x1a\x00"
        + b"\x1a\x01\xff"
        + b"\x22\x02\x06\x01"
        + b"\x32\x01\xff"
    )
    message = decode(bad + good)
    assert message.listen_addrs == (ADDRESS,)
    assert message.protocols == ("\ufffd", "/a")
    assert message.observed_addr is None
    assert message.agent_version == "\ufffd"
    long = decode(encode(IdentifyMessage(agent_version="x" * 1000)))
    assert long.agent_version == "x" * MAX_TEXT


def test_what_this_node_says_is_complete_and_verifies():
    circuit = ADDRESS.with_peer(OTHER)
    circuit = Multiaddr.parse(f"{circuit}/p2p-circuit")
    told = [ADDRESS.with_peer(PEER), ADDRESS, SECOND, circuit.with_peer(PEER)]
    data = compose(KEY, addresses=told, protocols=["/a", "/b"], seq=7)
    message = read(frame(data, observed=SECOND))
    assert message is not None
    assert message.public_key == KEY.public_key.to_protobuf()
    assert message.listen_addrs == (ADDRESS, SECOND, circuit)
    assert message.protocols == ("/a", "/b")
    assert message.observed_addr == SECOND
    assert message.protocol_version == PROTOCOL_VERSION
    assert message.agent_version == agent_version()
    assert agent_version().startswith("isthmus/")
    news = verified(message, PEER)
    assert news.addresses == (ADDRESS, SECOND, circuit)
    assert news.record_seq == 7


def test_what_this_node_says_fits_into_what_rust_reads():
    many = addresses(100, size=60)
    protocols = [f"/protocol/number/{number}" for number in range(500)]
    data = compose(KEY, addresses=many, protocols=protocols, seq=2**63 - 1)
    observed = Multiaddr.parse(f"/dns4/{'x' * 63}.{'y' * 63}/tcp/1")
    framed = frame(data, observed=observed)
    assert MAX_SENT_BYTES // 2 < len(framed) <= MAX_SENT_BYTES
    message = read(framed)
    assert message is not None
    assert message.observed_addr == observed
    assert message.listen_addrs
    assert message.protocols == tuple(protocols[: len(message.protocols)])
    assert verified(message, PEER).record_seq == 2**63 - 1
    few = decode(compose(KEY, addresses=addresses(100), protocols=[], seq=1))
    assert len(few.listen_addrs) == MAX_SENT_ADDRESSES
    too_long = Multiaddr.parse("/dns4/" + "x" * 250 + "/tcp/1")
    assert frame(data, observed=too_long) == frame(data)


def test_addresses_that_mean_nothing_elsewhere_are_not_told():
    assert sendable(ADDRESS.with_peer(PEER)) == ADDRESS
    assert sendable(Multiaddr.parse(f"/p2p/{PEER}")) is None
    assert sendable(Multiaddr.parse("/memory/1")) is None


def test_the_key_must_be_the_peers():
    assert verified(IdentifyMessage(listen_addrs=(ADDRESS,)), PEER).addresses == (ADDRESS,)
    with pytest.raises(PeerIdMismatch):
        verified(FULL, OTHER)
    with pytest.raises(RemoteProtocolError, match="key"):
        verified(IdentifyMessage(public_key=b"\x08\x01"), PEER)


def test_a_record_that_does_not_verify_leaves_the_listed_addresses():
    for bad in (b"", b"nonsense", PeerRecord(OTHER, 1, (SECOND,)).seal(OTHER_KEY)):
        message = IdentifyMessage(listen_addrs=(ADDRESS,), signed_peer_record=bad)
        news = verified(message, PEER)
        assert news.addresses == (ADDRESS,)
        assert news.record_seq is None


def test_addresses_that_name_another_peer_are_dropped():
    claimed = (ADDRESS.with_peer(PEER), ADDRESS, SECOND.with_peer(OTHER))
    assert verified(IdentifyMessage(listen_addrs=claimed), PEER).addresses == (ADDRESS,)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300), st.integers(1, 64))
def test_only_errors_of_the_tree_leave_the_reader(data, step):
    reader = IdentifyReader()
    try:
        for start in range(0, len(data), step):
            reader.receive_data(data[start : start + step])
        reader.receive_eof()
        verified(reader.message, PEER)
    except P2PError:
        assert True
