"""`isthmus demo`: what it shows, to whom, and that it leaves nothing behind however it ends."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from contextlib import ExitStack

import pytest
from isthmus.node.demo import STEPS

from .processes import EACH_BACKEND, INTERRUPTED, children, until, watched

BACKENDS = ["asyncio", "trio"]
SHORT = ("--seconds", "1")
BRIEF = ("--seconds", "2")
"""Long enough to be interrupted at any step."""
NAMES = [step.name for step in STEPS]
INTERRUPTED_AT = [
    name if name in {"relay", "connect", "both"} else pytest.param(name, marks=pytest.mark.slow)
    for name in NAMES
]
"""One node, two of them, and all at work; the others are alike."""
UNTRACED = pytest.mark.usefixtures("untraced")
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="asks Linux which processes there are")


@pytest.mark.parametrize("backend", BACKENDS)
def test_every_step_is_one_object_and_the_last_has_them_all(isthmus, backend):
    done = isthmus("demo", *SHORT, "--json", "--backend", backend)
    assert (done.code, done.err) == (0, "")
    *steps, summary = map(json.loads, done.out.splitlines())
    found = {step.pop("step"): step for step in steps}
    first = ["relay", "start", "connect", "relayed", "direct"]
    assert list(found) == NAMES == [*first, "echo", "bulk", "both"]
    assert summary == {"step": "summary", "backend": backend, "cores": summary["cores"], **found}
    assert summary["cores"] >= 1
    start, connect = found["start"], found["connect"]
    assert start["peer_id"] != start["other_peer_id"] == connect["proven_peer_id"]
    relay, direct = found["relay"], found["direct"]
    circuit = f"{relay['address']}/p2p-circuit/p2p/{start['other_peer_id']}"
    assert start["address"] == circuit
    assert relay["address"].endswith(f"/p2p/{relay['peer_id']}")
    assert 0 < connect["connect_ms"] < 10_000
    # As the relay has told, of which a little is used by now.
    assert 100_000 < connect["limit_bytes"] <= 128 * 1024
    assert 100 < connect["limit_seconds"] <= 120
    assert direct["address"].startswith("/ip4/127.0.0.1/tcp/")
    assert 0 <= direct["direct_ms"] < 10_000
    assert direct["echoes"] >= 40
    assert direct["relayed_ended"] == "the connection was closed by this side"
    assert not isthmus.data_dir.exists()


def test_what_is_measured_is_what_flowed(isthmus):
    done = isthmus("demo", *SHORT, "--json")
    found = {step["step"]: step for step in map(json.loads, done.out.splitlines())}
    relayed, echo, bulk, both = (found[name] for name in ("relayed", "echo", "bulk", "both"))
    assert (echo["bulk_bytes"], echo["bulk_mb_s"], echo["bulk_share"]) == (None, None, None)
    assert (bulk["echoes"], bulk["echo_p50_ms"], bulk["bulk_share"]) == (None, None, None)
    for each in (relayed, echo, both):
        assert each["echoes"] > 0
        assert 0 < each["echo_p50_ms"] <= each["echo_p99_ms"] < 10_000
    for each in (bulk, both):
        rate = each["bulk_bytes"] / 1e6 / each["seconds"]
        assert each["bulk_mb_s"] == pytest.approx(rate, rel=0.02)
    assert both["bulk_share"] == pytest.approx(both["bulk_mb_s"] / bulk["bulk_mb_s"], rel=0.01)


def test_people_in_a_pipe_read_lines_and_no_colours(isthmus):
    done = isthmus("demo", *SHORT)
    assert (done.code, done.err) == (0, "")
    assert "\x1b" not in done.out
    lines = done.out.splitlines()
    for number, step in enumerate(STEPS, 1):
        assert lines.count(f"{number}/{len(STEPS)}  {step.text}") == 1
    assert "The nodes met through a relay in " in done.out
    assert " later they were connected directly. The echo went on," in done.out
    assert "urgent message goes ahead of the bulk" in done.out
    assert "Bulk keeps " in done.out
    for next_step in ("isthmus run\n", "isthmus ping ADDR", "from isthmus import Node, run"):
        assert next_step in done.out


def test_people_on_a_terminal_see_a_table_change(isthmus):
    code, drawn = isthmus.on_terminal("demo", "--seconds", "1.5", TERM="xterm")
    assert code == 0
    assert drawn.count("urgent echo alone") > len(STEPS)
    assert "\x1b[1A" in drawn
    assert drawn.rindex("\x1b[?25h") > drawn.rindex("\x1b[?25l")
    last = drawn[drawn.rindex("urgent echo alone") :]
    assert "MB/s" in last
    assert " ms" in last
    assert "What you have seen" in last


def test_a_terminal_that_cannot_draw_gets_lines(isthmus):
    code, drawn = isthmus.on_terminal("demo", *SHORT, TERM="dumb")
    assert code == 0
    assert "\x1b" not in drawn
    assert drawn.count("bulk alone") <= 1
    assert "What you have seen" in drawn


@pytest.mark.parametrize("backend", EACH_BACKEND)
@pytest.mark.parametrize("name", INTERRUPTED_AT)
@LINUX
@UNTRACED
def test_ctrl_c_at_any_step_ends_all_nodes(isthmus, backend, name):
    demo = isthmus.start("demo", *BRIEF, "--backend", backend)
    demo.line(next(step.text for step in STEPS if step.name == name))
    count = 1 if name == "relay" else 2
    others = until(lambda: found if len(found := children(demo.pid)) == count else None)
    with ExitStack() as stack:
        ended = [stack.enter_context(watched(other)) for other in others]
        done = demo.stop()
        assert (done.code, done.err) == (130, "")
        for wait in ended:
            wait()


@LINUX
def test_more_ctrl_c_while_it_stops(isthmus):
    demo = isthmus.start("demo", *BRIEF)
    demo.line("6/8")
    other = children(demo.pid)[-1]
    with watched(other) as ended:
        for _ in range(3):
            demo.send_signal(signal.SIGINT)
        done = demo.finish()
        assert done.code in INTERRUPTED
        assert done.err == ""
        ended()


def test_ctrl_c_on_a_terminal_gives_it_back_as_it_was(isthmus):
    sent = []

    def interrupt(process, drawn):
        if "B/s" in drawn and not sent:
            sent.append(process.pid)
            process.send_signal(signal.SIGINT)

    code, drawn = isthmus.on_terminal("demo", *BRIEF, on_drawn=interrupt, TERM="xterm")
    assert code == 130
    assert "Traceback" not in drawn
    assert "error" not in drawn
    assert "What you have seen" not in drawn
    assert drawn.rindex("\x1b[?25h") > drawn.rindex("\x1b[?25l")


def test_a_polite_kill_ends_it_in_order(isthmus):
    demo = isthmus.start("demo", *BRIEF)
    demo.line("6/8")
    done = demo.stop(signal.SIGTERM)
    assert (done.code, done.err) == (128 + signal.SIGTERM, "")


@pytest.mark.parametrize("backend", EACH_BACKEND)
@pytest.mark.parametrize("at", [pytest.param("start", marks=pytest.mark.slow), "bulk"])
@LINUX
@UNTRACED
def test_the_other_nodes_end_by_themselves_if_this_one_is_killed(isthmus, backend, at):
    demo = isthmus.start("demo", *BRIEF, "--backend", backend)
    demo.line(next(step.text for step in STEPS if step.name == at))
    relay, other = until(lambda: found if len(found := children(demo.pid)) == 2 else None)
    with watched(relay) as relay_ended, watched(other) as ended:
        demo.stop(signal.SIGKILL)
        relay_ended()
        ended()


@pytest.mark.parametrize("backend", EACH_BACKEND)
@pytest.mark.parametrize("name", ["start", pytest.param("both", marks=pytest.mark.slow)])
@LINUX
@UNTRACED
def test_the_other_node_killed_is_one_line(isthmus, backend, name):
    demo = isthmus.start("demo", *BRIEF, "--json", "--backend", backend)
    if name != "start":
        demo.line(f'"step": "{NAMES[NAMES.index(name) - 1]}"')
    found = until(lambda: found if len(found := children(demo.pid)) == 2 else None)
    os.kill(max(found), signal.SIGKILL)
    done = demo.finish()
    complaint = type(done)(done.code, "", done.err).complaint()
    assert "the other node" in complaint
    assert "was ended by the signal SIGKILL" in complaint
    assert all(json.loads(line)["step"] in NAMES for line in done.out.splitlines())


def test_it_ends_when_nobody_reads_any_more(isthmus):
    demo = isthmus.start("demo", *SHORT)
    demo.line("1/8")
    demo.close_stdout()
    done = demo.finish()
    assert (done.code, done.err) == (1, "")


def test_debugging_logs_and_leaves_the_output_alone(isthmus):
    done = isthmus("demo", *SHORT, "--json", "--debug")
    assert done.code == 0
    assert "DEBUG isthmus.node.swarm" in done.err
    for line in done.out.splitlines():
        json.loads(line)


@pytest.mark.parametrize("seconds", ["0", "0.5", "1000", "x"])
def test_wrong_usage(isthmus, seconds):
    assert "'--seconds'" in isthmus("demo", "--seconds", seconds).complaint(code=2)


def test_the_command_of_the_other_node_is_listed_nowhere(isthmus):
    assert "demo-node" not in isthmus("--help").out
    complaint = isthmus("demo-node", "judge").complaint(code=2)
    assert "'judge' is none of peer, relay" in complaint


@pytest.mark.skipif(shutil.which("taskset") is None, reason="needs taskset(1)")
def test_a_machine_with_one_core_is_told_that_the_nodes_compete_for_it(isthmus):
    core = str(min(os.sched_getaffinity(0)))
    done = isthmus("demo", *SHORT, prefix=("taskset", "--cpu-list", core))
    assert (done.code, done.err) == (0, "")
    assert "This machine has one core, for which the two nodes compete." in done.out
