"""What a node finds out about itself and its machine: real nodes, over loopback."""

from __future__ import annotations

import os
import resource
from dataclasses import replace

import anyio
import pytest
from isthmus import Multiaddr, Node, NodeConfig
from isthmus.node.config import AutonatConfig, DcutrConfig, LimitsConfig
from isthmus.node.doctor.findings import State
from isthmus.node.doctor.gathering import look_at_directory
from isthmus.node.doctor.tally import PunchTally
from isthmus.node.events import (
    HolePunched,
    HolePunchFailed,
    PeerOnline,
    ReachabilityChanged,
    RelayRefused,
    RelayReserved,
)
from isthmus.relay.circuit.limits import RelayServerConfig

LOOPBACK = "/ip4/127.0.0.1/tcp/0"
NEAR = NodeConfig(autonat=AutonatConfig(allow_private=True), dcutr=DcutrConfig(allow_private=True))
OPEN = NodeConfig(relay_server=RelayServerConfig(preset="public"))
CLOSED = NodeConfig(relay_server=RelayServerConfig(preset="default"))


async def until(events, kind):
    with anyio.fail_after(10):
        async for event in events:
            if isinstance(event, kind):
                return event
    raise AssertionError(f"no {kind.__name__}")


async def test_a_node_alone():
    async with Node(listen=LOOPBACK) as node:
        found = await node.diagnose()
        assert found.peer_id == node.peer_id
        assert found.is_settled
        assert found.check("listening").details[0].startswith(str(node.addresses[0].without_peer()))
        assert found.check("data").finding.startswith("in memory")
        assert found.check("peers").finding == "nobody is connected"
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        assert f"of {soft} allowed" in found.check("open files").finding
    async with Node() as node:
        assert (await node.diagnose()).check("listening").finding.startswith("nowhere")


async def test_what_peers_have_found_and_said():
    one, other = (Node(listen=LOOPBACK, config=NEAR) for _ in range(2))
    async with one, other, Node(listen=LOOPBACK, config=NEAR) as node:
        events = node.events()
        await node.connect(one.addresses)
        await node.connect(other.addresses)
        await until(events, ReachabilityChanged)
        found = await node.diagnose()
        seen = found.check("reachable")
        assert seen.state is State.OK
        assert seen.finding.endswith("as 2 peers found")
        assert f"reached by {one.peer_id} " in seen.details[0]
        assert f"reached by {other.peer_id} " in seen.details[0]
        facts = node.reach.facts()
        assert (facts.reuse, facts.servers) == ("always", 2)
        (mapping,) = facts.mappings
        assert mapping.local == mapping.external == node.addresses[0].without_peer()
        assert mapping.observers == 2
        node.reach.dcutr._ways.failed(one.peer_id, "no meeting", None)
        seen = (await node.diagnose()).check("hole punching")
        assert seen.finding.endswith(
            "1 relayed connections became direct; the last failure: no meeting"
        )


async def test_the_relays_in_use_and_those_that_refuse():
    relay, closed = Node(listen=LOOPBACK, config=OPEN), Node(listen=LOOPBACK, config=CLOSED)
    async with relay, closed:
        node = Node(relays=[*relay.addresses, *closed.addresses])
        held, refused = node.events(), node.events()
        async with node:
            await until(held, RelayReserved)
            await until(refused, RelayRefused)
            found = await node.diagnose()
            seen = found.check(f"relay {str(relay.peer_id)[-8:]}")
            assert seen.state is State.OK
            assert seen.finding.startswith("in use: you have named it; ")
            assert "a circuit carries 128 KiB each way and 2 min" in seen.finding
            assert seen.finding.endswith("reserved for 59 min more")
            seen = found.check(f"relay {str(closed.peer_id)[-8:]}")
            assert "does not serve this peer" in seen.finding
            assert str(node.peer_id) in seen.advice
            assert found.check("relays").finding == "reached through 1 relay of 2"
            assert found.check("clock").state is State.OK


async def test_a_clock_that_is_wrong():
    async with Node(listen=LOOPBACK, config=OPEN) as relay:
        node = Node(relays=relay.addresses)
        node.relayed.client._wall_clock = lambda: 4e9
        events = node.events()
        async with node:
            await until(events, RelayReserved)
            seen = (await node.diagnose()).check("clock")
            assert seen.state is State.NOTE
            assert "ahead of" in seen.finding


async def test_data_that_is_kept_and_data_that_is_not(tmp_path):
    async with Node(data_dir=tmp_path) as node:
        seen = (await node.diagnose()).check("data")
        assert (seen.state, seen.finding) == (State.OK, f"{tmp_path} is written")
        node.stores._fail(node.stores.path, "no room: full")
        seen = (await node.diagnose()).check("data")
        assert (seen.state, seen.finding) == (
            State.PROBLEM,
            f"{tmp_path} is not written: no room: full",
        )
        assert node.stores.trouble == "no room: full"


async def test_a_directory_that_nobody_uses_now(tmp_path):
    for place in (tmp_path, tmp_path / "to" / "be" / "made"):
        assert (await look_at_directory(place)).state is State.OK
    assert [*tmp_path.iterdir()] == []
    file = tmp_path / "file"
    file.touch()
    seen = await look_at_directory(file / "data")
    assert seen.state is State.PROBLEM
    assert f"{file} is no directory" in seen.finding


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
async def test_a_directory_that_may_not_be_written(tmp_path):
    tmp_path.chmod(0o500)
    assert "may not write" in (await look_at_directory(tmp_path)).finding


async def test_limits_that_are_used_up():
    config = replace(NEAR, limits=LimitsConfig(connections=2, outbound_share=0))
    async with Node(listen=LOOPBACK, config=config) as node, Node() as one, Node() as other:
        events = node.events()
        await one.connect(node.addresses)
        await other.connect(node.addresses)
        while len(node.connections) < 2:
            await anext(events)
        seen = (await node.diagnose()).check("limits")
        assert seen.state is State.NOTE
        assert "connections: 2 of 2" in seen.finding


def test_hole_punching_is_counted_and_told_all_the_same():
    told = []
    tally = PunchTally()
    publish = tally.counting(told.append)
    peer = Node().peer_id
    events = [
        HolePunched(peer, Multiaddr.parse("/ip4/1.2.3.4/tcp/1"), 1),
        HolePunchFailed(peer, "first"),
        HolePunchFailed(peer, "second"),
        PeerOnline(peer),
    ]
    for event in events:
        publish(event)
    assert told == events
    assert (tally.succeeded, tally.failed, tally.last_failure) == (1, 2, "second")
