"""The contract suite itself: it passes what is right and names what is wrong."""

from __future__ import annotations

import subprocess
import sys
from contextlib import asynccontextmanager

import anyio
import pytest
from isthmus.transports.core.errors import LocalProtocolError
from isthmus.transports.core.interfaces import Host
from isthmus.transports.core.multiaddr import Multiaddr
from isthmus.transports.memory.network import MemoryNetwork
from isthmus.transports.memory.plain import PlainMemoryTransport
from isthmus.transports.memory.settings import LinkSettings
from isthmus.transports.testing import contract
from isthmus.transports.testing.contract import (
    CONNECTION_CONTRACT,
    LISTENER_CONTRACT,
    STREAM_CONTRACT,
    TRANSPORT_CONTRACT,
    run_check,
    run_contract,
)
from isthmus.transports.testing.pair import ContractBroken, TestHost, expect_raises, make_pair
from trio.testing import MockClock


@pytest.fixture
def anyio_backend():
    return "trio", {"clock": MockClock(autojump_threshold=0)}


@asynccontextmanager
async def memory_pair():
    network = MemoryNetwork(settings=LinkSettings(delay=0.001))
    transports = PlainMemoryTransport(network), PlainMemoryTransport(network)
    address = Multiaddr.parse("/memory/0")
    async with make_pair(*transports, address, accepts_as_dialer=True) as pair:
        yield pair


class Deceiver(PlainMemoryTransport):
    """Claims every address."""

    def can_dial(self, addr):
        return True


@asynccontextmanager
async def deceiving_pair():
    network = MemoryNetwork()
    async with make_pair(Deceiver(network), Deceiver(network), Multiaddr.parse("/memory/0")) as it:
        yield it


async def test_plugin_authors_run_it_all():
    passed = await run_contract(memory_pair)
    assert passed == [check.__name__ for check in TRANSPORT_CONTRACT]


def test_no_check_is_left_out():
    parts = (STREAM_CONTRACT, CONNECTION_CONTRACT, LISTENER_CONTRACT)
    assert min(map(len, parts)) >= 10
    assert sum(map(len, parts)) == len(TRANSPORT_CONTRACT) == len(set(TRANSPORT_CONTRACT))
    assert all(check.__doc__ for check in TRANSPORT_CONTRACT)


async def test_a_breach_is_named():
    with pytest.raises(ContractBroken, match="cannot be dialled") as caught:
        await run_contract(deceiving_pair, LISTENER_CONTRACT)
    assert caught.value.__notes__ == ["in the contract's check_transport_claims_addresses"]


async def test_a_check_that_hangs_is_named():
    async def check_nothing(_):
        await anyio.sleep_forever()

    with pytest.raises(ContractBroken, match=r"check_nothing did not end within 15 s"):
        await run_check(check_nothing, memory_pair)


@pytest.mark.parametrize(
    ("kinds", "text"),
    [
        (ValueError, "ValueError in time; nothing"),
        ((KeyError, ValueError), "KeyError or ValueError"),
    ],
)
def test_expectations_fail(kinds, text):
    with pytest.raises(ContractBroken, match=text), expect_raises(kinds, "in time"):
        pass


async def test_host_is_a_host_that_serves_nothing():
    host = TestHost()
    assert isinstance(host, Host)
    host.handle("/x/1", anyio.sleep_forever)
    assert list(host.handlers) == ["/x/1"]
    with pytest.raises(LocalProtocolError):
        await host.open_stream(host.peer_id, "/x/1")
    with pytest.raises(LocalProtocolError):
        await host.connect(Multiaddr.parse("/memory/1"))


def test_needs_no_test_framework():
    program = f"import sys, {contract.__name__}; sys.exit('pytest' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False, timeout=15).returncode == 0
