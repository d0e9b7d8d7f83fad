"""Runs a Noise handshake over a byte stream."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio

if TYPE_CHECKING:
    from collections.abc import Callable

    from anyio.abc import ByteStream

    from .machine import HandshakeResult, NoiseHandshake


async def secure(
    raw: ByteStream,
    handshake: NoiseHandshake,
    *,
    trailing: bytes = b"",
    ahead: bytes = b"",
    meanwhile: Callable[[], None] = lambda: None,
    keeps_last: bool = False,
) -> HandshakeResult:
    """Exchange the handshake's messages; what the peer sent behind them is in the result.

    `trailing` are bytes already received, `ahead` goes before the first message. `meanwhile` is
    called while the peer has something to compute. With `keeps_last` the dialer's last message is
    left in `handshake` where the muxer is agreed on, to go along with the first record. The caller
    bounds the time. Raises NoiseError, PeerIdMismatch, and what the byte stream raises.
    """
    received = trailing
    while True:
        if received:
            handshake.receive_data(received)
        if keeps_last and handshake.is_complete and handshake.result.muxer is not None:
            return handshake.result
        if data := ahead + handshake.data_to_send():
            await raw.send(data)
            ahead = b""
        if handshake.is_complete:
            return handshake.result
        meanwhile()
        try:
            received = await raw.receive()
        except anyio.EndOfStream:
            handshake.receive_eof()
