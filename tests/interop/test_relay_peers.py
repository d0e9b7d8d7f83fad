"""Relays, AutoNAT v2 and DCUtR among the peers that others wrote: the reference for ours."""

from __future__ import annotations

import itertools
import resource
import time

import anyio
import pytest
from isthmus.benchmarks.peers.control import launch
from isthmus.benchmarks.peers.errors import PeerFailed

from .circuits import (
    MIB,
    UNLIMITED,
    check_circuit,
    check_upgrade,
    circuit,
    need,
    start,
    unused_address,
)

# What others' implementations do among themselves, to hold ours against.
pytestmark = pytest.mark.slow

PROGRAMS = ("js", "go", "rust")
RELAYS = (*PROGRAMS, "py")
TRIPLES = [
    (relay, target, dialer)
    for relay, target, dialer in itertools.product(PROGRAMS, repeat=3)
    if relay not in {target, dialer}
]
"""Relay, target, dialer: whoever is served, a foreigner serves."""
PYTHON = [
    ("py", "go", "js"),
    ("py", "js", "rust"),
    ("go", "py", "js"),
    ("js", "py", "rust"),
    ("rust", "py", "go"),
    ("go", "js", "py"),
    ("js", "rust", "py"),
    ("rust", "go", "py"),
]
"""py-libp2p in every role, beside each of the others; it is the slow one to start."""
PAIRS = list(itertools.product(("go", "rust"), repeat=2))
"""js-libp2p asks and punches for public addresses only: see tests/lab."""


@pytest.fixture
def anyio_backend() -> str:
    """The controller's: the peers are processes of their own."""
    return "asyncio"


@pytest.fixture(autouse=True, scope="module")
def installed() -> None:
    """Install the peers before the tests' time begins to run."""
    need(RELAYS)


@pytest.mark.parametrize(("relay", "target", "dialer"), TRIPLES + PYTHON)
async def test_circuit_carries_both_ways(relay: str, target: str, dialer: str) -> None:
    async with start(relay, "--relay", UNLIMITED) as r, start(target) as t, start(dialer) as d:
        await check_circuit(r, t, d)


@pytest.mark.parametrize(
    ("relay", "target", "dialer"),
    [("js", "rust", "go"), ("go", "js", "rust"), ("rust", "go", "js"), ("py", "rust", "go")],
)
async def test_limits_hold_and_are_told(relay: str, target: str, dialer: str) -> None:
    limits = '{"seconds": 60, "bytes": 65536, "ttl": 1800}'
    async with start(relay, "--relay", limits) as r, start(target) as t, start(dialer) as d:
        held = await t.call("reserve", address=r.address)
        if target == "js":
            assert held["limit"] is None
        else:
            # js-libp2p's relay tells milliseconds where the protocol has seconds.
            assert held["limit"] == {"seconds": 60_000 if relay == "js" else 60, "bytes": 65536}
        if target != "rust":
            assert 1700 < held["expires"] - time.time() <= 1801
        (address,) = held["addresses"]
        assert (await d.call("echo", address=address, bytes=10_000))["bytes"] == 10_000
        (theirs,) = (await d.call("connections", address=address))["connections"]
        assert theirs["limited"] is (None if dialer == "rust" else True)
        with pytest.raises(PeerFailed):
            await d.call("echo", address=address, bytes=MIB, timeout=10)


@pytest.mark.parametrize(("relay", "first", "second"), TRIPLES[::4])
async def test_refusals(relay: str, first: str, second: str) -> None:
    async with (
        start(relay, "--relay", '{"reservations": 1}') as r,
        start(first) as f,
        start(second) as s,
    ):
        nowhere = f"{r.address}/p2p-circuit/p2p/{s.peer_id}"
        with pytest.raises(PeerFailed):
            await f.call("connect", address=nowhere, timeout=10)
        await circuit(f, r)
        with pytest.raises(PeerFailed):
            await s.call("reserve", address=r.address, timeout=10)
        assert (await r.call("reservations"))["reservations"] == 1


@pytest.mark.parametrize("relay", RELAYS)
async def test_reservation_of_a_peer_that_left(relay: str) -> None:
    async with start(relay, "--relay", UNLIMITED) as r:
        async with start("go") as target:
            address = await circuit(target, r)
            await r.call("reservations")
        async with start("rust") as dialer:
            with pytest.raises(PeerFailed):
                await dialer.call("connect", address=address, timeout=10)
        # These keep the slot until it expires.
        left = 1 if relay in {"js", "py"} else 0
        assert (await r.call("reservations"))["reservations"] == left


@pytest.mark.parametrize("program", RELAYS)
async def test_relay_tells_its_memory(program: str) -> None:
    async with start(program, "--relay", UNLIMITED) as relay:
        told = await relay.call("census")
        statm = await anyio.Path(f"/proc/{relay.pid}/statm").read_text("ascii")
        pages = statm.split()[1]
        assert told["rss"] == pytest.approx(int(pages) * resource.getpagesize(), rel=0.3)


@pytest.mark.parametrize(("server", "client"), PAIRS)
async def test_autonat_finds_what_can_be_dialled(server: str, client: str) -> None:
    async with start(server, "--autonat") as s, start(client, "--autonat") as c:
        own = c.address.partition("/p2p/")[0]
        told = await c.call("autonat", address=s.address)
        assert [(each["address"], each["reachable"]) for each in told["verdicts"]] == [(own, True)]
        nowhere = await unused_address()
        told = await c.call("autonat", address=s.address, addresses=[nowhere])
        assert [(each["address"], each["reachable"]) for each in told["verdicts"]] == [
            (nowhere, False)
        ]


@pytest.mark.parametrize(
    ("server", "client"),
    [("js", "js"), ("js", "go"), ("js", "rust"), ("go", "js"), ("go", "rust"), ("rust", "js")],
)
async def test_autonat_has_no_verdict_on_a_private_address(server: str, client: str) -> None:
    async with (
        launch(server, arguments=["--autonat"]) as s,
        launch(client, arguments=["--autonat"]) as c,
    ):
        (verdict,) = (await c.call("autonat", address=s.address, seconds=0.5))["verdicts"]
        assert verdict["reachable"] is None
        assert verdict["why"]


@pytest.mark.parametrize(("target", "dialer"), PAIRS)
async def test_dcutr_makes_it_direct(target: str, dialer: str) -> None:
    async with (
        start("js", "--relay", UNLIMITED) as r,
        start(target, "--dcutr") as t,
        start(dialer, "--dcutr") as d,
    ):
        told = await check_upgrade(r, t, d)
        # One side's dial came through, or both did.
        dialled = [each for each in told if each["dialled"]]
        assert dialled
        assert {each["how"] for each in dialled} == {"punch"}
