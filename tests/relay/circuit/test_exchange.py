"""One message read from a stream, and what follows it left for the next reader."""

from __future__ import annotations

import pytest
from isthmus import Node
from isthmus.relay.circuit.exchange import receive_hop, receive_stop
from isthmus.relay.circuit.wire import (
    MAX_MESSAGE,
    HopMessage,
    HopType,
    Status,
    StopMessage,
    StopType,
)
from isthmus.transports.core.errors import RemoteProtocolError
from isthmus.transports.core.varint import encode_varint

PROTOCOL = "/exchange/1"
STATUS = StopMessage(StopType.STATUS, status=Status.OK)


async def answers(receive, *pieces):
    """Return what `receive` makes of the pieces, each sent by itself, and what is left."""
    results = []

    async def read(stream):
        try:
            results.append(await receive(stream))
            results.append(b"".join([data async for data in stream]))
        except RemoteProtocolError as error:
            results.append(error)

    async with Node(listen="/ip4/127.0.0.1/tcp/0") as reader, Node() as writer:
        reader.handle(PROTOCOL, read)
        async with await writer.open_stream(reader.addresses, PROTOCOL) as stream:
            for piece in pieces:
                await stream.send(piece)
                await stream.connection.probe()  # so that it is read by itself
            await stream.send_eof()
            async for _ in stream:
                raise AssertionError("nothing is answered")
    return results


async def test_a_message_may_come_byte_by_byte():
    frame = HopMessage(HopType.RESERVE).frame()
    pieces = [bytes([byte]) for byte in frame]
    assert await answers(receive_hop, *pieces) == [HopMessage(HopType.RESERVE), b""]


async def test_what_follows_is_the_next_readers():
    assert await answers(receive_stop, STATUS.frame() + b"the circuit", b"'s") == [
        STATUS,
        b"the circuit's",
    ]


@pytest.mark.parametrize(
    "data", [b"", b"\x05\x08", encode_varint(MAX_MESSAGE + 1), b"\x80\x00", b"\x01\x08"]
)
async def test_anything_else_says_what_to_answer(data):
    (error,) = await answers(receive_hop, data)
    assert isinstance(error, RemoteProtocolError)
    assert error.code == Status.MALFORMED_MESSAGE
