"""The messages of the DHT, beside Google's protobuf and the values that go and js compute."""

from __future__ import annotations

import hashlib
from time import perf_counter

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from hypothesis import given
from hypothesis import strategies as st
from isthmus.relay.kad.wire import (
    MAX_ADDRESSES,
    MAX_CLOSER,
    MAX_MESSAGE_BYTES,
    MAX_PEER_BYTES,
    MAX_PROVIDERS,
    MAX_SENT_BYTES,
    FoundPeer,
    KadMessage,
    MessageType,
    announcement,
    decode,
    distance_hash,
    encode,
    service_cid,
    service_key,
)
from isthmus.transports.core.errors import RemoteProtocolError
from isthmus.transports.core.multiaddr import Multiaddr
from isthmus.transports.core.peer_id import PeerId
from isthmus.transports.core.varint import length_prefixed

PEER = PeerId.from_bytes(b"\x12\x20" + bytes(32))
OTHER = PeerId.from_bytes(b"\x12\x20" + bytes(range(32)))
ADDRESS = Multiaddr.parse("/ip4/192.0.2.1/tcp/4001")


def google_class():
    """Build Google's class of the message as the specification has it, in proto3."""
    file = descriptor_pb2.FileDescriptorProto(name="kad.proto", package="kad", syntax="proto3")
    kind = descriptor_pb2.FieldDescriptorProto
    peer = file.message_type.add(name="Peer")
    peer.field.add(name="id", number=1, type=kind.TYPE_BYTES, label=kind.LABEL_OPTIONAL)
    peer.field.add(name="addrs", number=2, type=kind.TYPE_BYTES, label=kind.LABEL_REPEATED)
    peer.field.add(name="connection", number=3, type=kind.TYPE_UINT32, label=kind.LABEL_OPTIONAL)
    message = file.message_type.add(name="Message")
    message.field.add(name="type", number=1, type=kind.TYPE_UINT32, label=kind.LABEL_OPTIONAL)
    message.field.add(name="key", number=2, type=kind.TYPE_BYTES, label=kind.LABEL_OPTIONAL)
    message.field.add(name="record", number=3, type=kind.TYPE_BYTES, label=kind.LABEL_OPTIONAL)
    for number, name in ((8, "closerPeers"), (9, "providerPeers")):
        message.field.add(
            name=name,
            number=number,
            type=kind.TYPE_MESSAGE,
            label=kind.LABEL_REPEATED,
            type_name=".kad.Peer",
        )
    message.field.add(
        name="clusterLevelRaw", number=10, type=kind.TYPE_INT32, label=kind.LABEL_OPTIONAL
    )
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("kad.Message"))


GOOGLE = google_class()

ADDRESSES = st.integers(1, 65535).map(lambda port: Multiaddr.parse(f"/ip4/192.0.2.1/tcp/{port}"))
PEERS = st.builds(
    FoundPeer,
    st.binary(min_size=32, max_size=32).map(lambda data: PeerId.from_bytes(b"\x12\x20" + data)),
    st.lists(ADDRESSES, max_size=MAX_ADDRESSES, unique=True).map(tuple),
)
MESSAGES = st.builds(
    KadMessage,
    st.sampled_from(MessageType),
    st.binary(max_size=80),
    st.lists(PEERS, max_size=4, unique_by=lambda each: each.peer).map(tuple),
    st.lists(PEERS, max_size=4, unique_by=lambda each: each.peer).map(tuple),
)


def named(peers):
    return [(bytes(each.peer), [bytes(one) for one in each.addresses]) for each in peers]


@given(MESSAGES)
def test_google_reads_what_is_written(message):
    theirs = GOOGLE.FromString(encode(message))
    assert (theirs.type, theirs.key) == (message.type, message.key)
    assert [(each.id, list(each.addrs)) for each in theirs.closerPeers] == named(message.closer)
    assert [(each.id, list(each.addrs)) for each in theirs.providerPeers] == named(
        message.providers
    )


@given(MESSAGES, st.integers(0, 3))
def test_what_google_writes_is_read(message, connection):
    theirs = GOOGLE(type=message.type, key=message.key, record=b"x", clusterLevelRaw=-1)
    for peers, field in (
        (message.closer, theirs.closerPeers),
        (message.providers, theirs.providerPeers),
    ):
        for peer, addresses in named(peers):
            field.add(id=peer, addrs=addresses, connection=connection)
    assert decode(theirs.SerializeToString()) == message


def test_a_request_to_put_is_sent_with_its_type():
    assert encode(KadMessage(MessageType.PUT_VALUE)) == b"\x08\x00"
    # proto3 leaves out what is zero.
    assert decode(b"") == KadMessage(MessageType.PUT_VALUE)


def test_a_type_that_is_not_known_is_refused():
    with pytest.raises(RemoteProtocolError, match="6"):
        decode(b"\x08\x06")


def test_peers_that_cannot_be_read_are_left_out():
    theirs = GOOGLE(type=4)
    theirs.closerPeers.add(id=b"no peer id", addrs=[bytes(ADDRESS)])
    theirs.closerPeers.add(addrs=[bytes(ADDRESS)])
    theirs.closerPeers.add(
        id=bytes(PEER),
        addrs=[
            b"\xff\xff",
            b"",
            bytes(ADDRESS.with_peer(PEER)),
            bytes(ADDRESS),
            bytes(ADDRESS.with_peer(OTHER)),
            bytes(Multiaddr.parse(f"/p2p/{PEER}")),
            bytes(Multiaddr.parse(f"/ip4/192.0.2.9/tcp/1/p2p/{OTHER}/p2p-circuit")),
        ],
    )
    theirs.closerPeers.add(id=bytes(PEER), addrs=[bytes(Multiaddr.parse("/ip4/192.0.2.2/tcp/1"))])
    relayed = Multiaddr.parse(f"/ip4/192.0.2.9/tcp/1/p2p/{OTHER}/p2p-circuit")
    (found,) = decode(theirs.SerializeToString()).closer
    assert found == FoundPeer(PEER, (ADDRESS, relayed))


def test_no_more_is_read_than_the_bounds_say():
    theirs = GOOGLE(type=4)
    for number in range(200):
        peer = bytes((0x12, 0x20, number)) + bytes(31)
        for field in (theirs.closerPeers, theirs.providerPeers):
            field.add(id=peer, addrs=[bytes(ADDRESS)] * 3)
    data = theirs.SerializeToString()
    message = decode(data)
    assert (len(message.closer), len(message.providers)) == (MAX_CLOSER, MAX_PROVIDERS)

    many = [bytes(Multiaddr.parse(f"/ip4/192.0.2.1/tcp/{port}")) for port in range(1, 100)]
    big = GOOGLE(type=4)
    big.closerPeers.add(id=bytes(PEER), addrs=many)
    big.closerPeers.add(id=bytes(OTHER), addrs=many * 10)
    assert len(big.closerPeers[1].SerializeToString()) > MAX_PEER_BYTES
    (found,) = decode(big.SerializeToString()).closer
    assert (found.peer, len(found.addresses)) == (PEER, MAX_ADDRESSES)


def test_the_longest_message_is_read_in_a_moment():
    """A message made of nothing but small fields: what costs the reader most."""
    entry = b"\x0a\x22" + bytes(PEER) + b"\x12\x00" * ((MAX_PEER_BYTES - 36) // 2)
    field = b"\x4a" + length_prefixed(entry)
    data = field * (MAX_MESSAGE_BYTES // len(field))
    began = perf_counter()
    assert decode(data).providers == (FoundPeer(PEER),)
    assert perf_counter() - began < 5  # a hundredth of it where nothing else runs


@given(st.lists(ADDRESSES, max_size=40).map(tuple))
def test_an_announcement_names_this_node_alone_and_fits(addresses):
    data = announcement(service_key("chat"), FoundPeer(PEER, addresses))
    assert len(data) < MAX_SENT_BYTES
    message = decode(data)
    assert message.type is MessageType.ADD_PROVIDER
    assert message.key == service_key("chat")
    (provider,) = message.providers
    assert provider.peer == PEER
    assert provider.addresses == tuple(dict.fromkeys(addresses[:MAX_ADDRESSES]))


def test_addresses_that_do_not_fit_are_not_announced():
    long = [Multiaddr.parse(f"/ip4/192.0.2.1/tcp/{n}/http-path/{900 * 'a'}") for n in range(12)]
    message = decode(announcement(b"key", FoundPeer(PEER, (*long, ADDRESS))))
    assert message.providers[0].addresses == tuple(long[:8])


def test_the_key_of_a_service_is_that_of_other_implementations():
    """As go's routing discovery wraps it, and as js does."""
    key = service_key("/libp2p/relay")
    assert key.hex() == "1220245eebd20d2cd4c81b5d4ac27c73746279f436d62f3ef52c452a369e6ef7b610"
    assert service_cid("/libp2p/relay") == (
        "bafkreibel3v5edjm2tebwxkkyj6hg5dcph2dnvrph32syrjkg2pg555wca"
    )
    assert service_key("Ü") == b"\x12\x20" + hashlib.sha256("Ü".encode()).digest()


def test_distance_is_measured_between_hashes():
    assert distance_hash(b"key") == int.from_bytes(hashlib.sha256(b"key").digest(), "big")
