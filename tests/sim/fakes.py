"""A transport whose connections carry nothing, to see what the table of connections does."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio
from isthmus.transports.core.errors import ConnectionClosed
from isthmus.transports.core.interfaces import ChannelBinding, ConnectionStatistics, Priority, Side

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from isthmus.transports.core.interfaces import Host, Limit, MessagePipe, Stream
    from isthmus.transports.core.multiaddr import Multiaddr
    from isthmus.transports.core.peer_id import PeerId


class FakeConnection:
    """Stands until it is closed; `streams` is how many are said to be open, `loss` what is lost.

    A probe says `rtt`, and nothing while `is_silent`; `fail` ends it as `closed` says.
    """

    def __init__(
        self,
        peer: PeerId,
        address: Multiaddr,
        *,
        side: Side = Side.DIALER,
        fault: Exception | None = None,
    ) -> None:
        self.side = side
        self.remote_peer = peer
        self.remote_addr = address
        self.channel_binding = ChannelBinding("noise", b"")
        self.limit: Limit | None = None
        self.streams = 0
        self.rtt = 0.0
        self.loss: float | None = None
        self._speaks = anyio.Event()
        self._speaks.set()
        self.probes = 0
        self.last_received_at = 0.0
        self.closed = ConnectionClosed(remote=False)
        self.is_drained = False
        self.is_closed = False
        self.code: int | None = None
        self._fault = fault
        self._ended = anyio.Event()

    async def run(self) -> None:
        await self._ended.wait()
        if self._fault is not None:
            raise self._fault

    def fail(self) -> None:
        """End as if the path had failed."""
        self._ended.set()
        self._speaks.set()

    @property
    def is_silent(self) -> bool:
        """Whether probes are not answered."""
        return not self._speaks.is_set()

    @is_silent.setter
    def is_silent(self, value: bool) -> None:
        if value:
            self._speaks = anyio.Event()
        else:
            self._speaks.set()

    async def open_stream(self, *, priority: Priority = Priority.MEDIUM) -> Stream:
        raise ConnectionClosed(remote=False)

    async def accept_stream(self) -> Stream:
        await self._ended.wait()
        raise ConnectionClosed(remote=False)

    async def open_pipe(
        self,
        label: str,
        *,
        priority: Priority = Priority.MEDIUM,
        max_age: float | None = None,
        max_retransmits: int | None = None,
    ) -> MessagePipe | None:
        return None

    async def accept_pipe(self) -> MessagePipe:
        raise await self.wait_closed()

    async def probe(self) -> float:
        self.probes += 1
        await anyio.lowlevel.checkpoint()
        await self._speaks.wait()
        if self._ended.is_set():
            raise self.closed
        self.last_received_at = anyio.current_time()
        return self.rtt

    def drain(self) -> None:
        self.is_drained = True
        self._ended.set()
        self._speaks.set()

    async def aclose(self, *, code: int = 0) -> None:
        await anyio.lowlevel.checkpoint()
        self.is_closed = True
        self.code = code
        self._ended.set()
        self._speaks.set()

    async def wait_closed(self) -> ConnectionClosed:
        await self._ended.wait()
        return self.closed

    def statistics(self) -> ConnectionStatistics:
        return ConnectionStatistics(
            0, 0, self.rtt or None, None, self.loss, self.streams, 0, 0.0, self.last_received_at
        )


class FakeTransport:
    """Dials what `behaviour` makes of an address: it returns a connection, or raises."""

    protocols = ("tcp", "p2p-circuit")

    def __init__(self, behaviour: Callable[[Multiaddr], Awaitable[FakeConnection]]) -> None:
        self._behaviour = behaviour
        self.dialled: list[Multiaddr] = []

    def attach(self, host: Host) -> None:
        """Need nothing of the owner."""

    def can_dial(self, addr: Multiaddr) -> bool:
        return "udp" not in addr.names

    async def dial(
        self, addr: Multiaddr, *, peer: PeerId | None = None, side: Side = Side.DIALER
    ) -> FakeConnection:
        self.dialled.append(addr)
        return await self._behaviour(addr)

    async def listen(self, addr: Multiaddr) -> None:
        raise NotImplementedError
