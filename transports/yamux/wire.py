"""Yamux frames: bytes <-> headers (https://github.com/hashicorp/yamux/blob/master/spec.md)."""

from __future__ import annotations

from enum import IntEnum
from struct import Struct

# A header: version, type, flags, stream id, length.
HEADER = Struct(">BBHII")
HEADER_SIZE = 12
VERSION = 0

DATA = 0
WINDOW_UPDATE = 1
PING = 2
GO_AWAY = 3

SYN = 1
ACK = 2
FIN = 4
RST = 8

# Every stream starts with this much credit in each direction; there is no negotiation.
INITIAL_WINDOW = 262_144
MAX_WINDOW = 0xFFFF_FFFF
MAX_STREAM_ID = 0xFFFF_FFFF


class GoAwayCode(IntEnum):
    """Why a session ends."""

    NORMAL = 0
    PROTOCOL_ERROR = 1
    INTERNAL_ERROR = 2


def window_update(flags: int, stream_id: int, credit: int) -> bytes:
    """Return a frame that grants `credit` more bytes."""
    return HEADER.pack(VERSION, WINDOW_UPDATE, flags, stream_id, credit)


def ping(flags: int, value: int) -> bytes:
    """Return a ping (flags SYN) or its answer (flags ACK)."""
    return HEADER.pack(VERSION, PING, flags, 0, value)


def go_away(code: int) -> bytes:
    """Return the frame that ends the session."""
    return HEADER.pack(VERSION, GO_AWAY, 0, 0, code)
