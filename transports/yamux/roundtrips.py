"""The round trips of one connection: who waits for an answer, and the smoothed figures."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..wakeup import new_wakeup

if TYPE_CHECKING:
    from ..wakeup import Wakeup

# Seconds, and round trips if those are more, that a connection waits for the peer to close, too, in
# the background: a socket closed while bytes come in resets the path, and the last words are lost.
LINGER_TIME = 0.3
LINGER_ROUND_TRIPS = 3


class RoundTrips:
    """What the answered pings of a connection tell; times are in seconds.

    `handshake` is what the connection's own handshake took, which counts until a ping is answered.
    """

    def __init__(self, handshake: float | None = None) -> None:
        self.mean = handshake
        self.jitter: float | None = None
        self._waiting: dict[int, list[_Probe]] = {}

    @property
    def linger_time(self) -> float:
        """Seconds that closing waits for the peer."""
        return max(LINGER_TIME, LINGER_ROUND_TRIPS * (self.mean or 0.0))

    async def wait(self, value: int) -> float | None:
        """Wait for the answer to the ping of this value; None if `end` came first."""
        probe = _Probe()
        self._waiting.setdefault(value, []).append(probe)
        try:
            await probe.wakeup.wait()
        except BaseException:
            # Cancelled: a peer that never answers must not make a list grow.
            self._forget(value, probe)
            raise
        return probe.rtt

    def answered(self, value: int, rtt: float) -> bool:
        """Take an answer; return whether it is the first one of the connection."""
        last, jitter = self.mean, self.jitter
        if last is None or jitter is None:
            self.mean, self.jitter = rtt, 0.0
        else:
            # RFC 3550's smoothing, applied to round trips.
            self.jitter = jitter + (abs(rtt - last) - jitter) / 16
            self.mean = last + (rtt - last) / 8
        for probe in self._waiting.pop(value, ()):
            probe.rtt = rtt
            probe.wakeup.set()
        return jitter is None

    def end(self) -> None:
        """Wake all who wait, without an answer."""
        for probes in self._waiting.values():
            for probe in probes:
                probe.wakeup.set()
        self._waiting.clear()

    def _forget(self, value: int, probe: _Probe) -> None:
        probes = self._waiting.get(value, [])
        if probe in probes:
            probes.remove(probe)
            if not probes:
                del self._waiting[value]


class _Probe:
    __slots__ = ("rtt", "wakeup")

    def __init__(self) -> None:
        self.wakeup: Wakeup = new_wakeup()
        self.rtt: float | None = None
