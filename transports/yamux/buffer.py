"""What a stream has received and the application has not taken."""

from __future__ import annotations

from collections import deque

# A piece at least so long is kept as it came; shorter ones are gathered, so that a peer that sends
# single bytes costs little more memory than it sends.
PIECE = 4096


class ReceiveBuffer:
    """A queue of bytes: appending and taking cost the same however much waits."""

    __slots__ = ("_pieces", "_size")

    def __init__(self) -> None:
        self._pieces: deque[bytes | bytearray] = deque()
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def append(self, data: memoryview) -> None:
        """Add a copy of `data` at the end."""
        size = len(data)
        self._size += size
        pieces = self._pieces
        if size >= PIECE:
            pieces.append(bytes(data))
            return
        last = pieces[-1] if pieces else None
        if isinstance(last, bytearray) and len(last) < PIECE:
            last += data
        else:
            pieces.append(bytearray(data))

    def prepend(self, data: bytes) -> None:
        """Put bytes back at the front."""
        self._pieces.appendleft(data)
        self._size += len(data)

    def take(self, max_bytes: int) -> bytes:
        """Remove and return the first bytes, at most `max_bytes`."""
        pieces, parts, room = self._pieces, [], max_bytes
        while pieces and room:
            piece = pieces[0]
            if len(piece) > room:
                parts.append(piece[:room])
                pieces[0] = piece[room:]
                room = 0
            else:
                parts.append(pieces.popleft())
                room -= len(piece)
        self._size -= max_bytes - room
        return bytes(parts[0]) if len(parts) == 1 else b"".join(parts)

    def clear(self) -> None:
        """Drop everything."""
        self._pieces.clear()
        self._size = 0
