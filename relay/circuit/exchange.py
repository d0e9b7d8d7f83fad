"""Reads one hop or stop message from a stream and leaves what follows it for the next reader."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio

from ...transports.core.errors import RemoteProtocolError
from ...transports.core.varint import LengthPrefixReader
from .wire import MAX_MESSAGE, HopMessage, Status, StopMessage

if TYPE_CHECKING:
    from ...transports.core.interfaces import Stream


async def receive_hop(stream: Stream) -> HopMessage:
    """Receive a hop message; the caller bounds the time.

    Raises RemoteProtocolError, whose code is the `Status` to answer, and what `receive` does.
    """
    return HopMessage.decode(await _receive_frame(stream))


async def receive_stop(stream: Stream) -> StopMessage:
    """Receive a stop message; as `receive_hop`."""
    return StopMessage.decode(await _receive_frame(stream))


async def _receive_frame(stream: Stream) -> bytes:
    reader = LengthPrefixReader(MAX_MESSAGE)
    while True:
        try:
            reader.feed(await stream.receive())
        except anyio.EndOfStream:
            why = "the stream ended before its relay message"
            raise RemoteProtocolError(why, Status.MALFORMED_MESSAGE) from None
        try:
            frame = reader.next_frame()
        except RemoteProtocolError as error:
            raise RemoteProtocolError(str(error), Status.MALFORMED_MESSAGE) from None
        if frame is not None:
            # The circuit's first bytes may be glued on.
            stream.unread(reader.take_trailing())
            return frame
