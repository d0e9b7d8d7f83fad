"""What a node tells of its addresses, seen by peers over real connections."""

from __future__ import annotations

import anyio
import pytest
from isthmus import Multiaddr, Node, NodeConfig
from isthmus.node.privacy import PrivacyConfig, told
from isthmus.node.protocols.identify import ID_PROTOCOL, IdentifyReader, agent_version
from isthmus.transports.core.envelope import PeerRecord
from isthmus.transports.core.errors import ConfigError
from isthmus.transports.core.interfaces import RawListener
from isthmus.transports.tcp import TcpTransport

RELAY = "p2p/12D3KooWGJAmQyRkvK6Cf7Jr3zhMmtLX2Q8d2hKS9sMLUFWEPTpo/p2p-circuit"
PRIVATE = (
    *("/ip4/127.0.0.1/tcp/1", "/ip6/::1/tcp/1", "/dns4/localhost/tcp/1", "/ip4/10.1.2.3/tcp/1"),
    *("/ip4/192.168.1.1/tcp/1/ws", "/ip4/169.254.1.1/tcp/1", "/ip4/100.64.1.1/tcp/1"),
    *("/ip6/fe80::1/tcp/1", "/ip6/fd00::1/tcp/1", "/ip6/::ffff:10.1.2.3/tcp/1"),
    *("/ip6/64:ff9b::a01:203/tcp/1", "/ip4/0.0.0.0/tcp/1", "/ip4/203.0.113.1/tcp/1"),
    *("/memory/1", "/unix/tmp%2Fa"),
)
PUBLIC = ("/ip4/8.8.4.4/tcp/1", "/ip6/2600::1/tcp/1/tls/ws", "/dns4/node.example/tcp/443/tls/ws")
RELAYED = f"/ip4/8.8.8.8/tcp/1/{RELAY}"
RELAYED_BY_NAME = f"/dns4/relay.example/tcp/1/{RELAY}"
RELAYED_NEARBY = f"/ip4/192.168.1.2/tcp/1/{RELAY}"
ALL = (*PRIVATE, *PUBLIC, RELAYED, RELAYED_BY_NAME, RELAYED_NEARBY)


def addresses(texts):
    return tuple(map(Multiaddr.parse, texts))


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ("all", ALL),
        ("public", (*PUBLIC, RELAYED, RELAYED_BY_NAME)),
        ("relay-only", (RELAYED, RELAYED_BY_NAME, RELAYED_NEARBY)),
    ],
)
def test_what_may_be_told(policy, expected):
    assert told(addresses(ALL), policy) == addresses(expected)


def test_another_policy_is_refused():
    with pytest.raises(ConfigError, match=r"privacy\.addresses is all, public or relay-only"):
        PrivacyConfig(addresses="none")


class ManyPlaces(TcpTransport):
    """TCP on loopback that says it can be reached at other places, too."""

    def __init__(self, places):
        super().__init__()
        self.places = list(addresses(places))
        self.changed = anyio.Event()

    async def listen_raw(self, addr):
        return ManyPlacesListener(await super().listen_raw(addr), self)


class ManyPlacesListener(RawListener):
    def __init__(self, inner, transport):
        self._inner = inner
        self._transport = transport

    @property
    def addresses(self):
        return (*self._inner.addresses, *self._transport.places)

    async def changes(self):
        await self._transport.changed.wait()
        yield None

    async def serve(self, handler):
        await self._inner.serve(handler)

    async def aclose(self):
        await self._inner.aclose()


def reachable(policy, *places):
    """Return a node that listens on loopback and claims to be at some places, too."""
    transport = ManyPlaces(places)
    config = NodeConfig(privacy=PrivacyConfig(addresses=policy))
    node = Node(listen="/ip4/127.0.0.1/tcp/0", transports=[transport], config=config)
    return node, transport


async def learnt(node, peer):
    """Return what a peer is told by identify: the addresses, and those of the signed record."""
    reader = IdentifyReader()
    async with await node.open_stream(peer.addresses, ID_PROTOCOL) as stream:
        while not reader.is_done:
            try:
                reader.receive_data(await stream.receive())
            except anyio.EndOfStream:
                reader.receive_eof()
    assert reader.message.agent_version == agent_version()
    record = PeerRecord.from_envelope(reader.message.signed_peer_record)
    return reader.message.listen_addrs, record.addresses


@pytest.mark.parametrize(
    ("policy", "expected"),
    [("public", (*PUBLIC, RELAYED)), ("relay-only", (RELAYED, RELAYED_NEARBY))],
)
async def test_identify_and_signed_records_tell_no_more_than_the_policy(policy, expected):
    # All but a wildcard, which stands for this machine's, and what no listener of TCP would have.
    private = [
        each for each in PRIVATE if each.startswith(("/ip", "/dns")) and "0.0.0.0" not in each
    ]
    claimed = (*private, *PUBLIC, RELAYED, RELAYED_NEARBY)
    node, _ = reachable(policy, *claimed)
    async with node, Node() as other:
        # Itself and its events know them all.
        assert len(node.addresses) == 1 + len(claimed)
        listened, signed = await learnt(other, node)
        assert listened == signed == addresses(expected)


async def test_all_is_the_default():
    node, _ = reachable("all", *PUBLIC, RELAYED)
    assert Node().config.privacy.addresses == "all"
    async with node, Node() as other:
        listened, signed = await learnt(other, node)
        own = node.addresses[0].without_peer()
        assert listened == signed == (own, *addresses((*PUBLIC, RELAYED)))


@pytest.mark.parametrize("policy", ["public", "relay-only"])
async def test_a_node_without_such_addresses_tells_none_and_is_reached(policy):
    node, _ = reachable(policy)
    async with node, Node() as other:
        assert await learnt(other, node) == ((), ())
        told = await other.identify(other.connections[0])
        # What the other side dialled it knows anyhow; it was not told.
        assert told.addresses == (node.addresses[0].without_peer(),)


async def test_a_push_of_changed_addresses_tells_no_more():
    node, transport = reachable("public")
    async with node, Node() as other:
        events = other.events()
        connection = await other.connect(node.addresses)
        await other.identify(connection)
        transport.places += addresses((PRIVATE[3], PUBLIC[0]))
        transport.changed.set()
        with anyio.fail_after(5):
            async for event in events:
                known = getattr(event, "addresses", ())
                assert Multiaddr.parse(PRIVATE[3]) not in known
                if Multiaddr.parse(PUBLIC[0]) in known:
                    break


@pytest.mark.parametrize(
    ("policy", "expected"), [("all", True), ("public", False), ("relay-only", False)]
)
async def test_the_lan_is_told_no_more(policy, expected):
    """What the announcement is made of; tests/lab/test_lan.py hears it."""
    config = NodeConfig(privacy=PrivacyConfig(addresses=policy))
    # Its interfaces are loopback's, which no other machine hears.
    node = Node(listen="/ip4/127.0.0.1/tcp/0", lan=True, config=config)
    discovery = node._discovery._lan
    discovery._interfaces = lambda: ()
    async with node:
        assert bool(tuple(discovery._addresses())) is expected
