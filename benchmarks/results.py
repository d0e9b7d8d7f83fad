"""What a run of the harness found: samples, what failed, and where it ran; as JSON and back."""

from __future__ import annotations

import json
import statistics
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

FORMAT = "isthmus-bench/1"
MAX_FILE = 64 << 20
"""Bytes of a file that is read; a full run has some 300 KiB."""


class ResultsError(ValueError):
    """A file that does not hold results."""


class Phase(StrEnum):
    """How warm a pair of processes was when it was asked."""

    COLD = "cold"
    """The first thing asked of a fresh pair."""
    WARM = "warm"
    """After the warm-up, on the same connection."""


@dataclass(frozen=True, slots=True)
class Measure:
    """The name of one series of values: one figure of one question put to one subject."""

    subject: str
    question: str
    phase: Phase
    figure: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One answer: what `subject` said to `question` in round `number`, counted from 1."""

    subject: str
    question: str
    phase: Phase
    number: int
    figures: Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """No answer, and why; `number` is 0 if the subject could not take part at all."""

    subject: str
    question: str
    number: int
    why: str


@dataclass(frozen=True, slots=True)
class Series:
    """The values of one measure by round; never empty."""

    by_round: Mapping[int, float]

    @property
    def median(self) -> float:
        """The middle of all rounds."""
        return statistics.median(self.by_round.values())

    @property
    def low(self) -> float:
        """The smallest."""
        return min(self.by_round.values())

    @property
    def high(self) -> float:
        """The largest."""
        return max(self.by_round.values())

    @property
    def spread(self) -> float | None:
        """The largest less the smallest, as a share of the median; None of a single round."""
        if len(self.by_round) < 2 or not self.median:
            return None
        return (self.high - self.low) / self.median


@dataclass(slots=True)
class Results:
    """A run. `work` says how much was asked, so that only like is compared with like."""

    environment: Mapping[str, str | float]
    work: Mapping[str, float]
    versions: dict[str, str] = field(default_factory=dict)
    """What each subject said it is."""
    samples: list[Sample] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)

    def add(self, found: Sample | Failure) -> None:
        """Keep one answer, or the lack of one."""
        if isinstance(found, Sample):
            self.samples.append(found)
        else:
            self.failures.append(found)

    @property
    def rounds(self) -> int:
        """Rounds of which there is a sample."""
        return len({sample.number for sample in self.samples})

    def series(self, measure: Measure) -> Series | None:
        """Return the values of one measure, or None if there is none."""
        values = {
            sample.number: sample.figures[measure.figure]
            for sample in self.samples
            if (sample.subject, sample.question, sample.phase)
            == (measure.subject, measure.question, measure.phase)
            and measure.figure in sample.figures
        }
        return Series(values) if values else None

    def measures(self) -> list[Measure]:
        """Return every measure there is, in the order of the first round."""
        found: dict[Measure, None] = {}
        for sample in self.samples:
            for figure in sample.figures:
                found[Measure(sample.subject, sample.question, sample.phase, figure)] = None
        return list(found)

    def to_json(self) -> dict[str, Any]:
        """Return what `from_json` reads."""
        return {"format": FORMAT, **asdict(self)}

    @classmethod
    def from_json(cls, data: object) -> Results:
        """Read what `to_json` wrote; raises ResultsError for anything else."""
        if not isinstance(data, dict) or data.get("format") != FORMAT:
            raise ResultsError(f"not results in the format {FORMAT}")
        try:
            return cls(
                environment=dict(data["environment"]),
                work={name: float(value) for name, value in data["work"].items()},
                versions=dict(data["versions"]),
                samples=[sample_from(each) for each in data["samples"]],
                failures=[Failure(**each) for each in data["failures"]],
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ResultsError(f"results that are broken: {error!r}") from error


def sample_from(data: Mapping[str, Any]) -> Sample:
    """Read a sample as `asdict` writes it; raises KeyError, TypeError, ValueError."""
    figures = {str(name): float(value) for name, value in data["figures"].items()}
    return Sample(**{**data, "phase": Phase(data["phase"]), "figures": figures})


def load(path: Path) -> Results:
    """Read a file of the harness, or lines of the micro benchmarks.

    Raises ResultsError if it is neither, OSError if it cannot be read.
    """
    with path.open(encoding="utf-8") as file:
        text = file.read(MAX_FILE)
    try:
        try:
            return Results.from_json(json.loads(text))
        except json.JSONDecodeError:
            return from_lines(json.loads(line) for line in text.splitlines() if line.strip())
    except ValueError as error:
        raise ResultsError(f"{path}: {error}") from error


def from_lines(cases: Iterable[Any]) -> Results:
    """Read lines of the micro benchmarks, each sample as a round; raises ResultsError."""
    results = Results(environment={}, work={})
    try:
        for case in cases:
            results.environment = case["environment"]
            results.samples += [
                Sample(
                    subject="micro",
                    question=case["case"],
                    phase=Phase.WARM,
                    number=number,
                    figures={case["unit"]: float(value)},
                )
                for number, value in enumerate(case["samples"], 1)
            ]
    except (KeyError, TypeError, ValueError) as error:
        raise ResultsError(f"neither results nor micro benchmarks: {error!r}") from error
    if not results.samples:
        raise ResultsError("no results in it")
    return results
