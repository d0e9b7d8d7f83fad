"""The question of the slow link: an urgent echo beside bulk, in the network lab of the checkout.

20 Mbit/s and 20 ms with a queue of 100 ms, under cubic and under bbr. It runs as a program of its
own, once per round, which becomes root of its own namespaces where it is not root; each line that
it prints is a sample or a failure.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import subprocess
import sys
from contextlib import AsyncExitStack
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio

from .peers.control import running
from .peers.errors import PeerProgramError, PeerUnavailable
from .questions import SUBJECTS
from .results import Failure, Phase, Sample, sample_from

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from .peers.control import Peer

CONGESTION = ("cubic", "bbr")
ASKED = ("uvloop", "js", "py", "go", "rust")
PLAIN = "tcp"
"""The subject that is plain sockets."""
NETWORK = "10.55.0.0/24"
"""A private one: js-libp2p tells nobody of a public address that it has not had confirmed."""
IDLE_ECHOES = 200
ANSWER_TIMEOUT = 120.0
"""Seconds for one command beyond its own length: a queue before a slow link takes long to drain."""
LAB = Path(__file__).resolve().parent.parent / "tests" / "lab"


def question_name(congestion: str) -> str:
    """Return the name of the question, such as "link-cubic"."""
    return f"link-{congestion}"


async def ask(names: Sequence[str], number: int, seconds: float) -> list[Sample | Failure]:
    """Run one round in a process of its own; what goes wrong is a failure in the answer."""
    asked = [name for name in ASKED if name in names]
    if not asked:
        return []
    arguments = ["--round", str(number), "--seconds", str(seconds), *asked]
    command = [sys.executable, "-m", "isthmus.benchmarks.link", *arguments]
    done = await anyio.run_process(command, stdin=subprocess.DEVNULL, check=False)
    found: list[Sample | Failure] = []
    try:
        for line in done.stdout.splitlines():
            data = json.loads(line)
            found.append(sample_from(data) if "figures" in data else Failure(**data))
    except (ValueError, KeyError, TypeError) as error:
        found.append(_failure(number, f"broke off: {error!r}"))
    if done.returncode:
        last = done.stderr.decode(errors="replace").strip().rpartition("\n")[2]
        found.append(_failure(number, last or f"ended with code {done.returncode}"))
    return found


def _failure(number: int, why: str, *, subject: str = "lab", question: str = "link") -> Failure:
    return Failure(subject=subject, question=question, number=number, why=why)


# What follows runs in the process of its own.


def measure(names: Sequence[str], number: int, seconds: float) -> Iterator[Sample | Failure]:
    """Build the link and yield the answers of one round, or the failure to build it."""
    natlab = load_lab()
    if isinstance(natlab, str):
        yield _failure(number, natlab)
        return
    with natlab.Lab(public=NETWORK) as lab:
        near, far = natlab.wan_link(lab)
        for congestion in CONGESTION:
            near.congestion(congestion)
            far.congestion(congestion)
            question = question_name(congestion)
            try:
                figures = _plain(natlab, near, far, seconds, congestion)
                yield _sample(PLAIN, question, number, figures)
            except (natlab.LabError, TimeoutError) as error:
                yield _failure(number, str(error), subject=PLAIN, question=question)
            for name in names:
                try:
                    figures = anyio.run(_beside, name, near, far, seconds)
                    yield _sample(name, question, number, figures)
                except (PeerProgramError, TimeoutError) as error:
                    why = str(error) or "no answer in time"
                    yield _failure(number, why, subject=name, question=question)


def load_lab() -> Any:  # noqa: ANN401 - a module outside this package
    """Return the lab's module, having become root if need be; or say what lacks, as a text."""
    if sys.platform != "linux" or not (LAB / "natlab").is_dir():
        return "the lab needs Linux and a checkout of the sources"
    sys.path.insert(0, str(LAB))
    natlab = importlib.import_module("natlab")
    if os.geteuid():
        if not natlab.can_become_root():
            return "the lab needs root, or user namespaces for unprivileged users"
        natlab.become_root()
    why = natlab.missing()
    return natlab if why is None else f"the lab needs {why}"


def _plain(
    natlab: Any,  # noqa: ANN401 - a module outside this package
    near: Any,  # noqa: ANN401
    far: Any,  # noqa: ANN401
    seconds: float,
    congestion: str,
) -> dict[str, float]:
    """Measure what plain sockets get: the idle echo and a copy."""
    idle = natlab.echo_rtt(near, far, samples=IDLE_ECHOES)
    copied = natlab.plain_tcp_copy(near, far, seconds, congestion)
    return {
        "idle_p50_us": idle.p50 * 1e6,
        "idle_p99_us": idle.p99 * 1e6,
        "bulk_mb_s": copied / 1e6,
    }


async def _beside(name: str, near: Any, far: Any, seconds: float) -> dict[str, float]:  # noqa: ANN401
    """Ask one pair across the link; raises PeerProgramError, TimeoutError."""
    async with AsyncExitStack() as stack:
        listener = await _start(stack, name, far)
        dialer = await _start(stack, name, near)
        if not listener.addresses:
            raise PeerUnavailable(name, "it listens, but says of no address")
        await dialer.call("connect", address=listener.address)
        answer = await dialer.call(
            "bench_beside",
            timeout=3 * seconds + ANSWER_TIMEOUT,
            address=listener.address,
            seconds=seconds,
        )
    return {key: float(value) for key, value in answer.items() if isinstance(value, int | float)}


async def _start(stack: AsyncExitStack, name: str, host: Any) -> Peer:  # noqa: ANN401
    command = [*SUBJECTS[name].command_line(), "--listen", f"/ip4/{host.ip}/tcp/0"]
    inside = ["ip", "netns", "exec", host.namespace, *command]
    return await stack.enter_async_context(running(name, inside))


def _sample(name: str, question: str, number: int, figures: dict[str, float]) -> Sample:
    return Sample(subject=name, question=question, phase=Phase.WARM, number=number, figures=figures)


def main() -> None:
    """Parse the command line, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--round", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=6.0)
    parser.add_argument("names", nargs="*", default=list(ASKED))
    options = parser.parse_args()
    for found in measure(options.names, options.round, options.seconds):
        sys.stdout.write(json.dumps(asdict(found)) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
