"""How many bytes may be under way while something more urgent may want to pass.

The queue that hurts is not in our own buffers but in the bottleneck and in the receiver's kernel.
Markers (Yamux pings) are laid into the byte stream; the answer to one acknowledges, end to end,
all that was written before it. From these come a delivery rate and a minimum round trip, and what
is written but unacknowledged stays below rate x (minimum round trip + a little).

A pure object. Call order: `written` for every record, `mark` when `marker_due`, `answered` for each
answer; `room` says how much more may be written.
"""

from __future__ import annotations

from math import inf

# Four of the smallest records; with less, bulk would stall between markers.
MIN_LIMIT = 16_384
LARGEST_RECORD = 65_536
# What a path gets before it is known: as much as TCP's first windows on a fast path.
START_LIMIT = 65_536
# Queueing that is accepted for the sake of throughput: covers the jitter of two event loops.
QUEUE_TARGET = 0.003
# While round trips show less queueing than this there is capacity left, and the limit grows by a
# quarter a round trip (a slow start that overshoots by a quarter at the most).
GROWTH_QUEUE = 0.0015
GROWTH = 1.25
# At the start it doubles instead, until round trips are this much longer than the shortest.
START_GROWTH = 2.0
START_QUEUE = 1.25
# Distance between markers: a quarter of the limit tells the rate well, at most this many bytes, and
# no more than `QUEUE_TARGET` of the rate, as what an answer sets free goes out at once.
MAX_MARKER_DISTANCE = 1_048_576
MARKERS_PER_LIMIT = 4
# go-libp2p holds 32 answers back while its socket is busy, and drops the others.
MAX_MARKERS = 24
# The delivery rate is the best of this many round trips (as BBR's bandwidth filter).
RATE_WINDOW = 10
# A minimum round trip older than this is measured again, with the path half empty.
MIN_RTT_AGE = 10.0
# A round trip this far above the minimum, for so many round trips at the limit: not our queue.
FOREIGN_QUEUE = 0.012
FOREIGN_ROUNDS = 8
RELEASE_TIME = 10.0
# On loopback the queue is the receiver's buffer, which fills as soon as the sender is the faster
# side. So much of it is as long as the turns of the two loops take anyway; with less bulk would
# stall, with twice as much an urgent echo takes twice as long. On a fast network: some records.
FAST_QUEUE = 0.00035
FAST_RECORDS = 4
# Where a fast path's round trips show no more than that, markers only watch, and are fewer, as each
# costs both sides a record, on loopback a tenth of the bulk: with every answer the limit moves up
# by a step of so many seconds of the rate, to so many at the most; a marker stands for half of it.
SLACK_STEP = 0.001
MAX_SLACK = 0.008
# A path is fast if it takes a whole record in the 2 ms that a frame may last, seen over this many
# seconds: a congestion window that was free counts for less in them.
FAST_RATE = LARGEST_RECORD / 0.002
PACE_TIME = 0.01
# A marker unanswered for so long is taken for lost (some peers drop pongs when several wait).
MARKER_TIMEOUT = 1.0


class _Marker:
    __slots__ = (
        "acknowledged",
        "acknowledged_at",
        "acknowledged_sent_at",
        "is_probe",
        "sent_at",
        "value",
        "written",
    )

    def __init__(self, value: int, written: int, sent_at: float) -> None:
        self.value = value
        self.written = written
        self.sent_at = sent_at
        self.acknowledged = 0
        self.acknowledged_at = sent_at
        self.acknowledged_sent_at = sent_at
        self.is_probe = False


class InFlightLimit:
    """Bounds the bytes between this side's writes and the peer's reads; see the module."""

    def __init__(self) -> None:
        self.rate: float | None = None
        self.min_rtt: float | None = None
        self.is_active = False
        self._min_rtt_at = -inf
        self._written = 0
        self._paced = 0
        self._paced_at = -inf
        self._is_fast = False
        self._acknowledged = 0
        self._acknowledged_at = 0.0
        self._acknowledged_sent_at = 0.0
        self._marked = 0
        self._markers: list[_Marker] = []  # few: a deque would take more
        self._rates: list[tuple[float, float]] = []
        self._limit = inf
        self._starting = True
        # Once this many bytes are acknowledged, a whole round trip has been measured.
        self._learnt_at: int | None = None
        self._frame = self._record = LARGEST_RECORD
        self._mark_at = 0.0
        self._probing = False
        self._slack = 0.0  # beyond the limit, while markers only watch
        self._free_until = 0.0
        self._overdue_at = inf
        self._released_until = -inf
        self._queued_since: float | None = None

    @property
    def limit(self) -> float:
        """Bytes that may be under way at once."""
        return self._limit

    @property
    def in_flight(self) -> int:
        """Bytes written and not acknowledged by a marker yet."""
        return self._written - self._acknowledged

    def activate(self, now: float, *, is_busy: bool = False) -> None:
        """Start to limit: from little, doubling, until a queue is seen.

        If the path is busy already, it is measured for two round trips first.
        """
        if not self.is_active:
            self.is_active = True
            self._markers.clear()
            self._acknowledged = self._written
            self._acknowledged_at = self._acknowledged_sent_at = now
            self._marked = self._written - MAX_MARKER_DISTANCE
            self._limit = inf if is_busy else START_LIMIT
            self._learnt_at = None
            self._starting = True
            self._slack = 0.0
            self._plan()

    def deactivate(self) -> None:
        """Stop to limit; no markers are due until the next `activate`."""
        if self.is_active:
            self.is_active = False
            self._plan()

    def is_free(self, now: float) -> bool:
        """Say whether nothing else is to be asked: there is room, for largest records, unmarked.

        The short answer for every record of a fast path whose markers only watch.
        """
        return self._written < self._free_until and now <= self._overdue_at

    def written(self, size: int, now: float) -> None:
        """Account for `size` bytes that were handed to the path."""
        self._written += size
        if now - self._paced_at >= PACE_TIME:
            self._is_fast = self._written - self._paced >= FAST_RATE * (now - self._paced_at)
            self._paced, self._paced_at = self._written, now

    def room(self, now: float) -> float:
        """Bytes that may be written now; infinite while the limit is off."""
        if not self.is_active or now < self._released_until:
            return inf
        if self._slack and self._is_overdue(now):
            self._slack = 0.0
            self._plan()
        return max(self._limit + self._slack - self.in_flight, 0)

    def marker_due(self) -> bool:
        """Say whether the next bytes should be followed by a marker."""
        if self._written < self._mark_at:
            return False
        if not self.is_active or len(self._markers) >= MAX_MARKERS:
            return False
        return self._written - self._marked >= self._distance() or self._can_probe()

    def mark(self, value: int, now: float) -> bool:
        """Note that a marker of this value follows all that was written so far.

        Return whether it measures the minimum round trip, so that its record must hold no data.
        """
        marker = _Marker(value, self._written, now)
        if not self._markers and self._acknowledged == self._marked:
            # The path was idle: the time since the last answer is not the path's doing.
            self._acknowledged_at = now
        marker.acknowledged = self._acknowledged
        marker.acknowledged_at = self._acknowledged_at
        marker.acknowledged_sent_at = self._acknowledged_sent_at
        marker.is_probe = self._can_probe()
        self._marked = self._written
        self._markers.append(marker)
        self._plan()
        return marker.is_probe

    def answered(self, value: int, now: float) -> None:
        """Take the answer to a marker, and with it those of all markers before it."""
        if not any(marker.value == value for marker in self._markers):
            return
        while (marker := self._markers.pop(0)).value != value:
            pass
        acknowledged = marker.written - self._acknowledged
        self._acknowledged = marker.written
        self._acknowledged_at = now
        self._acknowledged_sent_at = marker.sent_at
        rtt = now - marker.sent_at
        self.measured(rtt, now, is_probe=marker.is_probe)
        # The slower of sending and answering: answers that come in a bunch tell nothing.
        sending = marker.sent_at - marker.acknowledged_sent_at
        elapsed = max(now - marker.acknowledged_at, sending)
        delivered = marker.written - marker.acknowledged
        if elapsed > 0 and delivered > 0:
            self._add_rate(delivered / elapsed, now, rtt)
        self._watch_queue(marker, rtt, now)
        self._update_limit(rtt, now, acknowledged)
        self._plan()

    def measured(self, rtt: float, now: float, *, is_probe: bool = False) -> None:
        """Take a round trip measured by any ping; a probe's replaces an old minimum."""
        if self.min_rtt is None or rtt <= self.min_rtt or is_probe:
            self.min_rtt = rtt
            self._min_rtt_at = now
            self._probing = False

    def next_timeout(self) -> float:
        """When the oldest marker is taken for lost; infinite if none is out."""
        if not self.is_active or not self._markers:
            return inf
        return self._markers[0].sent_at + self._marker_timeout()

    def handle_timeout(self, now: float) -> None:
        """Take markers that went unanswered for answered, so that bulk never stalls for them.

        A peer that has answered none at all is not limited.
        """
        while self._markers and now >= self._markers[0].sent_at + self._marker_timeout():
            marker = self._markers.pop(0)
            self._acknowledged = max(self._acknowledged, marker.written)
            self._acknowledged_at = now
            self._marked = self._written - MAX_MARKER_DISTANCE
            if self._learnt_at is None:
                self._limit = inf
            self._plan()

    def frame_size(self, largest: int) -> int:
        """Bytes of one frame: 2 ms of the path's rate.

        From 2 KiB to `largest` while the limit is on; else `largest`, or a whole record on a fast
        path, where switching streams within one gains nobody anything.
        """
        if self.is_active:
            return min(self._frame, largest)
        return LARGEST_RECORD if self._is_fast else largest

    def record_size(self, largest: int) -> int:
        """Bytes of one record: 4 ms of the path's rate, within 4 KiB and `largest`."""
        return min(self._record, largest)

    def _plan(self) -> None:
        """Work out what every record asks for, as it only changes with answers and markers."""
        if self.is_active and self.rate is not None:
            self._frame = max(int(self.rate * 0.002), 2048)
            self._record = max(int(self.rate * 0.004), 4096)
        else:
            self._frame = self._record = LARGEST_RECORD
        self._mark_at = 0.0 if self._probing else self._marked + self._distance()
        self._free_until = 0.0
        if self.is_active and self._slack:
            room_until = self._acknowledged + self._limit + self._slack
            self._free_until = min(self._mark_at, room_until)
            oldest = self._markers[0].sent_at if self._markers else inf
            self._overdue_at = oldest + (self.min_rtt or 0) + QUEUE_TARGET

    def _can_probe(self) -> bool:
        """Say whether the path is empty enough to measure its minimum round trip, by one marker."""
        return (
            self._probing
            and self.in_flight <= self._limit
            and not any(marker.is_probe for marker in self._markers)
        )

    def _is_overdue(self, now: float) -> bool:
        """Say whether the oldest marker is out for longer than a path without a queue takes."""
        markers, min_rtt = self._markers, self.min_rtt or 0
        return bool(markers) and now - markers[0].sent_at > min_rtt + QUEUE_TARGET

    def _distance(self) -> float:
        distance = min(self._limit / MARKERS_PER_LIMIT, MAX_MARKER_DISTANCE)
        if self.rate is None or self._limit == inf:
            return distance
        distance = min(distance, self.rate * QUEUE_TARGET)
        return max(distance, self._limit / MAX_MARKERS, self._slack / 2)

    def _marker_timeout(self) -> float:
        return max(MARKER_TIMEOUT, 8 * (self.min_rtt or 0))

    def _add_rate(self, rate: float, now: float, rtt: float) -> None:
        rates = self._rates
        while rates and rates[-1][1] <= rate:
            rates.pop()
        rates.append((now, rate))
        horizon = now - RATE_WINDOW * max(rtt, self.min_rtt or rtt)
        while rates[0][0] < horizon:
            rates.pop(0)
        self.rate = rates[0][1]

    def _watch_queue(self, marker: _Marker, rtt: float, now: float) -> None:
        # What was under way when the marker was laid explains this much of its round trip.
        own = (marker.written - marker.acknowledged) / self.rate if self.rate else inf
        queued = rtt > max(self.min_rtt or rtt, own) + FOREIGN_QUEUE
        if not queued or self._probing:
            self._queued_since = None
        elif self._queued_since is None:
            self._queued_since = now
        elif now - self._queued_since > FOREIGN_ROUNDS * rtt:
            self._released_until = now + RELEASE_TIME
            self._queued_since = None

    def _update_limit(self, rtt: float, now: float, acknowledged: int) -> None:
        rate, min_rtt = self.rate, self.min_rtt
        if self._learnt_at is None:
            self._learnt_at = self._written
        if rate is None or min_rtt is None or self._acknowledged < self._learnt_at:
            return
        is_fast = rate >= FAST_RATE
        queue = rtt - min_rtt
        tolerance = max(FAST_QUEUE, FAST_RECORDS * LARGEST_RECORD / rate) if is_fast else inf
        if is_fast and queue < min(tolerance, GROWTH_QUEUE):
            self._slack = min(self._slack + SLACK_STEP * rate, MAX_SLACK * rate)
            # A round trip this close to the shortest confirms it.
            self._min_rtt_at = now
            self._probing = False
        else:
            self._slack = 0.0
            self._probing = self._probing or now - self._min_rtt_at > MIN_RTT_AGE
        if self._probing:
            self._limit = max(rate * min_rtt / 2, 4096)
        else:
            self._starting = self._starting and rtt < START_QUEUE * min_rtt + 2 * QUEUE_TARGET
            gain = 1.0
            if queue >= tolerance:
                gain = 1.0
            elif self._starting:
                gain = START_GROWTH
            elif queue < GROWTH_QUEUE:
                gain = GROWTH
            # The last record goes beyond: without room for it, each round trip would be less.
            record = self.record_size(LARGEST_RECORD)
            target = min_rtt + min(tolerance, QUEUE_TARGET)
            limit = max(rate * gain * target + record, MIN_LIMIT)
            # What comes free goes out twice at most: a leap would be a queue.
            self._limit = limit if self._limit == inf else min(limit, self._limit + acknowledged)
