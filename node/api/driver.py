"""The control API at work: a Unix socket, and a task for each client.

Nothing that a client does reaches further than its own task: what it sends is bounded in size and
time, what it does not read is lost to it, and an error becomes its answer.
"""

from __future__ import annotations

import logging
import os
import time
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import anyio
from anyio.lowlevel import checkpoint

from ...transports.core.errors import ControlError, unwrap_group
from ...transports.readiness import wait_readable
from ...transports.sockets import SocketStream
from .config import ControlConfig
from .endpoints import ENDPOINTS
from .failures import explained
from .machine import Exchange
from .place import listening, peer_uid
from .routing import Control, Lines, Table

if TYPE_CHECKING:
    import socket
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
    from pathlib import Path

    from ..node import Node
    from .routing import Endpoint, Request

Result = TypeVar("Result")

READ_SIZE = 4096
"""Bytes read at a time: a request is smaller, and a hostile one costs little at once."""

EXHAUSTED_PAUSE = 0.1
"""Seconds to wait after the process ran out of file descriptors."""

ROOT = 0
"""The user who may read this process's memory anyway."""

logger = logging.getLogger(__name__)


@asynccontextmanager
async def serving(
    path: Path,
    node: Node,
    *,
    config: ControlConfig | None = None,
    endpoints: Sequence[Endpoint] = ENDPOINTS,
) -> AsyncIterator[Callable[[], None]]:
    """Listen on the socket at `path`, and serve a node's control API from when the yielded
    function is called until the context is left.

    Enter the node inside: then clients read its last events. Raises StoreError if the place cannot
    be used.
    """
    with unwrap_group(), listening(path) as listener:
        async with anyio.create_task_group() as tasks:
            server = ControlServer(listener, node, config or ControlConfig(), endpoints)

            def start() -> None:
                tasks.start_soon(server.run)

            yield start
            await server.drain()
            tasks.cancel_scope.cancel()


class ControlServer:
    """Serves the clients of one listening socket until cancelled."""

    def __init__(
        self,
        listener: socket.socket,
        node: Node,
        config: ControlConfig,
        endpoints: Sequence[Endpoint],
    ) -> None:
        self._listener = listener
        self._control = Control(node, time.monotonic())
        self._config = config
        self._table = Table(endpoints)
        self._active = 0
        self._idle = anyio.Event()

    async def run(self) -> None:
        """Accept clients and serve them."""
        async with anyio.create_task_group() as tasks:
            while True:
                sock = await self._accept()
                if sock is not None and self._is_welcome(sock):
                    self._active += 1
                    tasks.start_soon(self._serve, sock)
                await checkpoint()

    async def drain(self) -> None:
        """Wait for the clients to be done, for a moment."""
        with anyio.move_on_after(self._config.drain_time):
            while self._active:
                self._idle = anyio.Event()
                await self._idle.wait()

    async def _accept(self) -> socket.socket | None:
        try:
            sock, _ = self._listener.accept()
        except BlockingIOError:
            await wait_readable(self._listener)
        except OSError as error:
            logger.warning("cannot accept a control client: %s", error.strerror)
            await anyio.sleep(EXHAUSTED_PAUSE)
        else:
            sock.settimeout(0)
            return sock
        return None

    def _is_welcome(self, sock: socket.socket) -> bool:
        """Turn away who is of another user, whatever the file's mode, and who is one too many."""
        refusal = None
        try:
            if peer_uid(sock) not in (os.geteuid(), ROOT):
                refusal = ControlError("", status=403)
            elif self._active >= self._config.max_connections:
                bound = self._config.max_connections
                refusal = ControlError(f"{bound} clients are connected already", status=503)
            if refusal is not None:
                sock.send(Exchange(self._config).refuse(refusal))
        except OSError as error:
            logger.debug("a control client was turned away: %s", error)
            refusal = refusal or ControlError("", status=403)
        if refusal is not None:
            sock.close()
        return refusal is None

    async def _serve(self, sock: socket.socket) -> None:
        stream = SocketStream(sock)
        try:
            await self._exchange(stream)
        except (anyio.BrokenResourceError, anyio.ClosedResourceError) as error:
            logger.debug("a control client went away: %r", error)
        finally:
            stream.close()
            self._active -= 1
            self._idle.set()

    async def _exchange(self, stream: SocketStream) -> None:
        exchange = Exchange(self._config)
        try:
            data = await self._answer(stream, exchange)
        except Exception as error:  # noqa: BLE001  # boundary
            data = exchange.refuse(explained(error))
        with anyio.move_on_after(self._config.answer_time):
            await stream.send(data)

    async def _answer(self, stream: SocketStream, exchange: Exchange) -> bytes:
        """Return what is to be answered, in whole; nothing where it has been, or nobody waits."""
        request = await self._receive(stream, exchange)
        if request is None:
            return b""
        endpoint, arguments = self._table.find(request)
        answer = await _while_there(stream, partial(endpoint.handle, self._control, arguments))
        if isinstance(answer, Lines):
            await _while_there(stream, partial(_send_lines, stream, exchange, answer))
            return b""
        return b"" if answer is None else exchange.answer(answer)

    async def _receive(self, stream: SocketStream, exchange: Exchange) -> Request | None:
        """Return the request; None if the client has gone before it was whole."""
        request: Request | None = None
        with anyio.move_on_after(self._config.request_time) as scope:
            while request is None:
                try:
                    data = await stream.receive(READ_SIZE)
                except anyio.EndOfStream:
                    return None
                request = exchange.receive_data(data)
                await checkpoint()
        if request is None and scope.cancelled_caught:
            raise ControlError("", status=408)
        return request


async def _send_lines(stream: SocketStream, exchange: Exchange, answer: Lines) -> None:
    await stream.send(exchange.begin() + exchange.line(answer.first.to_json()))
    async for event in answer.events:
        await stream.send(exchange.line(event.to_json()))
    await stream.send(exchange.end())


async def _while_there(
    stream: SocketStream, work: Callable[[], Awaitable[Result]]
) -> Result | None:
    """Do some work for a client; give it up, and return None, if the client goes meanwhile."""
    result: Result | None = None
    with unwrap_group():
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_watch, stream, tasks.cancel_scope)
            result = await work()
            tasks.cancel_scope.cancel()
    return result


async def _watch(stream: SocketStream, scope: anyio.CancelScope) -> None:
    # Whoever half-closes, or says more after its one request, is taken for gone, too.
    try:
        await stream.receive(1)
    except (anyio.EndOfStream, anyio.BrokenResourceError):
        logger.debug("a control client went away")
    scope.cancel()
