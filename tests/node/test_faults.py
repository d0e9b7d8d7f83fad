"""What a peer does wrong stays within its stream or its connection."""

from __future__ import annotations

import gc
import weakref

import anyio
import pytest
from isthmus import Node, NodeConfig
from isthmus.node.events import ConnectionEnded, ConnectionOpened, HandlerFailed, PeerIdentified
from isthmus.node.protocols.identify import (
    ID_PROTOCOL,
    MAX_PARTS,
    PUSH_PROTOCOL,
    IdentifyMessage,
    encode,
)
from isthmus.node.protocols.perf import PERF_PROTOCOL, measure
from isthmus.node.protocols.ping import PING_PROTOCOL, ping, ping_once
from isthmus.node.router import Registration
from isthmus.transports.core.errors import (
    ConnectionClosed,
    DialError,
    NegotiationError,
    RemoteProtocolError,
    StreamReset,
)
from isthmus.transports.core.keys import PrivateKey
from isthmus.transports.core.varint import length_prefixed
from isthmus.transports.multistream import LazyDialer
from isthmus.transports.tcp import TcpTransport
from isthmus.transports.upgrade import Upgraded

LOOPBACK = "/ip4/127.0.0.1/tcp/0"
ECHO = "/echo/1.0.0"
STRANGER = PrivateKey.from_seed(b"s" * 32)


async def echo(stream):
    async for data in stream:
        await stream.send(data)


async def read_all(stream) -> bytes:
    return b"".join([data async for data in stream])


class Metered(Upgraded):
    """TCP that says of itself what a relayed connection would: that it has a limit."""

    async def upgrade(self, *args, **options):
        connection = await super().upgrade(*args, **options)
        connection.limit = object()
        return connection


class Draining(Upgraded):
    """TCP whose connections take no streams."""

    async def upgrade(self, *args, **options):
        connection = await super().upgrade(*args, **options)
        connection.drain()
        return connection


def serving(protocol, handler, **settings) -> Node:
    """A node that serves one of the built-in protocols in a way of its own."""
    node = Node(listen=LOOPBACK, **settings)
    node._router._table[protocol] = Registration(handler)
    return node


async def until(events, kind):
    async for event in events:
        if isinstance(event, kind):
            return event
    raise AssertionError(f"no {kind.__name__}")


async def still_works(alice: Node, bob: Node) -> None:
    alice.handle(ECHO, echo)
    assert await bob.request(alice.addresses, ECHO, b"on") == b"on"
    assert len(bob.connections) == 1


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"\xff\xff\xff\xff",
        length_prefixed(b"\xff"),
        length_prefixed(encode(IdentifyMessage(public_key=b"\x08\x01"))),
        length_prefixed(encode(IdentifyMessage(public_key=STRANGER.public_key.to_protobuf()))),
    ],
)
async def test_nonsense_for_an_identity_costs_nothing_else(said):
    async def lie(stream):
        await stream.send(said)

    async with serving(ID_PROTOCOL, lie) as alice, Node() as bob:
        connection = await bob.connect(alice.addresses)
        with pytest.raises(Exception, match=r"key|identify|expected peer|field|message"):
            await bob.identify(connection)
        assert bob.peers.protocols(alice.peer_id) is None
        await still_works(alice, bob)


async def test_an_identity_in_parts_without_an_end_is_enough():
    part = length_prefixed(encode(IdentifyMessage(protocols=("/x",))))

    async def go_on(stream):
        await stream.send(part * MAX_PARTS)
        await anyio.sleep_forever()

    async with serving(ID_PROTOCOL, go_on) as alice, Node() as bob:
        told = await bob.identify(await bob.connect(alice.addresses))
        assert told.protocols == ("/x",) * MAX_PARTS


async def test_a_nonsensical_push_changes_nothing():
    async with Node(listen=LOOPBACK) as alice, Node() as bob:
        events = alice.events()
        await bob.connect(alice.addresses)
        await until(events, PeerIdentified)
        known = alice.peers.protocols(bob.peer_id)
        async with await bob.open_stream(alice.peer_id, PUSH_PROTOCOL) as stream:
            await stream.send(b"\xff\xff\xff")
            with pytest.raises(StreamReset):
                await stream.receive()
        assert (await until(events, HandlerFailed)).protocol == PUSH_PROTOCOL
        assert alice.peers.protocols(bob.peer_id) == known
        # A push may leave out what has not changed.
        async with await bob.open_stream(alice.peer_id, PUSH_PROTOCOL) as stream:
            await stream.send(length_prefixed(encode(IdentifyMessage(agent_version="new/2"))))
        assert (await until(events, PeerIdentified)).agent == "new/2"
        assert alice.peers.protocols(bob.peer_id) == known
        await still_works(alice, bob)


async def test_a_peer_that_does_not_take_pushes_gets_none():
    async with Node(listen=LOOPBACK) as alice, Node(listen=LOOPBACK) as bob:
        del alice._router._table[PUSH_PROTOCOL]
        alice._router.protocols = tuple(alice._router._table)
        events = bob.events()
        await bob.connect(alice.addresses)
        await until(events, PeerIdentified)
        bob.handle("/new/1", echo)
        await still_works(alice, bob)


async def test_a_push_that_fails_is_not_tried_again_and_harms_nothing():
    pushed = []

    async def refuse(stream):
        pushed.append(stream.connection)
        raise RemoteProtocolError("no")

    async with serving(PUSH_PROTOCOL, refuse) as alice, Node() as bob:
        told = alice.events()
        events = bob.events()
        connection = await bob.connect(alice.addresses)
        await until(events, PeerIdentified)
        await until(told, PeerIdentified)
        bob.handle("/new/1", echo)
        assert (await until(told, HandlerFailed)).protocol == PUSH_PROTOCOL
        assert len(pushed) == 1
        assert await ping(connection)
        await still_works(alice, bob)


async def test_a_stream_that_never_says_its_protocol_is_reset_in_time():
    config = NodeConfig(negotiation_timeout=0.05)
    async with Node(listen=LOOPBACK, config=config) as alice, Node() as bob:
        connection = await bob.connect(alice.addresses)
        for said in (b"", b"\x13", b"\x13/multistream/1.0.0\n"):
            stream = await connection.open_stream()
            await stream.send(said)
            with pytest.raises(StreamReset):
                await read_all(stream)
        await still_works(alice, bob)


@pytest.mark.parametrize("said", [b"\xff\xff\xff", b"\x03no\n", b"\x13/multistream/1.0.0\n\x02xy"])
async def test_a_stream_that_talks_nonsense_is_reset(said):
    async with Node(listen=LOOPBACK) as alice, Node() as bob:
        connection = await bob.connect(alice.addresses)
        stream = await connection.open_stream()
        await stream.send(said)
        with pytest.raises(StreamReset):
            await read_all(stream)
        await still_works(alice, bob)


async def test_negotiation_works_byte_by_byte_and_lazily():
    async with Node(listen=LOOPBACK) as alice, Node() as bob:
        alice.handle(ECHO, echo)
        connection = await bob.connect(alice.addresses)
        proposal = LazyDialer(ECHO).data_to_send()
        for cut in (1, 20, len(proposal)):
            stream = await connection.open_stream()
            async with stream:
                await stream.send(proposal[:cut])
                await anyio.wait_all_tasks_blocked()
                await stream.send(proposal[cut:] + b"early")
                answer = b""
                while len(answer) < len(proposal) + 5:
                    answer += await stream.receive()
                assert answer == proposal + b"early"


async def test_a_protocol_no_longer_served_shows_at_the_first_receive():
    async with Node(listen=LOOPBACK) as alice, Node() as bob:
        alice.handle(ECHO, echo)
        events = bob.events()
        await bob.connect(alice.addresses)
        await until(events, PeerIdentified)
        del alice._router._table[ECHO]
        stream = await bob.open_stream(alice.peer_id, ECHO)
        await stream.send(b"x")
        with pytest.raises(NegotiationError):
            await stream.receive()
        # Without an answer in time, and without knowing before.
        silent = NodeConfig(negotiation_timeout=0.05)
        async with Node(config=silent) as carol:
            connection = await carol.connect(alice.addresses)
            with pytest.raises(NegotiationError, match="na"):
                await carol.open_stream(connection.remote_peer, "/other/1")


async def test_wrong_and_missing_echoes_are_told_apart():
    async def wrong(stream):
        async for _ in stream:
            await stream.send(bytes(32))

    async def silent(stream):
        await anyio.sleep_forever()

    async with serving(PING_PROTOCOL, wrong) as alice, Node() as bob:
        with pytest.raises(RemoteProtocolError, match="echo"):
            await ping(await bob.connect(alice.addresses))
    async with serving(PING_PROTOCOL, silent) as alice, Node() as bob:
        stream = await bob.open_stream(alice.addresses, PING_PROTOCOL)
        with pytest.raises(TimeoutError, match=r"0\.05 s"):
            await ping_once(stream, timeout=0.05)


@pytest.mark.parametrize("count", [5, 50])
async def test_a_perf_server_that_cannot_count_is_found_out(count):
    async def miscount(stream):
        await stream.send(bytes(count))

    async with serving(PERF_PROTOCOL, miscount) as alice, Node() as bob:
        stream = await bob.open_stream(alice.addresses, PERF_PROTOCOL)
        with pytest.raises(RemoteProtocolError, match=r"of the 10|than the 10"):
            await measure(stream, download=10)


async def test_a_connection_that_ends_between_choice_and_use_is_replaced():
    async with Node(listen=LOOPBACK) as alice, Node() as bob:
        alice.handle(ECHO, echo)
        connection = await bob.connect(alice.addresses)
        connection.drain()
        async with await bob.open_stream(alice.peer_id, ECHO) as stream:
            assert stream.connection is not connection

    async with Node(listen=LOOPBACK) as alice, Node(transports=[Draining(TcpTransport())]) as bob:
        alice.handle(ECHO, echo)
        with pytest.raises(ConnectionClosed):
            await bob.open_stream(alice.addresses, ECHO)


async def test_a_relayed_connection_with_a_limit_serves_only_what_allows_it():
    alice = Node(listen=LOOPBACK, transports=[Metered(TcpTransport())])
    async with alice, Node(transports=[Metered(TcpTransport())]) as bob:
        alice.handle(ECHO, echo)
        alice.handle("/small/1", echo, allow_limited=True)
        events = bob.events()
        connection = await bob.connect(alice.addresses)
        assert (await until(events, ConnectionOpened)).limited
        await until(events, PeerIdentified)
        assert await ping(connection)
        with pytest.raises(DialError, match="allow_limited"):
            await bob.open_stream(alice.peer_id, ECHO)
        with pytest.raises(NegotiationError):
            await bob.open_stream(alice.peer_id, "/other/1", allow_limited=True)
        async with await bob.open_stream(alice.peer_id, ECHO, allow_limited=True) as stream:
            await stream.send(b"x")
            with pytest.raises(NegotiationError):
                await stream.receive()
        async with await bob.open_stream(alice.peer_id, "/small/1", allow_limited=True) as stream:
            await stream.send(b"x")
            assert await stream.receive() == b"x"


async def test_leaving_by_cancellation_stops_in_time():
    started = anyio.Event()

    async def forever(stream):
        started.set()
        await anyio.sleep_forever()

    async with Node(listen=LOOPBACK) as alice:
        alice.handle("/forever/1", forever)

        async def use(scope: anyio.CancelScope) -> None:
            with scope:
                async with Node() as bob:
                    await bob.request(alice.addresses, "/forever/1", b"x")

        scope = anyio.CancelScope()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(use, scope)
            await started.wait()
            before = anyio.current_time()
            scope.cancel()
        assert scope.cancelled_caught
        assert anyio.current_time() - before < 2


async def test_a_connection_that_has_ended_is_kept_by_no_task():
    """Some go through all connections when there is need to, and then wait, perhaps for hours."""
    async with Node(listen=LOOPBACK) as alice, Node() as bob:
        events, told = bob.events(), alice.events()
        connection = await bob.connect(alice.addresses)
        await until(events, PeerIdentified)
        await until(told, PeerIdentified)
        bob.handle("/new/1", echo)
        await until(told, PeerIdentified)
        await ping(connection, 3)
        ended = weakref.ref(connection)
        await connection.aclose()
        del connection
        while (event := await anext(events)) and not isinstance(event, ConnectionEnded):
            pass
        await anyio.wait_all_tasks_blocked()
        gc.collect()
        assert ended() is None
