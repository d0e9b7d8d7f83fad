"""Unsigned varints and frames with a length in front, as the whole of libp2p uses them.

The multiformats unsigned-varint: seven bits a byte, least significant first, minimal, at most
nine bytes. Protobuf's own varints are laxer and live in `protobuf`.
"""

from __future__ import annotations

from .errors import LocalProtocolError, RemoteProtocolError

__all__ = [
    "MAX_VARINT",
    "MAX_VARINT_BYTES",
    "LengthPrefixReader",
    "decode_varint",
    "encode_varint",
    "length_prefixed",
]

MAX_VARINT_BYTES = 9
"""The unsigned-varint specification stops at nine bytes, which is 63 bits."""

MAX_VARINT = (1 << 63) - 1

_SINGLE_BYTES = tuple(bytes((n,)) for n in range(0x80))


def encode_varint(n: int) -> bytes:
    """Encode 0 to 2**63 - 1; raises LocalProtocolError for anything else."""
    if 0 <= n < 0x80:
        return _SINGLE_BYTES[n]
    if not 0 <= n <= MAX_VARINT:
        raise LocalProtocolError(f"{n} does not fit an unsigned varint")
    out = bytearray()
    while n >= 0x80:
        out.append(n & 0x7F | 0x80)
        n >>= 7
    out.append(n)
    return bytes(out)


def decode_varint(
    data: bytes | bytearray | memoryview, offset: int = 0, *, max_bytes: int = MAX_VARINT_BYTES
) -> tuple[int, int] | None:
    """Decode the varint at `offset` into (value, offset behind it); None while it is incomplete.

    Raises RemoteProtocolError for one of more than `max_bytes` bytes or not in minimal form.
    """
    value = 0
    end = min(len(data), offset + max_bytes)
    for position in range(offset, end):
        byte = data[position]
        value |= (byte & 0x7F) << 7 * (position - offset)
        if byte < 0x80:
            if byte == 0 and position > offset:
                raise RemoteProtocolError("a varint is not in minimal form")
            return value, position + 1
    if end - offset >= max_bytes:
        raise RemoteProtocolError(f"a varint is longer than {max_bytes} bytes")
    return None


def length_prefixed(data: bytes) -> bytes:
    """Put the length of `data`, as a varint, in front of it."""
    return encode_varint(len(data)) + data


class LengthPrefixReader:
    """Splits a byte stream into its frames; sans-IO.

    Either `receive_data` for all frames at once, or `feed` and then `next_frame` until it says
    None, where the next layer may begin after any frame: `take_trailing` hands the rest over.
    A frame that is too long raises RemoteProtocolError, and the reader goes on raising it. What is
    held is at most one frame plus what was fed last.
    """

    def __init__(self, max_length: int) -> None:
        self._max_length = max_length
        self._buffer = bytearray()

    def receive_data(self, data: bytes) -> list[bytes]:
        """Take bytes and return every frame that they complete; raises RemoteProtocolError."""
        self.feed(data)
        frames = []
        while (frame := self.next_frame()) is not None:
            frames.append(frame)
        return frames

    def feed(self, data: bytes) -> None:
        """Take bytes without looking at them."""
        self._buffer += data

    def next_frame(self) -> bytes | None:
        """Return the next frame, None while it is incomplete; raises RemoteProtocolError."""
        header = decode_varint(self._buffer)
        if header is None:
            return None
        length, start = header
        if length > self._max_length:
            raise RemoteProtocolError(
                f"a frame of {length} bytes is longer than {self._max_length}"
            )
        end = start + length
        if len(self._buffer) < end:
            return None
        frame = bytes(self._buffer[start:end])
        del self._buffer[:end]
        return frame

    @property
    def trailing(self) -> bytes:
        """The bytes that no frame was made of yet."""
        return bytes(self._buffer)

    def take_trailing(self) -> bytes:
        """Return what no frame was made of and forget it."""
        data = bytes(self._buffer)
        self._buffer.clear()
        return data
