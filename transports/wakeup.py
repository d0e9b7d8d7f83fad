"""What one task waits on and another, or a callback, sets: anyio.Event without its detours.

An event of anyio costs some microseconds on asyncio, several times for every message; a future
does the same for a fraction.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol

import anyio
from anyio.lowlevel import checkpoint

if TYPE_CHECKING:
    from collections.abc import Awaitable


class Wakeup(Protocol):
    """Set once; one task at most waits."""

    def set(self) -> None:
        """Let the waiter go on; harmless twice."""

    def wait(self) -> Awaitable[object]:
        """Wait until `set` was called."""


class _FutureWakeup:
    __slots__ = ("_future",)

    def __init__(self) -> None:
        self._future = asyncio.get_running_loop().create_future()

    def set(self) -> None:
        if not self._future.done():
            self._future.set_result(None)

    def wait(self) -> Awaitable[object]:
        return self._future


class Waiters:
    """Tasks that wait for the same thing, in order; a cancelled one leaves nothing behind."""

    __slots__ = ("_waiting",)

    def __init__(self) -> None:
        self._waiting: list[Wakeup] = []

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def add(self) -> Wakeup:
        """Begin to wait: what is set from now on reaches `wait` with this wake-up."""
        wakeup = new_wakeup()
        self._waiting.append(wakeup)
        return wakeup

    async def wait(self, wakeup: Wakeup | None = None) -> None:
        """Wait until woken, from now on or since `add` returned the wake-up."""
        if wakeup is None:
            wakeup = self.add()
        try:
            await wakeup.wait()
        except BaseException:
            if wakeup in self._waiting:
                self._waiting.remove(wakeup)
            else:
                # It was woken as it was cancelled: what that was for is the next one's.
                self.wake_one()
            raise

    def wake_one(self) -> None:
        """Wake who has waited longest, if anybody waits."""
        if self._waiting:
            self._waiting.pop(0).set()

    def wake_all(self) -> None:
        """Wake everybody who waits now."""
        for wakeup in self._waiting:
            wakeup.set()
        self._waiting.clear()


class Flag:
    """Set once; anybody may wait. Until somebody does, it takes a tenth of what an event takes."""

    __slots__ = ("_waiters", "is_set")

    def __init__(self) -> None:
        self._waiters = Waiters()
        self.is_set = False

    def set(self) -> None:
        """Let everybody go on, now and later; harmless twice."""
        self.is_set = True
        self._waiters.wake_all()

    async def wait(self) -> None:
        """Wait until `set` was called."""
        if self.is_set:
            await checkpoint()
        else:
            await self._waiters.wait()


def new_wakeup() -> Wakeup:
    """Return what suits the loop that runs."""
    try:
        return _FutureWakeup()
    except RuntimeError:
        # No asyncio loop: trio.
        return anyio.Event()
