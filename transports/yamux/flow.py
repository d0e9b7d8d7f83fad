"""One Yamux stream's state and windows, and what unread data may cost; no frames, no clock."""

from __future__ import annotations

from collections import deque
from math import inf
from typing import TYPE_CHECKING, Protocol

from ..core.errors import RemoteProtocolError
from ..scheduler import Flow
from .buffer import PIECE, ReceiveBuffer
from .wire import INITIAL_WINDOW, MAX_WINDOW

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..core.interfaces import Priority

# The most a stream's receive window grows to: 16 MiB carries 1 Gbit/s over 130 ms.
MAX_RECEIVE_WINDOW = 16 * 2**20
# A window doubles when half of it was used within so many minimum round trips ...
GROWTH_ROUND_TRIPS = 4
# ... but on a path shorter than this the event loops are the delay, not the path,
SHORTEST_ROUND_TRIP = 0.0002
# ... and, judged over two windows, only while the last doubling made the stream faster by this.
GROWTH_GAIN = 1.1
# A window smaller than this doubles without that proof: on loopback it costs a third of the speed.
JUDGED_WINDOW = 2**20
# Seconds beyond the round trip that a peer may be ahead of a reader that sets the pace: covers the
# jitter of two event loops, and is what may queue up on the way.
STEP_ROOM = 0.003
# Four frames of this size, with headers, fill the driver's record of 65 448 bytes. A stream that is
# alone fills the record with one frame: a frame cannot be cut once its record is sealed anyway.
LARGEST_FRAME = 16_350
# What `send` takes into the stream's queue beyond what was sent: enough to fill four records.
SEND_QUEUE = 262_144
# Beyond this much in the queues of all its streams, a connection lets each have only a little more,
# so that a peer that grants no credit holds some 24 MiB of this side's memory at the most.
CONNECTION_QUEUE = 8 * 2**20
SMALL_QUEUE = 16_384
# A stream closed by this side waits so long, in seconds, for the peer to finish, then is reset.
LINGER = 30.0


class Holder(Protocol):
    """A connection that holds unread bytes."""

    def shed(self) -> bool:
        """Give up the stream that holds most unread, and say whether there was one."""


class NodeBudget:
    """The unread bytes of all connections of a node, and whom to take from beyond the limit."""

    __slots__ = ("_holders", "limit", "used")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.used = 0
        self._holders: dict[Holder, Callable[[], int]] = {}

    def join(self, holder: Holder, unread: Callable[[], int]) -> None:
        """Count a connection from now on; `unread` tells what it holds."""
        self._holders[holder] = unread

    def leave(self, holder: Holder) -> None:
        """Forget a connection that has ended; its machine has given back what it held."""
        self._holders.pop(holder, None)

    def relieve(self) -> None:
        """Let the holder of most give up the stream that has most, until all fit."""
        while (victim := self.victim()) is not None and victim.shed():
            pass

    def victim(self) -> Holder | None:
        """Return the holder of the most once the limit is passed, else None."""
        if self.used <= self.limit or not self._holders:
            return None
        return max(self._holders, key=lambda holder: self._holders[holder]())


class StreamOwner(Protocol):
    """The driver's side of a stream."""

    def wake_reader(self) -> None:
        """Let who receives look again."""

    def wake_writers(self) -> None:
        """Let who sends look again."""


class StreamState:
    """What the machine knows of one stream; only the machine changes it.

    `received` holds what the application has not taken, `queue` what it gave and was not sent.
    """

    __slots__ = (
        "acked",
        "bytes_received",
        "bytes_sent",
        "credit",
        "discards",
        "fin_queued",
        "fin_sent",
        "flags",
        "flow",
        "granted",
        "grown_at",
        "grown_bytes",
        "grown_rate",
        "id",
        "is_remote",
        "keeps_frames",
        "opened_at",
        "owner",
        "pace",
        "priority",
        "queue",
        "queued",
        "received",
        "remote_fin",
        "reset_code",
        "reset_remote",
        "stalled",
        "step",
        "updated_at",
        "window",
    )

    def __init__(self, stream_id: int, priority: Priority, now: float, *, is_remote: bool) -> None:
        self.id = stream_id
        self.priority = priority
        self.is_remote = is_remote
        self.flow = Flow(self, priority)
        self.opened_at = now
        self.owner: StreamOwner | None = None
        self.flags = 0  # SYN or ACK, to ride on the next frame
        self.acked = is_remote
        # Sending.
        self.queue: deque[memoryview | bytearray] = deque()
        self.queued = 0
        self.credit = INITIAL_WINDOW
        self.stalled = False  # `send` took less than it was given
        self.keeps_frames = False  # what is given at a time goes into one frame, where it can
        self.fin_queued = False
        self.fin_sent = False
        self.bytes_sent = 0
        # Receiving.
        self.received = ReceiveBuffer()
        self.window = INITIAL_WINDOW
        self.granted = INITIAL_WINDOW
        self.pace = inf  # bytes a second that are taken at most, where there is a step
        self.step: int | None = None  # bytes after which credit is granted; None: half a window
        self.updated_at = now
        self.grown_at = now
        self.grown_bytes = 0
        self.grown_rate = 0.0
        self.remote_fin = False
        self.discards = False
        self.bytes_received = 0
        # The end.
        self.reset_code: int | None = None
        self.reset_remote: bool | None = False

    @property
    def unread(self) -> int:
        """Bytes received and not taken."""
        return self.received.size

    @property
    def is_open(self) -> bool:
        """Whether either direction can still carry bytes."""
        return self.reset_code is None and not (self.fin_sent and self.remote_fin)

    @property
    def is_sendable(self) -> bool:
        """Whether a data frame could be sent now."""
        return self.queued > 0 and self.credit > 0

    def is_one_frame(self, room: int) -> bool:
        """Say whether all that is queued is one piece that can be sent, and nothing comes of it."""
        return (
            self.queued <= room
            and self.queued <= self.credit
            and len(self.queue) == 1
            and not (self.stalled or self.fin_queued)
        )

    def queue_room(self, connection_queued: int) -> int:
        """Return how many bytes may be queued, given what all streams have queued together."""
        if connection_queued >= CONNECTION_QUEUE:
            most = SMALL_QUEUE
        else:
            most = SEND_QUEUE if self.step is None else 2 * self.step
        return max(most - self.queued, 0)

    def add(self, data: memoryview, connection_queued: int) -> int:
        """Queue what there is room for and return how much that was; note if it is not all.

        Of a stream that keeps frames all or nothing, unless memory is short: the queue holds one
        frame more at the most. Little that waits behind little is gathered.
        """
        size, queue = len(data), self.queue
        if not queue and 0 < size <= SMALL_QUEUE and self.step is None:
            # The usual case: there is room for little, whatever else waits.
            queue.append(data)
            self.queued = size
            return size
        room = self.queue_room(connection_queued)
        keeps_whole = self.keeps_frames and connection_queued < CONNECTION_QUEUE
        if size > room and not (room and keeps_whole):
            self.stalled = True
            data, size = data[:room], room
        if not size:
            return 0
        self.queued += size
        if not queue or size + len(queue[-1]) > PIECE:
            queue.append(data)
        elif isinstance(last := queue[-1], bytearray):
            last += data
        else:
            queue[-1] = bytearray(last) + data
        return size

    def next_frame(self, room: int, *, may_cut: bool) -> int:
        """Return the size of the next frame; 0 for one that is better whole in a later record."""
        length = min(room, self.queued, self.credit)
        if not self.keeps_frames or length == self.queued:
            return length
        whole = 0
        for each in self.queue:
            if whole + len(each) > length:
                break
            whole += len(each)
        return whole or (length if may_cut else 0)

    def take_frame(self, size: int) -> list[memoryview | bytearray]:
        """Remove exactly `size` queued bytes, as slices that are not copied."""
        self.queued -= size
        self.credit -= size
        self.bytes_sent += size
        queue = self.queue
        head = queue[0]
        if len(head) == size:
            return [queue.popleft()]
        if len(head) > size:
            queue[0] = head[size:]
            return [head[:size]]
        parts = []
        while size:
            head = queue.popleft()
            if len(head) > size:
                queue.appendleft(head[size:])
                head = head[:size]
            parts.append(head)
            size -= len(head)
        return parts

    def add_credit(self, credit: int) -> None:
        """Take credit from the peer; raises RemoteProtocolError for more than 2^32 bytes."""
        self.credit += credit
        if self.credit > MAX_WINDOW:
            raise RemoteProtocolError(f"stream {self.id} was granted more than 2^32 bytes")

    def use_grant(self, size: int) -> None:
        """Account for a frame that comes in; raises RemoteProtocolError beyond what was granted."""
        if size > self.granted:
            raise RemoteProtocolError(
                f"{size} bytes on stream {self.id}, which has credit for {self.granted}"
            )
        self.granted -= size

    def drop_queue(self) -> None:
        """Forget what was given to send."""
        self.queue.clear()
        self.queued = 0

    def replenish(self, now: float, round_trip_time: float | None, *, may_grow: bool) -> int:
        """Return the credit to grant after a take, 0 if it is not worth a frame yet.

        Grants once half the window was used, and doubles a window that is used up faster than
        the path could refill it.
        """
        if self.step is not None:
            return self._replenish_steadily(self.step, now, round_trip_time, may_grow=may_grow)
        owed = self.window - self.granted - self.received.size
        if owed < self.window >> 1:
            return 0
        elapsed = now - self.updated_at
        self.updated_at = now
        self.grown_bytes += owed
        if may_grow and round_trip_time is not None and self._gains(now, elapsed, round_trip_time):
            owed += self.window
            self.window *= 2
        self.granted += owed
        return owed

    def _replenish_steadily(
        self, step: int, now: float, round_trip_time: float | None, *, may_grow: bool
    ) -> int:
        """Return the credit to grant where a pace is set, in small steps.

        Of a window that is larger than the pace needs a part is not granted: it would wait on the
        way, in somebody's queue. A smaller one grows while the reader finds nothing to take.
        """
        needed = float(self.window)
        if round_trip_time is not None and self.pace < inf:
            needed = self.pace * (round_trip_time + STEP_ROOM) + step
        owed = self.window - self.granted - self.received.size
        owed -= max(self.window - int(needed), 0)
        if owed < min(step, self.window >> 1):
            return 0
        self.grown_bytes += owed
        if self.grown_bytes >= self.window >> 1:
            elapsed = now - self.grown_at
            self.grown_at, self.grown_bytes = now, 0
            horizon = GROWTH_ROUND_TRIPS * (round_trip_time or 0.0)
            is_held_back = self.window < needed and not self.received and elapsed <= horizon
            if may_grow and is_held_back and self.window < MAX_RECEIVE_WINDOW:
                owed += self.window
                self.window *= 2
        self.granted += owed
        return owed

    def _gains(self, now: float, elapsed: float, round_trip_time: float) -> bool:
        """Say whether the window is what holds the stream back, and the last doubling helped."""
        horizon = GROWTH_ROUND_TRIPS * max(round_trip_time, SHORTEST_ROUND_TRIP)
        if self.window < JUDGED_WINDOW:
            return elapsed <= horizon
        if self.grown_bytes < 2 * self.window or self.window >= MAX_RECEIVE_WINDOW:
            return False
        rate = self.grown_bytes / max(now - self.grown_at, 1e-6)
        self.grown_at, self.grown_bytes = now, 0
        if elapsed > horizon or rate < self.grown_rate * GROWTH_GAIN:
            return False
        self.grown_rate = rate
        return True
