"""Which stream sends the next frame: classes by deficit round robin, streams by new and old lists.

A pure object that knows neither bytes nor time. Call order: `join` a flow while it has something
to send, `next` to choose, then `charge` for the frame it sent; `leave` when it has nothing left.
"""

from __future__ import annotations

from typing import Any

from .core.interfaces import Priority

# Frames a class may send before the classes below it get theirs; the ratios are those of W3C's
# RTCPriorityType (each level twice the one below).
QUANTA = {Priority.HIGH: 8, Priority.MEDIUM: 4, Priority.LOW: 2, Priority.VERY_LOW: 1}
CLASSES = tuple(QUANTA)
RANK = {priority: rank for rank, priority in enumerate(CLASSES)}
LOWEST_RANK = len(CLASSES) - 1
# Frames of new flows in a row while old ones wait. RFC 8290 needs no such bound, as its flows are
# few; ours are streams, and an endless sequence of short ones would starve a long one.
NEW_IN_A_ROW = 8


class Flow:
    """One sender's place in the schedule; `rank` 0 is the most urgent class."""

    __slots__ = ("is_listed", "is_ready", "owner", "rank")

    def __init__(self, owner: object, priority: Priority) -> None:
        self.owner: Any = owner
        self.rank = RANK[priority]
        self.is_ready = False
        self.is_listed = False


class _Class:
    __slots__ = ("deficit", "in_a_row", "new", "old", "quantum", "ready")

    def __init__(self, quantum: int) -> None:
        self.quantum = quantum
        self.deficit = quantum
        self.ready = 0
        self.in_a_row = 0
        # Lists, since an empty deque takes ten times as much, and a connection has eight of them.
        self.new: list[Flow] = []
        self.old: list[Flow] = []

    def head(self) -> Flow:
        """The flow to serve; some flow must be ready."""
        new, old = self.new, self.old
        if new and not old and new[0].is_ready:
            return new[0]
        self.trim()
        return new[0] if new and (self.in_a_row < NEW_IN_A_ROW or not old) else old[0]

    def trim(self) -> None:
        """Drop flows that ran dry when their turn comes, by way of the old list (RFC 8290, 4.2)."""
        new, old = self.new, self.old
        while new and not new[0].is_ready:
            old.append(new.pop(0))
        while old and not old[0].is_ready:
            old.pop(0).is_listed = False

    def rotate(self, flow: Flow) -> None:
        """Let the head, which has just sent, queue up behind the others."""
        if self.new and self.new[0] is flow:
            self.old.append(self.new.pop(0))
            self.in_a_row += 1
        else:
            self.old.append(self.old.pop(0))
            self.in_a_row = 0
        self.trim()


class Scheduler:
    """Chooses flows so that urgent data waits for one frame and no class starves."""

    __slots__ = ("_classes", "_lone", "_lone_has_sent", "ready")

    def __init__(self) -> None:
        self.ready = 0
        """Flows that have something to send."""
        # The only one that has, as is usual: nothing is listed, and no share counted, until another
        # one joins it.
        self._lone: Flow | None = None
        self._lone_has_sent = False
        self._classes = [_Class(quantum) for quantum in QUANTA.values()]

    def join(self, flow: Flow) -> None:
        """Say that the flow has something to send; a flow that comes back keeps its place."""
        if flow.is_ready:
            return
        flow.is_ready = True
        self.ready += 1
        if self.ready == 1 and not flow.is_listed:
            self._lone, self._lone_has_sent = flow, False
            return
        if (lone := self._lone) is not None:
            self._lone = None
            lone.is_listed = True
            queue = self._classes[lone.rank]
            queue.ready += 1
            (queue.old if self._lone_has_sent else queue.new).append(lone)
        queue = self._classes[flow.rank]
        queue.ready += 1
        if not flow.is_listed:
            flow.is_listed = True
            queue.new.append(flow)

    def leave(self, flow: Flow) -> None:
        """Say that the flow has nothing to send."""
        if flow.is_ready:
            flow.is_ready = False
            self.ready -= 1
            if flow is self._lone:
                self._lone = None
                return
            queue = self._classes[flow.rank]
            queue.ready -= 1
            queue.trim()

    def move(self, flow: Flow, priority: Priority) -> None:
        """Put the flow into another class; it starts there as a new one."""
        rank = RANK[priority]
        if rank == flow.rank:
            return
        was_ready = flow.is_ready
        self.leave(flow)
        if flow.is_listed:
            queue = self._classes[flow.rank]
            (queue.new if flow in queue.new else queue.old).remove(flow)
            flow.is_listed = False
        flow.rank = rank
        if was_ready:
            self.join(flow)

    def next(self, lowest: int = LOWEST_RANK) -> Flow | None:
        """Return the flow to send one frame, among the classes down to rank `lowest`."""
        if (lone := self._lone) is not None:
            return lone if lone.rank <= lowest else None
        classes = self._classes
        candidate = None
        for queue in classes if lowest == LOWEST_RANK else classes[: lowest + 1]:
            if queue.ready:
                if queue.deficit > 0:
                    return queue.head()
                candidate = candidate or queue
        if candidate is None:
            return None
        for queue in classes:
            queue.deficit = queue.quantum
        return candidate.head()

    def charge(self, flow: Flow, *, is_last: bool = False) -> None:
        """Account for the frame of the flow that `next` returned last, and let it leave."""
        if flow is self._lone:
            self._lone_has_sent = True
            if is_last:
                self._lone = None
                self.ready = 0
                flow.is_ready = False
            return
        queue = self._classes[flow.rank]
        queue.deficit -= 1
        queue.rotate(flow)
        if is_last:
            self.leave(flow)
