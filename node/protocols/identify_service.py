"""identify at work: asks every new connection's peer what it is, answers, and pushes changes."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

import anyio

from ...transports.core.envelope import next_sequence
from ...transports.core.errors import P2PError, RemoteProtocolError
from ..claims import believable
from ..events import PeerIdentified
from ..router import open_negotiated
from .identify import (
    ID_PROTOCOL,
    PUSH_PROTOCOL,
    IdentifyReader,
    compose,
    frame,
    sendable,
    verified,
)

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Callable

    from ...transports.core.interfaces import Connection, Stream
    from ...transports.core.keys import PrivateKey
    from ...transports.core.multiaddr import Multiaddr
    from ..entries import StandingConnections
    from ..events import NodeEvent
    from ..peerstore import PeerStore
    from .identify import Verified

READ_TIME = 5.0
"""Seconds for a peer to say what it is, as in go and js."""

PUSH_DELAY = 0.1
"""Seconds for which changes are gathered: handlers are registered several at a time."""

MAX_PARALLEL_PUSHES = 32
"""Pushes under way at one time, as in js."""

_FAILURES = (P2PError, anyio.BrokenResourceError, anyio.ClosedResourceError, anyio.EndOfStream)

logger = logging.getLogger(__name__)


class Identify:
    """What this node says of itself, and to whom it has said it."""

    def __init__(
        self,
        *,
        key: PrivateKey,
        addresses: Callable[[], tuple[Multiaddr, ...]],
        protocols: Callable[[], tuple[str, ...]],
        connections: StandingConnections,
        peers: PeerStore,
        publish: Callable[[NodeEvent], None],
        is_on_link: Callable[[Multiaddr], bool],
        observed: Callable[[Stream, Multiaddr | None], None],
    ) -> None:
        self._key = key
        self._is_on_link = is_on_link
        self._observed = observed
        self._addresses = addresses
        self._protocols = protocols
        self._connections = connections
        self._peers = peers
        self._publish = publish
        self._said: tuple[tuple[Multiaddr, ...], tuple[str, ...]] | None = None
        self._message = b""
        self._seq = 0
        self._told: dict[Connection, bytes] = {}
        self._poke = anyio.Event()

    def poke(self) -> None:
        """Push what has changed, soon, to the peers that take pushes."""
        self._poke.set()

    def forget(self, connection: Connection) -> None:
        """Drop what is kept for a connection that has ended."""
        self._told.pop(connection, None)

    async def serve(self, stream: Stream) -> None:
        """Say what this node is, and how it sees the peer, and half-close."""
        message = self._current()
        self._told[stream.connection] = message
        observed = sendable(stream.connection.remote_addr)
        await stream.send(frame(message, observed=observed))
        await stream.send_eof()

    async def serve_push(self, stream: Stream) -> None:
        """Take what a peer says has changed."""
        await self._read(stream, is_push=True)

    async def ask(self, connection: Connection) -> PeerIdentified:
        """Ask a peer what it is, and remember it.

        Raises NegotiationError, RemoteProtocolError, PeerIdMismatch, ConnectionClosed, StreamReset.
        """
        stream = await open_negotiated(connection, (ID_PROTOCOL,), known=None, timeout=READ_TIME)
        async with stream:
            await stream.send_eof()
            return await self._read(stream, is_push=False)

    async def greet(self, connection: Connection, upkeep: Counter[str]) -> None:
        """Ask a new connection's peer; one that does not say is only slower to talk to."""
        upkeep[ID_PROTOCOL] += 1
        try:
            await self.ask(connection)
        except _FAILURES as error:
            logger.debug("%s did not identify itself: %r", connection.remote_peer, error)
        finally:
            upkeep[ID_PROTOCOL] -= 1

    async def run(self) -> None:
        """Push changes until cancelled."""
        while True:
            await self._poke.wait()
            await anyio.sleep(PUSH_DELAY)
            self._poke = anyio.Event()
            await self._push_to_all(self._current())

    async def _push_to_all(self, message: bytes) -> None:
        limiter = anyio.CapacityLimiter(MAX_PARALLEL_PUSHES)
        async with anyio.create_task_group() as tasks:
            for connection in self._connections:
                known = self._peers.protocols(connection.remote_peer) or ()
                told = self._told.get(connection)
                if told is not None and told != message and PUSH_PROTOCOL in known:
                    tasks.start_soon(self._push, connection, message, limiter)

    async def _push(
        self, connection: Connection, message: bytes, limiter: anyio.CapacityLimiter
    ) -> None:
        async with limiter:
            self._told[connection] = message
            try:
                with anyio.fail_after(READ_TIME):
                    stream = await open_negotiated(
                        connection, (PUSH_PROTOCOL,), known=(PUSH_PROTOCOL,), timeout=READ_TIME
                    )
                    async with stream:
                        await stream.send(frame(message))
                        await stream.send_eof()
            except (*_FAILURES, TimeoutError) as error:
                logger.debug("could not push to %s: %r", connection.remote_peer, error)

    async def _read(self, stream: Stream, *, is_push: bool) -> PeerIdentified:
        reader = IdentifyReader()
        with anyio.move_on_after(READ_TIME):
            while not reader.is_done:
                try:
                    reader.receive_data(await stream.receive())
                except anyio.EndOfStream:
                    reader.receive_eof()
        if reader.message is None:
            raise RemoteProtocolError(f"no identify message within {READ_TIME:g} s")
        news = verified(reader.message, stream.connection.remote_peer)
        learnt = self._learn(stream.connection, news, is_push=is_push)
        self._observed(stream, learnt.observed)
        return learnt

    def _learn(self, connection: Connection, news: Verified, *, is_push: bool) -> PeerIdentified:
        peer, message = connection.remote_peer, news.message
        believed = believable(news.addresses, connection.remote_addr, self._is_on_link)
        if believed:
            self._peers.set_addresses(peer, believed, seq=news.record_seq)
        # A push tells only what has changed; what the connection's end made void stays so.
        if (message.protocols or not is_push) and connection in self._connections:
            self._peers.set_protocols(peer, message.protocols, agent=message.agent_version)
        event = PeerIdentified(
            peer,
            message.agent_version or self._peers.info(peer).agent,
            message.protocols,
            self._peers.addresses(peer),
            message.observed_addr,
        )
        self._publish(event)
        return event

    def _current(self) -> bytes:
        """Return the message that holds now; its record is signed anew only after a change."""
        state = self._addresses(), self._protocols()
        if state != self._said:
            self._seq = next_sequence(time.time_ns(), self._seq)
            self._message = compose(
                self._key, addresses=state[0], protocols=state[1], seq=self._seq
            )
            self._said = state
        return self._message
