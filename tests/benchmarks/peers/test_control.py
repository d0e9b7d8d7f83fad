"""The controller against a tiny program that keeps the contract, or breaks it."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import anyio
import pytest
from isthmus.benchmarks.peers.control import launch, running
from isthmus.benchmarks.peers.errors import PeerDied, PeerFailed, PeerUnavailable
from isthmus.benchmarks.peers.install import PROGRAMS, argv_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

HELLO = """
import json, os, sys
def say(**message):
    sys.stdout.write(json.dumps(message) + "\\n")
    sys.stdout.flush()
say(event="listening", peer_id="12D3", addresses=["/ip4/127.0.0.1/tcp/1/p2p/12D3"], version="toy 1")
"""

TOY = (
    HELLO
    + """
held = []
for line in sys.stdin:
    message = json.loads(line)
    number, what = message["id"], message["do"]
    if what == "add":
        say(id=number, ok=True, result={"sum": message["a"] + message["b"]})
    elif what == "refuse":
        say(id=number, ok=False, error="will not", kind="Refused")
    elif what == "hold":
        held.append(number)
    elif what == "release":
        for waiting in reversed(held):
            say(id=waiting, ok=True, result={"was": waiting})
        say(id=number, ok=True, result={"released": len(held)})
    elif what == "die":
        sys.stderr.write("about to fail\\n")
        sys.exit(3)
    elif what == "babble":
        sys.stdout.write("[1, 2]\\n")
        sys.stdout.flush()
    elif what == "fork":
        opened, tell = os.pipe()
        child = os.fork()
        if child == 0:
            import signal
            held_open = open(message["fifo"], "w")
            os.write(tell, b"x")
            signal.pause()
        os.read(opened, 1)
        say(id=number, ok=True, result={"child": child})
"""
)


def command(program: str) -> Sequence[str]:
    return [sys.executable, "-c", program]


async def test_a_peer_says_who_it_is_and_answers() -> None:
    async with running("toy", command(TOY)) as peer:
        assert (peer.peer_id, peer.version) == ("12D3", "toy 1")
        assert peer.address == "/ip4/127.0.0.1/tcp/1/p2p/12D3"
        assert peer.pid > 0
        assert await peer.call("add", a=2, b=3) == {"sum": 5}


async def test_answers_find_their_calls_in_any_order() -> None:
    answers: list[dict[str, int]] = []

    async def hold() -> None:
        answers.append(await peer.call("hold"))

    async with running("toy", command(TOY)) as peer, anyio.create_task_group() as tasks:
        for _ in range(5):
            tasks.start_soon(hold)
        await anyio.wait_all_tasks_blocked()
        assert await peer.call("release") == {"released": 5}
    assert sorted(answer["was"] for answer in answers) == [1, 2, 3, 4, 5]


async def test_a_failed_command_keeps_its_kind_and_text() -> None:
    async with running("toy", command(TOY)) as peer:
        with pytest.raises(PeerFailed) as failure:
            await peer.call("refuse")
        assert (failure.value.kind, failure.value.text) == ("Refused", "will not")
        assert await peer.call("add", a=1, b=1) == {"sum": 2}


async def test_a_call_that_nobody_answers_ends_in_time() -> None:
    async with running("toy", command(TOY)) as peer:
        with pytest.raises(TimeoutError):
            await peer.call("hold", timeout=0.01)
        assert await peer.call("add", a=1, b=1) == {"sum": 2}


async def test_a_peer_that_dies_shows_its_code_and_stderr() -> None:
    async with running("toy", command(TOY)) as peer:
        with pytest.raises(PeerDied, match="ended with code 3") as death:
            await peer.call("die")
        assert death.value.stderr == "about to fail"
        with pytest.raises(PeerDied):
            await peer.call("add", a=1, b=1)


async def test_a_line_that_is_no_object_ends_the_peer() -> None:
    async with running("toy", command(TOY)) as peer:
        with pytest.raises(PeerDied, match="broke the contract"):
            await peer.call("babble")


async def test_a_program_that_does_not_start_says_why() -> None:
    with pytest.raises(PeerDied, match="no such address"):
        async with running("toy", command("import sys; sys.exit('no such address')")):
            pass
    with pytest.raises(PeerUnavailable, match="does not start"):
        async with running("toy", ["/nowhere/at/all"]):
            pass


async def test_a_silent_program_is_killed_in_time() -> None:
    with pytest.raises(TimeoutError):
        async with running("toy", command("input()"), start_timeout=0.05):
            pass


async def test_the_whole_group_is_killed_at_the_end(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    try:
        async with running("toy", command(TOY)) as peer:
            child = (await peer.call("fork", fifo=str(fifo)))["child"]
            assert os.getpgid(child) == peer.pid
        # The child alone holds the other end, so this returns when the kernel has ended it.
        os.set_blocking(reader, True)
        assert os.read(reader, 1) == b""
    finally:
        os.close(reader)


async def test_an_error_of_the_block_comes_out_as_it_is() -> None:
    with pytest.raises(KeyError, match="mine"):
        async with running("toy", command(TOY)):
            raise KeyError("mine")


async def test_the_program_gets_prefix_listen_and_arguments(tmp_path, monkeypatch) -> None:
    echo_argv = HELLO + "sys.stdin.readline(); say(id=1, ok=True, result={'argv': sys.argv[1:]})"
    script = tmp_path / "toy.py"
    script.write_text(echo_argv)
    monkeypatch.setitem(PROGRAMS, "toy", lambda: [sys.executable, str(script)])
    listen = "/ip4/127.0.0.1/tcp/7"
    async with launch("toy", listen=listen, netns_prefix=["env"], arguments=["--x"]) as peer:
        assert await peer.call("argv") == {"argv": ["--listen", listen, "--x"]}


def test_our_own_peers_are_modules_of_this_interpreter() -> None:
    for backend in ("asyncio", "uvloop", "trio"):
        assert argv_of(f"isthmus-{backend}")[-2:] == ["--backend", backend]
    with pytest.raises(KeyError):
        argv_of("nobody")
