"""The demonstration without a terminal: its steps, its figures, and the processes it starts."""

from __future__ import annotations

import json
import os
import signal
from dataclasses import replace

import anyio
import pytest
from isthmus import Multiaddr, Node, NodeConfig, PeerId
from isthmus.node.cli.demo_text import outcome_lines, summary_json, summary_lines, table_row
from isthmus.node.demo import (
    STEPS,
    Connected,
    Measured,
    Moved,
    RelayStarted,
    Stage,
    Step,
    percentile,
    perform,
)
from isthmus.node.demo_nodes import LOOPBACK, NodeProcess, NodeProcessFailed
from isthmus.relay.circuit.limits import RelayServerConfig

PEER = PeerId.parse("12D3KooWGJAmQyRkvK6Cf7Jr3zhMmtLX2Q8d2hKS9sMLUFWEPTpo")
ADDRESS = Multiaddr.parse("/ip4/127.0.0.1/tcp/4001")
CLOSED = NodeConfig(relay_server=RelayServerConfig(preset="default"))
"""A relay for those whom its owner knows, who are none."""
ALONE = Measured(seconds=2.0, echoes=10, echo_p50=0.0001, echo_p99=0.012)
BULK = Measured(seconds=2.0, bulk_bytes=2_000_000_000)
BOTH = Measured(
    seconds=2.0,
    echoes=8,
    echo_p50=0.0002,
    echo_p99=0.0004,
    bulk_bytes=1_500_000_000,
    bulk_alone=1e9,
)


class Seen:
    """A watcher that keeps what it is told."""

    def __init__(self, *, is_live: bool) -> None:
        self.is_live = is_live
        self.begun, self.readings, self.outcomes = [], [], {}

    def begin(self, step):
        self.begun.append(step.name)

    def measuring(self, step, so_far):
        self.readings.append((step.name, so_far))

    def done(self, step, outcome):
        self.outcomes[step.name] = outcome


@pytest.mark.parametrize("is_live", [True, pytest.param(False, marks=pytest.mark.slow)])
async def test_the_steps_in_order(anyio_backend_name, is_live):
    seen = Seen(is_live=is_live)
    async with Stage(seconds=1, arguments=["--json", "--backend", anyio_backend_name]) as stage:
        await perform(STEPS, stage, seen)
    assert seen.begun == list(seen.outcomes) == [step.name for step in STEPS]
    assert seen.outcomes == stage.found
    if is_live:
        assert {name for name, _ in seen.readings} == {"echo", "bulk", "both"}
        assert all(0 < reading.seconds < 1 for _, reading in seen.readings)
    else:
        assert seen.readings == []
    moved, relay = stage.found["direct"], stage.others["relay"]
    assert stage.direct is None, "the nodes have ended"
    assert moved.address.without_peer() != relay.addresses[0].without_peer()
    assert (moved.ended, stage.relayed) == ("the connection was closed by this side", None)
    assert stage.circuit.remote_addr.names[-1] == "p2p-circuit"
    both = stage.found["both"]
    assert both.bulk_alone == stage.found["bulk"].bulk_rate
    assert both.bulk_share > 0


async def test_a_step_that_is_added_has_all_that_the_others_have():
    async def look(stage):
        assert list(stage.others) == ["relay", "other"]
        assert stage.found["connect"].peer == stage.others["other"].peer_id
        return ALONE

    seen = Seen(is_live=False)
    async with Stage(seconds=1, arguments=["--json"]) as stage:
        await perform((*STEPS[:3], Step("look", "Look.", look)), stage, seen)
    assert seen.outcomes["look"] is ALONE


async def test_a_step_that_fails_while_all_nodes_live_fails_with_its_own_error():
    async def fail(stage):
        raise ExceptionGroup("several", [OSError("mine"), OSError("another")])

    with pytest.raises(ExceptionGroup, match="several"):
        async with Stage(seconds=1, arguments=["--json"]) as stage:
            await perform((STEPS[0], Step("fail", "Fail.", fail)), stage, Seen(is_live=False))


async def test_a_step_that_stands_still_is_given_up():
    async def wait(stage):
        await anyio.sleep_forever()

    stage = Stage(seconds=0.01, patience=0.01, arguments=["--json"])
    with pytest.raises(TimeoutError, match="the step 'wait' of the demonstration stood still"):
        async with stage:
            await perform((Step("wait", "Wait.", wait),), stage, Seen(is_live=False))


async def test_a_process_that_is_killed_is_named():
    async def kill(stage):
        os.kill(stage.others["other"].pid, signal.SIGKILL)
        while True:
            async with await stage.open_stream("other", "/echo/1.0.0", 256) as stream:
                await stream.send(b"x")
                await stream.receive()

    with pytest.raises(NodeProcessFailed, match=r"other node \(PID \d+\) was ended by .*SIGKILL"):
        async with Stage(seconds=1, arguments=["--json"]) as stage:
            await perform((*STEPS[:3], Step("kill", "Kill.", kill)), stage, Seen(is_live=False))


async def test_a_process_that_does_not_start_says_why():
    async with anyio.create_task_group() as tasks:
        with pytest.raises(NodeProcessFailed, match=r"third node did not start: .*'judge' is none"):
            await NodeProcess.start("the third node", "judge", tasks=tasks)


async def test_a_process_that_its_relay_refuses_says_why():
    async with anyio.create_task_group() as tasks, Node(listen=LOOPBACK, config=CLOSED) as closed:
        with pytest.raises(NodeProcessFailed, match="does not serve this peer"):
            await NodeProcess.start(
                "a node", "peer", tasks=tasks, relays=[*map(str, closed.addresses)]
            )


async def test_a_process_ends_when_its_input_closes():
    async with anyio.create_task_group() as tasks:
        process = await NodeProcess.start("a node", "peer", tasks=tasks, arguments=["--json"])
        assert await process.why_ended() is None
        with anyio.fail_after(10):
            await process.aclose()
        assert str(await process.why_ended()) == f"a node (PID {process.pid}) ended with code 0"


@pytest.mark.slow
async def test_a_process_that_does_not_end_is_killed():
    async with anyio.create_task_group() as tasks:
        process = await NodeProcess.start("a node", "peer", tasks=tasks, arguments=["--json"])
        os.kill(process.pid, signal.SIGSTOP)
        with anyio.fail_after(10):
            await process.aclose()
        assert "SIGKILL" in str(await process.why_ended())


async def test_a_start_that_is_cancelled_leaves_no_process():
    async with anyio.create_task_group() as tasks:
        with anyio.CancelScope() as scope:
            scope.cancel()
            await NodeProcess.start("a node", "peer", tasks=tasks, arguments=["--json"])
        assert scope.cancelled_caught


def test_percentiles():
    assert percentile([], 0.5) is None
    assert percentile([1.0], 0.99) == 1.0
    ordered = [float(each) for each in range(100)]
    assert (percentile(ordered, 0.5), percentile(ordered, 0.99)) == (50.0, 99.0)


def test_the_way_from_the_relay_as_lines_and_json():
    relay = RelayStarted(PEER, 7, ADDRESS.with_peer(PEER))
    assert outcome_lines(relay) == [f"{PEER}, process 7, at {ADDRESS}"]
    assert relay.to_json() == {"peer_id": str(PEER), "pid": 7, "address": f"{ADDRESS}/p2p/{PEER}"}
    connected = Connected(PEER, 0.0123, 131_072, 120.0)
    assert outcome_lines(connected)[1:] == ["the relay lets 128 KiB pass, for 120 s at most"]
    assert outcome_lines(Connected(PEER, 0.1))[1:] == []
    assert Connected(PEER, 0.1).to_json()["limit_seconds"] is None
    moved = Moved(address=ADDRESS, seconds=0.5, echoes=40, ended=None)
    assert outcome_lines(moved)[1].endswith("none lost; the relayed connection still stands")
    assert outcome_lines(replace(moved, ended="x"))[1].endswith("has ended")
    assert moved.to_json() == {
        "address": str(ADDRESS),
        "direct_ms": 500.0,
        "echoes": 40,
        "relayed_ended": None,
    }


def test_figures_as_json():
    assert BOTH.to_json() == {
        "seconds": 2.0,
        "echoes": 8,
        "echo_p50_ms": 0.2,
        "echo_p99_ms": 0.4,
        "bulk_bytes": 1_500_000_000,
        "bulk_mb_s": 750.0,
        "bulk_share": 0.75,
    }
    assert ALONE.to_json()["bulk_mb_s"] is None
    assert BULK.bulk_share is None
    summary = summary_json({"both": BOTH}, cores=2, backend="trio")
    assert json.loads(json.dumps(summary))["both"]["bulk_share"] == 0.75


def test_figures_as_cells_and_lines():
    assert table_row("both", BOTH) == (
        "both at once",
        "750 MB/s",
        "1.5 GB",
        "75 %",
        "0.200 ms",
        "0.400 ms",
    )
    assert table_row("bulk", None) == ("bulk alone", "", "", "", "", "")
    assert outcome_lines(ALONE) == ["echo p50 0.100 ms, p99 12.0 ms (10 echoes)"]
    assert outcome_lines(Measured(seconds=1, echoes=0)) == ["echo p50 -, p99 - (0 echoes)"]


def test_the_summary_says_what_was_measured_and_no_more():
    connected = Connected(PEER, 0.0123, 131_072, 120.0)
    moved = Moved(address=ADDRESS, seconds=0.0456, echoes=40, ended="gone")
    found = {"connect": connected, "direct": moved, "echo": ALONE, "bulk": BULK, "both": BOTH}
    text = "\n".join(summary_lines(found, cores=2))
    for figure in (
        "12.3 ms",
        "45.6 ms later",
        "40 times",
        "0.100 ms",
        "1000 MB/s",
        "0.400 ms",
        "75 %",
        "4 messages a second",
    ):
        assert figure in text
    assert "one core" not in text
    assert "one core" in "\n".join(summary_lines(found, cores=1))
    faster = replace(BOTH, bulk_alone=0.7e9)
    assert "Bulk keeps 100 % of its speed" in "\n".join(summary_lines({"both": faster}, cores=2))
    nothing = Measured(seconds=1.0, echoes=0, bulk_bytes=0)
    text = "\n".join(summary_lines({"echo": nothing, "both": nothing}, cores=2))
    assert "ms" not in text.partition("Try next")[0]
    assert all(len(line) <= 90 for line in text.splitlines())
