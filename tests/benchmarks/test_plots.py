"""Pictures of a run, and of one that has not much to show."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from isthmus.benchmarks import idle, plots
from isthmus.benchmarks.results import Phase, Results, Sample

if TYPE_CHECKING:
    from pathlib import Path

PNG = b"\x89PNG\r\n\x1a\n"


def sample(subject: str, question: str, number: int, phase: Phase = Phase.WARM, **figures: float):
    return Sample(subject=subject, question=question, phase=phase, number=number, figures=figures)


@pytest.fixture
def results() -> Results:
    found = Results(environment={}, work={})
    for number in (1, 2):
        for subject, factor in (("uvloop", 5), ("js", 1), ("aead", 9)):
            for phase in Phase:
                for way in ("up-1", "down-1", "up-10", "down-10", "aead"):
                    found.add(sample(subject, way, number, phase, mb_s=100.0 * factor + number))
            figures = {"idle_p50_us": 100.0, "idle_p99_us": 150.0, "p50_us": 200.0}
            found.add(sample(subject, "beside", number, **figures, p99_us=400.0 + number))
            found.add(sample(subject, idle.QUESTION, number, kib_each=50.0 / factor))
    return found


def test_every_picture_is_written(results: Results, tmp_path: Path):
    written = plots.write(results, tmp_path / "pictures")
    assert [path.stem for path in written] == list(plots.PLOTS)
    for path in written:
        content = path.read_bytes()
        assert content.startswith(PNG)
        assert len(content) > 5000


def test_what_was_not_measured_is_not_drawn(tmp_path: Path):
    found = Results(environment={}, work={})
    found.add(sample("uvloop", idle.QUESTION, 1, kib_each=50.0))
    assert [path.stem for path in plots.write(found, tmp_path)] == ["idle"]


def test_margins_say_how_much_better_than_the_floor(results: Results):
    verdicts = {verdict.bound.title: verdict for verdict in plots.judge(results)}
    low, middle, high = plots._margin(verdicts["throughput up, 1 str., cold: of js's"])
    assert low < middle < high
    assert middle == pytest.approx(501.5 / (4.5 * 101.5))
    low, middle, high = plots._margin(verdicts["HIGH echo p99 beside bulk, loopback: of idle"])
    assert middle == pytest.approx(1000 / 401.5)
    assert low < middle < high


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "isthmus.benchmarks.plots", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_command_says_what_is_wrong(tmp_path: Path):
    assert run().returncode == 2
    answer = run(str(tmp_path / "nothing.json"), str(tmp_path))
    assert answer.returncode == 1
    assert answer.stderr.startswith("error: ")
    assert "Traceback" not in answer.stderr
