"""What one task waits on and another, or a callback, sets: anyio.Event without its detours.

An event of anyio costs some microseconds on asyncio, several times for every message; a future
does the same for a fraction.
"""

from __future__ import annotations

import asyncio
from typing import Protocol

import anyio


class Wakeup(Protocol):
    """Set once; one task at most waits."""

    def set(self) -> None:
        """Let the waiter go on; harmless twice."""

    async def wait(self) -> object:
        """Wait until `set` was called."""


class _FutureWakeup:
    __slots__ = ("_future",)

    def __init__(self) -> None:
        self._future = asyncio.get_running_loop().create_future()

    def set(self) -> None:
        if not self._future.done():
            self._future.set_result(None)

    async def wait(self) -> None:
        await self._future


def new_wakeup() -> Wakeup:
    """Return what suits the loop that runs."""
    try:
        return _FutureWakeup()
    except RuntimeError:
        # No asyncio loop: trio.
        return anyio.Event()
