"""Dials as nobody: from a port and with a key of its own, each time another.

AutoNAT's dials are such: what they reach must not be a hole punched for this node, and whom they
reach need not learn who dialled.
"""

from __future__ import annotations

import logging
from functools import cached_property
from typing import TYPE_CHECKING

import anyio

from ..transports.core.errors import ConnectionClosed, LocalProtocolError, NoTransport, P2PError
from ..transports.core.interfaces import Side
from ..transports.core.keys import PrivateKey
from ..transports.core.peer_id import PeerId

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from anyio.abc import TaskGroup

    from ..transports.core.interfaces import Connection, RawTransport, Stream
    from ..transports.core.multiaddr import Multiaddr
    from .config import NodeConfig

PROTOCOLS = ("tcp", "ws", "wss")
"""What is dialled so: the ways in that do not depend on a third peer."""

logger = logging.getLogger(__name__)


async def dial_as_stranger(address: Multiaddr, config: NodeConfig, tasks: TaskGroup) -> Connection:
    """Return a new connection, which runs in `tasks` until it is closed; its streams are refused.

    It is in no table. Raises NoTransport for an address of another kind, and what a dial does.
    """
    from ..transports.upgrade import Upgraded

    raw = _transport_for(address, config)
    if not raw.can_dial(address):
        raise NoTransport(address)
    transport = Upgraded(raw, config=config.upgrade)
    transport.attach(_Stranger())
    connection = await transport.dial(address)
    tasks.start_soon(_run, connection)
    tasks.start_soon(_refuse_streams, connection)
    return connection


def _transport_for(address: Multiaddr, config: NodeConfig) -> RawTransport:
    from ..transports.tcp import TcpTransport
    from ..transports.websocket.transport import WebSocketTransport

    if address.last_transport == "tcp":
        return TcpTransport()
    if address.last_transport in PROTOCOLS:
        return WebSocketTransport(config.websocket)
    raise NoTransport(address)


async def _run(connection: Connection) -> None:
    try:
        await connection.run()
    except (P2PError, OSError, anyio.BrokenResourceError, anyio.ClosedResourceError) as error:
        logger.debug("a stranger's connection broke: %r", error)


async def _refuse_streams(connection: Connection) -> None:
    try:
        while True:
            (await connection.accept_stream()).reset()
    except ConnectionClosed:
        return


class _Stranger:
    """An owner of transports that has a key, and nothing else."""

    addresses = ()

    @cached_property
    def key(self) -> PrivateKey:
        return PrivateKey.generate()

    @cached_property
    def peer_id(self) -> PeerId:
        return PeerId.from_public_key(self.key.public_key)

    def handle(
        self,
        protocol: str,
        handler: Callable[[Stream], Awaitable[None]],
        *,
        allow_limited: bool = False,
    ) -> None:
        raise LocalProtocolError("a stranger serves nothing")

    async def open_stream(
        self, to: PeerId | Multiaddr, *protocols: str, allow_limited: bool = False
    ) -> Stream:
        raise LocalProtocolError("a stranger is nobody's peer")

    async def connect(
        self, addr: Multiaddr, *, side: Side = Side.DIALER, fresh: bool = False
    ) -> Connection:
        raise LocalProtocolError("a stranger is nobody's peer")
