"""How large the records of a connection are, when they go out, and where they are sealed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..noise.wire import OVERHEAD

if TYPE_CHECKING:
    from ..noise.machine import NoiseSession
    from ..sockets import FastStream

# Bytes waiting that are worth a system call of their own; less is gathered for a turn of the loop.
WORTH_SENDING = 32_768
# Seconds since the last flush after which the socket is likely idle, so that waiting gains nothing.
IDLE_SOCKET = 0.0001
# Bytes that one call hands to the socket before the other tasks of the loop get their turn.
FLUSH_SIZE = 262_144
# The plaintext of one record: below Noise's 65 519, so that a sealed record is one segment on
# loopback (65 483 bytes), where a second one of a few bytes costs 13 % of the throughput.
RECORD = 65_448

_buffer = bytearray(RECORD + OVERHEAD)
_view = memoryview(_buffer)


def largest_on(path: FastStream | None) -> int:
    """Return how many bytes of plaintext fill a record."""
    return RECORD if path is None or path.record is None else path.record - OVERHEAD


def seal_for(path: FastStream, session: NoiseSession, plaintext: bytes) -> memoryview:
    """Return the record: in the one buffer of all, or, where the path keeps it, in its own."""
    if path.record is None:
        return _view[: session.seal_into(plaintext, _buffer)]
    own = memoryview(bytearray(len(plaintext) + OVERHEAD))
    session.seal_into(plaintext, own)
    return own


def kept(path: FastStream, rest: memoryview) -> memoryview:
    """Return what the path has not taken, where nothing overwrites it."""
    return memoryview(bytes(rest)) if path.record is None else rest
