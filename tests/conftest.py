"""What every test gets: both backends, the day's seed, a watch on the event loop.

Every asynchronous test runs on asyncio and on trio (a test that asks which takes the fixture
`anyio_backend_name`). A test fails besides if one step of its event loop took longer than
MAX_STEP, or if asyncio reported an error that nobody saw. Warnings are errors already.

ISTHMUS_TEST_SCALE (default 0.1; 1 is the full count) shrinks the counts of long tests, and
ISTHMUS_TEST_SEED (default: the date) chooses their random inputs, so a plain run tries a tenth,
another one each day, and any of them can be run again.
"""

from __future__ import annotations

import asyncio
import datetime
import logging
import os
import selectors
import subprocess
import sys
from time import perf_counter
from typing import TYPE_CHECKING

import pytest
import trio
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

MAX_STEP = 1.0
"""Seconds that one turn of an event loop may take: far more than any callback has to do."""
FULL_EXAMPLES = 1000
"""Examples of a hypothesis test at scale 1."""
NEEDS_TOOLS = ("interop", "lab", "browser")
"""The markers whose tests need more than Python; in CI none of them may be skipped."""

SCALE = float(os.environ.get("ISTHMUS_TEST_SCALE", "0.1"))
SEED = int(os.environ.get("ISTHMUS_TEST_SEED", datetime.datetime.now(datetime.UTC).toordinal()))


def _scaled(full: int) -> int:
    return max(1, round(full * SCALE))


settings.register_profile(
    "isthmus",
    deadline=None,
    max_examples=_scaled(FULL_EXAMPLES),
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("isthmus")


class _LoopWatch:
    """Collects what a test must not do to its event loop."""

    def __init__(self) -> None:
        self.faults: list[str] = []
        self._since: float | None = None

    def woke(self) -> None:
        """Note that the loop has work to do."""
        self._since = perf_counter()

    def waits(self) -> None:
        """Note that the loop has nothing left to do but wait."""
        if self._since is not None and (took := perf_counter() - self._since) > MAX_STEP:
            self.faults.append(f"one turn of the event loop took {took:.2f} s")
        self._since = None


_watch = _LoopWatch()


class _WatchedSelector(selectors.DefaultSelector):
    """A selector that tells the watch when the asyncio loop waits; the loop calls nothing else."""

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        _watch.waits()
        try:
            return super().select(timeout)
        finally:
            _watch.woke()


class _WatchedRun(trio.abc.Instrument):
    """The same for trio."""

    def before_io_wait(self, timeout: float) -> None:
        _watch.waits()

    def after_io_wait(self, timeout: float) -> None:
        _watch.woke()


def _watched_loop() -> asyncio.AbstractEventLoop:
    return asyncio.SelectorEventLoop(_WatchedSelector())


class _ErrorHandler(logging.Handler):
    """asyncio logs what a task raised unseen and what was destroyed pending; here it is a fault."""

    def emit(self, record: logging.LogRecord) -> None:
        _watch.faults.append(self.format(record))


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, object]]:
    """Each backend in turn, watched."""
    if request.param == "asyncio":
        return "asyncio", {"loop_factory": _watched_loop}
    return "trio", {"instruments": [_WatchedRun()]}


@pytest.fixture(autouse=True)
def _loop_stays_free() -> Iterator[None]:
    _watch.faults.clear()
    _watch.waits()
    yield
    faults, _watch.faults = _watch.faults, []
    if faults:
        pytest.fail("\n".join(faults))


@pytest.fixture(scope="session")
def scale() -> float:
    """The share of the full counts that this run tries."""
    return SCALE


@pytest.fixture(scope="session")
def scaled() -> Callable[[int], int]:
    """Return `scaled(full)`: this run's share of a full count, at least 1."""
    return _scaled


@pytest.fixture(scope="session")
def seed() -> int:
    """The seed of this run's random inputs."""
    return SEED


@pytest.fixture
def untraced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Start processes without the measuring of the coverage, a third of the time of a short one.

    For those that run nothing which is not measured elsewhere.
    """
    for name in ("COVERAGE_PROCESS_CONFIG", "COVERAGE_PROCESS_START"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def unprivileged() -> tuple[str, ...]:
    """Put before a command, what takes from root the right to use files of any mode."""
    if os.geteuid() != 0:
        return ()
    prefix = ("setpriv", "--inh-caps=-all", "--bounding-set=-all")
    try:
        works = subprocess.run([*prefix, "true"], capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        works = False
    if not works:
        pytest.skip("needs setpriv(1), since root may use every file")
    return prefix


@pytest.hookimpl(tryfirst=True)  # before hypothesis reads its option
def pytest_configure(config: pytest.Config) -> None:
    if getattr(config.option, "hypothesis_seed", None) is None:
        config.option.hypothesis_seed = str(SEED)
    _keep_bytecode(config)
    handler = _ErrorHandler(level=logging.ERROR)
    logging.getLogger("asyncio").addHandler(handler)
    config.add_cleanup(lambda: logging.getLogger("asyncio").removeHandler(handler))


def _keep_bytecode(config: pytest.Config) -> None:
    """Have bytecode kept beside pytest's cache where it must not lie beside the sources.

    The tests start some hundred processes. Each would compile all of isthmus otherwise, which takes
    longer than all else that most of them do.
    """
    if sys.dont_write_bytecode:
        folder = config.rootpath / ".pytest_cache" / "bytecode"
        sys.pycache_prefix = os.environ["PYTHONPYCACHEPREFIX"] = str(folder)
        sys.dont_write_bytecode = False
        os.environ.pop("PYTHONDONTWRITEBYTECODE", None)


def pytest_report_header() -> str:
    return f"isthmus: ISTHMUS_TEST_SEED={SEED} ISTHMUS_TEST_SCALE={SCALE:g}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Where CI=true, turn a skip for want of a tool into a failure that says which tool."""
    report = yield
    needy = any(item.get_closest_marker(name) for name in NEEDS_TOOLS)
    if needy and report.skipped and not hasattr(report, "wasxfail") and os.environ.get("CI"):
        report.outcome = "failed"
        report.longrepr = f"skipped, which CI does not allow: {call.excinfo and call.excinfo.value}"
    return report
