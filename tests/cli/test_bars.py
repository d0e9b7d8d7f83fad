"""Bars of long work: how fast it goes and how long it still takes, and only on a terminal."""

from __future__ import annotations

import re

import pytest
from isthmus.benchmarks.command import time_left

BENCH = ("bench", "--quick", "--only", "echo", "--peers", "", "--no-lab")


def test_perf_shows_the_rate_and_the_time_left(isthmus, peer):
    sizes = ("--upload", "300MB", "--download", "300MB")
    code, drawn = isthmus.on_terminal("perf", peer, *sizes, TERM="xterm")
    assert code == 0
    for way in ("upload", "download"):
        bars = [line for line in re.split(r"[\r\n]|\x1b\[2K", drawn) if way in line]
        assert any(re.search(r"/300\.0.* MB", plain(line)) for line in bars)
        assert any(re.search(r" (MB|GB)/s", plain(line)) for line in bars)
        assert any(re.search(r" (\d+:\d\d:\d\d|-:--:--)", plain(line)) for line in bars)
    assert "\x1b" not in isthmus("perf", peer, *sizes).out


def test_bench_shows_how_far_it_is_and_the_time_left(isthmus):
    code, drawn = isthmus.on_terminal(*BENCH, TERM="xterm", COLUMNS="160")
    assert code == 0
    assert re.search(r" 1/2 +\d+:\d\d left, \d+ a minute +round 1 of 1: ", plain(drawn))
    assert drawn.rindex("\x1b[?25h") > drawn.rindex("\x1b[?25l")


def test_bench_in_a_pipe_draws_nothing(isthmus):
    done = isthmus(*BENCH)
    assert done.code == 0
    assert "\x1b" not in done.out + done.err
    assert [line.split()[0] for line in done.err.splitlines()] == ["0/2", "1/2"]


@pytest.mark.parametrize(
    ("done", "total", "seconds", "text"),
    [
        (0, 10, 5.0, ""),
        (1, 10, 20.0, "3:00 left, 3 a minute"),
        (5, 10, 10.0, "0:10 left, 30 a minute"),
        (10, 10, 10.0, "0:00 left, 60 a minute"),
        (1, 100, 60.0, "99:00 left, 1 a minute"),
    ],
)
def test_the_time_left_if_it_goes_on_as_so_far(done, total, seconds, text):
    assert time_left(done, total, seconds) == text


def plain(text):
    """Return a text without what moves the cursor and colours it."""
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)
