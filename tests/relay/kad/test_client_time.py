"""The client in virtual time: who does not answer, and what is announced every 22 hours."""

from __future__ import annotations

from contextlib import AsyncExitStack, asynccontextmanager

import anyio
import pytest
from isthmus import Multiaddr, Node, PeerId
from isthmus.relay.kad.client import KadClient
from isthmus.relay.kad.config import KadConfig
from isthmus.relay.kad.table import FIRST_RETRY, HURRY_AFTER, SeedTable
from isthmus.relay.kad.wire import FoundPeer, KadMessage, MessageType, encode, service_key
from isthmus.transports.core.errors import DialError, StreamReset
from isthmus.transports.core.varint import length_prefixed
from isthmus.transports.memory.network import MemoryNetwork
from isthmus.transports.memory.stream import MemoryTransport
from trio.testing import MockClock

from ...sim.kad import KadServer, NodeHost

HERE = Multiaddr.parse("/ip4/192.0.2.1/tcp/4001")
KEY = service_key("chat")
DAY = 86_400
PATIENCE = 10 * DAY
"""Virtual seconds; without an end a clock that jumps would go on for ever."""


@pytest.fixture
def anyio_backend():
    return ("trio", {"clock": MockClock(autojump_threshold=0)})


class Told:
    """What the client has said of its announcements, and when."""

    def __init__(self):
        self.all = []
        self._changed = anyio.Event()

    def __call__(self, service, taken, reason):
        self.all.append((service, taken, reason, anyio.current_time()))
        self._changed.set()
        self._changed = anyio.Event()

    async def wait(self, count):
        while len(self.all) < count:
            await self._changed.wait()
        return self.all[count - 1]


@asynccontextmanager
async def world(count=1, **settings):
    """Give servers in memory, a client, its host and what it tells."""
    network = MemoryNetwork()
    async with AsyncExitStack() as stack:

        async def node(**options):
            made = Node(transports=[MemoryTransport(network)], **options)
            return await stack.enter_async_context(made)

        servers = [KadServer(await node(listen=f"/memory/{port + 1}")) for port in range(count)]
        host = NodeHost(await node(), told=(HERE,))
        given = tuple(each.node.addresses[0] for each in servers)
        told = Told()
        client = KadClient(host, KadConfig(bootstrap=given, **settings), tell=told)
        with anyio.fail_after(PATIENCE):
            async with anyio.create_task_group() as tasks:
                yield servers, client, host, told, tasks
                tasks.cancel_scope.cancel()


async def silence(stream, request):
    await anyio.sleep_forever()


async def test_a_silent_server_takes_its_time_and_no_more():
    async with world(request_timeout=4.0) as ((server,), client, _, _, _):
        server.behave = silence
        began = anyio.current_time()
        with pytest.raises(DialError):
            await client.find_providers(KEY, limit=1)
        assert anyio.current_time() - began == pytest.approx(4.0, abs=0.1)


async def test_a_request_that_is_given_up_ends_at_once():
    async with world(3, request_timeout=4.0) as (servers, client, _, _, _):
        silent, slow, last = servers
        ended = []

        async def note(stream, request):
            try:
                await stream.receive()
            except StreamReset:
                ended.append(anyio.current_time() - began)

        async def answer_late(stream, request):
            await anyio.sleep(3)
            answer = KadMessage(request.type, request.key, (last.found,))
            await stream.send(length_prefixed(encode(answer)))

        silent.behave, slow.behave, last.behave = note, answer_late, silence
        client._seeds = SeedTable([each.node.addresses[0] for each in (silent, slow)])
        began = anyio.current_time()
        assert await client.find_providers(KEY, limit=1) == []
        assert anyio.current_time() - began == pytest.approx(7.0, abs=0.1)
        assert ended == [pytest.approx(4.0, abs=0.1)]


async def test_a_search_takes_no_longer_than_allowed():
    async with world(9, request_timeout=10.0, lookup_timeout=7.0) as (servers, client, _, _, _):
        for server in servers:
            server.behave = silence
        began = anyio.current_time()
        with pytest.raises(DialError):
            await client.find_providers(KEY, limit=1)
        assert anyio.current_time() - began == pytest.approx(7.0, abs=0.1)
        assert all(server.requests for server in servers), "the slow ones held nobody up"


async def test_looking_for_addresses_takes_none_of_that_time_twice():
    async with world(request_timeout=5.0, lookup_timeout=6.0) as ((server,), client, _, _, _):
        found = FoundPeer(PeerId.from_bytes(b"\x12\x20" + bytes(32)))

        async def behave(stream, request):
            await anyio.sleep(4)
            answer = KadMessage(request.type, request.key, providers=(found,))
            await stream.send(length_prefixed(encode(answer)))

        server.behave = behave
        began = anyio.current_time()
        assert await client.find_providers(KEY, limit=1) == [found]
        assert anyio.current_time() - began == pytest.approx(6.0, abs=0.1)


async def test_a_server_that_never_takes_an_announcement_is_given_up():
    async with world(request_timeout=4.0) as ((server,), client, _, _, _):

        async def behave(stream, request):
            if request.type is MessageType.ADD_PROVIDER:
                await anyio.sleep_forever()
            await stream.send(length_prefixed(encode(KadMessage(request.type, request.key))))

        server.behave = behave
        began = anyio.current_time()
        assert await client.announce(KEY) == 0
        assert anyio.current_time() - began == pytest.approx(4.0, abs=0.1)


async def test_services_are_announced_every_22_hours():
    async with world(2) as (servers, client, _, told, tasks):
        tasks.start_soon(client.run)
        client.provide("chat")
        assert (await told.wait(1))[:3] == ("chat", 2, "")
        first = told.all[0][3]
        await anyio.sleep(DAY / 2)
        client.provide("chat")
        client.provide("files")
        assert (await told.wait(2))[0] == "files"
        assert (await told.wait(3))[0] == "chat"
        assert told.all[2][3] - first == pytest.approx(22 * 3600, abs=1)
        for server in servers:
            assert len(server.providers[KEY]) == 2


async def test_what_nobody_took_is_tried_again():
    async with world() as ((server,), client, host, told, tasks):
        serve, server.behave = server.behave, silence
        tasks.start_soon(client.run)
        client.provide("chat")
        service, taken, reason, _ = await told.wait(1)
        assert (service, taken) == ("chat", 0)
        assert "no server of the DHT answers" in reason
        server.behave = serve
        host.told = ()
        _, taken, reason, when = await told.wait(2)
        assert (taken, reason) == (0, "this node has no address to announce: it listens nowhere")
        assert when - told.all[0][3] == pytest.approx(FIRST_RETRY, abs=1)
        host.told = (HERE,)
        # It has an address now.
        client.moved()
        _, taken, reason, then = await told.wait(3)
        assert (taken, reason) == (1, "")
        assert then - when < 1


async def test_a_refusal_by_all_is_told():
    async with world() as ((server,), client, _, told, tasks):

        async def behave(stream, request):
            if request.type is MessageType.ADD_PROVIDER:
                stream.reset()
                return
            await stream.send(length_prefixed(encode(KadMessage(request.type, request.key))))

        server.behave = behave
        tasks.start_soon(client.run)
        client.provide("chat")
        assert (await told.wait(1))[:3] == ("chat", 0, "no server took it")


async def test_a_new_address_is_announced_soon():
    async with world() as ((server,), client, host, told, tasks):
        tasks.start_soon(client.run)
        client.provide("chat")
        first = (await told.wait(1))[3]
        host.told = (Multiaddr.parse("/ip4/192.0.2.2/tcp/1"),)
        client.moved()
        client.moved()
        assert (await told.wait(2))[3] - first == pytest.approx(HURRY_AFTER, abs=1)
        assert [each.addresses for each in server.providers[KEY]] == [(HERE,), host.told]
