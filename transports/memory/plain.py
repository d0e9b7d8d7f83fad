"""The transport of connections in memory that need no upgrade: no Noise, no Yamux, but pipes.

Both ends are this process, so each takes the other's identity from its owner's key as it stands.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import anyio
from anyio.lowlevel import checkpoint

from ..core.errors import DialError, LocalProtocolError, PeerIdMismatch
from ..core.interfaces import AddressesChanged, ChannelBinding, ConnectionListener, Side
from .connection import MemoryConnection
from .network import is_memory, memory_address, shared_network

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

    from ..core.interfaces import Connection, Host
    from ..core.multiaddr import Multiaddr
    from ..core.peer_id import PeerId
    from .frames import Frame
    from .link import Link
    from .network import Backlog, MemoryNetwork

_KIND = "plain"


class PlainMemoryTransport:
    """A whole transport over the links of a network, by default the one the process shares."""

    protocols: Sequence[str] = ("memory",)

    def __init__(self, network: MemoryNetwork | None = None) -> None:
        self.network = network or shared_network()
        self._host: Host | None = None

    @property
    def peer_id(self) -> PeerId:
        """The owner's peer id; raises LocalProtocolError before `attach`."""
        if self._host is None:
            raise LocalProtocolError("attach the transport to its owner first")
        return self._host.peer_id

    def attach(self, host: Host) -> None:
        """Learn the owner: who it is, is who connections show to be at this end."""
        self._host = host

    def can_dial(self, addr: Multiaddr) -> bool:
        """Say whether this is /memory/N, with or without /p2p at its end."""
        return is_memory(addr)

    async def dial(
        self, addr: Multiaddr, *, peer: PeerId | None = None, side: Side = Side.DIALER
    ) -> Connection:
        """Connect, which takes a round trip; the other end gets the other side.

        Raises DialError, PeerIdMismatch.
        """
        if not is_memory(addr):
            raise DialError(f"{addr} is not an address in memory")
        own = self.peer_id
        backlog = await self.network.reach(_KIND, addr)
        link: Link[Frame] = self.network.link(backlog.address)
        binding = ChannelBinding("noise", self.network.secret())
        dialled = _Dialled(
            link=link,
            side=side,
            peer=own,
            expected=peer or addr.peer_id,
            source=self.network.dialer_address(),
            binding=binding,
        )
        try:
            accepted: _Accepted = backlog.offer(dialled)
        except PeerIdMismatch:
            link.cut()
            raise
        await self.network.answer(link)
        return MemoryConnection(
            link,
            is_dialled=True,
            side=side,
            remote_peer=accepted.peer,
            remote_addr=addr.without_peer(),
            channel_binding=binding,
        )

    async def listen(self, addr: Multiaddr) -> PlainMemoryListener:
        """Bind /memory/N, 0 for a free one; raises AddressError, OSError."""
        await checkpoint()
        return PlainMemoryListener(self.network, self.peer_id, addr)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Dialled:
    """What a dialer brings to a listener."""

    link: Link[Frame]
    side: Side
    peer: PeerId
    expected: PeerId | None
    source: Multiaddr
    binding: ChannelBinding


@dataclass(frozen=True, slots=True)
class _Accepted:
    """What a listener makes of it."""

    peer: PeerId
    connection: MemoryConnection


class PlainMemoryListener(ConnectionListener):
    """Where the connections to one address come in."""

    def __init__(self, network: MemoryNetwork, peer: PeerId, addr: Multiaddr) -> None:
        self._network = network
        self._peer = peer
        self._backlog: Backlog[_Accepted] = network.listen(_KIND, addr, self._accept)

    @property
    def addresses(self) -> tuple[Multiaddr, ...]:
        """The address bound, its number filled in."""
        return (memory_address(self._backlog.address),)

    async def changes(self) -> AsyncIterator[AddressesChanged]:
        """Yield nothing: the address never changes."""
        return
        yield  # never: it makes this an asynchronous generator

    async def serve(self, handler: Callable[[Connection], Awaitable[None]]) -> None:
        """Run `handler` in a task for every connection that comes in, until closed."""
        async with anyio.create_task_group() as tasks:
            while (accepted := await self._backlog.next()) is not None:
                tasks.start_soon(_handle, handler, accepted.connection)

    async def aclose(self) -> None:
        """Stop listening; what was not served yet is cut, what was stays."""
        self._network.unlisten(_KIND, self._backlog)
        for accepted in self._backlog.close():
            accepted.connection.link.cut()
        await checkpoint()

    def _accept(self, dialled: _Dialled) -> _Accepted:
        if dialled.expected not in (None, self._peer):
            assert dialled.expected is not None
            raise PeerIdMismatch(dialled.expected, self._peer)
        connection = MemoryConnection(
            dialled.link,
            is_dialled=False,
            side=dialled.side.other,
            remote_peer=dialled.peer,
            remote_addr=dialled.source,
            channel_binding=dialled.binding,
        )
        return _Accepted(self._peer, connection)


async def _handle(handler: Callable[[Connection], Awaitable[None]], connection: Connection) -> None:
    await handler(connection)
