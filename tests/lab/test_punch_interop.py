"""DCUtR of isthmus with peers that others wrote, through NATs, where addresses look public."""

from __future__ import annotations

import os
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, NamedTuple

import anyio
import anyio.to_thread
import pytest
from isthmus.benchmarks.peers.errors import PeerFailed, PeerUnavailable
from isthmus.benchmarks.peers.install import argv_of

from .peers import OURS, start, verdicts

if TYPE_CHECKING:
    from isthmus.benchmarks.peers.control import Peer

pytestmark = [pytest.mark.interop, pytest.mark.timeout(60)]

DELAY = 20
"""Milliseconds on each host's link, one way: 80 between two of them, there and back."""
BYTES = 5_000
"""Of an echo: some of them are less than what a public relay lets through."""
PATIENCE = 10
"""Seconds until there is a direct connection."""
RELAYS = {OURS: ("--relay", "public"), "go": ("--relay", "{}"), "rust": ("--relay", "{}")}
STRICT = ("port-restricted", "port-restricted")


@pytest.fixture
def anyio_backend() -> str:
    """The controller's: the peers are processes of their own."""
    return "asyncio"


@pytest.fixture(autouse=True, scope="module")
def installed() -> None:
    """Install the peers before the tests' time begins to run."""
    try:
        for program in ("js", "go", "rust"):
            argv_of(program)
    except PeerUnavailable as missing:
        if os.environ.get("CI") == "true":
            pytest.fail(f"{missing} (CI=true forbids to skip it)")
        pytest.skip(str(missing))


class Meeting(NamedTuple):
    """Two peers that are connected through a relay, and how they name each other there."""

    target: Peer
    dialer: Peer
    to_target: str
    to_dialer: str

    async def talk(self):
        """Have both open a stream that carries an echo."""
        for peer, to in ((self.dialer, self.to_target), (self.target, self.to_dialer)):
            assert (await peer.call("echo", address=to, bytes=BYTES))["bytes"] == BYTES

    async def paths(self):
        """Return for both, the dialer first, whether each connection is relayed."""
        both = []
        for peer, to in ((self.dialer, self.to_target), (self.target, self.to_dialer)):
            told = await peer.call("connections", address=to)
            both.append([each["relayed"] for each in told["connections"]])
        return both


@pytest.fixture
def meet(lab):
    def place(name, kind, *, keep_port):
        if kind == "public":
            return lab.add_host(name)
        return lab.add_host(name, lab.add_nat(f"home-of-{name}", kind, keep_port=keep_port))

    def ready(program, host, *arguments):
        return start(program, host, *(() if program == OURS else ("--dcutr",)), *arguments)

    @asynccontextmanager
    async def meet(
        target, dialer, *, kinds=STRICT, relay=OURS, limits=(), prepare=None, keep_port=True
    ):
        """Have `dialer` meet `target`; `kinds` are those of the target's NAT, and the dialer's.

        `keep_port` concerns rust, which believes that a NAT does not change its port.
        """
        # With another provider: what is in its own network a node does not dial for AutoNAT.
        lab.add_network("isp2", "11.0.2.0/24")
        middle = lab.add_host("relay", "isp2")
        far, near = (
            place(name, kind, keep_port=keep_port if program == "rust" else None)
            for name, program, kind in zip(
                ("target", "dialer"), (target, dialer), kinds, strict=True
            )
        )
        for host in (middle, far, near):
            host.link.shape(delay=DELAY)
        async with start(relay, middle, *RELAYS[relay], *limits) as r:
            # isthmus is told of its relays when it starts, as its users do.
            via = ("--via", r.address) if target == OURS else ()
            more = ("--autonat",) if dialer == "js" else ()
            async with ready(target, far, *via) as t, ready(dialer, near, *more) as d:
                held = await t.call("reserve", address=r.address, timeout=10)
                (to_target,) = held["addresses"]
                await d.call("connect", address=r.address)
                for peer in (t, d):
                    await peer.call("can_punch", timeout=10)
                if prepare is not None:
                    await prepare(r, d)
                await d.call("connect", address=to_target)
                through = to_target.removesuffix(t.peer_id)
                yield Meeting(t, d, to_target, through + d.peer_id)

    return meet


def outside(lab, name):
    """Return the address that others see of a host."""
    home = lab.hosts.get(f"home-of-{name}", lab.host(name))
    return f"/ip4/{home.ip}/tcp/"


PAIRS = [(OURS, "go"), (OURS, "rust"), ("go", OURS), ("rust", OURS)]
"""Who is met, behind the relay, and who dials."""


async def test_go_dials_isthmus(lab, meet):
    await they_meet(lab, meet, OURS, "go")


async def test_isthmus_dials_rust(lab, meet):
    await they_meet(lab, meet, "rust", OURS)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("target", "dialer", "relay", "kinds"),
    [
        (OURS, "rust", OURS, STRICT),
        ("go", OURS, OURS, STRICT),
        *((*pair, OURS, ("full-cone", "port-restricted")) for pair in PAIRS),
        *((*pair, OURS, ("port-restricted", "full-cone")) for pair in PAIRS),
        *((*pair, OURS, ("address-restricted", "address-restricted")) for pair in PAIRS),
        *((*pair, "go", STRICT) for pair in PAIRS),
        *((*pair, "rust", STRICT) for pair in PAIRS),
    ],
)
async def test_they_meet(lab, meet, target, dialer, relay, kinds):
    await they_meet(lab, meet, target, dialer, relay=relay, kinds=kinds)


async def they_meet(lab, meet, target, dialer, **circumstances):
    async with meet(target, dialer, **circumstances) as meeting:
        one, other = await direct(meeting)
        assert one["address"].startswith(outside(lab, "target"))
        assert other["address"].startswith(outside(lab, "dialer"))
        # The others tell only of what they have dialled themselves.
        assert other["how"] in ({"punch"} if target == OURS else {"punch", None})
        await meeting.talk()


async def only_direct(lab, meeting, seconds):
    """Wait until both have one connection, a direct one."""
    with anyio.fail_after(seconds):
        while await meeting.paths() != [[False], [False]]:
            await anyio.to_thread.run_sync(lab.wait, 0.2)


async def direct(meeting):
    """Wait for a direct connection; return what the dialer and the target say of it."""
    target, dialer, to_target, to_dialer = meeting
    one = await dialer.call("upgraded", address=to_target, timeout=PATIENCE)
    return one, await target.call("upgraded", address=to_dialer, timeout=PATIENCE)


@pytest.mark.slow
@pytest.mark.parametrize(("target", "dialer"), [*PAIRS, ("js", OURS)])
async def test_a_public_dialer_is_dialled(lab, meet, target, dialer):
    async with meet(target, dialer, kinds=("port-restricted", "public")) as meeting:
        one, other = await direct(meeting)
        assert other["address"].startswith(outside(lab, "dialer"))
        assert one["address"].startswith(outside(lab, "target"))
        assert other["how"] == {OURS: "reversal", "go": "reversal", "rust": "punch"}.get(target)
        await meeting.talk()


@pytest.mark.slow
async def test_a_public_js_is_dialled_once_isthmus_has_confirmed_its_address(lab, meet):
    async def confirm(relay, dialer):
        told = await dialer.call("autonat", address=relay.address, seconds=10)
        assert [reachable for _, reachable in verdicts(told)] == [True]

    kinds = ("port-restricted", "public")
    async with meet(OURS, "js", kinds=kinds, prepare=confirm) as meeting:
        _, other = await direct(meeting)
        assert (other["how"], other["dialled"]) == ("reversal", True)
        await meeting.talk()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("target", "dialer", "kinds"),
    [
        (OURS, "js", ("full-cone", "port-restricted")),
        ("js", OURS, ("port-restricted", "full-cone")),
    ],
)
async def test_js_reaches_an_isthmus_that_anyone_can_dial(lab, meet, target, dialer, kinds):
    # It does not dial from the port that it listens on, so the other's NAT must let it in.
    async with meet(target, dialer, kinds=kinds) as meeting:
        one, other = await direct(meeting)
        by_js = one if dialer == "js" else other
        assert by_js["dialled"]
        await meeting.talk()
        await only_direct(lab, meeting, 5)


@pytest.mark.slow
@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    ("target", "dialer", "kinds"),
    [
        (OURS, "go", ("symmetric", "symmetric")),
        (OURS, "rust", ("symmetric", "symmetric")),
        ("go", OURS, ("symmetric", "symmetric")),
        ("rust", OURS, ("symmetric", "symmetric")),
        (OURS, "js", STRICT),
        ("js", OURS, STRICT),
    ],
)
async def test_the_relay_stays(meet, target, dialer, kinds):
    # go and js say nothing: their three attempts have five seconds each. rust's have ten.
    error, patience = {"go": (TimeoutError, 18), "js": (TimeoutError, 18)}.get(
        target, (PeerFailed, 40)
    )
    async with meet(target, dialer, kinds=kinds) as meeting:
        await meeting.talk()
        with pytest.raises(error):
            await meeting.target.call("upgraded", address=meeting.to_dialer, timeout=patience)
        await meeting.talk()
        assert await meeting.paths() == [[True], [True]]


@pytest.mark.slow
async def test_rust_behind_a_nat_that_changes_its_port_tells_another(meet):
    kinds = ("full-cone", "port-restricted")
    async with meet("rust", OURS, kinds=kinds, keep_port=None) as meeting:
        with pytest.raises(PeerFailed):
            await meeting.target.call("upgraded", address=meeting.to_dialer, timeout=40)
        assert await meeting.paths() == [[True], [True]]


@pytest.mark.slow
@pytest.mark.timeout(120)
@pytest.mark.parametrize("target", ["go", "rust"])
async def test_isthmus_ends_the_circuit_that_it_dialled(lab, meet, target):
    async with meet(target, OURS) as meeting:
        await direct(meeting)
        await only_direct(lab, meeting, 100)
        await meeting.talk()


@pytest.mark.slow
@pytest.mark.timeout(90)
@pytest.mark.parametrize("dialer", ["go", "rust"])
async def test_others_leave_the_circuit_to_the_relay(lab, meet, dialer):
    began = time.monotonic()
    limits = ("--circuit-duration", "25")
    async with meet(OURS, dialer, limits=limits) as meeting:
        await direct(meeting)
        await only_direct(lab, meeting, 40)
        # Not sooner than the relay has ended it.
        assert time.monotonic() - began > 25
        await meeting.talk()
