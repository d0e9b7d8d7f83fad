"""Opens streams, and asks for answers; moves on where a connection ends or falls silent."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeVar

from anyio.lowlevel import checkpoint

from ..transports.core.errors import ConnectionClosed, DialError, P2PError, StreamReset
from ..transports.core.interfaces import Priority
from .router import open_negotiated, read_all

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from contextlib import AbstractContextManager

    from ..transports.core.interfaces import Connection, Stream
    from .config import NodeConfig
    from .dialing import Target
    from .peerstore import PeerStore
    from .swarm import Swarm

MAX_ATTEMPTS = 4
"""Connections that are tried for one stream or answer: of two relays each may be lost while it is
used, and one of them again; whoever loses more than that is to hear of it."""

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True, kw_only=True)
class Manner:
    """How something is opened."""

    priority: Priority = Priority.MEDIUM
    allow_limited: bool = False


class Opener:
    """What opens the streams of one node."""

    def __init__(self, swarm: Swarm, peers: PeerStore, config: NodeConfig) -> None:
        self._swarm = swarm
        self._peers = peers
        self._config = config

    async def open_stream(
        self, target: Target, protocols: tuple[str, ...], manner: Manner
    ) -> Stream:
        """Open a stream on the best connection, or a new one; see `Node.open_stream`."""

        async def attempt(connection: Connection) -> Stream:
            return await self._open_on(connection, protocols, manner)

        return await self._try(target, attempt, manner)

    async def ask(
        self, stream: Stream, data: bytes, *, max_bytes: int, is_watched: bool = True
    ) -> bytes:
        """Send a request on a stream and return the answer; the caller bounds the time."""
        async with stream:
            with self._swarm.attend(stream.connection) if is_watched else nullcontext():
                if data:
                    await stream.send(data)
                await stream.send_eof()
                return await read_all(stream, max_bytes)

    async def ask_again(
        self, target: Target, protocol: str, data: bytes, manner: Manner, *, max_bytes: int
    ) -> bytes:
        """Return an answer, asking once more where a connection ends or falls silent before it."""

        async def attempt(connection: Connection) -> bytes:
            stream = await self._open_on(connection, (protocol,), manner)
            return await self.ask(stream, data, max_bytes=max_bytes, is_watched=False)

        return await self._try(target, attempt, manner)

    async def _open_on(
        self, connection: Connection, protocols: tuple[str, ...], manner: Manner
    ) -> Stream:
        return await open_negotiated(
            connection,
            protocols,
            known=self._peers.protocols(connection.remote_peer),
            timeout=self._config.negotiation_timeout,
            priority=manner.priority,
        )

    async def _try(
        self, target: Target, attempt: Callable[[Connection], Awaitable[Result]], manner: Manner
    ) -> Result:
        """Make attempts on one connection after another, until it is not these that fail."""
        silent: Connection | None = None
        for left in reversed(range(MAX_ATTEMPTS)):
            connection = await self._connect(target, silent, manner)
            try:
                with self._watch(connection, silent):
                    return await attempt(connection)
            except (ConnectionClosed, StreamReset) as error:
                if not left or not await self._is_to_blame(connection, error):
                    raise
                self._swarm.discard(connection)
                silent = None
            else:
                silent = connection
        raise ConnectionClosed(remote=None)

    def _watch(
        self, connection: Connection, silent: Connection | None
    ) -> AbstractContextManager[object]:
        """Have what runs in the context cancelled if the connection falls silent."""
        entry = self._swarm.entry(connection)
        if entry is None or entry.is_ended:
            return nullcontext()
        if connection is silent:
            # There is no other: it may come back.
            return self._swarm.paths.attend(entry)
        return self._swarm.paths.attend_until_suspect(entry)

    async def _connect(
        self, target: Target, silent: Connection | None, manner: Manner
    ) -> Connection:
        """Return a connection to use: where one was silent another one, if there is any."""
        connection = None
        if target.peer is not None:
            connection = self._swarm.best(target.peer, allow_limited=manner.allow_limited)
        if silent is not None and connection in (None, silent):
            connection = await self._connect_anew(target, silent, manner)
        if connection is None:
            connection = await self._swarm.connect(
                target, allow_limited=manner.allow_limited, priority=manner.priority
            )
        if connection.limit is not None and not manner.allow_limited:
            raise DialError(
                f"{connection.remote_peer} is reached only through a relay that sets limits;"
                " pass allow_limited=True to use it"
            )
        return connection

    async def _connect_anew(
        self, target: Target, silent: Connection, manner: Manner
    ) -> Connection | None:
        """Return a new connection, by another way than the silent one if there is one."""
        address = silent.remote_addr
        others = [each for each in target.addresses if each.without_peer() != address]
        others += [each for each in target.addresses if each not in others]
        anew = replace(target, addresses=tuple(others))
        try:
            return await self._swarm.connect(
                anew,
                allow_limited=manner.allow_limited,
                fresh=True,
                is_quiet=True,
                priority=manner.priority,
            )
        except P2PError:
            return silent

    async def _is_to_blame(self, connection: Connection, error: P2PError) -> bool:
        """Say whether a connection is what has failed; that shows within two turns of the loop."""
        if isinstance(error, ConnectionClosed):
            return True
        await checkpoint()
        await checkpoint()
        entry = self._swarm.entry(connection)
        return entry is None or entry.is_ended
