"""The process of one shaped link: a packet socket on each of two ports, frames held until due.

Run by path, without site packages: shaper.py NODE_PORT BRIDGE_PORT SEED. Each line on stdin is
`null` or [up, down] settings (see `Settings`); each is answered by the counters of both directions.
It ends with its stdin, so it never outlives the process that started it.
"""

from __future__ import annotations

import heapq
import itertools
import json
import os
import random
import select
import socket
import sys
import time
from dataclasses import asdict, dataclass, field

_SOL_PACKET = 263
_PACKET_IGNORE_OUTGOING = 23
_ETH_P_ALL = 3
_SO_SNDBUFFORCE = 32
_SO_RCVBUFFORCE = 33
_SOCKET_BUFFER = 8 << 20
"""Bytes; rides out some 40 ms of the process not being scheduled, at 1.5 Gbit/s."""
_FRAME_LIMIT = 2048
"""Bytes; offloading is off on shaped links, so frames are at most 1514."""
_BATCH = 64
"""Frames read in one direction before due frames are sent again."""
_IDLE_WAIT = 1.0
"""Seconds; nothing depends on it, the wait ends with the first frame or order."""


@dataclass(slots=True)
class Settings:
    """What one direction does to frames: seconds, fractions, bits per second."""

    delay: float = 0.0
    jitter: float = 0.0
    loss: float = 0.0
    rate: float | None = None
    queue: float = 1.0
    """Seconds of backlog at `rate` beyond which the newest frame is dropped."""
    reorder: bool = False


@dataclass(slots=True)
class Counters:
    """What became of the frames of one direction."""

    sent: int = 0
    lost: int = 0
    overflow: int = 0
    waited: float = 0.0


@dataclass(slots=True)
class Direction:
    """Frames on the line from one port to the other, earliest first."""

    source: socket.socket
    sink: socket.socket
    chance: random.Random
    settings: Settings = field(default_factory=Settings)
    counters: Counters = field(default_factory=Counters)
    held: list[tuple[float, int, bytes]] = field(default_factory=list)
    serial: itertools.count[int] = field(default_factory=itertools.count)
    free_at: float = 0.0
    last_due: float = 0.0

    def change(self, settings: Settings) -> None:
        """Use other settings from the next frame on; held frames keep their times."""
        self.settings = settings
        self.last_due = 0.0

    def take(self, now: float) -> None:
        """Read what has arrived, at most a batch, and decide when each frame leaves."""
        for _ in range(_BATCH):
            try:
                frame = self.source.recv(_FRAME_LIMIT)
            except OSError:  # nothing more, or the interface is down
                return
            self._schedule(frame, now)

    def release(self, now: float) -> None:
        """Send every frame that is due."""
        while self.held and self.held[0][0] <= now:
            try:
                self.sink.send(heapq.heappop(self.held)[2])
                self.counters.sent += 1
            except OSError:  # the interface is down or full
                self.counters.lost += 1

    def _schedule(self, frame: bytes, now: float) -> None:
        settings = self.settings
        if settings.loss and self.chance.random() < settings.loss:
            self.counters.lost += 1
            return
        due = now
        if settings.rate:
            if self.free_at - now > settings.queue:
                self.counters.overflow += 1
                return
            self.counters.waited += max(self.free_at - now, 0.0)
            due = self.free_at = max(self.free_at, now) + len(frame) * 8 / settings.rate
        due += settings.delay
        if settings.jitter:
            due += self.chance.uniform(-settings.jitter, settings.jitter)
        if not settings.reorder:
            due = self.last_due = max(due, self.last_due)
        heapq.heappush(self.held, (due, next(self.serial), frame))


def main(node: str, bridge: str, seed: str) -> None:
    """Forward frames both ways until stdin ends."""
    near, far = _port(node), _port(bridge)
    up = Direction(near, far, random.Random(f"{seed} up"))
    down = Direction(far, near, random.Random(f"{seed} down"))
    os.write(1, b"ready\n")
    sources: list[int | socket.socket] = [0, near, far]  # 0: stdin
    orders = b""
    while True:
        now = time.monotonic()
        due = min((way.held[0][0] for way in (up, down) if way.held), default=now + _IDLE_WAIT)
        ready = select.select(sources, [], [], max(due - now, 0))[0]
        now = time.monotonic()
        for way in (up, down):
            if way.source in ready:
                way.take(now)
        if 0 in ready:
            data = os.read(0, 65536)
            if not data:
                return
            *lines, orders = (orders + data).split(b"\n")
            for line in lines:
                _obey(json.loads(line), up, down)
        now = time.monotonic()
        up.release(now)
        down.release(now)


def _obey(order: list[dict[str, float]] | None, up: Direction, down: Direction) -> None:
    for way, settings in zip((up, down), order or (), strict=False):
        way.change(Settings(**settings))  # type: ignore[arg-type]  # written by link.py
    os.write(1, json.dumps([asdict(up.counters), asdict(down.counters)]).encode() + b"\n")


def _port(name: str) -> socket.socket:
    port = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    port.setsockopt(_SOL_PACKET, _PACKET_IGNORE_OUTGOING, 1)
    buffers = ((socket.SO_RCVBUF, _SO_RCVBUFFORCE), (socket.SO_SNDBUF, _SO_SNDBUFFORCE))
    for polite, forced in buffers:
        try:
            port.setsockopt(socket.SOL_SOCKET, forced, _SOCKET_BUFFER)
        except PermissionError:  # in a user namespace: up to net.core.[rw]mem_max only
            port.setsockopt(socket.SOL_SOCKET, polite, _SOCKET_BUFFER)
    port.bind((name, _ETH_P_ALL))
    port.setblocking(False)
    return port


if __name__ == "__main__":
    main(*sys.argv[1:])
