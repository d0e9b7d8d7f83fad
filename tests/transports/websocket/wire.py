"""WebSocket by hand: requests, answers and frames as bytes (RFC 6455, section 5.2)."""

from __future__ import annotations

import struct

CONT, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10

REQUEST = (
    b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
"""A request whose key is the RFC's own (section 1.3)."""

ACCEPT = b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
"""The answer to that key."""

ANSWER = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Accept: %s\r\n\r\n"
)


def header(name: str, value: str) -> bytes:
    """The request with one more header."""
    return REQUEST[:-2] + f"{name}: {value}\r\n\r\n".encode()


def frame(
    opcode: int, data: bytes = b"", *, fin: bool = True, mask: bytes | None = b"mask", bits: int = 0
) -> bytes:
    """One frame; masked, as a client's is, unless `mask` is None."""
    masked = 0x80 if mask is not None else 0
    head = bytes([(0x80 if fin else 0) | bits | opcode])
    if len(data) < 126:
        head += bytes([masked | len(data)])
    elif len(data) < 1 << 16:
        head += bytes([masked | 126]) + struct.pack(">H", len(data))
    else:
        head += bytes([masked | 127]) + struct.pack(">Q", len(data))
    if mask is None:
        return head + data
    key = (mask * (len(data) // 4 + 1))[: len(data)]
    body = (int.from_bytes(data) ^ int.from_bytes(key)).to_bytes(len(data))
    return head + mask + body
