"""A run as tables: what everybody measured, and which floors and targets were held or missed.

`python -m isthmus.benchmarks.report FILE` prints them as Markdown. rich is imported only to draw on
a terminal.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import idle
from .floors import judge
from .link import CONGESTION, PLAIN, question_name
from .questions import SUBJECTS, Work, questions
from .results import Measure, Phase, ResultsError, load

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from rich.console import Console

    from .floors import Bound, Limit, Verdict
    from .results import Results, Series

NOTHING = "-"
UNITS = {"mb_s": "MB/s", "us": "us", "per_second": "per s", "kib_each": "KiB", "_mb": "MB"}
LINK_FIGURES = ("idle_p50_us", "idle_p99_us", "p50_us", "p99_us", "bulk_mb_s")
FAILURES_SHOWN = 20
"""Lines of failures: more of them repeat one another."""


@dataclass(frozen=True, slots=True)
class Table:
    """A title, a header and rows of as many cells."""

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]

    def markdown(self) -> str:
        """Return the table for a document."""
        widths = [max(map(len, column)) for column in zip(self.header, *self.rows, strict=True)]
        lines = [self.header, ["-" * width for width in widths], *self.rows]
        text = ("| " + " | ".join(_padded(line, widths)) + " |" for line in lines)
        return f"**{self.title}**\n\n" + "\n".join(text)


def tables(results: Results) -> list[Table]:
    """Return all there is to show of a run; empty tables are left out."""
    found = [_measured(results), _verdicts(results), _failures(results)]
    return [table for table in found if table.rows]


def heading(results: Results) -> str:
    """Return where it ran, how much was asked, and who was asked, in a few lines."""
    ran = ", ".join(f"{name} {value}" for name, value in results.environment.items())
    asked = ", ".join(f"{name} {value:g}" for name, value in results.work.items())
    who = ", ".join(f"{name} = {version}" for name, version in results.versions.items())
    rounds = f"{results.rounds} interleaved round{'s' if results.rounds != 1 else ''}"
    return f"Environment: {ran}.\n\nWork: {rounds}; {asked}.\n\nSubjects: {who}."


def markdown(results: Results) -> str:
    """Return the whole report for a document."""
    return "\n\n".join([heading(results), *(table.markdown() for table in tables(results))]) + "\n"


def draw(results: Results, console: Console | None = None) -> None:
    """Draw the report on a terminal, the standard output unless told."""
    from rich.console import Console as RichConsole
    from rich.table import Table as RichTable

    console = console or RichConsole()
    console.print(heading(results), highlight=False, markup=False)
    for table in tables(results):
        drawn = RichTable(*table.header, title=table.title, title_justify="left")
        for row in table.rows:
            drawn.add_row(*row, style="bold red" if "MISSED" in " ".join(row) else None)
        console.print()
        console.print(drawn)


def verdict_json(verdict: Verdict) -> dict[str, Any]:
    """Return a verdict for programs."""
    bound = verdict.bound
    return {
        "title": bound.title,
        "decides": bound.decides,
        "sense": bound.sense.value,
        "value": verdict.value and verdict.value.median,
        "reference": verdict.reference and verdict.reference.median,
        "ratio": verdict.ratio,
        "ratio_low": verdict.ratios and verdict.ratios.low,
        "ratio_high": verdict.ratios and verdict.ratios.high,
        "floor": _limit(bound.floor, verdict.reference),
        "floor_held": verdict.floor_held,
        "target": _limit(bound.target, verdict.reference),
        "target_held": verdict.target_held,
    }


# The tables


def _measured(results: Results) -> Table:
    """Return the medians of everybody, each with half of its spread as a share."""
    present = {sample.subject for sample in results.samples}
    names = [name for name in (*SUBJECTS, PLAIN) if name in present]
    titles = {name: SUBJECTS[name].title for name in SUBJECTS} | {PLAIN: "plain TCP"}
    rows = []
    for title, question, phase, figure in _lines():
        cells = [
            _cell(results.series(Measure(name, question, phase, figure)), figure) for name in names
        ]
        if any(cell != NOTHING for cell in cells):
            rows.append([f"{title}, {_figure(figure)}", phase.value, *cells])
    header = ["question", "phase", *(titles[name] for name in names)]
    return Table("Medians over the rounds, +- half of the spread", header, rows)


def _lines() -> Iterable[tuple[str, str, Phase, str]]:
    """Yield every line that the table may have: title, question, phase, figure."""
    for question in questions(Work()):
        phases = dict.fromkeys(step.phase for step in question.steps if step.phase is not None)
        for figure in question.figures:
            for phase in phases:
                yield question.title, question.name, phase, figure
    yield idle.TITLE, idle.QUESTION, Phase.WARM, idle.FIGURE
    for congestion in CONGESTION:
        for figure in LINK_FIGURES:
            title = f"HIGH beside LOW, 20 Mbit/s, {congestion}"
            yield title, question_name(congestion), Phase.WARM, figure


def _verdicts(results: Results) -> Table:
    rows = [
        [
            verdict.bound.title,
            _number(verdict.value.median) if verdict.value else NOTHING,
            _number(verdict.reference.median) if verdict.reference else NOTHING,
            _ratio(verdict),
            _held(verdict, verdict.bound.floor, held=verdict.floor_held),
            _held(verdict, verdict.bound.target, held=verdict.target_held),
            verdict.bound.prototype or NOTHING,
        ]
        for verdict in judge(results)
        if verdict.value is not None
    ]
    header = [
        "bound",
        "isthmus",
        "reference",
        "ratio (min..max)",
        "floor",
        "target",
        "a prototype",
    ]
    return Table("Floors and targets, isthmus on uvloop", header, rows)


def _failures(results: Results) -> Table:
    rows = [
        [each.subject, each.question or "all", str(each.number), _one_line(each.why)]
        for each in results.failures[:FAILURES_SHOWN]
    ]
    title = f"Failures ({len(results.failures)})"
    return Table(title, ["subject", "question", "round", "why"], rows)


# The cells


def _cell(series: Series | None, figure: str) -> str:
    if series is None:
        return NOTHING
    text = _number(series.median)
    if "samples" in figure or series.spread is None:
        return text
    return f"{text} +-{series.spread * 50:.0f}%"


def _ratio(verdict: Verdict) -> str:
    if verdict.ratio is None:
        return NOTHING
    text = f"{verdict.ratio:.2f}"
    if verdict.ratios is None or len(verdict.ratios.by_round) < 2:
        return text
    return f"{text} ({verdict.ratios.low:.2f}..{verdict.ratios.high:.2f})"


def _held(verdict: Verdict, limit: Limit | None, *, held: bool | None) -> str:
    if limit is None:
        return NOTHING
    text = f"{verdict.bound.sense.value} {_limit_text(limit, verdict.bound)}"
    if held is None:
        return f"{text}: not measured"
    if held:
        return f"{text}: held"
    return f"{text}: {'MISSED' if verdict.bound.decides else 'missed'}"


def _limit_text(limit: Limit, bound: Bound) -> str:
    unit = " us" if bound.measure.figure.endswith("_us") else ""
    parts = [f"{limit.factor:g}x"] if limit.factor else []
    if limit.plus:
        parts.append(f"{limit.plus:g}{unit}")
    text = " + ".join(parts)
    return f"max({text}, {limit.least:g}{unit})" if limit.least else text


def _limit(limit: Limit | None, reference: Series | None) -> float | None:
    return None if limit is None or reference is None else limit.of(reference.median)


def _number(value: float) -> str:
    if abs(value) >= 100:
        return f"{value:.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def _figure(name: str) -> str:
    """Return a figure's name for people: "idle_p99_us" as "idle p99 us"."""
    for ending, unit in UNITS.items():
        if name.endswith(ending):
            start = name.removesuffix(ending).replace("_", " ").strip()
            return f"{start} {unit}".strip()
    return name


def _padded(cells: Sequence[str], widths: Sequence[int]) -> list[str]:
    return [cell.ljust(width) for cell, width in zip(cells, widths, strict=True)]


def _one_line(text: str) -> str:
    return " ".join(text.split())[:200].replace("|", "/")


if __name__ == "__main__":
    try:
        sys.stdout.write(markdown(load(Path(sys.argv[1]))))
    except (IndexError, OSError, ResultsError) as error:
        sys.exit(f"usage: python -m isthmus.benchmarks.report FILE ({error})")
