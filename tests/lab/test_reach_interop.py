"""AutoNAT v2 and DCUtR among the peers that others wrote, where addresses look public."""

from __future__ import annotations

import itertools
import os

import pytest
from isthmus.benchmarks.peers.control import launch
from isthmus.benchmarks.peers.errors import PeerUnavailable
from isthmus.benchmarks.peers.install import argv_of

# Slow, since these are what others' implementations do among themselves.
pytestmark = [pytest.mark.interop, pytest.mark.slow, pytest.mark.timeout(60)]
PROGRAMS = ("js", "go", "rust")
UNLIMITED = '{"seconds": 0, "bytes": 0}'


@pytest.fixture
def anyio_backend() -> str:
    """The controller's: the peers are processes of their own."""
    return "asyncio"


@pytest.fixture(autouse=True, scope="module")
def installed() -> None:
    """Install the peers before the tests' time begins to run."""
    try:
        for program in PROGRAMS:
            argv_of(program)
    except PeerUnavailable as missing:
        if os.environ.get("CI") == "true":
            pytest.fail(f"{missing} (CI=true forbids to skip it)")
        pytest.skip(str(missing))


def start(program, host, *arguments):
    return launch(
        program,
        listen=f"/ip4/{host.ip}/tcp/0",
        netns_prefix=("ip", "netns", "exec", host.namespace),
        arguments=arguments,
    )


def verdicts(told):
    return [(each["address"], each["reachable"]) for each in told["verdicts"]]


@pytest.mark.parametrize("client", PROGRAMS)
@pytest.mark.parametrize("server", PROGRAMS)
async def test_autonat(lab, server, client):
    near, far = lab.add_host("near"), lab.add_host("far")
    async with start(server, far, "--autonat") as s, start(client, near, "--autonat") as c:
        own = c.address.partition("/p2p/")[0]
        assert verdicts(await c.call("autonat", address=s.address)) == [(own, True)]


@pytest.mark.parametrize("client", ["go", "rust"])
@pytest.mark.parametrize("server", PROGRAMS)
async def test_autonat_of_another_host_takes_data(lab, server, client):
    near, far, other = lab.add_host("near"), lab.add_host("far"), lab.add_host("other")
    async with start(server, far, "--autonat") as s, start(client, near, "--autonat") as c:
        asked = f"/ip4/{other.ip}/tcp/9"
        told = await c.call("autonat", address=s.address, addresses=[asked], seconds=10)
        assert verdicts(told) == [(asked, False)]


@pytest.mark.parametrize(("target", "dialer"), list(itertools.product(("go", "rust"), repeat=2)))
async def test_dcutr_through_two_nats(lab, target, dialer):
    left, right = lab.add_nat("left"), lab.add_nat("right")
    near, far, middle = (
        lab.add_host("near", left),
        lab.add_host("far", right),
        lab.add_host("relay"),
    )
    async with (
        start("go", middle, "--relay", UNLIMITED) as r,
        start(target, far, "--dcutr") as t,
        start(dialer, near, "--dcutr") as d,
    ):
        (address,) = (await t.call("reserve", address=r.address))["addresses"]
        await d.call("connect", address=r.address)
        for peer in (t, d):
            await peer.call("can_punch", timeout=10)
        await d.call("connect", address=address)
        one = await d.call("upgraded", address=address, timeout=30)
        other = await t.call("upgraded", address=d.address, timeout=30)
        assert one["address"].startswith(f"/ip4/{right.ip}/tcp/")
        assert other["address"].startswith(f"/ip4/{left.ip}/tcp/")


@pytest.mark.parametrize("dialer", ["go", "rust"])
async def test_js_behind_a_nat_dials_a_public_peer_itself(lab, dialer):
    home = lab.add_nat("home")
    near, far, middle = lab.add_host("near"), lab.add_host("far", home), lab.add_host("relay")
    async with (
        start("go", middle, "--relay", UNLIMITED) as r,
        start("js", far, "--dcutr") as t,
        start(dialer, near, "--dcutr") as d,
    ):
        (address,) = (await t.call("reserve", address=r.address))["addresses"]
        # js-libp2p does it only for a peer whose identify lists the protocol.
        await d.call("connect", address=r.address)
        await d.call("can_punch", timeout=10)
        await d.call("connect", address=address)
        told = await t.call("upgraded", address=d.address, timeout=10)
        assert (told["dialled"], f"{told['address']}/p2p/{d.peer_id}") == (True, d.address)
        told = await d.call("upgraded", address=address, timeout=10)
        assert told["address"].startswith(f"/ip4/{home.ip}/tcp/")


async def test_go_behind_a_nat_dials_a_public_js_once_autonat_has_confirmed_its_address(lab):
    home = lab.add_nat("home")
    near, far, middle = lab.add_host("near"), lab.add_host("far", home), lab.add_host("relay")
    async with (
        start("go", middle, "--relay", UNLIMITED, "--autonat") as r,
        start("go", far, "--dcutr") as t,
        start("js", near, "--dcutr", "--autonat") as d,
    ):
        own = d.address.partition("/p2p/")[0]
        assert verdicts(await d.call("autonat", address=r.address)) == [(own, True)]
        (address,) = (await t.call("reserve", address=r.address))["addresses"]
        await t.call("can_punch", timeout=10)
        await d.call("connect", address=address)
        told = await t.call("upgraded", address=d.address, timeout=10)
        assert (told["dialled"], told["address"], told["how"]) == (True, own, "reversal")
