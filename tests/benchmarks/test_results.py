"""Results keep what was measured, and read back what they wrote."""

from __future__ import annotations

import json

import pytest
from isthmus.benchmarks import environment, micro
from isthmus.benchmarks.results import (
    Failure,
    Measure,
    Phase,
    Results,
    ResultsError,
    Sample,
    Series,
    from_lines,
    load,
)

ECHO = Measure("uvloop", "echo", Phase.COLD, "p50_us")


def sample(number: int, **figures: float) -> Sample:
    return Sample(
        subject="uvloop", question="echo", phase=Phase.COLD, number=number, figures=figures
    )


def results() -> Results:
    found = Results(environment={"cores": 2, "cpu": "x"}, work={"echoes": 10})
    found.versions["uvloop"] = "isthmus 1"
    found.add(sample(1, p50_us=100, p99_us=200))
    found.add(sample(2, p50_us=140))
    found.add(sample(3, p50_us=120))
    found.add(Failure(subject="js", question="echo", number=1, why="it died"))
    return found


def test_series():
    series = results().series(ECHO)
    assert series is not None
    assert (series.median, series.low, series.high) == (120, 100, 140)
    assert series.spread == pytest.approx(1 / 3)
    assert results().rounds == 3


def test_one_round_has_no_spread():
    assert Series({1: 5.0}).spread is None


def test_what_was_not_measured_is_none():
    assert results().series(Measure("uvloop", "echo", Phase.WARM, "p50_us")) is None
    assert results().series(Measure("uvloop", "echo", Phase.COLD, "p90_us")) is None


def test_measures_in_order():
    assert [measure.figure for measure in results().measures()] == ["p50_us", "p99_us"]


def test_json_there_and_back(tmp_path):
    file = tmp_path / "run.json"
    file.write_text(json.dumps(results().to_json()), "utf-8")
    assert load(file) == results()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        "[1]",
        '{"format": "isthmus-bench/0"}',
        '{"format": "isthmus-bench/1"}',
        '{"format": "isthmus-bench/1", "environment": {}, "work": 3}',
        '{"case": "a"}\n{"case": "b"}',
        "no json",
        '{"case": "a", "unit": "us", "samples": ["x"], "environment": {}}\n{}',
    ],
)
def test_other_files_are_refused(tmp_path, text):
    file = tmp_path / "run.json"
    file.write_text(text, "utf-8")
    with pytest.raises(ResultsError):
        load(file)


def test_every_phase_of_a_sample_is_known():
    broken = results().to_json()
    broken["samples"][0]["phase"] = "hot"
    with pytest.raises(ResultsError):
        Results.from_json(broken)


def test_micro_benchmarks_run_and_are_read():
    lines = list(micro.run(["yamux", "scheduler", "noise seal"], repetitions=2, least_time=0.0))
    found = from_lines(json.loads(json.dumps(line)) for line in lines)
    assert len(found.measures()) == len(lines) > 5
    assert found.rounds == 2
    assert all(value > 0 for each in found.samples for value in each.figures.values())


@pytest.mark.parametrize("name", micro.cases())
def test_every_micro_case_can_be_repeated(name):
    operation = micro.cases()[name]()
    for _ in range(300):
        operation()


def test_environment_says_where():
    found = environment.describe()
    assert found["python"]
    assert found["cores"] >= 1
    assert found["openssl"].startswith("OpenSSL")
    assert json.dumps(found)
