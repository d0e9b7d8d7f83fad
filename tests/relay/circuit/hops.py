"""A relay over loopback, and peers that speak hop and stop with it word by word."""

from __future__ import annotations

from collections import deque
from contextlib import AsyncExitStack, asynccontextmanager

import anyio
from isthmus import LimitsConfig, Node, NodeConfig
from isthmus.relay.circuit.exchange import receive_hop, receive_stop
from isthmus.relay.circuit.limits import RelayServerConfig
from isthmus.relay.circuit.wire import (
    HOP_PROTOCOL,
    STOP_PROTOCOL,
    HopMessage,
    HopType,
    Peer,
    Status,
    StopMessage,
    StopType,
)

LOOPBACK = "/ip4/127.0.0.1/tcp/0"
PATIENCE = 10.0
ROOMY = LimitsConfig(connections_per_prefix=512, connection_burst=10_000, pending_inbound=512)


@asynccontextmanager
async def relay(preset="public", **settings):
    """A node that relays."""
    server = RelayServerConfig(preset=preset, **settings)
    config = NodeConfig(relay_server=server, limits=ROOMY, raise_handler_errors=True)
    async with Node(listen=LOOPBACK, config=config) as node:
        yield node


class Taken:
    """Circuits in the order they came."""

    def __init__(self):
        self._streams = deque()
        self._news = anyio.Event()

    def put(self, stream):
        self._streams.append(stream)
        self._news.set()

    async def receive(self):
        """Wait for the next circuit."""
        while not self._streams:
            self._news = anyio.Event()
            await self._news.wait()
        return self._streams.popleft()


class Client:
    """A peer of the relay; circuits to it are taken, and wait in `taken`."""

    def __init__(self, node: Node, relay: Node) -> None:
        self.node = node
        self.relay = relay
        self.answer = StopMessage(StopType.STATUS, status=Status.OK).frame()
        self.asked: list[StopMessage] = []
        self.taken = Taken()
        self.done = anyio.Event()
        node.handle(STOP_PROTOCOL, self._take)

    @property
    def peer_id(self):
        return self.node.peer_id

    def leave(self):
        """Let the circuits to it end."""
        self.done.set()

    async def _take(self, stream):
        self.asked.append(await receive_stop(stream))
        await stream.send(self.answer)
        self.taken.put(stream)
        await self.done.wait()

    async def hop(self):
        """Open a stream to say something to the relay on."""
        return await self.node.open_stream(self.relay.addresses, HOP_PROTOCOL)

    async def ask(self, data: bytes | HopMessage):
        """Send a request; return the answer, and the stream it came on."""
        stream = await self.hop()
        await stream.send(data if isinstance(data, bytes) else data.frame())
        with anyio.fail_after(PATIENCE):
            return await receive_hop(stream), stream

    async def reserve(self) -> HopMessage:
        """Ask for a reservation; return the answer."""
        answer, stream = await self.ask(HopMessage(HopType.RESERVE))
        await stream.aclose()
        return answer

    async def connect(self, target):
        """Ask for a circuit; return the answer, and the stream."""
        return await self.ask(HopMessage(HopType.CONNECT, Peer(target)))

    async def circuit(self, target: Client):
        """Return both ends of a new circuit."""
        answer, near = await self.connect(target.peer_id)
        assert answer.status == Status.OK
        with anyio.fail_after(PATIENCE):
            return near, await target.taken.receive()


@asynccontextmanager
async def clients(relay, count):
    """So many peers of a relay."""
    async with AsyncExitStack() as stack:
        nodes = [await stack.enter_async_context(Node()) for _ in range(count)]
        made = tuple(Client(node, relay) for node in nodes)
        yield made
        for each in made:
            each.leave()
