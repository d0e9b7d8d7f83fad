"""Nodes that reach each other through a relay, on real sockets."""

from __future__ import annotations

from contextlib import AsyncExitStack

import anyio
import anyio.lowlevel
import pytest
from isthmus import Node, NodeConfig
from isthmus.node.events import (
    AddressesChanged,
    ConnectionEnded,
    ConnectionOpened,
    PeerIdentified,
    RelayLost,
    RelayRefused,
    RelayReserved,
)
from isthmus.node.selection import Rank
from isthmus.relay.circuit.client_config import RelaysConfig
from isthmus.relay.circuit.limits import RelayServerConfig
from isthmus.relay.circuit.supervisor import NEWS_INTERVAL
from isthmus.relay.circuit.wire import HopMessage, HopType, Limit, Status
from isthmus.transports.core.errors import CircuitRefused, DialError, StreamReset
from isthmus.transports.core.keys import PrivateKey
from isthmus.transports.core.multiaddr import Multiaddr
from isthmus.transports.core.peer_id import PeerId

from .relays import LOOPBACK, SmallRelay, small_relay, splice

ECHO = "/echo/1.0.0"
STRANGER = PeerId.from_public_key(PrivateKey.from_seed(b"x" * 32).public_key)


async def echo(stream):
    async for data in stream:
        await stream.send(data)


async def until(events, kind, **wanted):
    async for event in events:
        if isinstance(event, kind) and all(getattr(event, k) == v for k, v in wanted.items()):
            return event
    raise AssertionError(f"no {kind.__name__}")


async def reserved(node: Node, events=None) -> None:
    """Wait until a relay leads to the node."""
    events = events or node.events()
    while not any(relay.until for relay in node.relays):
        await anext(events)


def behind(relay: Node, peer: Node) -> str:
    return f"{relay.addresses[0]}/p2p-circuit/p2p/{peer.peer_id}"


async def test_a_node_is_reached_through_a_relay():
    async with small_relay() as relay, Node(relays=relay.node.addresses) as bob, Node() as alice:
        events = bob.events()
        told = await until(events, RelayReserved)
        assert told.relay == relay.node.peer_id
        assert [str(each) for each in told.addresses] == [f"{relay.node.addresses[0]}/p2p-circuit"]
        changed = await until(events, AddressesChanged)
        assert [str(each) for each in changed.addresses] == [behind(relay.node, bob)]
        assert bob.addresses == changed.addresses
        bob.handle(ECHO, echo)
        with anyio.fail_after(5):
            assert await alice.request(bob.addresses, ECHO, b"through") == b"through"
        (there,) = [each for each in alice.connections if each.remote_peer == bob.peer_id]
        assert alice.rank_of(there) is Rank.RELAY
        assert there.limit is None
        (here,) = [each for each in bob.connections if each.remote_peer == alice.peer_id]
        assert str(here.remote_addr).endswith(f"{relay.node.peer_id}/p2p-circuit")


async def test_it_is_also_reached_by_the_relays_id_alone():
    async with small_relay() as relay, Node(relays=relay.node.addresses) as bob, Node() as alice:
        await reserved(bob)
        bob.handle(ECHO, echo)
        await alice.connect(relay.node.addresses)
        short = f"/p2p/{relay.node.peer_id}/p2p-circuit/p2p/{bob.peer_id}"
        assert await alice.request(short, ECHO, b"short") == b"short"


async def test_every_refusal_of_a_circuit_is_an_error_with_its_status_and_a_hint():
    async with small_relay() as relay, Node(relays=relay.node.addresses) as bob, Node() as alice:
        await reserved(bob)
        for status in Status:
            if status is Status.OK:
                continue
            relay.circuit_status = status
            with pytest.raises(DialError) as caught:
                await alice.connect(behind(relay.node, bob))
            (attempt,) = caught.value.attempts
            assert attempt.phase == "relay"
            assert isinstance(attempt.cause, CircuitRefused)
            assert attempt.cause.status == status
            assert str(relay.node.peer_id) in str(caught.value)
            report = alice.why(bob.peer_id)
            assert report.steps[0].rank is Rank.RELAY
            assert report.steps[0].hint


async def test_a_peer_that_is_no_relay_and_one_that_is_away():
    async with Node(listen=LOOPBACK) as none, Node() as alice:
        with pytest.raises(DialError, match="is no relay"):
            await alice.connect(f"{none.addresses[0]}/p2p-circuit/p2p/{STRANGER}")
        gone = none.addresses[0]
        with pytest.raises(DialError, match="does not say whom"):
            await alice.connect(f"{gone}/p2p-circuit")
        with pytest.raises(DialError, match="leads through this very node"):
            await none.connect(f"{gone}/p2p-circuit/p2p/{STRANGER}")
    async with Node() as alice:
        with pytest.raises(DialError, match="no circuit through the relay"):
            await alice.connect(f"{gone}/p2p-circuit/p2p/{STRANGER}")
        (step,) = alice.why(STRANGER).steps
        assert step.phase == "relay"
        assert "nothing listens there" in step.hint


async def test_a_circuit_whose_source_is_another_peer_than_the_relay_says_is_closed():
    async with small_relay() as relay, Node(relays=relay.node.addresses) as bob, Node() as alice:
        await reserved(bob)
        bob.handle(ECHO, echo)
        relay.lie = STRANGER
        # The handshake's last message is ours: it ends just after.
        connection = await alice.connect(behind(relay.node, bob))
        await connection.wait_closed()
        assert [each.remote_peer for each in bob.connections] == [relay.node.peer_id]
        relay.lie = None
        assert await alice.request(behind(relay.node, bob), ECHO, b"true") == b"true"


async def test_a_circuit_that_leads_to_another_peer_than_was_meant_is_refused():
    async with small_relay() as relay, Node(relays=relay.node.addresses) as bob, Node() as alice:
        await reserved(bob)
        # The relay leads to bob whoever is asked for.
        serve = relay.connect
        relay.connect = lambda stream, _: serve(stream, bob.peer_id)
        with pytest.raises(DialError, match="expected peer"):
            await alice.connect(f"{relay.node.addresses[0]}/p2p-circuit/p2p/{STRANGER}")


async def test_nobody_is_led_here_by_a_relay_that_was_not_asked_to():
    async with (
        small_relay() as relay,
        small_relay() as other,
        Node(relays=relay.node.addresses) as bob,
        Node() as alice,
    ):
        await reserved(bob)
        await bob.connect(other.node.addresses)
        other.reservations.append(bob.peer_id)
        with pytest.raises(DialError, match="does not serve this peer"):
            await alice.connect(behind(other.node, bob))


async def test_a_limit_counts_down_and_says_what_ended_the_circuit():
    async with small_relay() as relay:
        relay.limit = Limit(duration=120, data=10_000)
        async with Node(relays=relay.node.addresses) as bob, Node() as alice:
            await reserved(bob)
            bob.handle(ECHO, echo, allow_limited=True)
            events = alice.events()
            connection = await alice.connect(behind(relay.node, bob))
            limit = connection.limit
            before = limit.bytes_left
            assert 5000 < before < 10_000
            assert 0 < limit.seconds_left <= 120
            stream = await alice.open_stream(bob.peer_id, ECHO, allow_limited=True)
            async with stream:
                await stream.send(bytes(1000))
                while (left := limit.bytes_left) > before - 2000:
                    await stream.receive()
                assert left < before - 2000
                await stream.send(bytes(left))
                # The relay ends what has used up its bytes.
                (here,) = [each for each in bob.connections if each.remote_peer == alice.peer_id]
                while limit.bytes_left:
                    await anyio.lowlevel.checkpoint()
                for each in relay.node.connections:
                    if each.remote_peer == alice.peer_id:
                        await each.aclose()
            ended = await until(events, ConnectionEnded, peer=bob.peer_id)
            assert "bytes of a circuit" in ended.reason
            assert "the relay's own" in ended.reason
            assert here.limit is not None


async def test_ordinary_streams_wait_for_a_path_without_a_limit():
    async with small_relay() as relay:
        relay.limit = Limit()
        async with Node(listen=LOOPBACK, relays=relay.node.addresses) as bob, Node() as alice:
            await reserved(bob)
            bob.handle(ECHO, echo)
            bob.handle("/open/1", echo, allow_limited=True)
            circuit = behind(relay.node, bob)
            for _ in range(2):
                with pytest.raises(DialError, match="allow_limited"):
                    await alice.open_stream(circuit, ECHO)
            with pytest.raises(DialError, match="allow_limited"):
                await alice.open_stream(bob.peer_id, ECHO)
            # The circuit that stands is not made again.
            (limited,) = [each for each in alice.connections if each.remote_peer == bob.peer_id]
            assert limited.limit.bytes_left is None
            assert limited.limit.seconds_left is None
            async with await alice.open_stream(circuit, "/open/1", allow_limited=True) as stream:
                await stream.send(b"small")
                assert await stream.receive() == b"small"
            # The other side serves only what may run there.
            stream = await limited.open_stream()
            async with stream:
                await stream.send(b"\x13/multistream/1.0.0\n\x0c/echo/1.0.0\n")
                said = b""
                while b"na\n" not in said:
                    said += await stream.receive()
            direct = [each for each in bob.addresses if "p2p-circuit" not in each.names]
            assert await alice.request([circuit, *direct], ECHO, b"direct") == b"direct"


async def test_who_takes_limits_is_not_kept_waiting_by_who_does_not():
    async with small_relay() as relay:
        relay.limit = Limit()
        async with Node(relays=relay.node.addresses) as bob, Node() as alice:
            await reserved(bob)
            bob.handle(ECHO, echo, allow_limited=True)
            listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
            port = listener.extra(anyio.abc.SocketAttribute.local_port)
            silent = f"/ip4/127.0.0.1/tcp/{port}/p2p/{bob.peer_id}"
            both = [silent, behind(relay.node, bob)]
            async with listener, anyio.create_task_group() as tasks:
                tasks.start_soon(failing, alice, both)
                await anyio.wait_all_tasks_blocked()
                with anyio.fail_after(3):
                    connection = await alice.connect(both)
                assert connection.limit is not None
                tasks.cancel_scope.cancel()


async def test_a_direct_path_that_is_slower_than_the_circuit_is_waited_for():
    async with small_relay() as relay:
        relay.limit = Limit()
        async with (
            Node(listen=LOOPBACK, relays=relay.node.addresses) as bob,
            Node() as alice,
            anyio.create_task_group() as tasks,
        ):
            await reserved(bob)
            bob.handle(ECHO, echo)
            direct = next(each for each in bob.addresses if "p2p-circuit" not in each.names)
            gate = anyio.Event()
            port = await tasks.start(gated, direct.port, gate)
            slow = f"/ip4/127.0.0.1/tcp/{port}/p2p/{bob.peer_id}"
            events, got = alice.events(), []

            async def open_stream() -> None:
                got.append(await alice.open_stream([slow, behind(relay.node, bob)], ECHO))

            async with anyio.create_task_group() as opening:
                opening.start_soon(open_stream)
                opened = await until(events, ConnectionOpened, peer=bob.peer_id)
                assert opened.limited
                assert not got
                gate.set()
            assert got[0].connection.limit is None
            await got[0].aclose()
            tasks.cancel_scope.cancel()


async def gated(to: int, gate: anyio.Event, *, task_status) -> None:
    """Lead one TCP connection to another port, as soon as the gate is open."""
    async with await anyio.create_tcp_listener(local_host="127.0.0.1") as listener:

        async def lead(near) -> None:
            await gate.wait()
            async with near, await anyio.connect_tcp("127.0.0.1", to) as far:
                await splice(near, far)

        task_status.started(listener.extra(anyio.abc.SocketAttribute.local_port))
        await listener.serve(lead)


async def failing(node: Node, to: list[str]) -> None:
    with pytest.raises(DialError):
        await node.open_stream(to, ECHO)


@pytest.mark.parametrize("addresses", [True, False])
@pytest.mark.parametrize("voucher", ["good", None])
async def test_what_a_relay_may_leave_out(addresses, voucher):
    async with small_relay() as relay:
        relay.addresses, relay.voucher = addresses, voucher
        async with Node(relays=relay.node.addresses) as bob:
            told = await until(bob.events(), RelayReserved)
            assert [str(each) for each in told.addresses] == [
                f"{relay.node.addresses[0]}/p2p-circuit"
            ]


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"\x00",
        b"\xff\xff\xff\xff\x0f",
        HopMessage(HopType.RESERVE).frame(),
        HopMessage(HopType.STATUS, status=Status.OK).frame(),
    ],
)
async def test_an_answer_that_is_none_is_a_failure_and_is_asked_for_again(answer):
    async with small_relay() as relay:
        relay.answer = answer
        async with Node(relays=relay.node.addresses) as bob:
            with anyio.fail_after(5):
                while bob.relays[0].state != "waiting":
                    await anyio.lowlevel.checkpoint()
                relay.answer = None
                await until(bob.events(), RelayReserved)


async def test_a_voucher_of_another_is_no_reservation():
    async with small_relay() as relay:
        relay.voucher = b"forged"
        async with Node(relays=relay.node.addresses) as bob:
            with anyio.fail_after(5):
                while bob.relays[0].state != "waiting":
                    await anyio.lowlevel.checkpoint()
            assert bob.addresses == ()


async def test_a_relay_that_says_no_is_shown_and_asked_again():
    async with small_relay() as relay:
        relay.status = Status.RESOURCE_LIMIT_EXCEEDED
        async with Node(relays=relay.node.addresses) as bob:
            with anyio.fail_after(10):
                while bob.relays[0].state != "refused":
                    await anyio.lowlevel.checkpoint()
                (shown,) = bob.relays
                assert "a limit of it is reached" in shown.reason
                assert shown.until is None
                relay.status = Status.OK
                await until(bob.events(), RelayReserved)
                (shown,) = bob.relays
                assert shown.state == "reserved"
                assert shown.is_configured
                assert shown.to_json()["configured"] is True


async def test_a_relay_that_refused_and_then_went_is_asked_as_soon_as_it_is_back():
    async with small_relay() as relay, small_relay() as other:
        relay.status = Status.PERMISSION_DENIED
        async with Node(relays=[*other.node.addresses, *relay.node.addresses]) as bob:
            events = bob.events()
            # With another one it would be left alone for four seconds.
            await until(events, RelayReserved)
            while "refused" not in [each.state for each in bob.relays]:
                await until(events, RelayRefused)
            # One that refuses and closes the connection at once is not met so.
            with anyio.move_on_after(NEWS_INTERVAL + 0.1):
                await until(events, RelayReserved)
            relay.status = Status.OK
            with anyio.fail_after(1):
                for each in relay.node.connections:
                    await each.aclose()
                await until(events, RelayReserved)


async def test_a_relay_that_starts_again_gives_a_new_reservation():
    key = PrivateKey.from_seed(b"r" * 32)
    async with AsyncExitStack() as relays, AsyncExitStack() as nodes:
        relay = await relays.enter_async_context(small_relay(identity=key))
        address = relay.node.addresses[0]
        bob = await nodes.enter_async_context(Node(relays=address))
        events = bob.events()
        await until(events, RelayReserved)
        await relay.node._own.listeners[0].aclose()
        for each in relay.node.connections:
            await each.aclose()
        await until(events, RelayLost)
        assert (await until(events, AddressesChanged)).addresses == ()
        place = str(address.without_peer())
        again = await nodes.enter_async_context(Node(listen=place, identity=key))
        SmallRelay(again)
        with anyio.fail_after(2):
            await until(events, RelayReserved)
            assert (await until(events, AddressesChanged)).addresses


async def test_a_relay_that_is_met_is_used_if_that_is_wanted():
    config = NodeConfig(relays=RelaysConfig(discover=True))
    async with small_relay() as relay, Node(config=config) as bob, Node() as shy:
        events, shys = bob.events(), shy.events()
        assert bob.relays == ()
        await bob.connect(relay.node.addresses)
        await shy.connect(relay.node.addresses)
        await until(events, RelayReserved)
        assert not bob.relays[0].is_configured
        await until(shys, PeerIdentified)
        assert shy.relays == ()
        assert relay.reservations == [bob.peer_id]


async def test_listening_behind_one_relay_by_its_address():
    async with small_relay() as relay, small_relay() as other:
        address = f"{relay.node.addresses[0]}/p2p-circuit"
        async with Node(listen=address, relays=other.node.addresses) as bob, Node() as alice:
            events = bob.events()
            for _ in range(2):
                await until(events, RelayReserved)
            while len(bob.addresses) < 2:
                await until(events, AddressesChanged)
            bob.handle(ECHO, echo)
            for each in (relay.node, other.node):
                connection = await alice.connect(behind(each, bob), fresh=True)
                stream = await connection.open_stream()
                await stream.aclose()


async def test_a_stream_of_a_circuit_that_breaks_is_broken():
    async with small_relay() as relay, Node(relays=relay.node.addresses) as bob, Node() as alice:
        await reserved(bob)
        bob.handle(ECHO, echo)
        stream = await alice.open_stream(behind(relay.node, bob), ECHO)
        async with stream:
            await stream.send(b"1")
            await stream.receive()
            for each in relay.node.connections:
                await each.aclose()
            with pytest.raises(StreamReset):
                await stream.receive()


def test_addresses_of_relays_are_checked():
    from isthmus.relay.circuit.machine import MAX_CONFIGURED
    from isthmus.transports.core.errors import ConfigError

    with pytest.raises(ConfigError, match=r"relays\.via"):
        Node(relays="/ip4/192.0.2.1/tcp/1")
    many = [
        Multiaddr.parse("/ip4/192.0.2.1/tcp/1").with_peer(
            PeerId.from_public_key(PrivateKey.from_seed(bytes([n]) * 32).public_key)
        )
        for n in range(MAX_CONFIGURED + 1)
    ]
    with pytest.raises(ConfigError, match="relays"):
        Node(relays=many)


async def test_a_relay_is_asked_how_busy_it_is():
    config = NodeConfig(relay_server=RelayServerConfig(preset="public", reservations=4))
    async with (
        Node(listen=LOOPBACK, config=config) as relay,
        small_relay() as other,
        Node(relays=[*relay.addresses, *other.node.addresses]) as bob,
    ):
        events = bob.events()
        for _ in range(2):
            await until(events, RelayReserved)
        client = bob._relayed.client
        assert await client._load_of(relay.peer_id) == 0.25
        assert await client._load_of(other.node.peer_id) is None
        await client._look_at(relay.peer_id)
        assert 0 < client.relays.selection.cost(relay.peer_id) < 1
        assert client.relays.supervisor(relay.peer_id).round_trip > 0
