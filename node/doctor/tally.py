"""Counts how hole punching has gone, by the events that tell of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..events import HolePunched, HolePunchFailed

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..events import NodeEvent


class PunchTally:
    """How often a relayed connection became direct, and why the last one that did not, did not."""

    def __init__(self) -> None:
        self.succeeded = 0
        self.failed = 0
        self.last_failure = ""

    def counting(self, publish: Callable[[NodeEvent], None]) -> Callable[[NodeEvent], None]:
        """Return a function that publishes events, and counts those that matter."""

        def counted(event: NodeEvent) -> None:
            if isinstance(event, HolePunched):
                self.succeeded += 1
            elif isinstance(event, HolePunchFailed):
                self.failed += 1
                self.last_failure = event.reason
            publish(event)

        return counted
