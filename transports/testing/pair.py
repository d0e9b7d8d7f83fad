"""What a contract check works with: two transports, their owners, and connections between them."""

from __future__ import annotations

from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import anyio

from ..core.errors import LocalProtocolError, unwrap_group
from ..core.interfaces import Side
from ..core.keys import PrivateKey
from ..core.multiaddr import Multiaddr
from ..core.peer_id import PeerId

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
    from contextlib import AbstractAsyncContextManager

    from anyio.abc import ByteStream, TaskGroup

    from ..core.interfaces import Connection, ConnectionListener, Stream, Transport

    PairFactory = Callable[[], AbstractAsyncContextManager["TransportPair"]]

# Rounds of the loop, with `BLOCKED_PAUSE` seconds between, in which nothing happens if all wait.
BLOCKED_ROUNDS = 4
BLOCKED_PAUSE = 0.025


class ContractBroken(AssertionError):
    """A transport does not keep the contract; the text says what was expected."""


class TestHost:
    """The least owner that a transport can have: a key, and addresses; it serves nothing."""

    __test__ = False  # not a test, whatever its name

    def __init__(self, key: PrivateKey | None = None) -> None:
        self.key = key or PrivateKey.generate()
        self.peer_id = PeerId.from_public_key(self.key.public_key)
        self.addresses: Sequence[Multiaddr] = ()
        self.handlers: dict[str, Callable[[Stream], Awaitable[None]]] = {}

    def handle(
        self,
        protocol: str,
        handler: Callable[[Stream], Awaitable[None]],
        *,
        allow_limited: bool = False,
    ) -> None:
        """Keep a handler in `handlers`."""
        self.handlers[protocol] = handler

    async def open_stream(
        self, to: PeerId | Multiaddr, *protocols: str, allow_limited: bool = False
    ) -> Stream:
        """Raise LocalProtocolError: a transport under test has nobody to ask."""
        raise LocalProtocolError("a TestHost opens no streams")

    async def connect(
        self, addr: Multiaddr, *, side: Side = Side.DIALER, fresh: bool = False
    ) -> Connection:
        """Raise LocalProtocolError: a transport under test has nobody to ask."""
        raise LocalProtocolError("a TestHost connects to nobody")


@dataclass(frozen=True, slots=True, kw_only=True)
class TransportPair:
    """Two transports of one kind, each attached to its host, and what to try them with."""

    dialer: Transport
    dialer_host: TestHost
    listener: Transport
    listener_host: TestHost
    address: Multiaddr
    """Where `listener` can listen, more than once in turn; a wildcard that picks a free place."""

    foreign: tuple[Multiaddr, ...] = field(
        default_factory=lambda: (
            Multiaddr.parse("/ip4/127.0.0.1/udp/4001"),
            Multiaddr.parse("/ip4/127.0.0.1/udp/4001/quic-v1"),
        )
    )
    """Addresses that belong to another transport."""

    intrude: Callable[[Multiaddr], Awaitable[ByteStream]] | None = None
    """Connects below the upgrade, to send garbage; None where nothing is below."""

    accepts_as_dialer: bool = False
    """Whether the listener's end takes the dialer's role when the dialer takes the listener's."""


@asynccontextmanager
async def make_pair(
    dialer: Transport,
    listener: Transport,
    address: Multiaddr,
    *,
    intrude: Callable[[Multiaddr], Awaitable[ByteStream]] | None = None,
    accepts_as_dialer: bool = False,
) -> AsyncIterator[TransportPair]:
    """Attach two new transports to new hosts: all that most factories have to do."""
    hosts = TestHost(), TestHost()
    dialer.attach(hosts[0])
    listener.attach(hosts[1])
    yield TransportPair(
        dialer=dialer,
        dialer_host=hosts[0],
        listener=listener,
        listener_host=hosts[1],
        address=address,
        intrude=intrude,
        accepts_as_dialer=accepts_as_dialer,
    )


class Place:
    """A listener that serves: what comes in waits in `accepted`; `tasks` run the connections."""

    def __init__(self, pair: TransportPair, listener: ConnectionListener, tasks: TaskGroup) -> None:
        self.pair = pair
        self.listener = listener
        self.tasks = tasks
        self.serving = anyio.Event()
        self.served = anyio.Event()
        send, receive = anyio.create_memory_object_stream["Connection"](100)
        self._send = send
        self.accepted = receive
        self._let_go = anyio.Event()

    @property
    def address(self) -> Multiaddr:
        """Where to dial."""
        return self.listener.addresses[0]

    def run(self, connection: Connection) -> None:
        """Run a connection in the background."""
        self.tasks.start_soon(connection.run)

    async def serve(self) -> None:
        """Serve until closed; each handler stays with its connection until that has ended."""
        await self.listener.serve(self._accept)
        self.served.set()

    async def dial(self) -> tuple[Connection, Connection]:
        """Connect and return both ends, running: the dialer's, the listener's."""
        near = await self.pair.dialer.dial(self.address, peer=self.pair.listener_host.peer_id)
        self.run(near)
        far = await self.accepted.receive()
        self.run(far)
        return near, far

    async def aclose(self) -> None:
        """Stop listening and let the handlers go."""
        self._let_go.set()
        await self.listener.aclose()
        self._send.close()
        self.accepted.close()

    async def _accept(self, connection: Connection) -> None:
        await self._send.send(connection)
        await self._let_go.wait()


@asynccontextmanager
async def listening(factory: PairFactory) -> AsyncIterator[Place]:
    """Listen and serve with the pair of a factory, as long as the block lasts."""
    with unwrap_group():
        async with factory() as pair, anyio.create_task_group() as tasks:
            place = Place(pair, await pair.listener.listen(pair.address), tasks)
            tasks.start_soon(place.serve)
            try:
                yield place
            finally:
                with anyio.CancelScope(shield=True):
                    await place.aclose()
            tasks.cancel_scope.cancel()


@asynccontextmanager
async def connected(factory: PairFactory) -> AsyncIterator[tuple[Connection, Connection]]:
    """Yield the two ends of a running connection, and close them afterwards."""
    async with listening(factory) as place:
        near, far = await place.dial()
        yield near, far
        await near.aclose()
        await far.aclose()


@asynccontextmanager
async def streaming(factory: PairFactory) -> AsyncIterator[tuple[Stream, Stream]]:
    """Yield the two ends of a stream that both sides have seen a byte of."""
    async with connected(factory) as (near, far):
        yield await open_pair(near, far)


async def open_pair(near: Connection, far: Connection) -> tuple[Stream, Stream]:
    """Open a stream and return both ends of it.

    A byte goes there first, since a muxer may keep an unused stream to itself.
    """
    opened = await near.open_stream()
    await opened.send(b"!")
    accepted = await far.accept_stream()
    expect(await accepted.receive(1) == b"!", "the first byte of a stream")
    return opened, accepted


def expect(condition: object, what: str) -> None:
    """Raise ContractBroken unless the condition holds."""
    if not condition:
        raise ContractBroken(f"expected: {what}")


@contextmanager
def expect_raises(
    kinds: type[Exception] | tuple[type[Exception], ...], when: str
) -> Iterator[list[Exception]]:
    """Raise ContractBroken unless the block raises one of these; it ends up in the list."""
    caught: list[Exception] = []
    try:
        yield caught
    except kinds as error:
        caught.append(error)
        return
    wanted = kinds.__name__ if isinstance(kinds, type) else " or ".join(k.__name__ for k in kinds)
    raise ContractBroken(f"expected: {wanted} {when}; nothing was raised")


async def receive_exactly(stream: Stream, size: int) -> bytes:
    """Receive so many bytes."""
    data = bytearray()
    while len(data) < size:
        data += await stream.receive(size - len(data))
    return bytes(data)


async def receive_all(stream: Stream) -> bytes:
    """Receive up to the end."""
    data = bytearray()
    while True:
        try:
            data += await stream.receive()
        except anyio.EndOfStream:
            return bytes(data)


async def settle(progress: Callable[[], object]) -> None:
    """Wait until `progress` has stood still for some rounds: everybody waits for somebody."""
    last, rounds = progress(), 0
    while rounds < BLOCKED_ROUNDS:
        await anyio.sleep(BLOCKED_PAUSE)
        now = progress()
        rounds = rounds + 1 if now == last else 0
        last = now
