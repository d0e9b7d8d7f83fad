"""Every transport keeps the contract."""

from __future__ import annotations

from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import pytest
import trio.testing
from isthmus.transports.core.multiaddr import Multiaddr
from isthmus.transports.memory.network import MemoryNetwork
from isthmus.transports.memory.plain import PlainMemoryTransport
from isthmus.transports.memory.settings import LinkSettings
from isthmus.transports.memory.stream import MemoryTransport
from isthmus.transports.tcp import TcpTransport
from isthmus.transports.testing.contract import TRANSPORT_CONTRACT, run_check
from isthmus.transports.testing.pair import make_pair
from isthmus.transports.upgrade import Upgraded
from isthmus.transports.websocket.config import WebSocketConfig
from isthmus.transports.websocket.transport import WebSocketTransport

from ..transports.websocket.authority import Authority

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from anyio.abc import ByteStream
    from isthmus.transports.testing.pair import TransportPair

POOR = LinkSettings(delay=0.002, jitter=0.002, rate=50e6, loss=0.002, reorder=0.01)


@asynccontextmanager
async def plain_memory() -> AsyncIterator[TransportPair]:
    network = MemoryNetwork()
    transports = PlainMemoryTransport(network), PlainMemoryTransport(network)
    address = Multiaddr.parse("/memory/0")
    async with make_pair(*transports, address, accepts_as_dialer=True) as pair:
        yield pair


@asynccontextmanager
async def upgraded_memory() -> AsyncIterator[TransportPair]:
    async with upgraded_over(MemoryNetwork()) as pair:
        yield pair


@asynccontextmanager
async def poor_memory() -> AsyncIterator[TransportPair]:
    async with upgraded_over(MemoryNetwork(settings=POOR)) as pair:
        yield pair


@asynccontextmanager
async def upgraded_over(network: MemoryNetwork) -> AsyncIterator[TransportPair]:
    raw = MemoryTransport(network)
    transports = Upgraded(raw), Upgraded(MemoryTransport(network))
    address = Multiaddr.parse("/memory/0")
    async with make_pair(*transports, address, intrude=raw.dial_raw) as pair:
        yield pair


@asynccontextmanager
async def tcp() -> AsyncIterator[TransportPair]:
    raw = TcpTransport()
    transports = Upgraded(raw), Upgraded(TcpTransport())
    address = Multiaddr.parse("/ip4/127.0.0.1/tcp/0")
    async with make_pair(*transports, address, intrude=raw.dial_raw) as pair:
        yield pair


@asynccontextmanager
async def websocket() -> AsyncIterator[TransportPair]:
    transports = Upgraded(WebSocketTransport()), Upgraded(WebSocketTransport())
    address = Multiaddr.parse("/ip4/127.0.0.1/tcp/0/ws")
    async with make_pair(*transports, address, intrude=below) as pair:
        yield pair


@asynccontextmanager
async def secure_websocket() -> AsyncIterator[TransportPair]:
    with TemporaryDirectory() as folder:
        authority = Authority(Path(folder))
        files = authority.issue()
        transports = (
            Upgraded(WebSocketTransport(WebSocketConfig(ca_file=authority.ca_file))),
            Upgraded(
                WebSocketTransport(
                    WebSocketConfig(cert_file=files.cert_file, key_file=files.key_file)
                )
            ),
        )
        address = Multiaddr.parse("/ip4/127.0.0.1/tcp/0/tls/ws")
        async with make_pair(*transports, address, intrude=below) as pair:
            yield pair


async def below(address: Multiaddr) -> ByteStream:
    """Connect by TCP to where a WebSocket is expected."""
    return await TcpTransport().dial_raw(Multiaddr(address.components[:2]))


FACTORIES = [
    plain_memory,
    upgraded_memory,
    tcp,
    websocket,
    # What TLS adds is below all that the contract asks; tests/transports/websocket looks at it.
    pytest.param(secure_websocket, marks=pytest.mark.slow),
]


@pytest.mark.parametrize("check", TRANSPORT_CONTRACT, ids=lambda each: each.__name__[6:])
@pytest.mark.parametrize("factory", FACTORIES)
async def test_contract(factory, check):
    await run_check(check, factory)


@pytest.mark.parametrize("check", TRANSPORT_CONTRACT, ids=lambda each: each.__name__[6:])
@pytest.mark.parametrize(
    "anyio_backend",
    [
        pytest.param("asyncio", marks=pytest.mark.slow),
        # By a virtual clock, which takes none of the time that a poor link does.
        pytest.param(("trio", {"clock": trio.testing.MockClock(autojump_threshold=0)}), id="trio"),
    ],
)
async def test_contract_over_a_poor_link(check):
    await run_check(check, poor_memory)
