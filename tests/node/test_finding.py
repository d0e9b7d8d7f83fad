"""A node on a DHT: services that are found, and offered; claims that are not believed."""

from __future__ import annotations

import sys
from contextlib import asynccontextmanager

import anyio
import pytest
from isthmus import Multiaddr, Node, NodeConfig, PeerId
from isthmus.node.events import (
    AddressesChanged,
    ConnectionEnded,
    DialFailed,
    PeerIdentified,
    ProvidingFailed,
    ServiceProvided,
)
from isthmus.node.link import LinkState
from isthmus.node.privacy import PrivacyConfig
from isthmus.relay.kad.config import KadConfig
from isthmus.relay.kad.table import HURRY_AFTER
from isthmus.relay.kad.wire import FoundPeer, KadMessage, encode, service_key
from isthmus.transports.core.errors import ConfigError, DialError, LimitExceeded, LocalProtocolError
from isthmus.transports.core.varint import length_prefixed
from sim.kad import KadServer, found_at

ECHO = "/echo/1.0.0"
LOOPBACK = "/ip4/127.0.0.1/tcp/0"
CHAT = service_key("chat")
STRANGER = PeerId.parse("12D3KooWGJAmQyRkvK6Cf7Jr3zhMmtLX2Q8d2hKS9sMLUFWEPTpo")
CLOSED = Multiaddr.parse("/ip4/127.0.0.1/tcp/1")


async def echo(stream):
    async for data in stream:
        await stream.send(data)


@asynccontextmanager
async def server():
    async with Node(listen=LOOPBACK) as node:
        yield KadServer(node)


def asking(*servers, listen=(), privacy=None, **settings):
    """Return a node that asks these servers."""
    given = tuple(each.node.addresses[0] for each in servers)
    dht = KadConfig(bootstrap=given, **settings)
    return Node(listen=listen, config=NodeConfig(dht=dht, privacy=privacy or PrivacyConfig()))


async def until(events, kind):
    with anyio.fail_after(10):
        async for event in events:
            if isinstance(event, kind):
                return event
    raise AssertionError(f"no {kind.__name__}")


async def test_what_one_offers_the_other_finds_and_reaches():
    async with (
        server() as book,
        asking(book, listen=LOOPBACK, provide=("chat",)) as alice,
        asking(book) as bob,
    ):
        provided = await until(alice.events(), ServiceProvided)
        assert (provided.service, provided.servers) == ("chat", 1)
        (found,) = await bob.find_peers("chat")
        assert found == FoundPeer(alice.peer_id, alice.addresses)
        assert await bob.find_peers("chat", limit=1) == [found]
        assert await bob.find_peers("files") == []
        # By the peer id alone, too.
        connection = await bob.connect(found.peer)
        assert connection.remote_peer == alice.peer_id
        # Whoever offers it does not find itself.
        assert await alice.find_peers("chat") == []


async def test_a_service_may_be_offered_while_the_node_runs():
    async with server() as book, asking(book, listen=LOOPBACK) as alice:
        events = alice.events()
        alice.provide("files")
        assert (await until(events, ServiceProvided)).service == "files"
        (told,) = book.providers[service_key("files")]
        assert told == found_at(alice)


async def test_where_nothing_is_listened_on_nothing_can_be_offered():
    async with server() as book, asking(book, provide=("chat",)) as alice:
        failed = await until(alice.events(), ProvidingFailed)
        assert failed.service == "chat"
        assert "listens nowhere" in failed.reason
        assert book.requests == []


async def test_privacy_holds_for_what_the_dht_is_told():
    hidden = PrivacyConfig(addresses="public")
    async with (
        server() as book,
        asking(book, listen=LOOPBACK, privacy=hidden, provide=("chat",)) as alice,
    ):
        await until(alice.events(), ProvidingFailed)
        assert book.providers == {}


async def test_without_a_dht_it_says_what_to_configure():
    async with Node(listen=LOOPBACK) as node:
        with pytest.raises(ConfigError, match=r"dht\.bootstrap"):
            await node.find_peers("chat")
        with pytest.raises(ConfigError, match=r"dht\.bootstrap"):
            node.provide("chat")


async def test_only_a_running_node_finds_and_provides():
    async with server() as book:
        node = asking(book)
        for _ in range(2):
            with pytest.raises(LocalProtocolError, match="while it runs"):
                await node.find_peers("chat")
            with pytest.raises(LocalProtocolError, match="while it runs"):
                node.provide("chat")
            if node.addresses == () and not book.requests:
                async with node:
                    await node.find_peers("chat")
        assert len(book.requests) == 1


async def test_what_cannot_be_asked_for_is_refused():
    async with server() as book, asking(book) as node:
        for service in ("", "a\nb", "x" * 513, "\ud800"):
            with pytest.raises(ConfigError, match="the name of a service"):
                await node.find_peers(service)
            with pytest.raises(ConfigError, match="the name of a service"):
                node.provide(service)
        for limit in (0, 101):
            with pytest.raises(ConfigError, match="limit must be between 1 and 100"):
                await node.find_peers("chat", limit=limit)
        for number in range(64):
            node.provide(f"service {number}")
        with pytest.raises(LimitExceeded, match=r"dht\.provide"):
            node.provide("one more")


async def test_a_server_that_is_gone_is_an_error_and_no_event():
    config = NodeConfig(dht=KadConfig(bootstrap=(CLOSED.with_peer(STRANGER),)))
    async with Node(config=config) as node:
        events = node.events()
        with pytest.raises(DialError, match="no server of the DHT answers") as caught:
            await node.find_peers("chat")
        assert str(CLOSED) in str(caught.value)
    assert [each async for each in events if isinstance(each, DialFailed)] == []


async def test_claims_are_believed_as_far_as_their_server_is_near():
    """The server is on this machine, so that loopback is believed of it; nonsense never is."""
    claimed = [
        "/ip4/127.0.0.1/tcp/1",
        "/ip4/10.9.8.7/tcp/1",
        "/ip4/1.2.3.4/udp/1/quic-v1",
        "/ip4/0.0.0.0/tcp/1",
        "/ip4/224.0.0.1/tcp/1",
        "/ip4/1.2.3.4/tcp/1",
    ]
    async with server() as book, asking(book) as node:
        addresses = tuple(map(Multiaddr.parse, claimed))
        book.providers[CHAT] = [FoundPeer(STRANGER, addresses)]
        (found,) = await node.find_peers("chat")
        # Those that can be dialled come first.
        assert list(map(str, found.addresses)) == [
            f"{claimed[number]}/p2p/{STRANGER}" for number in (0, 1, 5, 2)
        ]
        far = Multiaddr.parse("/ip4/5.6.7.8/tcp/1")
        believed = node._finding.believable(addresses, far)
        assert list(map(str, believed)) == [claimed[5], claimed[2]]


async def test_what_is_known_of_a_peer_is_not_replaced_by_claims():
    async with server() as book, asking(book) as node:
        book.providers[CHAT] = [FoundPeer(STRANGER, (CLOSED,))]
        await node.find_peers("chat")
        assert node.peers.addresses(STRANGER) == (CLOSED,)
        book.providers[CHAT] = [FoundPeer(STRANGER, (Multiaddr.parse("/ip4/127.0.0.1/tcp/2"),))]
        await node.find_peers("chat")
        assert node.peers.addresses(STRANGER) == (CLOSED,)


async def test_connected_servers_are_asked_beside_those_of_the_configuration():
    async with (
        server() as given,
        server() as met,
        Node(listen=LOOPBACK) as other,
        asking(given) as node,
    ):
        events = node.events()
        met.providers[CHAT] = [found_at(other)]
        for each in (met.node, other):
            await node.connect(each.addresses)
            await until(events, PeerIdentified)
        (found,) = await node.find_peers("chat")
        assert found.peer == other.peer_id


async def test_connections_that_were_made_to_ask_go_again():
    async with server() as book, server() as kept, server() as used, asking(book) as node:
        book.knows(kept, used)
        events = node.events()
        await node.find_peers("chat")
        ended = [await until(events, ConnectionEnded) for _ in range(3)]
        assert {each.peer for each in ended} == {each.node.peer_id for each in (book, kept, used)}
        assert all(each.remote is False for each in ended)
        assert node.connections == ()
        assert {link.state for link in node.links} == {LinkState.DISCONNECTED}, "none comes back"
        # Those that were there before, and those that are kept, stay.
        await node.connect(used.node.addresses)
        node.keep(kept.node.addresses)
        await node.find_peers("chat")
        assert (await until(events, ConnectionEnded)).peer == book.node.peer_id
        assert {each.remote_peer for each in node.connections} == {
            kept.node.peer_id,
            used.node.peer_id,
        }


async def test_what_was_begun_on_such_a_connection_goes_on():
    async with server() as book, asking(book) as node:
        opened = []

        async def behave(stream, request):
            opened.append(await node.open_stream(book.node.peer_id, ECHO))
            answer = KadMessage(request.type, request.key)
            await stream.send(length_prefixed(encode(answer)))

        book.behave = behave
        book.node.handle(ECHO, echo)
        await node.find_peers("chat")
        (stream,) = opened
        async with stream:
            await stream.send(b"still")
            assert await stream.receive() == b"still"
        # The next one is on another connection.
        assert await node.request(book.node.addresses, ECHO, b"again") == b"again"


async def test_new_addresses_are_told_anew():
    async with server() as book, asking(book, listen=LOOPBACK, provide=("chat",)) as node:
        await until(node.events(), ServiceProvided)
        (client,) = [node._finding._client]
        before = client._schedule.next_timeout()
        node._events.publish(AddressesChanged(node.addresses))
        with anyio.fail_after(5):
            while client._schedule.next_timeout() == before:
                await anyio.lowlevel.checkpoint()
        assert client._schedule.next_timeout() <= anyio.current_time() + HURRY_AFTER


def test_a_node_without_a_dht_loads_no_client():
    import subprocess

    code = "import sys, isthmus.node.node; print('isthmus.relay.kad.client' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"bootstrap": (CLOSED,)}, r"dht\.bootstrap: each address must end in /p2p/ID"),
        ({"bootstrap": (CLOSED.with_peer(STRANGER),) * 65}, r"dht\.bootstrap has at most 64"),
        ({"protocol": "kad"}, r"dht\.protocol must begin with /"),
        ({"provide": ("chat",)}, r"dht\.provide needs dht\.bootstrap"),
        ({"provide": ("",)}, "the name of a service has between 1 and 512 bytes"),
        ({"provide": tuple(map(str, range(65)))}, r"dht\.provide has at most 64"),
        ({"parallel": 0}, r"dht\.parallel must be between 1 and 10"),
        ({"parallel": 11}, r"dht\.parallel must be between 1 and 10"),
        ({"request_timeout": 0.0}, "must be above 0 seconds"),
        ({"lookup_timeout": float("nan")}, "must be above 0 seconds"),
        ({"provide_interval": 59.0}, r"dht\.provide_interval must be at least 60"),
    ],
)
def test_what_cannot_be_used_is_named(settings, why):
    with pytest.raises(ConfigError, match=why):
        KadConfig(**settings)
