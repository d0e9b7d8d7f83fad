"""Floors and targets against fixed figures, and the tables that show them."""

from __future__ import annotations

import io

import pytest
from isthmus.benchmarks import idle, report
from isthmus.benchmarks.floors import Bound, Limit, Sense, all_bounds, judge
from isthmus.benchmarks.questions import SUBJECTS, Work, questions
from isthmus.benchmarks.results import Failure, Measure, Phase, Results, Sample
from rich.console import Console

OURS = Measure("uvloop", "up-1", Phase.COLD, "mb_s")
THEIRS = Measure("js", "up-1", Phase.COLD, "mb_s")


def run(ours: tuple[float, ...], theirs: tuple[float, ...]) -> Results:
    found = Results(environment={"cpu": "x"}, work={"cold_bytes": 1})
    for measure, values in ((OURS, ours), (THEIRS, theirs)):
        for number, value in enumerate(values, 1):
            found.add(answer(measure, number, {measure.figure: value}))
    return found


def answer(measure: Measure, number: int, figures: dict[str, float]) -> Sample:
    return Sample(
        subject=measure.subject,
        question=measure.question,
        phase=measure.phase,
        number=number,
        figures=figures,
    )


def bound(sense: Sense, floor: Limit, target: Limit | None = None, **options: bool) -> Bound:
    return Bound(
        title="up",
        measure=OURS,
        reference=THEIRS,
        sense=sense,
        floor=floor,
        target=target,
        **options,
    )


def test_medians_decide_and_rounds_give_the_spread():
    found = run((500, 400, 600), (100, 100, 200))
    (verdict,) = judge(found, [bound(Sense.AT_LEAST, Limit(4.5), Limit(6))])
    assert verdict.ratio == 5
    assert (verdict.ratios.low, verdict.ratios.high) == (3, 5)
    assert verdict.floor_held is True
    assert verdict.target_held is False


def test_rounds_that_only_one_side_has_do_not_count_for_the_spread():
    (verdict,) = judge(run((500, 700), (100,)), [bound(Sense.AT_LEAST, Limit(5))])
    assert list(verdict.ratios.by_round) == [1]
    assert verdict.target_held is None


@pytest.mark.parametrize(
    ("limit", "value", "held"),
    [
        (Limit(1.9), 190, True),
        (Limit(1.9), 191, False),
        (Limit(1, plus=15), 115, True),
        (Limit(1, plus=15), 116, False),
        (Limit(2.5, least=1000), 1000, True),
        (Limit(2.5, least=1000), 1001, False),
        (Limit(2.5, least=200), 250, True),
        (Limit(0, plus=600), 599, True),
    ],
)
def test_limits(limit, value, held):
    (verdict,) = judge(run((value,), (100,)), [bound(Sense.AT_MOST, limit)])
    assert verdict.floor_held is held


def test_what_was_not_measured_is_neither_held_nor_missed():
    (verdict,) = judge(run((), (100,)), [bound(Sense.AT_LEAST, Limit(5))])
    assert verdict.ratio is verdict.floor_held is verdict.target_held is None
    assert report.verdict_json(verdict)["floor"] is None


def test_every_bound_names_a_question_that_is_asked():
    asked = {
        (name, question.name, step.phase)
        for question in questions(Work())
        for name, subject in SUBJECTS.items()
        if question.group in subject.groups
        for step in question.steps
    }
    asked |= {
        (name, idle.QUESTION, Phase.WARM)
        for name, subject in SUBJECTS.items()
        if idle.QUESTION in subject.groups
    }
    for each in all_bounds():
        for measure in (each.measure, each.reference):
            if not measure.question.startswith("link-"):
                assert (measure.subject, measure.question, measure.phase) in asked
    assert len({each.title for each in all_bounds()}) == len(all_bounds())


def test_markdown_says_held_or_missed():
    text = report.markdown(run((500, 400, 600), (100, 100, 200)))
    row = next(line for line in text.splitlines() if "of js's" in line)
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells[1:4] == ["500", "100", "5.00 (3.00..5.00)"]
    assert cells[4:] == [">= 4.5x: held", ">= 6x: MISSED", "5.7x-6.1x"]
    assert "500 +-20%" in text
    assert "cpu x" in text


def test_a_warm_row_that_is_missed_does_not_shout():
    warm = Measure("uvloop", "up-1", Phase.WARM, "mb_s")
    other = Measure("js", "up-1", Phase.WARM, "mb_s")
    found = Results(environment={}, work={})
    found.add(answer(warm, 1, {"mb_s": 300}))
    found.add(answer(other, 1, {"mb_s": 100}))
    text = report.markdown(found)
    assert ">= 4.5x: missed" in text
    assert "MISSED" not in text


def test_times_have_their_unit():
    found = Results(environment={}, work={})
    measure = Measure("uvloop", "beside", Phase.WARM, "p99_us")
    found.add(answer(measure, 1, {"p99_us": 700, "idle_p99_us": 200}))
    text = report.markdown(found)
    assert "<= max(2.5x, 1000 us): held" in text
    assert "<= 600 us: MISSED" in text


def test_failures_are_shown_on_one_line():
    found = run((500,), (100,))
    found.add(Failure(subject="py", question="", number=0, why="no | pip\nat all"))
    assert "no / pip at all" in report.markdown(found)


def test_drawing_on_a_terminal():
    screen = io.StringIO()
    report.draw(run((500,), (100,)), Console(file=screen, width=200))
    assert "js-libp2p" in screen.getvalue()
    assert ">= 4.5x: held" in screen.getvalue()


def test_an_empty_run_has_no_tables():
    assert report.tables(Results(environment={}, work={})) == []
