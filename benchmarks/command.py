"""`isthmus bench`: run the harness, draw the tables, write the JSON."""

from __future__ import annotations

import json
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import click

from . import harness, hotspots
from .floors import judge
from .questions import BASELINES, GROUPS, PEERS, QUICK, Work
from .report import draw, markdown, verdict_json

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from .harness import Plan, Progress
    from .results import Results


def _names_of(
    allowed: tuple[str, ...],
) -> Callable[[click.Context, click.Parameter, str], tuple[str, ...]]:
    """Return a callback that reads a list of names, separated by commas."""

    def names(_: click.Context, __: click.Parameter, value: str) -> tuple[str, ...]:
        found = tuple(name.strip() for name in value.split(",") if name.strip())
        for name in found:
            if name not in allowed:
                raise click.BadParameter(f"{name!r} is none of {', '.join(allowed)}")
        return found

    return names


@click.command()
@click.option("--rounds", type=click.IntRange(1, 100), help="Default: 5, or 1 with --quick.")
@click.option(
    "--peers",
    callback=_names_of(PEERS),
    default=",".join(PEERS),
    show_default=True,
    help="Who is measured, beside the baselines.",
)
@click.option(
    "--only",
    callback=_names_of(GROUPS),
    default=",".join(GROUPS),
    show_default=True,
    help="What is asked.",
)
@click.option("--quick", is_flag=True, help="Ask for a tenth: to see that it works, not to judge.")
@click.option(
    "--json",
    "json_file",
    metavar="FILE",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write all samples, the environment and the verdicts.",
)
@click.option(
    "--lab/--no-lab",
    default=True,
    help="Ask on the lab's slow link too; needs a checkout, and namespaces. Default: yes.",
)
@click.option("--profile", is_flag=True, help="Profile isthmus where a target was missed.")
def bench(
    *,
    rounds: int | None,
    peers: tuple[str, ...],
    only: tuple[str, ...],
    quick: bool,
    json_file: Path | None,
    lab: bool,
    profile: bool,
) -> None:
    """Measure isthmus on this machine, beside other implementations.

    Blocking sockets, the cipher alone, isthmus, js-libp2p and py-libp2p do the same work, each as
    two processes on loopback; the foreign ones are installed on first use. A full run takes half an
    hour, on a machine that does nothing else.

    \b
    Examples:
      isthmus bench --quick --no-lab
      isthmus bench --only echo,dials --peers uvloop,js --rounds 7
      isthmus bench --json after.json --profile
    """
    plan = harness.Plan(
        subjects=harness.chosen(peers, BASELINES),
        groups=frozenset(only) - (set() if lab else {"link"}),
        rounds=rounds or (1 if quick else 5),
        work=QUICK if quick else Work(),
    )
    results = harness.begun(plan)
    stopped = False
    with showing() as on_progress:
        try:
            anyio.run(harness.run, plan, results, on_progress)
        except KeyboardInterrupt:
            stopped = True
    if json_file is not None:
        write(results, json_file)
    if sys.stdout.isatty():
        draw(results)
    else:
        click.echo(markdown(results))
    if stopped:
        raise click.Abort
    if profile:
        anyio.run(_profile, plan, results)


def write(results: Results, file: Path) -> None:
    """Write a run, and the verdicts on it, as JSON; raises ClickException if that fails."""
    verdicts = [verdict_json(verdict) for verdict in judge(results) if verdict.value]
    text = json.dumps({**results.to_json(), "verdicts": verdicts}, indent=1) + "\n"
    try:
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise click.ClickException(f"cannot write {file}: {error.strerror}") from error


@contextmanager
def showing() -> Iterator[Callable[[Progress], None]]:
    """Give a function that shows progress on the standard error: a bar, or lines in a pipe."""
    if not sys.stderr.isatty():

        def show_line(progress: Progress) -> None:
            click.echo(f"{progress.done}/{progress.total} {progress.what}", err=True)

        yield show_line
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
    from rich.progress import Progress as Bars

    columns = (
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[left]}"),
        TextColumn("{task.description}", markup=False),
    )
    started = time.monotonic()
    with Bars(*columns, console=Console(stderr=True), transient=True) as bars:
        task = bars.add_task("", left="")

        def show(progress: Progress) -> None:
            bars.update(
                task,
                completed=progress.done,
                total=progress.total,
                description=progress.what,
                left=time_left(progress.done, progress.total, time.monotonic() - started),
            )

        yield show


def time_left(done: int, total: int, seconds: float) -> str:
    """Return how long the rest takes if it goes on as so far; empty while nobody can know.

    Steps take from a second to half a minute, so the mean of all says more than the last ones.
    """
    if not done:
        return ""
    left = round(seconds / done * (total - done))
    return f"{left // 60}:{left % 60:02} left, {done / seconds * 60:.0f} a minute"


async def _profile(plan: Plan, results: Results) -> None:
    """Profile isthmus at each question of which a target was missed."""
    missed = {
        verdict.bound.measure.question
        for verdict in judge(results)
        if verdict.target_held is False and verdict.bound.decides
    }
    for question in plan.questions():
        if question.name not in missed:
            continue
        profiled = await hotspots.profile(question)
        click.echo(f"\nProfile: {question.title} (own time; start and waiting left out)")
        for line in hotspots.lines(profiled):
            click.echo(line)
        if profiled.why is not None:
            click.echo(f"  incomplete: {profiled.why}")
