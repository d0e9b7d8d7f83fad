"""The harness with real processes, asked for next to nothing."""

from __future__ import annotations

import json
import os
import random
import socket
import sys
import threading
from contextlib import AsyncExitStack
from dataclasses import replace

import anyio
import pytest
from click import ClickException
from click.testing import CliRunner
from isthmus.benchmarks import command, hotspots, link, stage
from isthmus.benchmarks.baselines import Bare, Raw, pour, receive_exactly
from isthmus.benchmarks.harness import Plan, ask, begun, chosen, pin, run
from isthmus.benchmarks.peers.errors import PeerFailed
from isthmus.benchmarks.questions import BASELINES, PEERS, SUBJECTS, Subject, Work, questions
from isthmus.benchmarks.results import Failure, Phase, load

TINY = Work(
    cold_bytes=1_000_000,
    warm_up_bytes=2_000_000,
    warm_bytes=1_000_000,
    echoes=20,
    streams=5,
    dials=2,
    beside_seconds=0.05,
    link_seconds=0.1,
)


class Missing(Subject):
    """A subject that ends before it says anything."""

    def command_line(self) -> list[str]:
        return [sys.executable, "-c", "pass"]


@pytest.fixture
def anyio_backend() -> str:
    """Processes are the same on either backend, and slow to start."""
    return "asyncio"


def question(name: str):
    return next(each for each in questions(TINY) if each.name == name)


async def test_a_run_of_isthmus():
    plan = Plan(
        subjects=chosen(["asyncio"], ["raw"]), groups=frozenset({"echo", "streams"}), work=TINY
    )
    plan, seen = replace(plan, rounds=1), []
    found = begun(plan)
    await run(plan, found, seen.append)
    assert found.failures == []
    kinds = [(each.subject, each.question, each.phase.value) for each in found.samples]
    assert kinds == [
        ("raw", "echo", "cold"),
        ("raw", "echo", "warm"),
        ("asyncio", "echo", "cold"),
        ("asyncio", "echo", "warm"),
        ("asyncio", "streams", "cold"),
        ("asyncio", "streams", "warm"),
    ]
    assert all(value > 0 for each in found.samples for value in each.figures.values())
    assert found.versions["asyncio"].startswith("isthmus ")
    assert [(each.done, each.total) for each in seen] == [(0, 3), (1, 3), (2, 3)]


@pytest.mark.slow
@pytest.mark.timeout(120)
async def test_every_question_to_isthmus():
    groups = frozenset({"throughput", "echo", "streams", "dials", "beside", "flood", "relay"})
    plan = Plan(subjects=chosen(["uvloop"], BASELINES), groups=groups, rounds=1, work=TINY)
    found = begun(plan)
    await run(plan, found, lambda _: None)
    assert found.failures == []
    asked = {each.question for each in found.samples if each.subject == "uvloop"}
    assert asked == {each.name for each in questions(TINY)} - {"aead"}


@pytest.mark.parametrize("name", ["raw", "bare"])
async def test_sockets_move_bytes_both_ways(name):
    for direction in ("up-1", "down-1"):
        found = await ask(SUBJECTS[name], question(direction), 1, {})
        assert [each.phase for each in found] == [Phase.COLD, Phase.WARM]


@pytest.mark.parametrize("name", ["relay-up", "relay-echo-same"])
async def test_a_relay_between_two(name):
    versions = {}
    cold, warm = await ask(SUBJECTS["asyncio"], question(name), 1, versions)
    assert (cold.phase, warm.phase) == (Phase.COLD, Phase.WARM)
    assert versions["asyncio"].startswith("isthmus ")
    assert all(10 < each.figures["rss_mb"] < 500 for each in (cold, warm))
    for figure in question(name).figures:
        assert warm.figures[figure] > 0


async def test_peers_that_left_their_relay_are_a_failure():
    """The listener is told as one that was dialled directly: that is no figure of a relay."""
    async with AsyncExitStack() as stack:
        asked = question("relay-echo")
        on_stage = await stage.set_up(stack, SUBJECTS["asyncio"], asked, lambda command, _: command)
        await on_stage.dialer.call("connect", address=on_stage.address)
        await on_stage.check()
        await on_stage.dialer.call("connect", address=on_stage.relay.address)
        direct = replace(on_stage, address=on_stage.relay.address)
        with pytest.raises(PeerFailed, match="direct path"):
            await direct.check()


async def test_the_cipher_is_alone():
    (found,) = await ask(SUBJECTS["aead"], question("aead"), 1, {})
    assert found.figures["mb_s"] > 0


async def test_a_socket_has_no_ten_streams():
    (failure,) = await ask(SUBJECTS["raw"], question("up-10"), 1, {})
    assert isinstance(failure, Failure)
    assert "one stream" in failure.why
    plan = Plan(subjects=chosen([], BASELINES), groups=frozenset({"throughput"}))
    assert plan.askable(question("up-10"), plan.subjects) == []


async def test_who_dies_is_a_failure():
    missing = Missing(name="missing", title="missing", groups=frozenset({"echo"}))
    (failure,) = await ask(missing, question("echo"), 3, {})
    assert (failure.subject, failure.number) == ("missing", 3)
    assert "ended with code 0" in failure.why


def test_rounds_and_who_is_asked():
    plan = Plan(subjects=chosen(PEERS, BASELINES), groups=frozenset({"throughput"}))
    # The cipher, two sockets and all peers on one stream, the peers on ten, up and down.
    expected = 1 + 2 * (2 + len(PEERS)) + 2 * len(PEERS)
    assert plan.steps_of_a_round(plan.subjects) == expected
    with pytest.raises(KeyError):
        chosen(["nobody"], BASELINES)


@pytest.mark.parametrize("is_bare", [False, True])
def test_channels_keep_every_byte(is_bare):
    left, right = socket.socketpair()
    with left, right:
        sender = Bare(left, is_dialer=True) if is_bare else Raw(left)
        receiver = Bare(right, is_dialer=False) if is_bare else Raw(right)
        data = random.Random(1).randbytes(1_000_000)

        def send() -> None:
            for size in (1, 2, 65_519, 65_520, 300_000):
                sender.send(data[:size])
            pour(sender, 100_000)

        thread = threading.Thread(target=send)
        thread.start()
        for size in (1, 2, 65_519, 65_520, 300_000):
            assert receive_exactly(receiver, size) == data[:size]
        assert receive_exactly(receiver, 100_000) == bytes(100_000)
        thread.join()
        left.shutdown(socket.SHUT_WR)
        with pytest.raises(EOFError):
            receiver.receive(1)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux pins")
async def test_pinning():
    async with await anyio.open_process(["cat"]) as first, await anyio.open_process(["cat"]) as two:
        pin(first.pid, two.pid)
        if len(os.sched_getaffinity(0)) > 1:
            assert os.sched_getaffinity(first.pid).isdisjoint(os.sched_getaffinity(two.pid))
        await first.stdin.aclose()
        await two.stdin.aclose()


async def test_a_link_with_nobody_to_ask_is_not_built():
    assert await link.ask(["trio"], 1, 0.1) == []


@pytest.mark.lab
@pytest.mark.slow
@pytest.mark.timeout(120)
async def test_the_link():
    found = await link.ask(["uvloop"], 2, 0.5)
    assert [(each.subject, each.question) for each in found] == [
        ("tcp", "link-cubic"),
        ("uvloop", "link-cubic"),
        ("tcp", "link-bbr"),
        ("uvloop", "link-bbr"),
    ]
    assert all(each.figures["idle_p50_us"] > 19_000 for each in found)


def test_hot_functions_without_start_and_waiting():
    work, idle = ("a/b/c.py", 3, "work"), ("~", 0, "<method 'poll' of 'select.epoll' objects>")
    start = ("x.py", 1, "load")
    profile = {work: (3.0, 10), idle: (9.0, 5), start: (2.0, 4)}
    first, second = hotspots.hottest(profile, {start: (1.0, 4)})
    assert (first.where, first.share, first.calls) == ("b/c.py:3 work", 0.75, 10)
    assert second.own_seconds == 1.0
    text = hotspots.lines(hotspots.Profiled({"dialer": [first]}, None))
    assert "75.0%" in text[0]


def test_the_command(tmp_path):
    file = tmp_path / "run.json"
    arguments = ["--quick", "--only", "echo", "--peers", "", "--no-lab", "--json", str(file)]
    result = CliRunner().invoke(command.bench, arguments)
    assert result.exit_code == 0, result.output
    assert "32-byte echo, p50 us" in result.output
    assert {each.subject for each in load(file).samples} == {"raw", "bare"}
    assert json.loads(file.read_text("utf-8"))["verdicts"] == []


async def test_a_profile_names_the_hot_functions_of_both():
    profiled = await hotspots.profile(question("echo"))
    assert profiled.why is None
    assert set(profiled.roles) == {"dialer", "listener"}
    for spots in profiled.roles.values():
        assert spots
        assert sum(spot.share for spot in spots) <= 1.001


def test_a_file_that_cannot_be_written_is_told(tmp_path):
    results = begun(Plan(subjects=[], groups=frozenset(), rounds=1, work=TINY))
    with pytest.raises(ClickException, match="cannot write"):
        command.write(results, tmp_path)


@pytest.mark.parametrize("option", ["--peers", "--only"])
def test_names_are_checked(option):
    result = CliRunner().invoke(command.bench, [option, "nobody"])
    assert result.exit_code == 2
    assert "nobody" in result.output
