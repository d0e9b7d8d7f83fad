"""The DHT that go- and js-libp2p serve: this node finds on it, and is found."""

from __future__ import annotations

import itertools
from contextlib import AsyncExitStack, asynccontextmanager

import anyio
import pytest
from isthmus import Node, NodeConfig
from isthmus.benchmarks.peers.control import launch
from isthmus.benchmarks.peers.errors import PeerUnavailable
from isthmus.benchmarks.peers.install import argv_of
from isthmus.node.events import ProvidingFailed, ServiceProvided
from isthmus.relay.kad.config import KadConfig
from isthmus.transports.core.errors import DialError
from isthmus.transports.core.multiaddr import Multiaddr

from .test_libp2p import _unavailable

PROGRAMS = ("go", "js")
PROTOCOLS = ("/ipfs/kad/1.0.0", "/ipfs/lan/kad/1.0.0")
LOOPBACK = "/ip4/127.0.0.1/tcp/0"


@pytest.fixture(autouse=True, scope="module")
def installed() -> None:
    """Install the peers before the tests' time begins to run."""
    try:
        for program in PROGRAMS:
            argv_of(program)
    except PeerUnavailable as missing:
        _unavailable(missing)


@asynccontextmanager
async def servers(*programs, protocol=PROTOCOLS[0]):
    """Start servers of one DHT, each of which knows the one before it."""
    async with AsyncExitStack() as stack:
        started = []
        for program in programs:
            peer = await stack.enter_async_context(launch(program, arguments=("--kad", protocol)))
            if started:
                await peer.call("join", address=started[-1].address, timeout=10)
            started.append(peer)
        yield started


def asking(server, *, listen=(), protocol=PROTOCOLS[0], provide=()):
    dht = KadConfig(
        bootstrap=(Multiaddr.parse(server.address),), protocol=protocol, provide=provide
    )
    return Node(listen=listen, config=NodeConfig(dht=dht))


async def provided(events):
    """Wait until the DHT has been told of a service."""
    with anyio.fail_after(15):
        async for event in events:
            assert not isinstance(event, ProvidingFailed), event
            if isinstance(event, ServiceProvided):
                return event
    raise AssertionError("the node has stopped")


@pytest.mark.parametrize(
    ("programs", "protocol"),
    [
        (("go", "go"), PROTOCOLS[0]),
        (("go", "js"), PROTOCOLS[0]),
        (("js", "go"), PROTOCOLS[1]),
        (("js", "js"), PROTOCOLS[1]),
    ],
)
async def test_a_service_is_found_at_a_server_that_was_not_named(programs, protocol):
    async with servers(*programs, protocol=protocol) as (first, second):
        await second.call("provide", service="chat", timeout=10)
        async with asking(first, protocol=protocol) as node:
            (found,) = await node.find_peers("chat")
            assert str(found.peer) == second.peer_id
            assert second.address in map(str, found.addresses)
            # The claim is proven.
            connection = await node.connect(found.addresses)
            assert connection.remote_peer == found.peer
            assert await node.find_peers("another") == []


async def test_some_steps_away_past_a_server_that_is_gone():
    gone = "/ip4/127.0.0.1/tcp/1/p2p/12D3KooWGJAmQyRkvK6Cf7Jr3zhMmtLX2Q8d2hKS9sMLUFWEPTpo"
    async with servers("go", "js", "go", "js", "go") as started:
        await started[-1].call("provide", service="chat", timeout=10)
        given = (Multiaddr.parse(gone), Multiaddr.parse(started[0].address))
        async with Node(config=NodeConfig(dht=KadConfig(bootstrap=given))) as node:
            (found,) = await node.find_peers("chat")
            assert str(found.peer) == started[-1].peer_id
            assert (await node.connect(found.peer)).remote_peer == found.peer


@pytest.mark.parametrize("program", PROGRAMS)
async def test_a_server_keeps_what_it_is_told(program):
    async with (
        servers(program) as (server,),
        asking(server, listen=LOOPBACK, provide=("chat",)) as alice,
        asking(server) as bob,
    ):
        assert (await provided(alice.events())).servers == 1
        (found,) = await bob.find_peers("chat")
        assert (found.peer, found.addresses) == (alice.peer_id, alice.addresses)


@pytest.mark.parametrize("program", PROGRAMS)
async def test_a_peer_that_serves_no_dht_is_no_server_of_it(program):
    async with launch(program) as other, asking(other, listen=LOOPBACK, provide=("chat",)) as node:
        with pytest.raises(DialError, match="no server of the DHT answers"):
            await node.find_peers("chat")


@pytest.mark.parametrize("program", PROGRAMS)
async def test_a_server_of_another_dht_is_none_of_this(program):
    async with (
        servers(program, protocol=PROTOCOLS[1]) as (server,),
        asking(server, protocol=PROTOCOLS[0]) as node,
    ):
        with pytest.raises(DialError, match="no server of the DHT answers"):
            await node.find_peers("chat")


@pytest.mark.parametrize("program", PROGRAMS)
async def test_a_server_takes_this_node_for_no_server(program):
    """It would name this node to others, who would ask it in vain."""
    async with servers(program) as (server,), asking(server, listen=LOOPBACK) as node:
        await node.find_peers("chat")
        assert KadConfig().protocol not in node.protocols
        if program == "go":
            assert (await server.call("known"))["peers"] == []


@pytest.mark.parametrize("programs", list(itertools.product(PROGRAMS, repeat=2)))
async def test_foreigners_find_what_this_node_provides(programs):
    async with (
        servers(*programs) as (first, second),
        asking(first, listen=LOOPBACK, provide=("chat",)) as node,
    ):
        events = node.events()
        node.provide("files")
        assert {(await provided(events)).service for _ in range(2)} == {"chat", "files"}
        for service in ("chat", "files"):
            for server in (first, second):
                (found,) = (await server.call("find", service=service, timeout=10))["peers"]
                assert found["peer_id"] == str(node.peer_id)
                assert [f"{each}/p2p/{node.peer_id}" for each in found["addresses"]] == [
                    str(each) for each in node.addresses
                ]
