"""A relay as small as one can be, that does what it is told: also what no relay should."""

from __future__ import annotations

import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import anyio
from isthmus import Node
from isthmus.relay.circuit.exchange import receive_hop, receive_stop
from isthmus.relay.circuit.wire import (
    HOP_PROTOCOL,
    STOP_PROTOCOL,
    HopMessage,
    HopType,
    Limit,
    Peer,
    Reservation,
    Status,
    StopMessage,
    StopType,
    Voucher,
)
from isthmus.transports.core.errors import P2PError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from anyio.abc import ByteStream
    from isthmus.transports.core.interfaces import Stream
    from isthmus.transports.core.peer_id import PeerId

LOOPBACK = "/ip4/127.0.0.1/tcp/0"

BROKEN = (P2PError, anyio.BrokenResourceError, anyio.ClosedResourceError, anyio.EndOfStream)


class SmallRelay:
    """The hop protocol on a node; its attributes say how it answers."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.status = Status.OK
        self.circuit_status = Status.OK
        self.ttl = 3600
        self.limit: Limit | None = None
        self.addresses = True
        self.voucher: bytes | str | None = "good"
        self.lie: PeerId | None = None
        self.reservations: list[PeerId] = []
        self.answer: bytes | None = None
        node.handle(HOP_PROTOCOL, self.serve)

    async def serve(self, stream: Stream) -> None:
        request = await receive_hop(stream)
        if self.answer is not None:
            await stream.send(self.answer)
            return
        if request.type is HopType.RESERVE:
            await self.reserve(stream)
        else:
            await self.connect(stream, request.peer.id)

    async def reserve(self, stream: Stream) -> None:
        peer = stream.connection.remote_peer
        if self.status != Status.OK:
            await stream.send(HopMessage(HopType.STATUS, status=self.status).frame())
            return
        self.reservations.append(peer)
        until = int(time.time()) + self.ttl
        voucher = self.voucher
        if voucher == "good":
            voucher = Voucher(self.node.peer_id, peer, until).seal(self.node.key)
        told = self.node.addresses if self.addresses else ()
        answer = HopMessage(
            HopType.STATUS,
            reservation=Reservation(until, told, voucher),
            limit=self.limit,
            status=Status.OK,
        )
        await stream.send(answer.frame())

    async def connect(self, stream: Stream, target: PeerId) -> None:
        status = self.circuit_status
        if status == Status.OK and target not in self.reservations:
            status = Status.NO_RESERVATION
        if status != Status.OK:
            await stream.send(HopMessage(HopType.STATUS, status=status).frame())
            return
        source = self.lie or stream.connection.remote_peer
        try:
            there = await self.node.open_stream(target, STOP_PROTOCOL)
            stop = StopMessage(StopType.CONNECT, Peer(source), self.limit)
            await there.send(stop.frame())
            status = (await receive_stop(there)).status
        except BROKEN:
            status = Status.CONNECTION_FAILED
        limit = self.limit if status == Status.OK else None
        await stream.send(HopMessage(HopType.STATUS, status=status, limit=limit).frame())
        if status == Status.OK:
            await splice(stream, there)


async def splice(one: ByteStream, other: ByteStream) -> None:
    """Copy both ways until both have ended, or one has broken."""

    async def copy(source: ByteStream, sink: ByteStream) -> None:
        try:
            async for data in source:
                await sink.send(data)
            await sink.send_eof()
        except BROKEN:
            await anyio.aclose_forcefully(source)
            await anyio.aclose_forcefully(sink)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(copy, one, other)
        tasks.start_soon(copy, other, one)


@asynccontextmanager
async def small_relay(**options: object) -> AsyncIterator[SmallRelay]:
    async with Node(listen=LOOPBACK, **options) as node:
        yield SmallRelay(node)
