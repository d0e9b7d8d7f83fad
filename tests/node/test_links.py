"""Peers that are lost and come back: over memory, by a virtual clock; and a killed process."""

from __future__ import annotations

from contextlib import asynccontextmanager
from random import Random

import anyio
import anyio.to_thread
import pytest
from isthmus import Node, NodeConfig
from isthmus.node.events import LinkChanged, PeerOffline, PeerOnline
from isthmus.node.link import LinkState
from isthmus.node.links import Links
from isthmus.node.reconnect import ReconnectPolicy
from isthmus.transports.core.errors import AddressError, unwrap_group
from isthmus.transports.core.keys import PrivateKey
from isthmus.transports.core.peer_id import PeerId
from isthmus.transports.memory.network import MemoryNetwork
from isthmus.transports.memory.stream import MemoryTransport
from trio.testing import MockClock

AT = "/memory/1"
PATIENCE = 3600
"""Virtual seconds; without an end a clock that jumps would go on for ever."""
BOB = PrivateKey.from_seed(b"b" * 32)
BOB_ID = PeerId.from_public_key(BOB.public_key)


@pytest.fixture
def anyio_backend():
    return ("trio", {"clock": MockClock(autojump_threshold=0)})


class World:
    """A network where Bob can be started and killed."""

    def __init__(self) -> None:
        self.network = MemoryNetwork()
        self._tasks: anyio.abc.TaskGroup
        self._life = anyio.CancelScope()

    def node(self, **options) -> Node:
        return Node(transports=[MemoryTransport(self.network)], **options)

    async def start(self) -> None:
        """Have Bob listen."""
        started, self._dead = anyio.Event(), anyio.Event()

        async def live() -> None:
            with anyio.CancelScope() as self._life:
                async with self.node(identity=BOB, listen=AT) as self.bob:
                    started.set()
                    await anyio.sleep_forever()
            self._dead.set()

        self._tasks.start_soon(live)
        await started.wait()

    async def kill(self) -> None:
        """Take Bob away without a word."""
        self.network.break_links()
        self._life.cancel()
        await self._dead.wait()


@asynccontextmanager
async def world():
    made = World()
    with unwrap_group():
        async with anyio.create_task_group() as made._tasks:
            yield made
            made._tasks.cancel_scope.cancel()


async def reach(link, state) -> float:
    """Wait until a link is in a state and return when that was."""
    reached = anyio.Event()
    stop = link.on_state(lambda _, change: change.state is state and reached.set())
    if link.state is not state:
        with anyio.fail_after(PATIENCE):
            await reached.wait()
    stop()
    return anyio.current_time()


@pytest.mark.parametrize(("away", "patience"), [(2, 1.0), (10, 1.0), (50, 1.0), (300, 40.0)])
async def test_a_kept_peer_is_connected_soon_after_it_is_back(away, patience):
    draw, times = Random(away), []
    async with world() as it, it.node() as alice:
        await it.start()
        link = alice.keep(it.bob.addresses)
        await reach(link, LinkState.CONNECTED)
        for _ in range(20):
            await it.kill()
            await reach(link, LinkState.RECONNECTING)
            await anyio.sleep(away * (1 + draw.random() / 10))
            await it.start()
            begin = anyio.current_time()
            times.append(await reach(link, LinkState.CONNECTED) - begin)
    print(f"\naway for {away} s: connected after at most {max(times):.3f} s")  # noqa: T201
    assert max(times) < patience
    assert len(set(times)) > 10


async def test_presence_is_told_of_kept_peers_alone():
    async with world() as it, it.node() as alice:
        reader = alice.events()
        await it.start()
        await alice.connect(it.bob.addresses)
        link = alice.keep(BOB_ID)
        assert link is alice.links.get(BOB_ID)
        await it.kill()
        await reach(link, LinkState.RECONNECTING)
        await it.start()
        await reach(link, LinkState.CONNECTED)
        alice.forget(BOB_ID)
        assert link.state is LinkState.CLOSED
        assert alice.links.get(BOB_ID) is None
        assert alice.peers.addresses(BOB_ID) == ()
    told = [each async for each in reader if isinstance(each, (PeerOnline, PeerOffline))]
    assert [type(each) for each in told] == [PeerOnline, PeerOffline, PeerOnline, PeerOffline]


async def test_who_is_not_kept_is_given_up_with_a_report():
    policy = ReconnectPolicy(max_attempts=3)
    async with world() as it, it.node(config=NodeConfig(reconnect=policy)) as alice:
        reader = alice.events()
        await it.start()
        await alice.connect(it.bob.addresses)
        link = alice.links.get(BOB_ID)
        await it.kill()
        await reach(link, LinkState.FAILED)
        assert AT in link.reason
        report = alice.why(BOB_ID)
        assert [str(each.address) for each in report.steps] == [AT]
        assert report.error == link.reason
        await it.start()
        await anyio.sleep(1000)
        assert link.state is LinkState.FAILED
    changes = [each.state async for each in reader if isinstance(each, LinkChanged)]
    assert changes == [
        LinkState.CONNECTING,
        LinkState.CONNECTED,
        LinkState.RECONNECTING,
        LinkState.FAILED,
    ]


async def test_a_peer_that_leaves_in_order_is_not_run_after():
    async with world() as it, it.node() as alice:
        await it.start()
        connection = await alice.connect(it.bob.addresses)
        link = alice.links.get(BOB_ID)
        await connection.aclose()
        await reach(link, LinkState.DISCONNECTED)
        await anyio.sleep(1000)
        assert link.state is LinkState.DISCONNECTED
        # Nor does the side that was dialled run after one whose path broke.
        other = it.bob.links.get(alice.peer_id)
        await alice.connect(it.bob.addresses)
        it.network.break_links()
        await reach(other, LinkState.DISCONNECTED)
        assert await reach(link, LinkState.CONNECTED)


async def test_a_peer_that_comes_in_ends_the_attempts():
    async with world() as it, it.node(listen="/memory/2") as alice:
        await it.start()
        link = alice.keep(it.bob.addresses)
        await reach(link, LinkState.CONNECTED)
        await it.kill()
        await anyio.sleep(500)
        assert link.state is LinkState.RECONNECTING
        async with it.node(identity=BOB) as bob:
            await bob.connect(alice.addresses)
            begin = anyio.current_time()
            assert await reach(link, LinkState.CONNECTED) - begin < 0.01


async def test_news_of_a_peer_has_it_dialled_at_once():
    async with world() as it, it.node() as alice:
        await it.start()
        link = alice.keep(it.bob.addresses)
        await reach(link, LinkState.CONNECTED)
        await it.kill()
        await anyio.sleep(500)
        await it.start()
        begin = anyio.current_time()
        alice.links.news(BOB_ID)
        assert await reach(link, LinkState.CONNECTED) - begin < 0.1


async def test_a_peer_that_is_kept_before_the_start_is_dialled_at_the_start():
    async with world() as it:
        await it.start()
        address = it.bob.addresses
        alice = await anyio.to_thread.run_sync(it.node)
        link = await anyio.to_thread.run_sync(alice.keep, address)
        assert link.state is LinkState.DISCONNECTED
        async with alice:
            assert await reach(link, LinkState.CONNECTED) - anyio.current_time() < 0.01


async def test_who_is_to_be_kept_needs_a_name():
    async with world() as it, it.node() as alice:
        with pytest.raises(AddressError, match="its id is needed"):
            alice.keep(AT)
        alice.forget(BOB_ID)


async def test_links_at_rest_make_room_and_those_in_use_stay():
    table = Links(policy=ReconnectPolicy(), publish=lambda _: None, connect=None, max_links=3)
    peers = [
        PeerId.from_public_key(PrivateKey.from_seed(bytes([number]) * 32).public_key)
        for number in range(5)
    ]
    for peer in peers[:4]:
        table.connected(peer, "")
    assert len(table) == 4
    table.ended(peers[1], "it has left", broke=False, was_dialled=True)
    table.keep(peers[0])
    table.connected(peers[4], "")
    assert [link.peer for link in table] == [peers[2], peers[3], peers[0], peers[4]]
