"""A run as pictures: throughput, latency beside bulk, ratios with their spread, idle connections.

`python -m isthmus.benchmarks.plots FILE FOLDER` writes PNG files. Needs the extra `[bench]`.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import idle
from .floors import Sense, judge
from .questions import SUBJECTS, throughput_name
from .results import Measure, Phase, ResultsError, load

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .floors import Verdict
    from .results import Results, Series

DOTS_PER_INCH = 110
PEER_NAMES = ("uvloop", "asyncio", "trio", "js", "py", "go", "rust")
COLOURS = {
    "uvloop": "#1f6feb",
    "asyncio": "#6ea8fe",
    "trio": "#8250df",
    "js": "#d4a72c",
    "py": "#2da44e",
    "go": "#00a2b8",
    "rust": "#bc4c00",
}


class PlotsUnavailable(Exception):
    """matplotlib is not installed; the text says how to get it."""

    def __init__(self) -> None:
        super().__init__("plots need matplotlib: pip install 'isthmus[bench]'")


def write(results: Results, folder: Path) -> list[Path]:
    """Write every picture that the run has figures for, and return the files.

    Raises PlotsUnavailable without matplotlib, OSError if the folder cannot be written.
    """
    pyplot = _pyplot()
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, plot in PLOTS.items():
        figure = plot(results, pyplot)
        if figure is None:
            continue
        figure.tight_layout()
        figure.savefig(folder / f"{name}.png", dpi=DOTS_PER_INCH)
        pyplot.close(figure)
        written.append(folder / f"{name}.png")
    return written


def throughput(results: Results, pyplot: Any) -> Any:  # noqa: ANN401 - matplotlib has no types
    """Draw MB/s of everybody: bars are medians, lines reach from the smallest to the largest."""
    questions = [(way, count) for count in (1, 10) for way in ("up", "down")]
    labels = [f"{way}, {count} stream{'s' * (count > 1)}" for way, count in questions]
    figure, both = pyplot.subplots(1, 2, figsize=(12, 4.5), sharey=True)
    drawn = False
    for axes, phase in zip(both, Phase, strict=True):
        names = [throughput_name(way, count) for way, count in questions]
        groups = _groups(results, [(name, phase, "mb_s") for name in names])
        drawn |= _bars(axes, labels, groups)
        axes.set_title(f"Throughput, {phase} processes")
    both[0].set_ylabel("MB/s")
    return _finished(figure, both) if drawn else None


def latency(results: Results, pyplot: Any) -> Any:  # noqa: ANN401
    """Draw what an urgent echo waits, idle and beside saturating bulk, on a logarithmic scale."""
    figures = ["idle_p50_us", "idle_p99_us", "p50_us", "p99_us"]
    labels = ["idle p50", "idle p99", "beside bulk p50", "beside bulk p99"]
    figure, axes = pyplot.subplots(figsize=(9, 4.5))
    groups = _groups(results, [("beside", Phase.WARM, each) for each in figures])
    if not _bars(axes, labels, groups):
        pyplot.close(figure)
        return None
    axes.set_yscale("log")
    axes.set_ylabel("microseconds")
    axes.set_title("32-byte echo on loopback, alone and beside a saturating upload")
    return _finished(figure, [axes])


def ratios(results: Results, pyplot: Any) -> Any:  # noqa: ANN401
    """Draw how far each floor is passed: the ratio over the floor's, the spread of the rounds."""
    verdicts = [each for each in judge(results) if each.bound.decides and each.bound.floor]
    rows = [(each, margin) for each in verdicts if (margin := _margin(each)) is not None]
    if not rows:
        return None
    figure, axes = pyplot.subplots(figsize=(10, 0.34 * len(rows) + 1.2))
    for place, (verdict, (low, middle, high)) in enumerate(reversed(rows)):
        colour = "#2da44e" if verdict.floor_held else "#cf222e"
        axes.plot([low, high], [place, place], color=colour, linewidth=2, alpha=0.5)
        axes.plot([middle], [place], "o", color=colour)
    axes.axvline(1.0, color="black", linewidth=1)
    axes.set_yticks(range(len(rows)), [row[0].bound.title for row in reversed(rows)], fontsize=8)
    axes.set_xscale("log")
    axes.set_xlabel("times better than the floor (1 = the floor); lines: rounds")
    axes.grid(axis="x", alpha=0.3)
    return figure


def idle_memory(results: Results, pyplot: Any) -> Any:  # noqa: ANN401
    """Draw the memory that a connection held idle costs its listener."""
    figure, axes = pyplot.subplots(figsize=(7, 3.5))
    groups = _groups(results, [(idle.QUESTION, Phase.WARM, idle.FIGURE)])
    if not _bars(axes, ["resident memory of one idle connection"], groups):
        pyplot.close(figure)
        return None
    axes.set_ylabel("KiB")
    return _finished(figure, [axes])


PLOTS: dict[str, Callable[[Results, Any], Any]] = {
    "throughput": throughput,
    "latency": latency,
    "ratios": ratios,
    "idle": idle_memory,
}
"""Every picture by the name of its file."""


def _groups(
    results: Results, lines: Sequence[tuple[str, Phase, str]]
) -> dict[str, list[Series | None]]:
    """Return by subject the values of each line; whoever has none is left out."""
    found = {name: [results.series(Measure(name, *line)) for line in lines] for name in PEER_NAMES}
    return {name: series for name, series in found.items() if any(series)}


def _bars(axes: Any, labels: Sequence[str], groups: dict[str, list[Series | None]]) -> bool:  # noqa: ANN401
    """Draw groups of bars with their ranges; False if there is nothing to draw."""
    width = 0.8 / max(len(groups), 1)
    for index, (name, series) in enumerate(groups.items()):
        places = [at + index * width for at, each in enumerate(series) if each]
        found = [each for each in series if each]
        heights = [each.median for each in found]
        ranges = [
            [each.median - each.low for each in found],
            [each.high - each.median for each in found],
        ]
        title = SUBJECTS[name].title
        axes.bar(places, heights, width, label=title, color=COLOURS[name])
        axes.errorbar(places, heights, ranges, fmt="none", ecolor="black", elinewidth=0.8)
    middle = 0.4 - width / 2
    axes.set_xticks([at + middle for at in range(len(labels))], labels)
    axes.grid(axis="y", alpha=0.3)
    return bool(groups)


def _finished(figure: Any, axes: Sequence[Any]) -> Any:  # noqa: ANN401
    axes[-1].legend(fontsize=8)
    return figure


def _margin(verdict: Verdict) -> tuple[float, float, float] | None:
    """Return smallest, median and largest of "times better than the floor"."""
    floor, value, reference = verdict.bound.floor, verdict.value, verdict.reference
    if floor is None or value is None or reference is None:
        return None
    limit = floor.of(reference.median)
    if not limit or not value.low:
        return None
    if verdict.bound.sense is Sense.AT_LEAST:
        return value.low / limit, value.median / limit, value.high / limit
    return limit / value.high, limit / value.median, limit / value.low


def _pyplot() -> Any:  # noqa: ANN401
    try:
        import matplotlib
    except ImportError:
        raise PlotsUnavailable from None
    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot


def main() -> int:
    """Draw the file that the command line names into the folder that it names."""
    if len(sys.argv) != 3:
        sys.stderr.write("usage: python -m isthmus.benchmarks.plots FILE FOLDER\n")
        return 2
    try:
        for path in write(load(Path(sys.argv[1])), Path(sys.argv[2])):
            sys.stdout.write(f"{path}\n")
    except (ResultsError, PlotsUnavailable, OSError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
