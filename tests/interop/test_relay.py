"""isthmus in every role of a circuit, of AutoNAT v2 and of DCUtR, beside what others wrote."""

from __future__ import annotations

import itertools
import time
from functools import partial

import anyio
import pytest
from isthmus.benchmarks.peers.errors import PeerFailed

from .circuits import (
    MIB,
    UNLIMITED,
    Cell,
    check_circuit,
    check_upgrade,
    need,
    start,
    unused_address,
)

US = "isthmus"
PROGRAMS = ("js", "go", "rust")
BACKENDS = ("asyncio", "trio")
ROLES = [
    each for each in itertools.product((US, *PROGRAMS), repeat=3) if US in each and len({*each}) > 1
]
"""Relay, who is behind it, who dials."""
PYTHON = [
    (US, "py", US),
    (US, US, "py"),
    (US, "py", "go"),
    (US, "js", "py"),
    ("py", US, US),
    ("py", US, "rust"),
    ("py", "go", US),
    ("go", US, "py"),
    ("rust", "py", US),
]
"""py-libp2p in every role beside isthmus; it is the slow one to start."""
QUICK = {
    (US, "js", "go"): "asyncio",
    (US, "go", "rust"): "trio",
    (US, "rust", "js"): "asyncio",
    ("js", US, "go"): "trio",
    ("go", US, "rust"): "asyncio",
    ("rust", US, "js"): "trio",
    ("js", "go", US): "asyncio",
    ("go", "rust", US): "trio",
    ("rust", "js", US): "asyncio",
}
"""Those of every run, and on what: isthmus in each role beside each of the others in each."""
CIRCUITS = "who relays, and who is dialled by whom"
REACH = "reachability"
SIZE = 4 * MIB
SMALL = MIB
"""Where js-libp2p is reached by rust-libp2p, or through it: of more one of these ends the circuit,
also where isthmus has no part in it."""


def cells(roles: tuple[str, str, str]) -> list[object]:
    """Return the cells of one circuit, the slow ones marked."""
    relay, target, dialer = roles
    cell = Cell(CIRCUITS, relay, "relays", f"{target} by {dialer}")
    return [
        pytest.param(roles, cell, backend, marks=marked(is_quick=QUICK.get(roles) == backend))
        for backend in BACKENDS
    ]


def marked(*, is_quick: bool) -> tuple[pytest.MarkDecorator, ...]:
    return () if is_quick else (pytest.mark.slow,)


@pytest.fixture
def anyio_backend() -> str:
    """The controller's: the peers are processes of their own, isthmus's on `backend`."""
    return "asyncio"


@pytest.fixture(autouse=True, scope="module")
def installed() -> None:
    """Install the peers before the tests' time begins to run."""
    need((*PROGRAMS, "py"))


def named(program: str, backend: str) -> str:
    return f"{US}-{backend}" if program == US else program


@pytest.mark.timeout(60, func_only=True)
@pytest.mark.parametrize(
    ("roles", "cell", "backend"), [each for roles in ROLES + PYTHON for each in cells(roles)]
)
async def test_circuit(roles: tuple[str, str, str], cell: Cell, backend: str) -> None:
    relay, target, dialer = (named(each, backend) for each in roles)
    async with start(relay, "--relay", UNLIMITED) as r, start(target) as t, start(dialer) as d:
        await check_circuit(r, t, d, size=SMALL if target == "js" and "rust" in roles else SIZE)


def asking(direction: str, backend: str) -> object:
    """Return the cells of one direction of AutoNAT; go and rust know of private addresses."""
    return [
        pytest.param(
            Cell(REACH, program, direction, "AutoNAT v2"),
            backend,
            marks=marked(is_quick=backend == quick),
        )
        for program, quick in (("go", "asyncio"), ("rust", "trio"))
    ]


@pytest.mark.parametrize(
    ("cell", "backend"),
    [
        each
        for direction, backend in itertools.product(("asks us", "is asked"), BACKENDS)
        for each in asking(direction, backend)
    ],
)
async def test_autonat_finds_what_can_be_dialled(cell: Cell, backend: str) -> None:
    pair = [cell.program, f"{US}-{backend}"]
    client, server = pair if cell.direction == "asks us" else reversed(pair)
    async with start(server, "--autonat") as s, start(client, "--autonat") as c:
        nowhere = await unused_address()
        assert await verdicts(c, s, addresses=[nowhere]) == [(nowhere, False)]
        # Last, since rust knows no AutoNAT on the connection by which it has proven an address.
        own = c.address.partition("/p2p/")[0]
        assert await verdicts(c, s) == [(own, True)]


async def verdicts(client, server, **options: object) -> list[tuple[str, bool | None]]:
    told = await client.call("autonat", address=server.address, **options)
    return [(each["address"], each["reachable"]) for each in told["verdicts"]]


@pytest.mark.parametrize("backend", [*BACKENDS[:1], pytest.param("trio", marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "cell", [Cell(REACH, "js", each, "AutoNAT v2, private") for each in ("asks us", "is asked")]
)
async def test_js_has_no_verdict_on_a_private_address(cell: Cell, backend: str) -> None:
    pair = [cell.program, f"{US}-{backend}"]
    client, server = pair if cell.direction == "asks us" else reversed(pair)
    async with start(server, "--autonat") as s, start(client, "--autonat") as c:
        told = await c.call("autonat", address=s.address, seconds=0.5)
        (verdict,) = told["verdicts"]
        assert verdict["reachable"] is None
        # Asked only for what it does not dial, js says nothing.
        silent = "the server ended the stream without an answer"
        assert verdict["why"] == ("private" if client == "js" else silent)


@pytest.mark.parametrize(
    ("relay", "backend"),
    [
        pytest.param(program, backend, marks=marked(is_quick=(program, backend) == ("go", "trio")))
        for program, backend in itertools.product(PROGRAMS, BACKENDS)
    ],
)
async def test_our_reservation_is_renewed(relay: str, backend: str) -> None:
    async with start(relay, "--relay", '{"ttl": 4}') as r, start(f"{US}-{backend}") as us:
        held = await us.call("reserve", address=r.address, timeout=10)
        expires = held["expires"]
        assert expires - time.time() < 5
        # More than another second later, which is what they count in.
        told = await us.call("renewed", address=r.address, expires=expires + 1, timeout=10)
        assert told["addresses"] == held["addresses"]
        assert (await r.call("reservations"))["reservations"] == 1


@pytest.mark.slow
@pytest.mark.timeout(90, func_only=True)
@pytest.mark.parametrize("backend", BACKENDS)
async def test_their_reservations_are_renewed(backend: str) -> None:
    """A minute is the shortest that our relay gives, and of go the application has to renew it."""
    async with (
        start(f"{US}-{backend}", "--relay", '{"ttl": 60}') as r,
        start("js") as js,
        start("rust") as rust,
    ):
        for peer in (js, rust):
            await peer.call("reserve", address=r.address, timeout=10)
        expires = time.time() + 61
        async with anyio.create_task_group() as tasks:
            for peer in (js, rust):
                options = {"address": peer.address, "expires": expires, "timeout": 60}
                tasks.start_soon(partial(r.call, "renewed", **options))
        assert (await r.call("reservations"))["reservations"] == 2


@pytest.mark.slow
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    "cell",
    [
        Cell(REACH, program, direction, "DCUtR")
        for program, direction in itertools.product(("go", "rust"), ("asks us", "is asked"))
    ],
)
async def test_dcutr_makes_it_direct(cell: Cell, backend: str) -> None:
    pair = [cell.program, f"{US}-{backend}"]
    # Who has accepted the circuit asks who has dialled it.
    target, dialer = pair if cell.direction == "asks us" else reversed(pair)
    async with (
        start(f"{US}-{backend}", "--relay", UNLIMITED) as r,
        start(target, "--dcutr") as t,
        start(dialer, "--dcutr") as d,
    ):
        await check_upgrade(r, t, d)


@pytest.mark.parametrize("backend", [*BACKENDS[:1], pytest.param("trio", marks=pytest.mark.slow)])
async def test_our_program_says_what_it_was_not_started_for(backend: str) -> None:
    name = f"{US}-{backend}"
    async with start(name, "--relay", UNLIMITED) as plain, start(name) as other:
        for peer, command, options in (
            (other, "reservations", {}),
            (other, "autonat", {"address": plain.address}),
            (other, "can_punch", {}),
            (plain, "reserve", {"address": plain.address}),
        ):
            with pytest.raises(PeerFailed, match=r"needs --(relay|autonat|dcutr)|this very node"):
                await peer.call(command, timeout=10, **options)
