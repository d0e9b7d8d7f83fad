"""A difference is called real only beyond the spread of the runs."""

from __future__ import annotations

import json

import pytest
from isthmus.benchmarks import compare
from isthmus.benchmarks.compare import Judgement
from isthmus.benchmarks.results import Phase, Results, ResultsError, Sample


def run(figure: str, *values: float, **work: float) -> Results:
    found = Results(environment={"cpu": "x", "python": "3.11"}, work=work or {"echoes": 10})
    for number, value in enumerate(values, 1):
        found.add(
            Sample(
                subject="uvloop",
                question="q",
                phase=Phase.COLD,
                number=number,
                figures={figure: value},
            )
        )
    return found


@pytest.mark.parametrize(
    ("figure", "before", "after", "judgement"),
    [
        ("mb_s", (100, 102, 98), (120, 121, 119), Judgement.BETTER),
        ("mb_s", (120, 121, 119), (100, 102, 98), Judgement.WORSE),
        ("p50_us", (120, 121, 119), (100, 102, 98), Judgement.BETTER),
        ("us", (100, 102, 98), (120, 121, 119), Judgement.WORSE),
        ("mb_s", (100, 110, 90), (105, 115, 95), Judgement.SAME),
        # The ranges do not touch, but one run alone wanders by more than the medians differ.
        ("mb_s", (100, 101, 99), (130, 160, 102), Judgement.SAME),
        # The medians differ by more than either spread, but one round was as the other run.
        ("mb_s", (100, 100, 131), (135, 133, 130), Judgement.SAME),
        ("mb_s", (100,), (200,), Judgement.UNKNOWN),
        ("mb_s", (100, 101), (200,), Judgement.UNKNOWN),
    ],
)
def test_judgement(figure, before, after, judgement):
    (difference,) = compare.compare(run(figure, *before), run(figure, *after))
    assert difference.judgement is judgement
    assert difference.judgement.value in compare.lines([difference])[0]


def test_other_work_is_not_compared():
    with pytest.raises(ResultsError, match="different work"):
        compare.compare(run("mb_s", 1, echoes=10), run("mb_s", 1, echoes=20))


def test_counts_and_what_only_one_run_has_are_left_out():
    assert compare.compare(run("samples", 1, 2), run("samples", 3, 4)) == []
    assert compare.compare(run("mb_s", 1, 2), run("p50_us", 3, 4)) == []


def test_two_files(tmp_path):
    names = []
    for name, found in (("a", run("mb_s", 100, 101)), ("b", run("mb_s", 200, 201))):
        if name == "b":
            found.environment = {"cpu": "y", "python": "3.11"}
        (tmp_path / name).write_text(json.dumps(found.to_json()), "utf-8")
        names.append(str(tmp_path / name))
    text = compare.main(names)
    assert "another machine: cpu: x before, y after" in text
    assert "x2.00" in text
    assert "1 of 1 differ" in text


def test_usage():
    with pytest.raises(ResultsError, match="usage"):
        compare.main(["one"])
