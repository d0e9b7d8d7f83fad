"""Byte streams over virtual links: the raw transport that Noise and Yamux go on top of."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

import anyio
from anyio.abc import ByteStream
from anyio.lowlevel import checkpoint

from ..core.errors import DialError
from ..core.interfaces import RawListener
from .network import is_memory, memory_address, shared_network

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence
    from typing import Any

    from ..core.interfaces import Host
    from ..core.multiaddr import Multiaddr
    from .link import Link, Wire
    from .network import Backlog, MemoryNetwork

# Bytes that fare alike: what fits an Ethernet frame where chance plays a part, else a large piece,
# since only the number of pieces would differ.
SEGMENT = 1460
LARGE_SEGMENT = 16_384

_KIND = "raw"
# Stands behind the last bytes.
_END = b""


class MemoryTransport:
    """A raw transport over the links of a network, by default the one the process shares."""

    protocols: Sequence[str] = ("memory",)

    def __init__(self, network: MemoryNetwork | None = None) -> None:
        self.network = network or shared_network()

    def attach(self, host: Host) -> None:
        """Learn the owner; byte streams need nothing of it."""

    def can_dial(self, addr: Multiaddr) -> bool:
        """Say whether this is /memory/N, with or without /p2p at its end."""
        return is_memory(addr)

    async def dial_raw(self, addr: Multiaddr) -> ByteStream:
        """Connect, which takes a round trip; raises DialError."""
        if not is_memory(addr):
            raise DialError(f"{addr} is not an address in memory")
        backlog = await self.network.reach(_KIND, addr)
        link: Link[bytes] = self.network.link(backlog.address)
        backlog.offer(link)
        await self.network.answer(link)
        return MemoryStream(link, incoming=link.back, outgoing=link.forth)

    async def listen_raw(self, addr: Multiaddr) -> MemoryListener:
        """Bind /memory/N, 0 for a free one; raises AddressError, OSError."""
        await checkpoint()
        return MemoryListener(self.network, addr)


class MemoryListener(RawListener):
    """Where the links to one address come in."""

    def __init__(self, network: MemoryNetwork, addr: Multiaddr) -> None:
        self._network = network
        self._backlog: Backlog[MemoryStream] = network.listen(_KIND, addr, self._accept)

    @property
    def addresses(self) -> tuple[Multiaddr, ...]:
        """The address bound, its number filled in."""
        return (memory_address(self._backlog.address),)

    async def serve(self, handler: Callable[[ByteStream, Multiaddr], Awaitable[None]]) -> None:
        """Run `handler` in a task for every link that comes in, until closed."""
        async with anyio.create_task_group() as tasks:
            while (stream := await self._backlog.next()) is not None:
                tasks.start_soon(_handle, handler, stream, self._network.dialer_address())

    async def aclose(self) -> None:
        """Stop listening; what was not served yet is cut, what was stays."""
        self._network.unlisten(_KIND, self._backlog)
        for stream in self._backlog.close():
            stream.link.cut()
        await checkpoint()

    @staticmethod
    def _accept(link: Link[bytes]) -> MemoryStream:
        return MemoryStream(link, incoming=link.forth, outgoing=link.back)


class MemoryStream(ByteStream):
    """One end of a link, as a byte stream; `link` says what happens under way.

    After `aclose` the peer can still read what was sent. What it sends itself is lost, which it
    learns as over TCP: a round trip later, by BrokenResourceError. Each direction serves one task.
    """

    def __init__(self, link: Link[bytes], *, incoming: Wire[bytes], outgoing: Wire[bytes]) -> None:
        self.link = link
        self._incoming = incoming
        self._outgoing = outgoing
        self._receiving = anyio.ResourceGuard("receiving from")
        self._sending = anyio.ResourceGuard("sending to")
        self._rest = b""
        self._has_ended = False
        self._is_finished = False
        self._is_closed = False
        self._refused_at = inf

    @property
    def extra_attributes(self) -> Mapping[Any, Callable[[], Any]]:
        """No typed attributes: there is no socket below."""
        return {}

    async def receive(self, max_bytes: int = 65536) -> bytes:
        """Receive what has arrived, at most `max_bytes` (>= 1)."""
        if max_bytes < 1:
            raise ValueError("max_bytes must be at least 1")
        with self._receiving:
            await checkpoint()
            while True:
                if self._is_closed:
                    raise anyio.ClosedResourceError
                if data := self._take(max_bytes):
                    return data
                if self._has_ended:
                    raise anyio.EndOfStream
                await self._incoming.wait_arrival()

    async def send(self, item: bytes) -> None:
        """Send all of `item`, waiting while the link holds as much as it may."""
        with self._sending:
            await checkpoint()
            view = memoryview(bytes(item))
            while True:
                self._check_sendable()
                view = self._send_some(view)
                if not view:
                    return
                known_at = self._refused_at
                await self._outgoing.wait_room(
                    self._incoming.ends_at if known_at == inf else known_at
                )

    async def send_eof(self) -> None:
        """Say that nothing more will be sent; receiving goes on."""
        if self._is_closed:
            raise anyio.ClosedResourceError
        if not self._is_finished:
            self._is_finished = True
            self._outgoing.send(_END, 0)
        await checkpoint()

    async def aclose(self) -> None:
        """Send the end behind what was sent, and take nothing more."""
        if not self._is_closed:
            self._is_closed = True
            self._outgoing.send_last(_END)
            self._incoming.notify()
            self._outgoing.notify()
            self.link.release_end()
        await checkpoint()

    def _take(self, max_bytes: int) -> bytes:
        parts, size = [self._rest], len(self._rest)
        while size < max_bytes and not self._has_ended:
            part = self._incoming.take()
            if part is None:
                break
            self._has_ended = part == _END
            parts.append(part)
            size += len(part)
        data = b"".join(parts)
        self._rest = data[max_bytes:]
        return data[:max_bytes]

    def _send_some(self, view: memoryview) -> memoryview:
        lane = self._outgoing.lane
        segment = LARGE_SEGMENT if lane.settings.is_even else SEGMENT
        while view and (size := min(segment, len(view), lane.room)):
            self._outgoing.send(bytes(view[:size]), size)
            view = view[size:]
        return view

    def _check_sendable(self) -> None:
        if self._is_closed or self._is_finished:
            raise anyio.ClosedResourceError
        if self.link.is_cut:
            raise anyio.BrokenResourceError("the link was cut")
        now = anyio.current_time()
        if now >= self._refused_at:
            raise anyio.BrokenResourceError("the peer has closed its end")
        if now >= self._incoming.ends_at and self._refused_at == inf:
            self._refused_at = now + 2 * self.link.settings.delay


async def _handle(
    handler: Callable[[ByteStream, Multiaddr], Awaitable[None]],
    stream: ByteStream,
    addr: Multiaddr,
) -> None:
    await handler(stream, addr)
