"""Calls a machine when it is due."""

from __future__ import annotations

import asyncio
from math import inf
from typing import TYPE_CHECKING

import anyio

from ..sockets import is_asyncio

if TYPE_CHECKING:
    from collections.abc import Callable

    from anyio.abc import TaskGroup


class Timekeeper:
    """Has `handle_timeout` called at `next_timeout`, which is asked again after each call.

    On asyncio a handle does it, which costs less than a task; trio's timers are tasks.
    """

    __slots__ = (
        "_clock",
        "_earlier",
        "_handle_timeout",
        "_has_ended",
        "_next_timeout",
        "_timer",
        "deadline",
    )

    def __init__(
        self,
        clock: Callable[[], float],
        next_timeout: Callable[[], float],
        handle_timeout: Callable[[], None],
    ) -> None:
        self.deadline = -inf
        """When it calls next, of `clock`; minus infinity before it was started."""
        self._clock = clock
        self._next_timeout = next_timeout
        self._handle_timeout = handle_timeout
        self._earlier: anyio.Event | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._has_ended = False

    def start(self, tasks: TaskGroup) -> None:
        """Begin; what it needs runs in `tasks`, and ends by itself at `end`."""
        if is_asyncio():
            self._set_timer()
        else:
            tasks.start_soon(self._keep_time)

    def look_again(self) -> None:
        """Note that `next_timeout` may be earlier now."""
        deadline = self._next_timeout()
        if deadline < self.deadline:
            if self._earlier is None:
                self._set_timer()
            else:
                self.deadline = deadline
                self._earlier.set()

    def end(self) -> None:
        """Call no more."""
        self._has_ended = True
        if self._timer is not None:
            self._timer.cancel()
        if self._earlier is not None:
            self._earlier.set()

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self.deadline = self._next_timeout()
        if not self._has_ended and self.deadline < inf:
            delay = max(self.deadline - self._clock(), 0)
            self._timer = asyncio.get_running_loop().call_later(delay, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        self._handle_timeout()
        self._set_timer()

    async def _keep_time(self) -> None:
        while not self._has_ended:
            self.deadline = self._next_timeout()
            self._earlier = anyio.Event()
            with anyio.move_on_after(max(self.deadline - self._clock(), 0)) as scope:
                await self._earlier.wait()
            if scope.cancelled_caught and not self._has_ended:
                self._handle_timeout()
