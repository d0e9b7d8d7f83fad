"""Nodes over TCP on loopback: streams, requests, reuse, faults, stopping."""

from __future__ import annotations

import anyio
import pytest
from isthmus import Node, NodeConfig, PeerId, Priority, PrivateKey
from isthmus.node.config import LimitsConfig
from isthmus.node.events import (
    ConnectionEnded,
    ConnectionOpened,
    ConnectionRefused,
    DialFailed,
    EventReader,
    HandlerFailed,
    Listening,
    NodeEvent,
    PeerIdentified,
)
from isthmus.node.protocols.identify import ID_PROTOCOL, PUSH_PROTOCOL
from isthmus.node.protocols.perf import PERF_PROTOCOL, measure
from isthmus.node.protocols.ping import PING_PROTOCOL, ping
from isthmus.transports.core.errors import (
    AddressError,
    ConfigError,
    DialError,
    LimitExceeded,
    LocalProtocolError,
    NegotiationError,
    NoTransport,
    PeerIdMismatch,
    SelfDial,
    StreamReset,
)
from isthmus.transports.core.interfaces import Host, Side
from isthmus.transports.memory.stream import MemoryTransport

LOOPBACK = "/ip4/127.0.0.1/tcp/0"
ECHO = "/echo/1.0.0"


async def echo(stream):
    async for data in stream:
        await stream.send(data)


def listening(**settings) -> Node:
    return Node(listen=LOOPBACK, **settings)


async def until(events: EventReader, kind: type[NodeEvent]):
    async for event in events:
        if isinstance(event, kind):
            return event
    raise AssertionError(f"no {kind.__name__}")


async def test_a_request_is_answered_and_connections_are_reused():
    async with listening() as alice, Node() as bob:
        alice.handle(ECHO, echo)
        assert await bob.request(alice.addresses, ECHO, b"hello") == b"hello"
        first = await bob.connect(alice.peer_id)
        assert await bob.connect(alice.addresses[0]) is first
        assert await bob.connect(str(alice.addresses[0])) is first
        assert await bob.connect(str(alice.peer_id)) is first
        bare = alice.addresses[0].without_peer()
        assert await bob.connect(bare) is first
        assert bob.connections == (first,)
        assert isinstance(bob, Host)
        # Whoever dialled, both open streams.
        bob.handle("/back/1", echo)
        assert await alice.request(bob.peer_id, "/back/1", b"x" * 300_000) == b"x" * 300_000
        assert await bob.request(alice.peer_id, ECHO) == b""


async def test_an_identity_is_kept_and_named_in_every_address():
    key = PrivateKey.from_seed(b"\x01" * 32)
    async with Node(identity=key, listen=[LOOPBACK, "/ip4/127.0.0.1/tcp/0"]) as node:
        assert str(node.peer_id) == "12D3KooWK99VoVxNE7XzyBwXEzW7xhK7Gpv85r9F3V3fyKSUKPH5"
        assert len(node.addresses) == 2
        assert all(address.peer_id == node.peer_id for address in node.addresses)
        assert all(address.port for address in node.addresses)
        assert set(node.protocols) == {ID_PROTOCOL, PUSH_PROTOCOL, PING_PROTOCOL}


async def test_transports_are_named_or_given():
    """Names are those that packages have registered; a raw transport gets Noise and Yamux."""
    async with Node(listen="/memory/0", transports=["memory"]) as alice:
        alice.handle(ECHO, echo)
        async with Node(transports=["tcp", MemoryTransport()]) as bob:
            assert await bob.request(alice.addresses, ECHO, b"hello") == b"hello"
        async with Node(transports=["tcp"]) as carol:
            with pytest.raises(NoTransport):
                await carol.connect(alice.addresses)
    with pytest.raises(ConfigError, match="no transport is called 'carrot'"):
        Node(transports=["carrot"])


async def test_a_wildcard_stands_for_this_machines_addresses():
    async with Node(listen="/ip4/0.0.0.0/tcp/0") as node, Node() as other:
        texts = [str(address) for address in node.addresses]
        assert texts[-1].startswith("/ip4/127.0.0.1/tcp/")
        assert not any("0.0.0.0" in text for text in texts)
        assert (await other.connect(node.addresses[-1])).remote_peer == node.peer_id


async def test_once_identified_a_stream_costs_no_round_trip():
    async with listening() as alice, Node() as bob:
        alice.handle(ECHO, echo)
        events = bob.events()
        await bob.connect(alice.addresses)
        identified = await until(events, PeerIdentified)
        assert ECHO in identified.protocols
        assert identified.agent.startswith("isthmus/")
        assert identified.addresses == tuple(each.without_peer() for each in alice.addresses)
        assert identified.observed is not None
        stream = await bob.open_stream(alice.peer_id, "/unknown/1", ECHO)
        assert stream.protocol == ECHO
        async with stream:
            await stream.send(b"a")
            assert await stream.receive() == b"a"
        # Nothing need be written for the other side to see the stream.
        greeted = anyio.Event()

        async def greet(stream):
            greeted.set()
            await stream.send(b"hello")

        alice.handle("/greet/1", greet)
        while "/greet/1" not in (await until(events, PeerIdentified)).protocols:
            pass
        async with await bob.open_stream(alice.peer_id, "/greet/1") as stream:
            await greeted.wait()
            assert await stream.receive() == b"hello"


async def test_both_sides_learn_what_the_other_is_and_is_told_of_changes():
    async with listening() as alice, listening() as bob:
        seen = alice.events()
        connection = await bob.connect(alice.addresses)
        identified = await until(seen, PeerIdentified)
        assert identified.peer == bob.peer_id
        assert alice.peers.addresses(bob.peer_id) == tuple(
            each.without_peer() for each in bob.addresses
        )
        told = await bob.identify(connection)
        assert told.peer == alice.peer_id
        bob.handle("/new/1", echo)
        bob.handle("/new/2", echo)
        pushed = await until(seen, PeerIdentified)
        assert {"/new/1", "/new/2"} <= set(pushed.protocols)
        assert alice.peers.protocols(bob.peer_id) == set(bob.protocols)


async def test_a_protocol_that_is_not_spoken_is_refused():
    async with listening() as alice, Node() as bob:
        with pytest.raises(NegotiationError):
            await bob.open_stream(alice.addresses, "/unknown/1", "/unknown/2")
        alice.handle(ECHO, echo)
        stream = await bob.open_stream(alice.peer_id, "/unknown/1", ECHO)
        assert stream.protocol == ECHO
        with pytest.raises(LocalProtocolError):
            await bob.open_stream(alice.peer_id)


async def test_a_failing_handler_costs_its_stream_alone(caplog):
    async with listening() as alice, Node() as bob:
        events = alice.events()

        @alice.handle("/fail/1", priority=Priority.LOW)
        async def fail(stream):
            raise ValueError("not today")

        alice.handle(ECHO, echo)
        with pytest.raises(StreamReset) as caught:
            await bob.request(alice.addresses, "/fail/1", b"x")
        assert caught.value.remote
        failed = await until(events, HandlerFailed)
        assert (failed.peer, failed.protocol) == (bob.peer_id, "/fail/1")
        assert failed.to_json()["error"] == "ValueError: not today"
        assert [record.levelname for record in caplog.records if "not today" in record.message] == [
            "WARNING"
        ]
        assert await bob.request(alice.peer_id, ECHO, b"on") == b"on"
        assert len(bob.connections) == 1


async def test_a_handlers_error_can_be_raised_at_the_end():
    async def fail(stream):
        raise ValueError("not today")

    async def request() -> None:
        config = NodeConfig(raise_handler_errors=True)
        async with listening(config=config) as alice, Node() as bob:
            alice.handle("/fail/1", fail)
            with pytest.raises(StreamReset):
                await bob.request(alice.addresses, "/fail/1", b"x")

    with pytest.raises(ValueError, match="not today"):
        await request()


async def test_an_answer_is_bounded_in_size_and_time():
    async with listening() as alice, Node() as bob:
        alice.handle(ECHO, echo)

        @alice.handle("/silent/1")
        async def silent(stream):
            await anyio.sleep_forever()

        with pytest.raises(LimitExceeded) as caught:
            await bob.request(alice.addresses, ECHO, b"x" * 11, max_bytes=10)
        assert caught.value.setting == "max_bytes"
        with pytest.raises(TimeoutError, match=r"/silent/1 within 0\.1 s"):
            await bob.request(alice.peer_id, "/silent/1", timeout=0.1)


async def test_the_body_raises_what_it_raises():
    async def fail() -> None:
        async with listening() as alice, Node() as bob:
            await bob.connect(alice.addresses)
            raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"):
        await fail()


async def test_a_peer_is_who_the_address_says():
    async with listening() as alice, listening() as carol, Node() as bob:
        wrong = alice.addresses[0].with_peer(carol.peer_id)
        with pytest.raises(DialError) as caught:
            await bob.connect(wrong)
        (attempt,) = caught.value.attempts
        assert isinstance(attempt.cause, PeerIdMismatch)
        assert attempt.phase == "handshake"
        assert attempt.address == wrong
        # The next address is tried, and the failed one does not hide it.
        connection = await bob.connect([wrong, carol.addresses[0]])
        assert connection.remote_peer == carol.peer_id


async def test_what_cannot_be_dialled_says_why():
    async with Node() as bob:
        events = bob.events()
        with pytest.raises(DialError, match="no address of 12D3"):
            await bob.connect(PeerId.from_public_key(PrivateKey.generate().public_key))
        assert (await until(events, DialFailed)).peer is not None
        with pytest.raises(NoTransport):
            await bob.connect("/ip4/127.0.0.1/udp/1")
        with pytest.raises(AddressError):
            await bob.connect("/ip4/127.0.0.1/what/1")
        with pytest.raises(AddressError, match="empty"):
            await bob.connect([])
        with pytest.raises(DialError) as caught:
            await bob.connect(["/ip4/127.0.0.1/tcp/1", "/ip4/127.0.0.1/tcp/2"])
        assert [attempt.phase for attempt in caught.value.attempts] == ["connect", "connect"]
        with pytest.raises(SelfDial):
            await bob.connect(bob.peer_id)


async def test_a_node_does_not_connect_to_itself():
    async with listening() as alice:
        with pytest.raises(SelfDial):
            await alice.connect(alice.addresses)
        with pytest.raises(SelfDial):
            await alice.connect(alice.addresses[0].without_peer())
        assert alice.connections == ()


async def test_concurrent_connects_share_one_dial():
    async with listening() as alice, Node() as bob:
        events = alice.events()
        found = []

        async def connect() -> None:
            found.append(await bob.connect(alice.addresses))

        async with anyio.create_task_group() as tasks:
            for _ in range(10):
                tasks.start_soon(connect)
        assert len(set(found)) == 1
        await until(events, ConnectionOpened)
        assert len(alice.connections) == 1


async def test_a_closed_connection_is_not_handed_out_again():
    async with listening() as alice, Node() as bob:
        alice.handle(ECHO, echo)
        for _ in range(5):
            connection = await bob.connect(alice.addresses)
            await connection.aclose()
        assert await bob.connect(alice.peer_id) is not connection
        connection = await bob.connect(alice.peer_id)
        await connection.aclose()
        assert await bob.request(alice.peer_id, ECHO, b"again") == b"again"


async def test_the_end_of_a_connection_is_told_with_its_reason():
    async with Node() as bob:
        events = bob.events()
        async with listening() as alice:
            await bob.connect(alice.addresses)
            opened = await until(events, ConnectionOpened)
            assert (opened.peer, opened.side, opened.limited) == (
                alice.peer_id,
                Side.DIALER,
                False,
            )
        ended = await until(events, ConnectionEnded)
        assert ended.peer == alice.peer_id
        assert "the connection was closed" in ended.reason
        assert bob.connections == ()
        assert bob.peers.protocols(alice.peer_id) is None


async def test_events_start_with_listening_and_end_with_the_node():
    node = listening()
    events = node.events()
    async with node:
        first = await anext(events)
        assert isinstance(first, Listening)
        assert first.to_json()["event"] == "listening"
        assert first.addresses == node.addresses
    assert [event async for event in events] == []


async def test_limits_are_named_when_they_are_reached():
    config = NodeConfig(limits=LimitsConfig(connections=2, outbound_share=0.5))
    async with listening(config=config) as alice, Node() as bob, Node() as carol:
        events = alice.events()
        connection = await bob.connect(alice.addresses)
        await until(events, ConnectionOpened)
        second = await carol.connect(alice.addresses)
        refused = await until(events, ConnectionRefused)
        assert refused.peer == carol.peer_id
        assert refused.setting == "limits.connections"
        await second.wait_closed()
        assert alice.connections[0].remote_peer == bob.peer_id
        assert await connection.probe() > 0

    config = NodeConfig(limits=LimitsConfig(connections_per_peer=1))
    async with listening(config=config) as alice, Node() as bob:
        events = alice.events()
        await bob.connect(alice.addresses)
        second = await bob.connect(alice.addresses, fresh=True)
        assert (await until(events, ConnectionRefused)).setting == "limits.connections_per_peer"
        await second.wait_closed()

    config = NodeConfig(limits=LimitsConfig(connections=1, dial_wait=0))
    async with listening() as alice, listening() as carol, Node(config=config) as bob:
        await bob.connect(alice.addresses)
        with pytest.raises(LimitExceeded, match=r"limits\.connections"):
            await bob.connect(carol.addresses)


async def test_stopping_flushes_what_was_sent():
    got = []
    done = anyio.Event()
    async with listening() as alice:

        @alice.handle("/sink/1")
        async def sink(stream):
            got.extend([data async for data in stream])
            done.set()

        async with Node() as bob:
            stream = await bob.open_stream(alice.addresses, "/sink/1")
            await stream.send(b"x" * 200_000)
            await stream.aclose()
        with anyio.fail_after(5):
            await done.wait()
        assert len(b"".join(got)) == 200_000


async def test_stopping_does_not_wait_for_handlers_or_streams():
    started = anyio.Event()

    async def forever(stream):
        started.set()
        await anyio.sleep_forever()

    async with listening() as alice, Node() as bob:
        alice.handle("/forever/1", forever)
        stream = await bob.open_stream(alice.addresses, "/forever/1")
        await stream.send(b"x")
        await started.wait()
        before = anyio.current_time()
    assert anyio.current_time() - before < 2


async def test_a_node_is_entered_once_and_works_only_while_it_runs():
    node = Node()
    with pytest.raises(LocalProtocolError, match="not running"):
        await node.connect("/ip4/127.0.0.1/tcp/1")
    async with node:
        with pytest.raises(LocalProtocolError, match="entered once"):
            await node.__aenter__()
    with pytest.raises(LocalProtocolError, match="not running"):
        await node.connect("/ip4/127.0.0.1/tcp/1")


async def test_what_cannot_be_listened_on_is_raised_alone():
    with pytest.raises(NoTransport):
        async with Node(listen="/ip4/127.0.0.1/udp/0"):
            pass
    async with listening() as alice:
        taken = alice.addresses[0].without_peer()
        with pytest.raises(OSError, match=str(taken)):
            async with Node(listen=taken):
                pass


async def test_a_protocol_has_one_handler_and_a_usable_name():
    node = Node()
    node.handle(ECHO, echo)
    with pytest.raises(ConfigError, match="already"):
        node.handle(ECHO, echo)
    for bad in ("echo", "/a\nb", "/" + "x" * 1022):
        with pytest.raises(ConfigError):
            node.handle(bad, echo)


async def test_ping_measures_and_is_bounded():
    async with listening() as alice, Node() as bob:
        connection = await bob.connect(alice.addresses)
        streams = [await bob.open_stream(alice.peer_id, PING_PROTOCOL) for _ in range(2)]
        for stream in streams:
            await stream.send(bytes(32))
            await stream.receive()
        with pytest.raises(StreamReset):
            await ping(connection)
        await streams[0].send_eof()
        with pytest.raises(anyio.EndOfStream):
            await streams[0].receive()
        times = await ping(connection, 3)
        assert len(times) == 3
        assert all(0 < each < 5 for each in times)


async def test_perf_counts_both_ways():
    async with listening(config=NodeConfig(serve_perf=True)) as alice, Node() as bob:
        seen = []
        stream = await bob.open_stream(alice.addresses, PERF_PROTOCOL)
        async with stream:
            result = await measure(
                stream,
                upload=300_000,
                download=500_000,
                progress=lambda way, count, _: seen.append((way, count)),
            )
        assert (result.upload_bytes, result.download_bytes) == (300_000, 500_000)
        assert result.upload_seconds > 0
        assert result.download_seconds > 0
        assert ("upload", 300_000) in seen
        assert seen[-1] == ("download", 500_000)
        assert result.to_json()["upload_bytes"] == 300_000
        async with await bob.open_stream(alice.peer_id, PERF_PROTOCOL) as stream:
            result = await measure(stream)
        assert result.upload_bytes == result.download_bytes == 0
        with pytest.raises(StreamReset):
            await bob.request(alice.peer_id, PERF_PROTOCOL, b"short")


async def test_perf_is_served_only_when_asked_for():
    async with listening() as alice, Node() as bob:
        with pytest.raises(NegotiationError):
            await bob.open_stream(alice.addresses, PERF_PROTOCOL)
        alice.serve_perf()
        await bob.open_stream(alice.peer_id, PERF_PROTOCOL)
