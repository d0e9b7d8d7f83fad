"""A server of the DHT that knows what it is told, and an owner for a client that needs no node."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import anyio
from isthmus.relay.kad.wire import FoundPeer, KadMessage, MessageType, decode, encode
from isthmus.transports.core.varint import LengthPrefixReader, length_prefixed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from isthmus import Node
    from isthmus.transports.core.interfaces import Stream
    from isthmus.transports.core.multiaddr import Multiaddr

PROTOCOL = "/ipfs/kad/1.0.0"


@dataclass
class KadServer:
    """Serves on a node; `behave(stream, request)`, where there is one, does what it likes."""

    node: Node
    protocol: str = PROTOCOL
    behave: Callable | None = None
    closer: list[FoundPeer] = field(default_factory=list)
    providers: dict[bytes, list[FoundPeer]] = field(default_factory=dict)
    requests: list[KadMessage] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.node.handle(self.protocol, self._serve)
        self._asked = anyio.Event()

    @property
    def found(self) -> FoundPeer:
        """Where it is, as others name it."""
        return found_at(self.node)

    def knows(self, *servers: KadServer) -> None:
        """Have it name other servers."""
        self.closer += [each.found for each in servers]

    async def wait_asked(self) -> None:
        """Wait until somebody has asked something."""
        await self._asked.wait()

    async def _serve(self, stream: Stream) -> None:
        reader = LengthPrefixReader(1 << 20)
        async for data in stream:
            for frame in reader.receive_data(data):
                request = decode(frame)
                self.requests.append(request)
                self._asked.set()
                if self.behave is not None:
                    await self.behave(stream, request)
                elif request.type is MessageType.ADD_PROVIDER:
                    self.providers.setdefault(request.key, []).extend(request.providers)
                else:
                    providers = tuple(self.providers.get(request.key, ()))
                    answer = KadMessage(request.type, request.key, tuple(self.closer), providers)
                    await stream.send(length_prefixed(encode(answer)))


@dataclass
class NodeHost:
    """What a client asks of its owner, answered by a node; all addresses are believed."""

    node: Node
    told: tuple[Multiaddr, ...] = ()
    connected: tuple[FoundPeer, ...] = ()
    times_settled: int = 0
    asked: list[FoundPeer] = field(default_factory=list)
    heard: list[tuple[tuple[Multiaddr, ...], Multiaddr]] = field(default_factory=list)

    @property
    def peer_id(self):
        return self.node.peer_id

    async def open_stream(self, to: FoundPeer, protocol: str) -> Stream:
        """Connect to where the peer is said to be."""
        self.asked.append(to)
        addresses = [each.with_peer(to.peer) for each in to.addresses]
        return await self.node.open_stream(addresses or to.peer, protocol)

    def addresses(self) -> tuple[Multiaddr, ...]:
        """Return what the test says."""
        return self.told

    def believable(self, claimed: Iterable[Multiaddr], seen_at: Multiaddr) -> tuple[Multiaddr, ...]:
        """Believe everything, and note what was asked."""
        self.heard.append((tuple(claimed), seen_at))
        return tuple(claimed)

    def settled(self) -> None:
        """Count."""
        self.times_settled += 1

    def neighbours(self) -> Iterable[FoundPeer]:
        """Return what the test says."""
        return self.connected


def found_at(node: Node) -> FoundPeer:
    """Return a node's id and addresses as others name them."""
    return FoundPeer(node.peer_id, tuple(each.without_peer() for each in node.addresses))
