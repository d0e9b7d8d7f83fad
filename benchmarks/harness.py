"""Runs the questions: every round puts every question to every subject before the next begins.

Each question gets a fresh pair of processes, so that nobody profits from an earlier one's warmth.
Whoever fails is left out of that place of the table, with the reason, and the run goes on.
"""

from __future__ import annotations

import os
import sys
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio.to_thread

from . import environment, idle, link, stage
from .peers.errors import PeerProgramError
from .questions import SUBJECTS, Question, Step, Subject, Work, questions
from .results import Failure, Results, Sample

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from .stage import Stage

STEP_TIMEOUT = 300.0
"""Seconds for one command: the slowest peer takes some 20 for the longest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Which subjects are asked which groups of questions, how often, and how much."""

    subjects: Sequence[Subject]
    groups: frozenset[str]
    rounds: int = 5
    work: Work = field(default_factory=Work)

    def steps_of_a_round(self, subjects: Sequence[Subject]) -> int:
        """Return how many answers one round asks for, to tell how far a run is."""
        asked = sum(len(self.askable(question, subjects)) for question in self.questions())
        return asked + len(self.held(subjects)) + ("link" in self.groups)

    def questions(self) -> list[Question]:
        """Return the questions on loopback; the cipher's is the yardstick of throughput."""
        groups = self.groups | {"aead"} if "throughput" in self.groups else self.groups
        return [question for question in questions(self.work) if question.group in groups]

    def held(self, subjects: Sequence[Subject]) -> list[Subject]:
        """Return to whom idle connections are held."""
        if "idle" not in self.groups or idle.missing():
            return []
        return [subject for subject in subjects if "idle" in subject.groups]

    def askable(self, question: Question, subjects: Sequence[Subject]) -> list[Subject]:
        """Return who of the subjects can answer the question."""
        return [
            subject
            for subject in subjects
            if question.group in subject.groups
            # Blocking sockets have no streams.
            and not (subject.name in ("raw", "bare") and question.name.endswith("-10"))
        ]


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run is: `done` of `total` answers, and what is being asked now."""

    done: int
    total: int
    what: str


def begun(plan: Plan) -> Results:
    """Return the results of a run that is about to start."""
    return Results(environment=environment.describe(), work=plan.work.as_numbers())


async def run(plan: Plan, results: Results, on_progress: Callable[[Progress], None]) -> None:
    """Run the plan into `results`, which hold what there is if the run is cancelled.

    Peers that fail end up in `failures`; nothing of theirs is raised.
    """
    subjects = await _prepared(plan.subjects, results)
    total = plan.rounds * plan.steps_of_a_round(subjects)
    done = 0

    def show(what: str) -> None:
        on_progress(Progress(done, total, f"round {number} of {plan.rounds}: {what}"))

    for number in range(1, plan.rounds + 1):
        for question in plan.questions():
            for subject in plan.askable(question, subjects):
                show(f"{question.title}, {subject.title}")
                for found in await ask(subject, question, number, results.versions):
                    results.add(found)
                done += 1
        for subject in plan.held(subjects):
            show(f"{idle.TITLE}, {subject.title}")
            results.add(await idle.ask(subject, number, plan.work.idle_connections))
            done += 1
        if "link" in plan.groups:
            names = [subject.name for subject in subjects]
            show("the lab's link")
            for answer in await link.ask(names, number, plan.work.link_seconds):
                results.add(answer)
            done += 1


async def ask(
    subject: Subject,
    question: Question,
    number: int,
    versions: dict[str, str],
    *,
    wrap: Callable[[list[str], str], list[str]] = lambda command, _: command,
) -> list[Sample | Failure]:
    """Put one question to a fresh pair and return the answers that count, or one failure.

    `wrap` may change the command lines; it is told "listener", "dialer" or "relay". What the
    program calls itself goes into `versions`.
    """
    try:
        async with AsyncExitStack() as stack:
            on_stage = await stage.set_up(stack, subject, question, wrap)
            versions[subject.name] = on_stage.asked.version
            if question.is_pinned:
                pin(on_stage.listener.pid, on_stage.dialer.pid)
            found = await _answers(subject, question, on_stage)
    except (PeerProgramError, TimeoutError) as error:
        why = str(error).partition("; stderr:")[0] or type(error).__name__
        return [Failure(subject=subject.name, question=question.name, number=number, why=why)]
    return [
        Sample(
            subject=subject.name,
            question=question.name,
            phase=step.phase,
            number=number,
            figures=figures,
        )
        for step, figures in found
        if step.phase is not None
    ]


def pin(*processes: int) -> None:
    """Give each process a core of its own, with all its threads, where there are enough cores."""
    if sys.platform != "linux":
        return
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < len(processes):
        return
    for process, core in zip(processes, cores, strict=False):
        for thread in Path(f"/proc/{process}/task").iterdir():
            # A thread may have ended meanwhile.
            with suppress(ProcessLookupError):
                os.sched_setaffinity(int(thread.name), {core})


async def _answers(
    subject: Subject, question: Question, on_stage: Stage
) -> list[tuple[Step, Mapping[str, float]]]:
    """Give every command and return what came; raises PeerProgramError, TimeoutError."""
    dialer = on_stage.dialer
    to: dict[str, Any] = {} if subject.is_alone else {"address": on_stage.address}
    if question.connects:
        await dialer.call("connect", **to)
    found: list[tuple[Step, Mapping[str, float]]] = []
    for step in question.steps:
        arguments = dict(step.arguments)
        if "count" in arguments:
            part = subject.fewer.get(question.group, 1)
            arguments["count"] = max(1, int(arguments["count"]) // part)
        answer = await dialer.call(step.command, timeout=STEP_TIMEOUT, **to, **arguments)
        figures = {
            name: float(value) for name, value in answer.items() if isinstance(value, int | float)
        }
        found.append((step, figures | on_stage.memory()))
    await on_stage.check()
    return found


async def _prepared(subjects: Sequence[Subject], results: Results) -> list[Subject]:
    """Install everybody before the first clock runs; whoever cannot be had is a failure."""
    ready = []
    for subject in subjects:
        try:
            await anyio.to_thread.run_sync(subject.command_line)
        except PeerProgramError as error:
            results.add(Failure(subject=subject.name, question="", number=0, why=str(error)))
        else:
            ready.append(subject)
    return ready


def chosen(names: Sequence[str], baselines: Sequence[str]) -> list[Subject]:
    """Return the subjects of these names after the baselines; raises KeyError for another name."""
    return [SUBJECTS[name] for name in dict.fromkeys((*baselines, *names))]
