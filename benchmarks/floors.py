"""Floors, which must hold, and targets, which we want, as data; and the judgement of a run.

A bound compares one measure with another of the same run, both as medians over the rounds. Ratios
are taken within each round as well, since both were measured minutes apart: those give the spread.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from . import idle
from .link import CONGESTION, PLAIN, question_name
from .questions import AEAD, relayed_name, throughput_name
from .results import Measure, Phase, Series
from .stage import MEMORY

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .results import Results

OURS = "uvloop"
"""The subject that is judged."""


class Sense(Enum):
    """Which side of the limit is good."""

    AT_LEAST = ">="
    AT_MOST = "<="


@dataclass(frozen=True, slots=True)
class Limit:
    """`factor` times the reference, plus `plus`; and never less than `least`."""

    factor: float
    plus: float = 0.0
    least: float = 0.0

    def of(self, reference: float) -> float:
        """Return the limit for this value of the reference."""
        return max(self.factor * reference + self.plus, self.least)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bound:
    """One row: what is measured, against what, and the limits; None where there is none.

    `decides` is False for the same question put warm: it is judged and printed, but the floor was
    set for the cold one.
    """

    title: str
    measure: Measure
    reference: Measure
    sense: Sense
    floor: Limit | None
    target: Limit | None
    prototype: str = ""
    """What a throw-away prototype of the design reached, on another day of a like machine."""
    decides: bool = True


@dataclass(frozen=True, slots=True)
class Verdict:
    """A bound against a run; everything is None if one of the two was not measured."""

    bound: Bound
    value: Series | None = None
    reference: Series | None = None
    ratio: float | None = None
    ratios: Series | None = None

    @property
    def floor_held(self) -> bool | None:
        """Whether the floor holds; None if there is none, or it was not measured."""
        return self._holds(self.bound.floor)

    @property
    def target_held(self) -> bool | None:
        """Whether the target holds; None if there is none, or it was not measured."""
        return self._holds(self.bound.target)

    def _holds(self, limit: Limit | None) -> bool | None:
        if limit is None or self.value is None or self.reference is None:
            return None
        allowed = limit.of(self.reference.median)
        if self.bound.sense is Sense.AT_LEAST:
            return self.value.median >= allowed
        return self.value.median <= allowed


def judge(results: Results, bounds: list[Bound] | None = None) -> list[Verdict]:
    """Return the verdict on every bound, in their order."""
    return [_judge(results, bound) for bound in (all_bounds() if bounds is None else bounds)]


def _judge(results: Results, bound: Bound) -> Verdict:
    value, reference = results.series(bound.measure), results.series(bound.reference)
    if value is None or reference is None or not reference.median:
        return Verdict(bound)
    ratios = {
        number: value.by_round[number] / reference.by_round[number]
        for number in sorted(value.by_round.keys() & reference.by_round.keys())
        if reference.by_round[number]
    }
    ratio = value.median / reference.median
    return Verdict(bound, value, reference, ratio, Series(ratios) if ratios else None)


def all_bounds() -> list[Bound]:
    """Return every floor and target that the harness measures."""
    return [*_throughput(), *_latency(), *_beside(), *_relay(), *_idle(), *_link()]


def _throughput() -> Iterator[Bound]:
    """Compare throughput with others' of the same phase, and with the cipher."""
    against = (
        ("js", Limit(4.5), Limit(6)),
        ("py", Limit(7), Limit(9)),
        (AEAD, Limit(0.38), Limit(0.5)),
    )
    prototypes = {("js", "up", 1): "5.7x-6.1x", (AEAD, "up", 1): "0.50x"}
    for phase in Phase:
        for streams in (1, 10):
            for direction in ("up", "down"):
                name = throughput_name(direction, streams)
                for other, floor, target in against:
                    cipher = Measure(AEAD, AEAD, Phase.WARM, "mb_s")
                    peer = Measure(other, name, phase, "mb_s")
                    yield Bound(
                        title=f"throughput {direction}, {streams} str., {phase}: of {other}'s",
                        measure=Measure(OURS, name, phase, "mb_s"),
                        reference=cipher if other == AEAD else peer,
                        sense=Sense.AT_LEAST,
                        floor=floor,
                        target=target,
                        prototype=prototypes.get((other, direction, streams), ""),
                        decides=phase is Phase.COLD,
                    )


def _latency() -> Iterator[Bound]:
    for phase in Phase:
        decides = phase is Phase.COLD
        yield Bound(
            title=f"echo p50, {phase}: of the blocking socket's",
            measure=Measure(OURS, "echo", phase, "p50_us"),
            reference=Measure("raw", "echo", phase, "p50_us"),
            sense=Sense.AT_MOST,
            floor=Limit(1.9),
            target=Limit(1.5),
            prototype="1.6x-1.8x",
            decides=decides,
        )
        for question, prototype in (("streams", "6.2x-10.7x"), ("dials", "9x, no Yamux")):
            yield Bound(
                title=f"{question} a second, {phase}: of js's",
                measure=Measure(OURS, question, phase, "per_second"),
                reference=Measure("js", question, phase, "per_second"),
                sense=Sense.AT_LEAST,
                floor=Limit(5),
                target=Limit(8),
                prototype=prototype,
                decides=decides,
            )


def _beside() -> Iterator[Bound]:
    """Bound what bulk does to urgent echoes on loopback, and they to it.

    Both ways of asking decide: an echo each millisecond, and one after the other without a pause.
    """
    for question, suffix in (("beside", ""), ("flood", ", without a pause")):
        yield Bound(
            title=f"HIGH echo p99 beside bulk, loopback{suffix}: of idle",
            measure=Measure(OURS, question, Phase.WARM, "p99_us"),
            reference=Measure(OURS, question, Phase.WARM, "idle_p99_us"),
            sense=Sense.AT_MOST,
            floor=Limit(2.5, least=1000),
            target=Limit(0, plus=600),
            prototype="465-583 us",
        )
        yield Bound(
            title=f"bulk beside HIGH echo, loopback{suffix}: of alone",
            measure=Measure(OURS, question, Phase.WARM, "bulk_mb_s"),
            reference=Measure(OURS, question, Phase.WARM, "bulk_alone_mb_s"),
            sense=Sense.AT_LEAST,
            floor=Limit(0.85),
            target=None,
            prototype="0.84x-0.94x",
        )


def _relay() -> Iterator[Bound]:
    """Compare a circuit of ours with one of js-libp2p's, and bound what our relay holds then."""
    for phase in Phase:
        decides = phase is Phase.COLD
        for direction in ("up", "down"):
            name = relayed_name(direction)
            yield Bound(
                title=f"throughput {direction} through a relay, {phase}: of js's",
                measure=Measure(OURS, name, phase, "mb_s"),
                reference=Measure("js", name, phase, "mb_s"),
                sense=Sense.AT_LEAST,
                floor=Limit(4),
                target=Limit(5),
                decides=decides,
            )
            yield Bound(
                title=f"MB that the relay holds then, {direction}, {phase}: of js's",
                measure=Measure(OURS, name, phase, MEMORY),
                reference=Measure("js", name, phase, MEMORY),
                sense=Sense.AT_MOST,
                floor=Limit(0, plus=100),
                target=None,
            )
        yield Bound(
            title=f"echo p50 through a relay, {phase}: of js's",
            measure=Measure(OURS, relayed_name("echo"), phase, "p50_us"),
            reference=Measure("js", relayed_name("echo"), phase, "p50_us"),
            sense=Sense.AT_MOST,
            floor=Limit(0.6),
            target=Limit(0.5),
            decides=decides,
        )


def _idle() -> Iterator[Bound]:
    yield Bound(
        title="KiB of a connection held idle: of js's",
        measure=Measure(OURS, idle.QUESTION, Phase.WARM, idle.FIGURE),
        reference=Measure("js", idle.QUESTION, Phase.WARM, idle.FIGURE),
        sense=Sense.AT_MOST,
        floor=Limit(0, plus=60),
        target=Limit(0, plus=40),
    )


def _link() -> Iterator[Bound]:
    """Bound the same on the link of 20 Mbit/s and 20 ms, where bulk is held against plain TCP."""
    for congestion in CONGESTION:
        name = question_name(congestion)
        yield Bound(
            title=f"HIGH echo p99 beside bulk, 20 Mbit/s, {congestion}: of idle",
            measure=Measure(OURS, name, Phase.WARM, "p99_us"),
            reference=Measure(OURS, name, Phase.WARM, "idle_p99_us"),
            sense=Sense.AT_MOST,
            floor=Limit(1, plus=15_000),
            target=Limit(1, plus=13_000),
            prototype="idle + 8 to 13 ms",
        )
        yield Bound(
            title=f"bulk beside HIGH echo, 20 Mbit/s, {congestion}: of a TCP copy",
            measure=Measure(OURS, name, Phase.WARM, "bulk_mb_s"),
            reference=Measure(PLAIN, name, Phase.WARM, "bulk_mb_s"),
            sense=Sense.AT_LEAST,
            floor=Limit(0.9),
            target=Limit(0.95),
            prototype="0.93x-0.94x",
        )
