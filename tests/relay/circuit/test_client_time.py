"""The client over hours, on a virtual clock (trio's MockClock): renewal, silence, news."""

from __future__ import annotations

from contextlib import asynccontextmanager
from itertools import pairwise
from typing import TYPE_CHECKING

import anyio
import pytest
import trio.testing
from isthmus.relay.circuit.client import CHECK_INTERVAL, CHECK_TIME, RelayClient
from isthmus.relay.circuit.client_config import RelaysConfig
from isthmus.relay.circuit.info import INFO_PROTOCOL
from isthmus.relay.circuit.wire import HopMessage, HopType, Reservation, Status
from isthmus.transports.core.errors import DialError, NegotiationError
from isthmus.transports.core.interfaces import Side
from isthmus.transports.core.keys import PrivateKey
from isthmus.transports.core.multiaddr import Multiaddr
from isthmus.transports.core.peer_id import PeerId

from ...sim.fakes import FakeConnection

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

OWN, *RELAYS = (
    PeerId.from_public_key(PrivateKey.from_seed(bytes([n]) * 32).public_key) for n in range(1, 6)
)
LATENCY = 0.02


@pytest.fixture
def anyio_backend():
    return "trio", {"clock": trio.testing.MockClock(autojump_threshold=0)}


def address(relay: PeerId) -> Multiaddr:
    return Multiaddr.parse(f"/ip4/8.8.{RELAYS.index(relay)}.8/tcp/1").with_peer(relay)


class Wire(FakeConnection):
    """A connection to a relay that answers a probe, unless it has gone silent."""

    is_silent = False

    async def probe(self) -> float:
        if self.is_silent:
            await anyio.sleep_forever()
        await anyio.sleep(LATENCY)
        return LATENCY


class Answer:
    """The stream on which one reservation is asked for."""

    def __init__(self, connection: Wire, answer: bytes) -> None:
        self.connection = connection
        self._answer = answer

    async def __aenter__(self) -> Answer:
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    async def send(self, item: bytes) -> None:
        pass

    async def send_eof(self) -> None:
        pass

    def unread(self, data: bytes) -> None:
        assert not data

    async def receive(self) -> bytes:
        if self.connection.is_silent:
            await self.connection.wait_closed()
            raise anyio.BrokenResourceError
        await anyio.sleep(LATENCY)
        return self._answer


class Network:
    """The table of connections and the host in one, with relays that are there or not."""

    peer_id = OWN

    def __init__(self) -> None:
        self.connections: dict[PeerId, Wire] = {}
        self.away: set[PeerId] = set()
        self.ttl = 3600
        self.asked: list[tuple[float, PeerId]] = []
        self.held: list[Wire] = []
        self.abandoned: list[Wire] = []
        self.dials = 0

    async def connect(self, relay: PeerId, addresses: tuple[Multiaddr, ...]) -> Wire:
        if relay in self.connections:
            return self.connections[relay]
        self.dials += 1
        if relay in self.away:
            raise DialError("nothing listens there")
        await anyio.sleep(LATENCY)
        self.connections[relay] = Wire(relay, addresses[0], side=Side.DIALER)
        return self.connections[relay]

    async def open_stream(self, relay: PeerId, protocol: str) -> Answer:
        if protocol == INFO_PROTOCOL:
            raise NegotiationError((protocol,), "na")
        now = anyio.current_time()
        self.asked.append((now, relay))
        reservation = Reservation(int(now + self.ttl) + 1)
        answer = HopMessage(HopType.STATUS, reservation=reservation, status=Status.OK)
        return Answer(self.connections[relay], answer.frame())

    def best(self, relay: PeerId) -> Wire | None:
        return self.connections.get(relay)

    def known(self, relay: PeerId) -> tuple[Multiaddr, ...]:
        return ()

    def hold(self, connection: Wire) -> None:
        self.held.append(connection)

    def release(self, connection: Wire) -> None:
        self.held.remove(connection)

    def abandon(self, connection: Wire) -> None:
        self.abandoned.append(connection)
        self.drop(connection)

    def drop(self, connection: Wire) -> None:
        if self.connections.get(connection.remote_peer) is connection:
            del self.connections[connection.remote_peer]
        connection.fail()


@asynccontextmanager
async def running(*relays: PeerId, **options) -> AsyncIterator[tuple[RelayClient, Network, list]]:
    network, told = Network(), []
    config = RelaysConfig(via=tuple(map(address, relays)), **options)
    client = RelayClient(
        config,
        network,
        on_reserved=lambda held: told.append(("reserved", held.relay)),
        on_lost=lambda relay, reason: told.append(("lost", relay)),
        draw=lambda: 0.0,
        wall_clock=anyio.current_time,
    )
    client.attach(network)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(client.run)
        await anyio.sleep(1)
        yield client, network, told
        tasks.cancel_scope.cancel()


async def test_a_reservation_is_renewed_for_days_and_told_once(scaled):
    days = scaled(10)
    async with running(RELAYS[0]) as (client, network, told):
        await anyio.sleep(days * 86_400)
        assert told == [("reserved", RELAYS[0])]
        assert client.holds(RELAYS[0])
        times = [time for time, _ in network.asked]
        gaps = [late - early for early, late in pairwise(times)]
        assert all(gap == pytest.approx(2700, abs=2) for gap in gaps)
        assert len(gaps) == 32 * days - 1
        assert network.dials == 1
        assert network.held == [network.connections[RELAYS[0]]]


async def test_a_relay_that_falls_silent_is_noticed_and_left():
    async with running(RELAYS[0], RELAYS[1]) as (client, network, told):
        await anyio.sleep(20)
        silent = network.connections[RELAYS[0]]
        silent.is_silent = True
        network.away.add(RELAYS[0])
        await anyio.sleep(CHECK_INTERVAL + CHECK_TIME + 0.1)
        assert network.abandoned == [silent]
        assert not client.holds(RELAYS[0])
        assert [str(each) for each in client.announced()] == [
            str(address(RELAYS[1])) + "/p2p-circuit"
        ]
        assert network.held == [network.connections[RELAYS[1]]]
        network.away.clear()
        await anyio.sleep(1)
        assert client.holds(RELAYS[0])
        assert told[2:] == [("lost", RELAYS[0]), ("reserved", RELAYS[0])]


async def test_a_change_of_the_network_is_a_reason_to_look_at_once():
    async with running(RELAYS[0]) as (client, network, _):
        await anyio.sleep(5)
        network.connections[RELAYS[0]].is_silent = True
        client.network_changed()
        await anyio.sleep(1.2)
        assert client.holds(RELAYS[0])
        assert len(network.abandoned) == 1
        assert network.dials == 2


async def test_a_change_of_the_network_leaves_what_answers():
    async with running(RELAYS[0]) as (client, network, told):
        await anyio.sleep(5)
        client.network_changed()
        await anyio.sleep(5)
        assert network.abandoned == []
        assert told == [("reserved", RELAYS[0])]


async def test_a_connection_that_was_silent_before_it_was_asked_is_left_too():
    async with running() as (client, network, _):
        await network.connect(RELAYS[0], (address(RELAYS[0]),))
        network.connections[RELAYS[0]].is_silent = True
        client.use(RELAYS[0], [address(RELAYS[0]).without_peer()])
        await anyio.sleep(10 + CHECK_TIME + 1)
        assert len(network.abandoned) == 1
        assert client.holds(RELAYS[0])


async def test_a_better_connection_carries_the_next_reservation():
    async with running(RELAYS[0]) as (client, network, told):
        await anyio.sleep(5)
        old = network.connections.pop(RELAYS[0])
        new = await network.connect(RELAYS[0], (Multiaddr.parse("/ip4/8.8.0.8/tcp/1"),))
        client.connected(RELAYS[0])
        await anyio.sleep(1)
        assert network.held == [new]
        old.fail()
        await anyio.sleep(1)
        assert told == [("reserved", RELAYS[0])]
        client.connected(RELAYS[2])  # a peer that is no relay


async def test_a_connection_that_is_left_while_the_relay_is_asked_is_left_by_the_reservation():
    async with running() as (client, network, told):
        client.use(RELAYS[0], [address(RELAYS[0]).without_peer()])
        await anyio.sleep(1.5 * LATENCY)
        old = network.connections[RELAYS[0]]
        new = network.connections[RELAYS[0]] = Wire(RELAYS[0], old.remote_addr, side=Side.DIALER)
        await anyio.sleep(1)
        assert network.held == [new]
        old.fail()
        await anyio.sleep(1)
        assert told == [("reserved", RELAYS[0])]


async def test_a_relay_that_was_away_is_tried_at_once_when_it_shows_itself():
    async with running(RELAYS[0]) as (client, network, _):
        network.away.add(RELAYS[0])
        network.drop(network.connections[RELAYS[0]])
        await anyio.sleep(600)
        dials = network.dials
        network.away.clear()
        await network.connect(RELAYS[0], (Multiaddr.parse("/ip4/8.8.0.8/tcp/1"),))
        client.connected(RELAYS[0])
        await anyio.sleep(0.1)
        assert client.holds(RELAYS[0])
        assert network.dials == dials + 1


async def test_of_three_one_rests_and_takes_over():
    async with running(*RELAYS[:3]) as (client, network, _):
        await anyio.sleep(5)
        held = [each.relay for each in client.held]
        assert len(held) == 2
        network.away.add(held[0])
        network.drop(network.connections[held[0]])
        await anyio.sleep(1)
        (third,) = set(RELAYS[:3]) - set(held)
        assert client.holds(third)
        network.away.clear()
        await anyio.sleep(100)
        assert [each.relay for each in client.held] == [held[1], third]


async def test_relays_that_are_met_are_used_only_if_that_is_wanted():
    async with running() as (client, _, _):
        client.found(RELAYS[0], [address(RELAYS[0]).without_peer()])
        await anyio.sleep(5)
        assert client.held == ()
    async with running(discover=True) as (client, _, _):
        for relay in RELAYS[:3]:
            client.found(relay, [Multiaddr.parse(f"/ip4/9.{RELAYS.index(relay)}.1.1/tcp/1")])
        await anyio.sleep(5)
        assert len(client.held) == 2


async def test_a_relay_that_has_become_better_is_taken_after_a_while():
    async with running(*RELAYS[:3], wanted=1) as (client, network, told):
        (first,) = (each.relay for each in client.held)
        network.connections[first].probe = far
        await anyio.sleep(1300)
        (now,) = (each.relay for each in client.held)
        assert now != first
        # The new one was reserved before the old one was let go of.
        assert told[-2:] == [("reserved", now), ("lost", first)]


async def far() -> float:
    await anyio.sleep(0.5)
    return 0.5
