"""A reference link, and what plain TCP achieves on it: the yardstick for benchmarks."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .kernel import LabError

if TYPE_CHECKING:
    from .host import Host
    from .lab import Lab
    from .link import Congestion, Rate

_ENDPOINT = Path(__file__).with_name("endpoint.py")
_PATIENCE = 10.0
"""Seconds that a measurement may take beyond its own length, and any single call in it."""
_SLOWEST_ROUND_TRIP = 0.5
"""Seconds that a sample may take on average before echo_rtt gives up."""


@dataclass(frozen=True, slots=True)
class RoundTrips:
    """Samples of a round trip, in seconds, ascending."""

    seconds: tuple[float, ...]

    def quantile(self, fraction: float) -> float:
        """Return the sample below which this fraction of all lies."""
        return self.seconds[min(int(len(self.seconds) * fraction), len(self.seconds) - 1)]

    @property
    def p50(self) -> float:
        """The median, in seconds."""
        return self.quantile(0.50)

    @property
    def p99(self) -> float:
        """The 99th percentile, in seconds; of fewer than 100 samples, the largest."""
        return self.quantile(0.99)


def wan_link(
    lab: Lab,
    *,
    near: str = "near",
    far: str = "far",
    rate: Rate = "20mbit",
    rtt: float = 20.0,
    queue: float = 100.0,
) -> tuple[Host, Host]:
    """Add two public hosts; the first one's link is the bottleneck between them, both ways.

    rtt and queue are milliseconds; the queue drops its newest frame when full. An idle echo takes
    some 0.6 ms more than rtt: scheduling, and the frames' own time on the line.
    """
    hosts = lab.add_host(near), lab.add_host(far)
    hosts[0].link.shape(delay=rtt / 2, rate=rate, queue=queue)
    return hosts


def plain_tcp_copy(
    source: Host,
    sink: Host,
    seconds: float,
    congestion: Congestion | None = None,
    *,
    warm_up: float = 2.0,
) -> float:
    """Copy bytes over one TCP connection for a while and return the bytes per second received.

    Blocking sockets in a process per host; the receiver counts, and only after warm_up seconds.
    congestion is that of the sending socket alone. Raises LabError if an end fails, TimeoutError.
    """
    patience = str(_PATIENCE)
    receiver = _start(sink, "receive", sink.ip, patience, str(warm_up), str(seconds))
    port = _first_line(receiver)
    sender = _start(source, "send", sink.ip, port, patience, congestion or "")
    limit = warm_up + seconds + _PATIENCE
    counted = _result(receiver, limit)
    used = _result(sender, _PATIENCE)["congestion"]
    if congestion not in (None, used):
        raise LabError(f"the copy used {used}, not {congestion}")
    return float(counted["bytes"]) / float(counted["seconds"])


def echo_rtt(client: Host, server: Host, *, samples: int = 200, size: int = 32) -> RoundTrips:
    """Sample the round trip of `size` bytes over one TCP connection, one at a time.

    Blocking sockets in a process per host, so it shows what the link itself takes. Raises LabError
    if an end fails, TimeoutError if a sample takes more than half a second on average.
    """
    patience = str(_PATIENCE)
    echoing = _start(server, "echo", server.ip, patience)
    port = _first_line(echoing)
    asking = _start(client, "ask", server.ip, port, patience, str(samples), str(size))
    times = _result(asking, samples * _SLOWEST_ROUND_TRIP + _PATIENCE)
    _finish(echoing, _PATIENCE)
    return RoundTrips(tuple(sorted(times)))


def _start(host: Host, *arguments: str) -> subprocess.Popen[str]:
    return host.popen(
        [sys.executable, "-I", "-S", str(_ENDPOINT), *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _first_line(process: subprocess.Popen[str]) -> str:
    line = process.stdout.readline().strip() if process.stdout else ""
    if not line:
        _finish(process, _PATIENCE)
        raise LabError("a measuring process said nothing")
    return line


def _result(process: subprocess.Popen[str], timeout: float) -> Any:
    return json.loads(_finish(process, timeout))


def _finish(process: subprocess.Popen[str], timeout: float) -> str:
    try:
        output, complaint = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        raise TimeoutError(f"a measurement did not end within {timeout} s") from None
    if process.returncode:
        raise LabError(complaint.strip())
    return output
