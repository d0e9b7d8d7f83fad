"""The client against servers on loopback: walks, faults, announcements."""

from __future__ import annotations

from contextlib import AsyncExitStack, asynccontextmanager

import anyio
import pytest
from isthmus import Multiaddr, Node, PeerId
from isthmus.relay.kad.client import KadClient
from isthmus.relay.kad.config import KadConfig
from isthmus.relay.kad.machine import K
from isthmus.relay.kad.wire import (
    MAX_MESSAGE_BYTES,
    FoundPeer,
    KadMessage,
    MessageType,
    encode,
    service_key,
)
from isthmus.transports.core.errors import AddressError, DialError
from isthmus.transports.core.varint import encode_varint, length_prefixed

from ...sim.kad import KadServer, NodeHost

KEY = service_key("chat")
LOOPBACK = "/ip4/127.0.0.1/tcp/0"
HERE = Multiaddr.parse("/ip4/127.0.0.1/tcp/1")
"""Where nothing listens: those who are named are dialled, too."""


def peer(number):
    return FoundPeer(PeerId.from_bytes(b"\x12\x20" + number.to_bytes(32, "big")), (HERE,))


@asynccontextmanager
async def world(count):
    """Give so many servers that know nobody, and a node that asks them."""
    async with AsyncExitStack() as stack:
        servers = [
            KadServer(await stack.enter_async_context(Node(listen=LOOPBACK))) for _ in range(count)
        ]
        yield servers, NodeHost(await stack.enter_async_context(Node()), told=(HERE,))


def client_of(host, *servers, **settings):
    addresses = [each.node.addresses[0] for each in servers]
    config = KadConfig(bootstrap=tuple(addresses), **settings)
    return KadClient(host, config, tell=lambda *_: None)


async def test_a_provider_is_found_some_steps_away():
    async with world(4) as (servers, host):
        for nearer, server in zip(servers[1:], servers[:-1], strict=True):
            server.knows(nearer)
        servers[-1].providers[KEY] = [peer(7)]
        client = client_of(host, servers[0])
        assert await client.find_providers(KEY, limit=20) == [peer(7)]
        for server in servers:
            assert server.requests == [KadMessage(MessageType.GET_PROVIDERS, KEY)]
        assert await client.find_providers(service_key("another"), limit=20) == []


async def test_addresses_are_judged_by_where_the_server_is():
    async with world(1) as ((server,), host):
        server.closer = [peer(3)]
        server.providers[KEY] = [peer(7)]
        await client_of(host, server, request_timeout=0.5).find_providers(KEY, limit=1)
        seen_at = server.node.addresses[0].without_peer()
        assert host.heard == [((HERE,), seen_at), ((HERE,), seen_at)]


async def test_who_is_said_to_be_nowhere_is_not_asked():
    async with world(1) as ((server,), host):
        server.closer = [FoundPeer(peer(3).peer), peer(4)]
        await client_of(host, server).find_providers(KEY, limit=1)
        assert [each.peer for each in host.asked] == [server.node.peer_id, peer(4).peer]


async def test_whom_most_servers_name_comes_first():
    async with world(3) as (servers, host):
        servers[0].knows(*servers[1:])
        for number, server in enumerate(servers):
            server.providers[KEY] = [peer(number), peer(7)]
        client = client_of(host, servers[0])
        assert await client.find_providers(KEY, limit=1) == [peer(7)]
        assert len(await client.find_providers(KEY, limit=9)) == 4


async def test_a_search_ends_when_several_have_named_enough():
    async with world(6) as (servers, host):
        for server in servers:
            server.knows(*(each for each in servers if each is not server))
            server.providers[KEY] = [peer(7)]
        client = client_of(host, *servers[:1], parallel=1)
        assert await client.find_providers(KEY, limit=1) == [peer(7)]
        assert sum(len(each.requests) for each in servers) == 3


async def test_a_provider_without_addresses_is_looked_for():
    async with world(2) as ((first, second), host):
        first.knows(second)
        first.providers[KEY] = [FoundPeer(peer(7).peer), FoundPeer(peer(8).peer)]
        second.closer = [peer(7)]
        found = await client_of(host, first, request_timeout=0.5).find_providers(KEY, limit=5)
        assert found == [peer(7), FoundPeer(peer(8).peer)]


async def test_what_was_found_counts_though_nobody_says_where():
    async with world(1) as ((server,), host):

        async def behave(stream, request):
            if request.type is MessageType.FIND_NODE:
                stream.reset()
                return
            found = (FoundPeer(peer(7).peer),)
            await stream.send(framed(KadMessage(request.type, request.key, providers=found)))

        server.behave = behave
        client = client_of(host, server)
        assert await client.find_providers(KEY, limit=5) == [FoundPeer(peer(7).peer)]


async def test_a_peer_is_found_or_not():
    async with world(2) as ((first, second), host):
        first.knows(second)
        second.closer = [first.found, peer(7)]
        client = client_of(host, first, request_timeout=0.5)
        assert await client.find_peer(peer(7).peer) == peer(7)
        assert await client.find_peer(peer(8).peer) is None
        assert second.requests[0] == KadMessage(MessageType.FIND_NODE, bytes(peer(7).peer))


async def test_where_a_peer_is_counts_once_several_agree():
    async with world(5) as (servers, host):
        for server in servers:
            server.knows(*servers)
            server.closer.insert(0, peer(7))
        client = client_of(host, *servers[:1], parallel=1)
        assert await client.find_peer(peer(7).peer) == peer(7)
        assert sum(len(each.requests) for each in servers) == 3


async def test_its_owner_is_told_when_nothing_is_asked_any_more():
    async with world(1) as ((server,), host):
        client = client_of(host, server)
        await client.find_providers(KEY, limit=1)
        await client.find_peer(peer(7).peer)
        await client.announce(KEY)
        assert host.times_settled == 3
        async with anyio.create_task_group() as tasks:
            for _ in range(3):
                tasks.start_soon(client.find_peer, peer(7).peer)
        assert host.times_settled == 4


async def test_connected_servers_are_asked_too_and_remembered():
    async with world(2) as ((given, connected), host):
        host.connected = (connected.found,)
        client = client_of(host, given)
        await client.find_providers(KEY, limit=1)
        host.connected = ()
        await client.find_providers(KEY, limit=1)
        assert len(connected.requests) == len(given.requests) == 2


async def test_a_server_is_remembered_where_it_can_be_dialled():
    async with world(2) as ((asking, server), _):
        # It has come to this node: from where, is no address of it.
        await server.node.connect(asking.node.addresses)
        client = client_of(NodeHost(asking.node), server)
        await client.find_providers(KEY, limit=1)
        assert len(server.requests) == len(asking.node.connections) == 1
        assert client._seeds.seeds(0)[0] == server.found
        # And where it was reached, if it was: there it is asked first.
        host = NodeHost(server.node, connected=(FoundPeer(asking.node.peer_id),))
        client = client_of(host)
        await client.find_providers(KEY, limit=1)
        assert client._seeds.seeds(0) == [asking.found]


async def test_nobody_there_is_an_error_that_says_why():
    async with world(1) as ((server,), host):
        client = client_of(host, server)
    async with Node() as node:
        host.node = node
        for search in (
            client.find_providers(KEY, limit=1),
            client.find_peer(peer(1).peer),
            client.announce(KEY),
        ):
            with pytest.raises(DialError, match=r"no server of the DHT answers; .*127\.0\.0\.1"):
                await search


def framed(message):
    return length_prefixed(encode(message))


ANSWER = framed(KadMessage(MessageType.GET_PROVIDERS, KEY, providers=(peer(9),)))
FAULTS = {
    "nonsense": length_prefixed(b"\xff\xff\xff"),
    "another type": framed(KadMessage(MessageType.FIND_NODE, KEY, providers=(peer(9),))),
    "too long": encode_varint(MAX_MESSAGE_BYTES + 1) + ANSWER,
    "no length": b"\xff" * 10,
    "half": ANSWER[:-1],
    "nothing": b"",
}


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_server_that_breaks_the_protocol_is_passed_over(fault):
    async with world(2) as ((bad, good), host):

        async def behave(stream, request):
            if FAULTS[fault]:
                await stream.send(FAULTS[fault])
            await stream.send_eof()

        bad.behave = behave
        good.providers[KEY] = [peer(7)]
        assert await client_of(host, bad, good).find_providers(KEY, limit=5) == [peer(7)]
        assert bad.requests
        with pytest.raises(DialError, match="no server of the DHT answers"):
            await client_of(host, bad).find_providers(KEY, limit=5)


async def test_an_answer_byte_by_byte_is_one():
    async with world(1) as ((server,), host):

        async def behave(stream, request):
            for byte in ANSWER:
                await stream.send(bytes((byte,)))

        server.behave = behave
        assert await client_of(host, server).find_providers(KEY, limit=5) == [peer(9)]


async def test_an_announcement_is_at_the_closest_and_only_there():
    async with world(3) as (servers, host):
        servers[0].knows(*servers[1:])
        assert await client_of(host, servers[0]).announce(KEY) == 3
        for server in servers:
            assert server.providers == {KEY: [FoundPeer(host.peer_id, (HERE,))]}
        # Now another finds it, by the server that keeps it.
        other = NodeHost(servers[0].node)
        (found,) = await client_of(other, servers[1]).find_providers(KEY, limit=5)
        assert found.addresses == (HERE,)


async def test_who_refuses_an_announcement_does_not_count():
    async with world(4) as (servers, host):

        async def reset(stream, request):
            if request.type is MessageType.ADD_PROVIDER:
                stream.reset()
            else:
                await stream.send(framed(KadMessage(request.type, request.key)))

        async def chatter(stream, request):
            if request.type is MessageType.ADD_PROVIDER:
                for _ in range(100):
                    await stream.send(bytes(8192))
            else:
                await stream.send(framed(KadMessage(request.type, request.key)))

        servers[0].behave, servers[1].behave = reset, chatter
        assert await client_of(host, *servers).announce(KEY) == 2
        assert [bool(each.providers) for each in servers] == [False, False, True, True]


async def test_servers_of_other_manners_have_taken_an_announcement_too():
    async with world(3) as (servers, host):

        async def answer(stream, request):
            await stream.send(framed(KadMessage(request.type, request.key)))

        ended = []

        async def one_request_a_stream(stream, request):
            if stream in ended:
                return
            if request.type is not MessageType.ADD_PROVIDER:
                await answer(stream, request)
            ended.append(stream)
            await stream.send_eof()

        servers[0].behave, servers[1].behave = answer, one_request_a_stream
        assert await client_of(host, *servers).announce(KEY) == 3


async def test_without_an_address_nothing_is_announced():
    async with world(1) as ((server,), host):
        host.told = ()
        with pytest.raises(AddressError, match="listens nowhere"):
            await client_of(host, server).announce(KEY)
        assert server.requests == []


async def test_no_more_than_the_closest_are_told():
    async with world(K + 3) as (servers, host):
        servers[0].knows(*servers[1:])
        assert await client_of(host, servers[0], parallel=10).announce(KEY) == K
        assert sum(bool(each.providers) for each in servers) == K


async def test_a_search_that_is_cancelled_leaves_nothing_behind():
    async with world(1) as ((server,), host):
        has_ended = anyio.Event()

        async def wait(stream, request):
            try:
                await stream.receive()
            finally:
                has_ended.set()

        server.behave = wait
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(client_of(host, server).find_peer, peer(1).peer)
            await server.wait_asked()
            tasks.cancel_scope.cancel()
        with anyio.fail_after(5):
            await has_ended.wait()
