"""Where WebSockets meet in tests: listeners, servers by hand, and connections below."""

from __future__ import annotations

from contextlib import asynccontextmanager, suppress

import anyio
from isthmus.transports.core.multiaddr import Multiaddr
from isthmus.transports.tcp import TcpTransport
from isthmus.transports.websocket.config import WebSocketConfig
from isthmus.transports.websocket.transport import WebSocketTransport

from .wire import ANSWER, REQUEST

ANY = "/ip4/127.0.0.1/tcp/0"
STREAM_ENDS = (anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError)
PATIENCE = 5.0
"""Seconds for anything that takes milliseconds."""


class Served:
    """A listener that echoes, and the streams it has served."""

    def __init__(self, listener) -> None:
        self.listener = listener
        self.streams = []
        self.remotes = []
        self.errors = []
        self._news = anyio.Event()

    @property
    def address(self):
        return self.listener.addresses[0]

    async def echo(self, stream, remote) -> None:
        self.streams.append(stream)
        self.remotes.append(remote)
        async with stream:
            try:
                while True:
                    await stream.send(await stream.receive())
            except STREAM_ENDS as error:
                self.errors.append(error)
        self._news.set()
        self._news = anyio.Event()

    async def error(self) -> Exception:
        """Wait for the first stream's end."""
        with anyio.fail_after(PATIENCE):
            while not self.errors:
                await self._news.wait()
        return self.errors[0]


@asynccontextmanager
async def serving(address=ANY + "/ws", **settings):
    transport = WebSocketTransport(WebSocketConfig(**settings))
    listener = await transport.listen_raw(Multiaddr.parse(address))
    async with anyio.create_task_group() as tasks:
        served = Served(listener)
        tasks.start_soon(listener.serve, served.echo)
        yield served
        await listener.aclose()
        with anyio.fail_after(PATIENCE):
            while listener.pending:
                await anyio.lowlevel.checkpoint()
        tasks.cancel_scope.cancel()


@asynccontextmanager
async def answering(*answers: bytes, then=None):
    """A TCP server that sends these bytes, whatever it is asked; yields its /ws address."""
    listener = await TcpTransport().listen_raw(Multiaddr.parse(ANY))

    async def answer(stream, _remote) -> None:
        async with stream:
            # Some dialers leave before they have asked, others before they have heard it all.
            with suppress(*STREAM_ENDS):
                await stream.receive()
                for each in answers:
                    await stream.send(each)
                if then is not None:
                    await then(stream)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, answer)
        yield Multiaddr.parse(f"{listener.addresses[0]}/ws")
        tasks.cancel_scope.cancel()
    await listener.aclose()


async def below(served):
    return await TcpTransport().dial_raw(Multiaddr(served.address.components[:2]))


async def upgraded(served):
    """A TCP connection past the upgrade."""
    raw = await below(served)
    await raw.send(REQUEST)
    answer = b""
    while b"\r\n\r\n" not in answer:
        answer += await raw.receive()
    assert answer.startswith(b"HTTP/1.1 101")
    return raw


async def read_to_end(raw) -> bytes:
    data = b""
    with anyio.fail_after(PATIENCE):
        while True:
            try:
                data += await raw.receive()
            except (anyio.EndOfStream, anyio.BrokenResourceError):
                await raw.aclose()
                return data


async def echoed(stream, data: bytes = b"hello") -> None:
    await stream.send(data)
    got = b""
    while len(got) < len(data):
        got += await stream.receive()
    assert got == data


def quiet_dialer(**settings):
    return WebSocketTransport(WebSocketConfig(**settings))


@asynccontextmanager
async def answering_websocket(then):
    """A TCP server that upgrades by hand, and then does what it is told."""
    from websockets.utils import accept_key

    listener = await TcpTransport().listen_raw(Multiaddr.parse(ANY))

    async def answer(stream, _remote) -> None:
        async with stream:
            request = await stream.receive()
            key = request.partition(b"Key: ")[2].partition(b"\r")[0].decode()
            await stream.send(ANSWER % accept_key(key).encode())
            await then(stream)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, answer)
        yield Multiaddr.parse(f"{listener.addresses[0]}/ws")
        tasks.cancel_scope.cancel()
    await listener.aclose()


@asynccontextmanager
async def quiet_listener():
    """A listener whose streams are read the fast way, and say nothing."""
    listener = await WebSocketTransport().listen_raw(Multiaddr.parse(ANY + "/ws"))
    streams = []

    async def handle(stream, _remote) -> None:
        streams.append(stream)
        async with stream:
            try:
                await stream.receive_each(lambda _: True)
            except anyio.BrokenResourceError:
                return

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, handle)
        yield Served(listener), streams
        await listener.aclose()
        tasks.cancel_scope.cancel()
