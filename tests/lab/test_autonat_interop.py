"""AutoNAT v2 of isthmus with peers that others wrote: do its verdicts agree with the NAT built?"""

from __future__ import annotations

import pytest

from .peers import OURS, start, verdicts

pytestmark = [pytest.mark.interop, pytest.mark.slow, pytest.mark.timeout(60)]

PROGRAMS = ("js", "go", "rust")
PATIENCE = 15
"""Seconds for a verdict: a server tries an address that drops packets for ten."""
ALONE = ("--confidence", "1")
"""For isthmus to believe one server."""
KINDS = [
    ("public", True),
    ("full-cone", True),
    # The server's own address is let in, from whatever port it dials.
    ("address-restricted", True),
    ("port-restricted", False),
    ("symmetric", False),
]
"""Where the client is, and whether it can be reached there."""


@pytest.fixture
def anyio_backend() -> str:
    """The controller's: the peers are processes of their own."""
    return "asyncio"


def elsewhere(lab, name):
    """Return a host in another public network: isthmus dials nobody back in its own."""
    if "isp2" not in lab.networks:
        lab.add_network("isp2", "11.0.2.0/24")
    return lab.add_host(name, "isp2")


def add(lab, kind, **how):
    """Return a host behind a NAT of that kind, or behind none, and its address as others see it."""
    if kind == "public":
        host = lab.add_host("near")
        return host, host.ip
    home = lab.add_nat("home", kind, **how)
    return lab.add_host("near", home), home.ip


@pytest.mark.parametrize(("kind", "reachable"), KINDS)
@pytest.mark.parametrize("server", PROGRAMS)
async def test_isthmus_asks(lab, server, kind, reachable):
    # rust-libp2p has ten seconds for a request, and for its dial: it says nothing of packets that
    # are dropped.
    near, ip = add(lab, kind, unsolicited="reject" if server == "rust" else "drop")
    async with start(server, lab.add_host("far"), "--autonat") as s, start(OURS, near, *ALONE) as c:
        told = await c.call("autonat", address=s.address, seconds=PATIENCE)
        ((address, verdict),) = verdicts(told)
        assert address.startswith(f"/ip4/{ip}/tcp/")
        assert verdict is reachable


@pytest.mark.parametrize(("kind", "reachable"), KINDS)
@pytest.mark.parametrize("client", ["go", "rust"])
async def test_isthmus_is_asked(lab, client, kind, reachable):
    # rust-libp2p waits ten seconds for an answer, as long as isthmus dials.
    near, ip = add(lab, kind, unsolicited="reject" if client == "rust" else "drop")
    async with start(OURS, elsewhere(lab, "far")) as s, start(client, near, "--autonat") as c:
        await c.call("connect", address=s.address)
        # There at once, or in a moment.
        seen = await s.call("upgraded", address=c.address, timeout=5)
        assert seen["address"].startswith(f"/ip4/{ip}/tcp/")
        asked = [seen["address"]]
        told = await c.call("autonat", address=s.address, addresses=asked, seconds=PATIENCE)
        assert verdicts(told) == [(seen["address"], reachable)]


async def test_isthmus_is_asked_by_js(lab):
    # It asks about addresses that it listens on only, and only of those that are public.
    near, far = lab.add_host("near"), elsewhere(lab, "far")
    async with start(OURS, far) as s, start("js", near, "--autonat") as c:
        own = c.address.partition("/p2p/")[0]
        assert verdicts(await c.call("autonat", address=s.address)) == [(own, True)]


@pytest.mark.parametrize(
    ("server", "client"), [*((each, OURS) for each in PROGRAMS), (OURS, "go"), (OURS, "rust")]
)
async def test_a_dial_elsewhere_is_paid_for(lab, server, client):
    near, far, other = lab.add_host("near"), elsewhere(lab, "far"), lab.add_host("other")
    serve, ask = (() if each == OURS else ("--autonat",) for each in (server, client))
    async with start(server, far, *serve) as s, start(client, near, *ask) as c:
        asked = f"/ip4/{other.ip}/tcp/9"
        told = await c.call("autonat", address=s.address, addresses=[asked], seconds=PATIENCE)
        assert verdicts(told) == [(asked, False)]


@pytest.mark.parametrize(("kind", "reachable"), [("full-cone", True), ("port-restricted", False)])
async def test_two_servers_have_to_agree(lab, kind, reachable):
    near, _ = add(lab, kind)
    async with (
        start("go", lab.add_host("one"), "--autonat") as one,
        start("js", lab.add_host("other"), "--autonat") as other,
        start(OURS, near) as c,
    ):
        told = await c.call("autonat", address=one.address, seconds=PATIENCE)
        ((address, verdict),) = verdicts(told)
        assert verdict is None
        told = await c.call("autonat", address=other.address, seconds=PATIENCE)
        assert verdicts(told) == [(address, reachable)]
