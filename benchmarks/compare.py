"""`python -m isthmus.benchmarks.compare BEFORE AFTER`: what changed by more than chance.

A difference counts only if it exceeds the spread of either run and the two ranges do not overlap;
of single rounds nothing is known. Runs that asked for different work are not compared at all.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

from .results import Measure, Results, ResultsError, load

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .results import Series

SAME_MACHINE = ("python", "kernel", "machine", "cpu", "cores", "libc", "congestion", "openssl")
"""What must be equal for a difference to be the code's."""
COUNTS = ("samples", "count", "seconds")
"""Figures that say how much was measured, not how well."""


class Judgement(StrEnum):
    """What may be said of two series."""

    BETTER = "better"
    WORSE = "worse"
    SAME = "within the spread"
    UNKNOWN = "one round only"


@dataclass(frozen=True, slots=True)
class Difference:
    """One measure in both runs; `ratio` is after / before, `spread` the larger one's."""

    measure: Measure
    before: Series
    after: Series
    ratio: float
    spread: float | None
    judgement: Judgement


def compare(before: Results, after: Results) -> list[Difference]:
    """Return a difference for every measure that both have.

    Raises ResultsError if the runs asked for different work.
    """
    if before.work != after.work:
        raise ResultsError("the runs asked for different work, so their figures do not compare")
    found = []
    for measure in before.measures():
        first, second = before.series(measure), after.series(measure)
        if first and second and first.median and measure.figure not in COUNTS:
            found.append(_difference(measure, first, second))
    return found


def changed_machine(before: Results, after: Results) -> list[str]:
    """Return what of the machine differs, a line each."""
    old, new = before.environment, after.environment
    return [
        f"{name}: {old.get(name)} before, {new.get(name)} after"
        for name in SAME_MACHINE
        if old.get(name) != new.get(name)
    ]


def _difference(measure: Measure, before: Series, after: Series) -> Difference:
    ratio = after.median / before.median
    spreads = before.spread, after.spread
    if spreads[0] is None or spreads[1] is None:
        return Difference(measure, before, after, ratio, None, Judgement.UNKNOWN)
    spread = max(spreads[0], spreads[1])
    apart = before.high < after.low or after.high < before.low
    if not apart or abs(ratio - 1) <= spread:
        judgement = Judgement.SAME
    elif (ratio > 1) == (not is_time(measure.figure)):
        judgement = Judgement.BETTER
    else:
        judgement = Judgement.WORSE
    return Difference(measure, before, after, ratio, spread, judgement)


def is_time(figure: str) -> bool:
    """Say whether less of the figure is better."""
    return figure.endswith("us")


def lines(differences: Sequence[Difference]) -> list[str]:
    """Return a line for each difference, for people."""
    found = []
    for each in differences:
        name = f"{each.measure.subject} {each.measure.question} {each.measure.phase}"
        spread = "" if each.spread is None else f", spread {each.spread:.0%}"
        found.append(
            f"{name} {each.measure.figure}: {each.before.median:.4g} -> {each.after.median:.4g}"
            f" (x{each.ratio:.2f}{spread}) {each.judgement}"
        )
    return found


def main(arguments: Sequence[str]) -> str:
    """Return the text on two files; raises ResultsError, OSError."""
    if len(arguments) != 2:
        raise ResultsError("usage: python -m isthmus.benchmarks.compare BEFORE AFTER")
    before, after = (load(Path(name)) for name in arguments)
    differences = compare(before, after)
    real = sum(each.judgement in (Judgement.BETTER, Judgement.WORSE) for each in differences)
    warning = [f"another machine: {line}" for line in changed_machine(before, after)]
    last = f"{real} of {len(differences)} differ by more than the spread from run to run"
    return "\n".join([*warning, *lines(differences), last])


if __name__ == "__main__":
    try:
        sys.stdout.write(main(sys.argv[1:]) + "\n")
    except (OSError, ResultsError) as error:
        sys.exit(str(error))
