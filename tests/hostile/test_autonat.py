"""AutoNAT's server cannot be made a weapon, and its client cannot be lied to."""

from __future__ import annotations

import socket

import anyio
import pytest
from isthmus import Multiaddr, Node, NodeConfig
from isthmus.node.config import AutonatConfig
from isthmus.relay.autonat.limits import REQUESTS_PER_SOURCE
from isthmus.relay.autonat.reachability import SERVER_BACKOFF, Question, Reachability, Server
from isthmus.relay.autonat.wire import (
    DIAL_BACK_PROTOCOL,
    DIAL_REQUEST_PROTOCOL,
    MIN_DATA,
    DialData,
    DialDataRequest,
    DialRequest,
    DialResponse,
    DialStatus,
    ResponseStatus,
    decode_message,
    encode_dial_back,
    encode_message,
)
from isthmus.transports.core.errors import RemoteProtocolError
from isthmus.transports.core.varint import LengthPrefixReader

LOOPBACK = "/ip4/127.0.0.1/tcp/0"
NEAR = NodeConfig(autonat=AutonatConfig(allow_private=True))
STRICT = NodeConfig(autonat=AutonatConfig(allow_private=False))


class Victim:
    """A socket that counts who knocks; 127.0.0.2 is not where the client is seen."""

    def __enter__(self):
        self.socket = socket.create_server(("127.0.0.2", 0))
        self.socket.settimeout(0)
        self.address = Multiaddr.parse(f"/ip4/127.0.0.2/tcp/{self.socket.getsockname()[1]}")
        return self

    def __exit__(self, *_):
        self.socket.close()

    def knocks(self):
        count = 0
        while True:
            try:
                self.socket.accept()[0].close()
            except BlockingIOError:
                return count
            count += 1


class Asker:
    """One request, message by message."""

    def __init__(self, stream):
        self.stream = stream
        self._reader = LengthPrefixReader(10_000)

    async def ask(self, *addresses):
        await self.stream.send(encode_message(DialRequest(addresses, 7)))
        return await self.read()

    async def read(self):
        with anyio.fail_after(10):
            while (frame := self._reader.next_frame()) is None:
                self._reader.feed(await self.stream.receive())
        return decode_message(frame)


async def asker(client, server):
    stream = await client.open_stream(server.addresses, DIAL_REQUEST_PROTOCOL)
    return Asker(stream)


async def test_a_victim_is_left_alone_until_more_has_been_paid_than_it_costs():
    with Victim() as victim:
        async with Node(listen=LOOPBACK, config=NEAR) as server, Node() as client:
            server.reach.server._draw = lambda: 0.0
            one = await asker(client, server)
            price = await one.ask(victim.address)
            assert isinstance(price, DialDataRequest)
            assert price == DialDataRequest(0, MIN_DATA)
            for _ in range(MIN_DATA // 1000 - 1):
                await one.stream.send(encode_message(DialData(bytes(1000))))
            await anyio.wait_all_tasks_blocked()
            assert (victim.knocks(), server.reach.server.dials) == (0, 0)
            # Whoever leaves before has paid for nothing.
            one.stream.reset()
            await anyio.wait_all_tasks_blocked()
            assert victim.knocks() == 0
            # Whoever pays gets one dial, which ends when no handshake follows.
            two = await asker(client, server)
            await two.ask(victim.address, victim.address)
            for _ in range(MIN_DATA // 1000):
                await two.stream.send(encode_message(DialData(bytes(1000))))
            while not (knocks := victim.knocks()):
                await anyio.lowlevel.checkpoint()
            answer = await two.read()
            assert answer == DialResponse(ResponseStatus.OK, 0, DialStatus.DIAL_ERROR)
            assert (knocks, victim.knocks(), server.reach.server.dials) == (1, 0, 1)


@pytest.mark.parametrize(
    "text",
    [
        "/ip4/10.0.0.1/tcp/1",
        "/ip4/192.168.1.1/tcp/80",
        "/ip4/127.0.0.1/tcp/22",
        "/ip4/169.254.169.254/tcp/80",
        "/ip6/::ffff:127.0.0.1/tcp/1",
        "/ip6/::1/tcp/1",
        "/dns4/localhost/tcp/1",
        "/dns4/example.com/tcp/1",
        "/ip4/1.2.3.4/udp/1/quic-v1",
        "/unix/tmp/x",
    ],
)
async def test_what_only_the_server_can_reach_is_never_dialled(text):
    server = Node(listen=["/ip4/0.0.0.0/tcp/0"], config=STRICT)
    assert not server.reach._may_dial_back(Multiaddr.parse(text))


async def test_an_own_address_and_one_of_this_network_are_not_dialled_either():
    server = Node(listen=["/ip4/0.0.0.0/tcp/0"], config=STRICT)
    public = Multiaddr.parse("/ip4/1.2.3.4/tcp/1")
    assert server.reach._may_dial_back(public)
    server._own.bound = (Multiaddr.parse("/ip4/1.2.3.4/tcp/4001"),)
    assert not server.reach._may_dial_back(public)
    server._own.bound = ()
    server.reach._is_on_link = lambda address: address == public
    assert not server.reach._may_dial_back(public)


async def test_a_flood_of_requests_is_turned_away():
    async with Node(listen=LOOPBACK, config=NEAR) as server, Node() as client:
        unknown = Multiaddr.parse("/ip4/127.0.0.1/udp/1")
        statuses = []
        for _ in range(REQUESTS_PER_SOURCE + 3):
            one = await asker(client, server)
            statuses.append((await one.ask(unknown)).status)
            await one.stream.aclose()
        refused, rejected = ResponseStatus.DIAL_REFUSED, ResponseStatus.REQUEST_REJECTED
        assert statuses == [refused] * REQUESTS_PER_SOURCE + [rejected] * 3


class Liar:
    """A server that says what it likes; `nonces` are those it was asked with."""

    def __init__(self, node, answer, *, proves=False):
        self._node, self._answer, self._proves = node, answer, proves
        node._router._table.pop(DIAL_REQUEST_PROTOCOL, None)
        node.handle(DIAL_REQUEST_PROTOCOL, self.serve)

    async def serve(self, stream):
        one = Asker(stream)
        request = await one.read()
        if self._proves:
            # Over the connection that the client has dialled itself: no proof of anything.
            back = await self._node.open_stream(stream.connection.remote_peer, DIAL_BACK_PROTOCOL)
            await back.send(encode_dial_back(request.nonce))
        await stream.send(encode_message(self._answer))


CLAIM = DialResponse(ResponseStatus.OK, 0, DialStatus.OK)


@pytest.mark.parametrize(
    ("answer", "proves"),
    [
        (CLAIM, False),
        (CLAIM, True),
        (DialResponse(ResponseStatus.OK, 0, DialStatus.DIAL_BACK_ERROR), False),
        (DialResponse(ResponseStatus.OK, 0, DialStatus.UNUSED), False),
        (DialResponse(ResponseStatus.OK, 9, DialStatus.OK), False),
    ],
)
async def test_a_server_that_claims_without_proof_is_not_believed(answer, proves):
    async with Node(listen=LOOPBACK, config=NEAR) as client, Node(listen=LOOPBACK) as liar:
        client.reach.client._proof_time = 0.2
        Liar(liar, answer, proves=proves)
        await client.connect(liar.addresses)
        question = Question(Server(liar.peer_id, 1), client._own.bound)
        with pytest.raises(RemoteProtocolError):
            await client.reach.client.ask(question)


async def test_a_proof_that_nobody_asked_for_is_refused():
    async with Node(listen=LOOPBACK, config=NEAR) as client, Node() as stranger:
        stream = await stranger.open_stream(client.addresses, DIAL_BACK_PROTOCOL)
        await stream.send(encode_dial_back(1))
        with pytest.raises(anyio.BrokenResourceError):
            await stream.receive()


async def test_a_refusal_is_no_news_and_the_server_rests():
    refusal = DialResponse(ResponseStatus.DIAL_REFUSED)
    async with Node(listen=LOOPBACK, config=NEAR) as client, Node(listen=LOOPBACK) as server:
        Liar(server, refusal)
        await client.connect(server.addresses)
        question = Question(Server(server.peer_id, 1), client._own.bound)
        assert await client.reach.client.ask(question) is None
        assert client.reach.client._expected == {}


@pytest.mark.parametrize("answer", [DialResponse(ResponseStatus.DIAL_REFUSED), CLAIM])
async def test_a_node_leaves_a_server_alone_that_refuses_or_lies(answer):
    async with Node(listen=LOOPBACK, config=NEAR) as client, Node(listen=LOOPBACK) as server:
        client.reach.client._proof_time = 0.1
        Liar(server, answer)
        await client.connect(server.addresses)
        table, soon = client.reach.client.table, anyio.current_time() + SERVER_BACKOFF
        with anyio.fail_after(5):
            while table._free_at.get(server.peer_id, 0) < soon:
                await anyio.lowlevel.checkpoint()
        assert client.reachability is Reachability.UNKNOWN
