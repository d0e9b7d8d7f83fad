"""What a stream has received and the application has not taken."""

from __future__ import annotations

from collections import deque
from typing import cast

# A piece at least so long is kept as it came; shorter ones are gathered, so that a peer that sends
# single bytes costs little more memory than it sends.
PIECE = 4096
# A slice of a record is kept, and not a copy, where it is this part of the record or more: what a
# peer makes us hold is a seventh more than what is counted, or twice what is left of a piece.
KEPT_PART = 7 / 8


class ReceiveBuffer:
    """A queue of bytes: appending and taking cost the same however much waits."""

    __slots__ = ("_pieces", "size")

    def __init__(self) -> None:
        self._pieces: deque[bytes | bytearray | memoryview] = deque()
        self.size = 0  # bytes; without a call, as every frame asks several times

    def __len__(self) -> int:
        return self.size

    def append(self, data: memoryview) -> None:
        """Add `data` at the end: a slice of bytes, or of what may change afterwards."""
        size = len(data)
        self.size += size
        pieces = self._pieces
        if size >= PIECE:
            whole = data.obj
            is_kept = type(whole) is bytes and size >= KEPT_PART * len(whole)
            pieces.append(data if is_kept else bytes(data))
            return
        if not pieces:
            pieces.append(bytes(data))
        elif isinstance(last := pieces[-1], bytearray) and len(last) < PIECE:
            last += data
        else:
            pieces.append(bytearray(data))

    def prepend(self, data: bytes) -> None:
        """Put bytes back at the front."""
        self._pieces.appendleft(data)
        self.size += len(data)

    def take(self, max_bytes: int) -> bytes:
        """Remove and return the first bytes, at most `max_bytes`."""
        pieces = self._pieces
        if len(pieces) == 1 and self.size <= max_bytes:
            self.size = 0
            return bytes(pieces.popleft())
        parts, room = [], max_bytes
        while pieces and room:
            piece = pieces[0]
            if len(piece) > room:
                parts.append(piece[:room])
                pieces[0] = _rest(piece, room)
                room = 0
            else:
                parts.append(pieces.popleft())
                room -= len(piece)
        self.size -= max_bytes - room
        return bytes(parts[0]) if len(parts) == 1 else b"".join(parts)

    def take_piece(self, max_bytes: int) -> memoryview:
        """Remove and return what came in one piece, at most `max_bytes`, without a copy."""
        piece = self._pieces[0]
        if len(piece) > max_bytes:
            return memoryview(self.take(max_bytes))
        self.size -= len(piece)
        return memoryview(self._pieces.popleft())

    def clear(self) -> None:
        """Drop everything."""
        self._pieces.clear()
        self.size = 0


def _rest(piece: bytes | bytearray | memoryview, taken: int) -> bytes | bytearray | memoryview:
    """Return what is left of a piece; a slice only while that is half of what it holds on to."""
    if isinstance(piece, bytearray):
        return piece[taken:]
    rest = memoryview(piece)[taken:]
    return rest if 2 * len(rest) >= len(cast("bytes", rest.obj)) else bytes(rest)
