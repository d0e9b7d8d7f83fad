"""A bar with rate and time left for long work that a person watches."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

INTERVAL = 0.1
"""Seconds between two drawings: as smooth as a bar needs, and no load beside the work itself."""


@contextmanager
def showing(name: str, total: int, *, is_live: bool) -> Iterator[Callable[[int], None]]:
    """Give a function that takes the bytes done so far; without a watcher it does nothing."""
    if not is_live:
        yield _ignore
        return
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    columns = (
        TextColumn("{task.description:<9}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, auto_refresh=False, transient=True) as bars:
        task = bars.add_task(name, total=total)
        drawn = 0.0

        def show(done: int) -> None:
            nonlocal drawn
            now = time.monotonic()
            if now - drawn >= INTERVAL or done == total:
                drawn = now
                bars.update(task, completed=done, refresh=True)

        yield show


def _ignore(done: int) -> None:
    del done
