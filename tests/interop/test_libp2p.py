"""Every case, in both directions of dial, with every peer program, on asyncio and on trio."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import pytest
from isthmus.benchmarks.peers.control import Peer, launch
from isthmus.benchmarks.peers.errors import PeerFailed, PeerUnavailable
from isthmus.benchmarks.peers.install import argv_of
from isthmus.transports.core.keys import PrivateKey
from isthmus.transports.core.peer_id import PeerId

PROGRAMS = ("js", "py", "go", "rust")
BACKENDS = ("asyncio", "trio")
DIRECTIONS = ("dials us", "is dialled")
MIB = 1 << 20

Case = Callable[[Peer, str], Awaitable[None]]


async def identify(dialer: Peer, address: str) -> None:
    told = await dialer.call("identify", address=address)
    assert told["peer_id"] == address.rpartition("/")[2]
    assert told["agent"]
    assert {"/ipfs/id/1.0.0", "/ipfs/ping/1.0.0", "/echo/1.0.0"} <= set(told["protocols"])
    assert any("/tcp/" in text for text in told["listen_addresses"])
    assert told["observed_address"].startswith("/ip4/127.0.0.1/tcp/")


async def ping(dialer: Peer, address: str) -> None:
    told = await dialer.call("ping", address=address, count=5)
    assert len(told["rtt_ms"]) == 5
    assert max(told["rtt_ms"]) < 5000


async def echo_10_mb(dialer: Peer, address: str) -> None:
    told = await dialer.call("echo", address=address, bytes=10_000_000, seed=7)
    assert told["bytes"] == 10_000_000


async def half_close(dialer: Peer, address: str) -> None:
    told = await dialer.call("half_close", address=address, bytes=MIB, seed=3)
    assert told["matches"] is True


async def reset_by_listener(dialer: Peer, address: str) -> None:
    assert (await dialer.call("reset_remote", address=address))["reset"] is True


async def reset_by_dialer(dialer: Peer, address: str) -> None:
    assert (await dialer.call("reset_local", address=address))["ok"] is True


async def streams_500(dialer: Peer, address: str) -> None:
    told = await dialer.call("streams", address=address, count=500, timeout=60)
    assert told == {"opened": 500, "echoed": 500}


async def slow_reader(dialer: Peer, address: str) -> None:
    told = await dialer.call("slow", address=address, bytes=3 * MIB, seed=5)
    assert told["matches"] is True


async def perf_upload(dialer: Peer, address: str) -> None:
    told = await dialer.call("perf", address=address, upload=50_000_000, download=0)
    assert told["upload_mb_s"] > 1


async def perf_download(dialer: Peer, address: str) -> None:
    told = await dialer.call("perf", address=address, upload=0, download=50_000_000)
    assert told["download_mb_s"] > 1


async def wrong_peer_id(dialer: Peer, address: str) -> None:
    stranger = PeerId.from_public_key(PrivateKey.from_seed(bytes(32)).public_key)
    wrong = f"{address.rpartition('/')[0]}/{stranger}"
    with pytest.raises(PeerFailed) as refused:
        await dialer.call("wrong_peer", address=wrong)
    assert refused.value.kind != "KeyError"
    # The right one is still served.
    await dialer.call("connect", address=address)


CASES: tuple[Case, ...] = (
    identify,
    ping,
    echo_10_mb,
    half_close,
    reset_by_listener,
    reset_by_dialer,
    streams_500,
    slow_reader,
    perf_upload,
    perf_download,
    wrong_peer_id,
)


@dataclass(frozen=True)
class Cell:
    """One cell of the table."""

    program: str
    direction: str
    check: Case

    @property
    def case(self) -> str:
        return self.check.__name__

    def __str__(self) -> str:
        return f"{self.program} {self.direction} {self.case}"


CELLS = [Cell(p, d, c) for p in PROGRAMS for d in DIRECTIONS for c in CASES]


@pytest.fixture
def anyio_backend() -> str:
    """The controller's; isthmus runs in a process of its own, on the parameter `backend`."""
    return "asyncio"


@pytest.fixture(autouse=True)
def installed(cell: Cell) -> None:
    """Install the peer before the test's time begins to run: Rust compiles for minutes."""
    try:
        argv_of(cell.program)
    except PeerUnavailable as missing:
        _unavailable(missing)


@pytest.mark.timeout(180, func_only=True)
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("cell", CELLS, ids=str)
async def test_case(cell: Cell, backend: str) -> None:
    ours = f"isthmus-{backend}"
    async with launch(cell.program) as theirs, launch(ours) as us:
        dialer, listener = (theirs, us) if cell.direction == "dials us" else (us, theirs)
        await cell.check(dialer, listener.addresses[0])


def _unavailable(missing: PeerUnavailable) -> None:
    if os.environ.get("CI") == "true":
        pytest.fail(f"{missing} (CI=true forbids to skip it)")
    pytest.skip(str(missing))
