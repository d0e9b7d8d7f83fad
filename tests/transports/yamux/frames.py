"""Yamux frames written and read without the code under test."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from isthmus.transports.yamux.machine import YamuxMachine

DATA, WINDOW_UPDATE, PING, GO_AWAY = range(4)
SYN, ACK, FIN, RST = 1, 2, 4, 8
WINDOW = 262_144


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame; `length` is the header's field."""

    kind: int
    flags: int
    stream_id: int
    length: int
    body: bytes = b""


def data(stream_id: int, body: bytes = b"", flags: int = 0) -> bytes:
    """Encode a data frame."""
    return struct.pack(">BBHII", 0, DATA, flags, stream_id, len(body)) + body


def update(stream_id: int, credit: int = 0, flags: int = 0) -> bytes:
    """Encode a window update."""
    return struct.pack(">BBHII", 0, WINDOW_UPDATE, flags, stream_id, credit)


def ping(flags: int, value: int) -> bytes:
    """Encode a ping or its answer."""
    return struct.pack(">BBHII", 0, PING, flags, 0, value)


def go_away(code: int) -> bytes:
    """Encode a go-away."""
    return struct.pack(">BBHII", 0, GO_AWAY, 0, 0, code)


def parse(wire: bytes) -> list[Frame]:
    """Decode whole frames; anything left over fails."""
    frames = []
    while wire:
        version, kind, flags, stream_id, length = struct.unpack(">BBHII", wire[:12])
        assert version == 0
        body = wire[12 : 12 + length] if kind == DATA else b""
        assert kind != DATA or len(body) == length
        wire = wire[12 + len(body) :]
        frames.append(Frame(kind, flags, stream_id, length, body))
    return frames


def drain(machine: YamuxMachine, now: float = 0.0, max_bytes: int = 65_519) -> bytes:
    """Return all that the machine sends now."""
    out = b""
    while record := machine.data_to_send(max_bytes, now):
        assert len(record) <= max_bytes
        out += record
    return out
