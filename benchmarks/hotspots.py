"""Where the time of a missed target goes: the question once more, with both ends under cProfile.

It runs on asyncio, as uvloop's own waiting cannot be told from the work of whoever waits. What a
process spends before it listens is measured apart and taken off. A profile slows Python down by a
factor of two or so, and calls more than other work: it shows where to look, not what there is to
gain.
"""

from __future__ import annotations

import marshal
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import anyio.to_thread

from .harness import ask
from .questions import SUBJECTS
from .results import Failure

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .questions import Question

PROFILED = "asyncio"
SHOWN = 12
START_TIMEOUT = 30.0
"""Seconds for a process that starts, finds nothing to do, and ends."""
WAITING = ("'poll' of 'select", "'acquire' of", "'control' of 'select")
"""What sleeps until something happens, by parts of its name."""

Function = tuple[str, int, str]
Profile = dict[Function, tuple[float, int]]
"""Own seconds and calls of each function."""


@dataclass(frozen=True, slots=True)
class Hotspot:
    """One function and its share of the time that its process worked, without what it called."""

    where: str
    own_seconds: float
    share: float
    calls: int


@dataclass(frozen=True, slots=True)
class Profiled:
    """The hottest functions of "dialer" and "listener"; `why` says what is missing, if anything."""

    roles: Mapping[str, Sequence[Hotspot]]
    why: str | None


async def profile(question: Question) -> Profiled:
    """Put the question to a profiled pair."""
    subject = SUBJECTS[PROFILED]
    with tempfile.TemporaryDirectory(prefix="isthmus-profile-") as folder:

        def wrap(command: list[str], role: str) -> list[str]:
            python, *arguments = command
            return [python, "-m", "cProfile", "-o", f"{folder}/{role}", *arguments]

        with anyio.move_on_after(START_TIMEOUT):
            idle = wrap(subject.command_line(), "start")
            await anyio.run_process(idle, stdin=subprocess.DEVNULL, check=False)
        found = await ask(subject, question, 1, {}, wrap=wrap)
        profiles = await anyio.to_thread.run_sync(_read_all, Path(folder))
    start = profiles.pop("start", {})
    roles = {role: hottest(each, start) for role, each in profiles.items()}
    failed = [each.why for each in found if isinstance(each, Failure)]
    if not failed and len(roles) < 2:
        failed = ["a process ended before it could write its profile"]
    return Profiled(roles, failed[0] if failed else None)


def hottest(profile: Profile, start: Profile) -> list[Hotspot]:
    """Return the functions with most time of their own, less what they took in `start`."""
    working = []
    for function, (seconds, calls) in profile.items():
        before = start.get(function, (0.0, 0))
        if not any(word in function[2] for word in WAITING):
            working.append((max(seconds - before[0], 0.0), calls - before[1], function))
    total = sum(seconds for seconds, _, _ in working) or 1.0
    working.sort(reverse=True)
    return [
        Hotspot(_where(function), seconds, seconds / total, calls)
        for seconds, calls, function in working[:SHOWN]
    ]


def lines(profiled: Profiled) -> list[str]:
    """Return a line a function, for people."""
    return [
        f"  {role:8} {spot.share:5.1%} {spot.own_seconds:7.3f} s {spot.calls:8} calls  {spot.where}"
        for role, spots in profiled.roles.items()
        for spot in spots
    ]


def _read_all(folder: Path) -> dict[str, Profile]:
    return {file.name: _read(file) for file in sorted(folder.iterdir())}


def _read(file: Path) -> Profile:
    """Read what cProfile wrote: by function, calls twice, own and whole seconds, callers."""
    stored = marshal.loads(file.read_bytes())
    return {function: (row[2], row[1]) for function, row in stored.items()}


def _where(function: Function) -> str:
    file, line, name = function
    return f"{'/'.join(Path(file).parts[-2:])}:{line} {name}" if line else name
