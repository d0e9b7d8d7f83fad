"""From a new stream to the handler of its protocol, and from a protocol to a new stream."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import anyio

from ..transports.core.codes import StreamCode
from ..transports.core.errors import (
    ConfigError,
    ConnectionClosed,
    LimitExceeded,
    NegotiationError,
    P2PError,
)
from ..transports.core.interfaces import Priority, Stream
from ..transports.multistream import LazyDialer, ListenerNegotiation, negotiate_dialer
from .events import HandlerFailed

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Collection

    from anyio.abc import TaskGroup

    from ..transports.core.interfaces import Connection
    from .events import NodeEvent
    from .inbound_streams import InboundStreams

Handler: TypeAlias = Callable[[Stream], Awaitable[None]]

MAX_PROTOCOL_BYTES = 1022
"""go reads no longer frame of multistream-select than 1024 bytes, newline included."""

IDLE_TASKS = 2
"""Tasks of a connection that wait for its next stream: one for it, one while that is served."""

_STREAM_ENDS = (P2PError, anyio.BrokenResourceError, anyio.ClosedResourceError, anyio.EndOfStream)

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Registration:
    """A protocol that is served, how, and for whom.

    `max_streams` bounds the streams of one connection; `is_upkeep` marks those that do not keep
    a connection in use.
    """

    handler: Handler
    priority: Priority = Priority.MEDIUM
    allow_limited: bool = False
    max_streams: int | None = None
    is_upkeep: bool = False


class Router:
    """The table of handlers; runs one task per inbound stream."""

    def __init__(
        self,
        *,
        negotiation_timeout: float,
        streams: InboundStreams,
        publish: Callable[[NodeEvent], None],
        on_change: Callable[[], None],
    ) -> None:
        self.first_error: BaseException | None = None
        self.protocols: tuple[str, ...] = ()
        self._negotiation_timeout = negotiation_timeout
        self._streams = streams
        self._publish = publish
        self.on_refusal: Callable[[Connection, LimitExceeded], None] = lambda *_: None
        """Told of each stream that was refused because of a limit; set by the owner."""
        self._on_change = on_change
        self._table: dict[str, Registration] = {}
        self._limited_table: dict[str, Registration] = {}

    def register(self, protocol: str, registration: Registration) -> None:
        """Serve a protocol; raises ConfigError for a name that cannot be one, or is taken."""
        if not protocol.startswith("/") or "\n" in protocol:
            raise ConfigError(f"a protocol starts with / and has no line break: {protocol!r}")
        if len(protocol.encode()) > MAX_PROTOCOL_BYTES:
            raise ConfigError(f"a protocol has at most {MAX_PROTOCOL_BYTES} bytes: {protocol!r}")
        if protocol in self._table:
            raise ConfigError(f"{protocol} already has a handler")
        self._table[protocol] = registration
        if registration.allow_limited:
            self._limited_table[protocol] = registration
        self.protocols = tuple(self._table)
        self._on_change()

    async def serve(
        self,
        connection: Connection,
        tasks: TaskGroup,
        upkeep: Counter[str],
        on_end: Callable[[], None],
    ) -> None:
        """Serve every stream that the peer opens, in `tasks`, until the connection has ended.

        `upkeep` counts the open streams of protocols that are bounded or only upkeep. `on_end` is
        called as soon as no more streams can come, while handlers may still run.
        """
        table = self._table if connection.limit is None else self._limited_table
        peer, streams = connection.remote_peer, self._streams
        idle = 0

        async def work(*, stays: bool = False) -> None:
            # A task that has served a stream waits for the next: starting one costs more than
            # serving a short stream does.
            nonlocal idle
            while stays or idle < IDLE_TASKS:
                idle += 1
                try:
                    stream = await connection.accept_stream()
                except ConnectionClosed:
                    on_end()
                    return
                finally:
                    idle -= 1
                try:
                    streams.enter(peer)
                except LimitExceeded as refusal:
                    stream.reset(StreamCode.RESOURCE_LIMIT_EXCEEDED)
                    self.on_refusal(connection, refusal)
                    continue
                if not idle:
                    tasks.start_soon(work)
                try:
                    await self._serve_stream(stream, table, upkeep)
                finally:
                    streams.leave(peer)
                del stream  # or what it held would stay until the next one comes

        await work(stays=True)

    async def _serve_stream(
        self, stream: Stream, table: dict[str, Registration], upkeep: Counter[str]
    ) -> None:
        protocol = None
        try:
            protocol = await self._agree(stream, table)
        except _STREAM_ENDS as error:
            logger.debug("no protocol agreed with %s: %s", stream.connection.remote_peer, error)
        finally:
            if protocol is None:
                stream.reset()
        if protocol is None:
            return
        registration = table[protocol]
        stream.protocol = protocol
        if stream.priority != registration.priority:
            stream.priority = registration.priority
        if registration.max_streams is None and not registration.is_upkeep:
            await self._handle(stream, registration, protocol)
            return
        if upkeep[protocol] >= (registration.max_streams or MAX_UPKEEP_STREAMS):
            stream.reset()
            return
        upkeep[protocol] += 1
        try:
            await self._handle(stream, registration, protocol)
        finally:
            upkeep[protocol] -= 1

    async def _agree(self, stream: Stream, table: dict[str, Registration]) -> str | None:
        """Answer proposals until one is agreed; None if time runs out."""
        negotiation = ListenerNegotiation(table.__contains__)
        if stream.statistics().bytes_unread:
            # A proposal that is here already needs no deadline, which costs more than reading it.
            negotiation.receive_data(await stream.receive())
            if negotiation.is_complete:
                stream.begin(_Answer(negotiation.data_to_send()))
        if not negotiation.is_complete:
            with anyio.move_on_after(self._negotiation_timeout):
                await _finish(stream, negotiation)
            if not negotiation.is_complete:
                return None
        if trailing := negotiation.take_trailing():
            stream.unread(trailing)
        return negotiation.protocol

    async def _handle(self, stream: Stream, registration: Registration, protocol: str) -> None:
        done = False
        try:
            await registration.handler(stream)
            await stream.aclose()
            done = True
        except Exception as error:  # noqa: BLE001  # boundary
            self._report(stream, protocol, error)
        finally:
            if not done:
                stream.reset()

    def _report(self, stream: Stream, protocol: str, error: Exception) -> None:
        peer = stream.connection.remote_peer
        if isinstance(error, _STREAM_ENDS):
            logger.debug("the handler of %s for %s ended with: %r", protocol, peer, error)
        else:
            logger.warning("the handler of %s failed for %s: %r", protocol, peer, error)
            logger.debug("its traceback", exc_info=error)
            self.first_error = self.first_error or error
        self._publish(HandlerFailed(peer, protocol, error))


async def _finish(stream: Stream, negotiation: ListenerNegotiation) -> None:
    while True:
        if data := negotiation.data_to_send():
            await stream.send(data)
        if negotiation.is_complete:
            return
        negotiation.receive_data(await stream.receive())


class _Answer:
    """Lets the agreement ride on the handler's first bytes, instead of a packet of its own."""

    __slots__ = ("_data",)

    def __init__(self, data: bytes) -> None:
        self._data = data

    def data_to_send(self) -> bytes:
        data, self._data = self._data, b""
        return data

    def receive_data(self, data: bytes) -> bytes:
        return data


MAX_UPKEEP_STREAMS = 16
"""Streams of one upkeep protocol and connection, where its registration says nothing: as go."""


async def open_negotiated(
    connection: Connection,
    protocols: tuple[str, ...],
    *,
    known: Collection[str] | None,
    timeout: float,  # noqa: ASYNC109 - a setting of the node, handed down
    priority: Priority = Priority.MEDIUM,
) -> Stream:
    """Open a stream that speaks one of `protocols`, the first that the peer is `known` to speak.

    For a known protocol there is no round trip: the proposal rides on the first bytes, and a
    refusal shows as NegotiationError at the first `receive`. Raises NegotiationError,
    RemoteProtocolError, ConnectionClosed, StreamReset.
    """
    stream = await connection.open_stream(priority=priority)
    if known is not None:
        for protocol in protocols:
            if protocol in known:
                stream.begin(LazyDialer(protocol))
                stream.protocol = protocol
                return stream
    agreed = None
    try:
        with anyio.move_on_after(timeout):
            agreed, trailing = await negotiate_dialer(stream, protocols)
    finally:
        if agreed is None:
            stream.reset()
    if agreed is None:
        raise NegotiationError(protocols, f"nothing within {timeout:g} s")
    if trailing:
        stream.unread(trailing)
    stream.protocol = agreed
    return stream


async def read_all(stream: Stream, max_bytes: int) -> bytes:
    """Return what a peer sends up to its half-close; raises LimitExceeded, StreamReset."""
    parts = bytearray()
    while True:
        try:
            parts += await stream.receive()
        except anyio.EndOfStream:
            return bytes(parts)
        if len(parts) > max_bytes:
            raise LimitExceeded(
                "the answer's bytes", value=len(parts), limit=max_bytes, setting="max_bytes"
            )
