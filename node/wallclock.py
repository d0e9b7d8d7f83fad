"""From the loop's time to the one that people and files know."""

from __future__ import annotations

import time

import anyio


def wall_clock(loop_time: float) -> float:
    """Return a time of the loop in seconds since 1970."""
    return time.time() + loop_time - anyio.current_time()
