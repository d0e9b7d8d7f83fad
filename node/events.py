"""What happens in a node, as values, and the bounded queues that carry them to their readers."""

from __future__ import annotations

import re
import time
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, fields
from enum import Enum
from functools import cache
from typing import TYPE_CHECKING, TypeAlias
from weakref import WeakSet

import anyio

if TYPE_CHECKING:
    from pathlib import Path

    from ..relay.autonat.reachability import Reachability
    from ..transports.core.interfaces import Side
    from ..transports.core.multiaddr import Multiaddr
    from ..transports.core.peer_id import PeerId
    from .link import LinkState

Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"

READER_LIMIT = 1024
"""Events that wait for one reader: a few seconds of a busy node, some hundred KiB."""


@dataclass(frozen=True, slots=True)
class NodeEvent:
    """Something that happened at `time`, in seconds since 1970."""

    time: float = field(default_factory=time.time, kw_only=True)

    def to_json(self) -> dict[str, Json]:
        """Return {"event": name, "time": seconds, ...} of plain JSON values."""
        name = event_name(type(self).__name__)
        plain: dict[str, Json] = {"event": name, "time": self.time}
        for item in fields(self):
            if item.name != "time":
                plain[item.name] = _plain(getattr(self, item.name))
        return plain


@dataclass(frozen=True, slots=True)
class Listening(NodeEvent):
    """The node has started; `addresses` is empty if it does not listen."""

    peer_id: PeerId
    addresses: tuple[Multiaddr, ...]


@dataclass(frozen=True, slots=True)
class AddressesChanged(NodeEvent):
    """The node can be dialled at other addresses from now on."""

    addresses: tuple[Multiaddr, ...]


@dataclass(frozen=True, slots=True)
class ConnectionOpened(NodeEvent):
    """A connection stands; `side` is this node's role in it."""

    peer: PeerId
    address: Multiaddr
    side: Side
    limited: bool


@dataclass(frozen=True, slots=True)
class ConnectionEnded(NodeEvent):
    """A connection is gone; `remote`: by the peer, by this node (False), by the path (None)."""

    peer: PeerId
    address: Multiaddr
    remote: bool | None
    reason: str


@dataclass(frozen=True, slots=True)
class ConnectionRefused(NodeEvent):
    """A connection was turned away because of a limit; `setting` moves it.

    `peer` is None if it was before its handshake. Of what comes again and again from one place the
    first is told at once, then the last one each second, with the `count` of all since.
    """

    peer: PeerId | None
    address: Multiaddr
    reason: str
    setting: str
    count: int = 1


@dataclass(frozen=True, slots=True)
class StreamRefused(NodeEvent):
    """A stream that a peer opened was reset because of a limit; `setting` and `count` as above."""

    peer: PeerId
    reason: str
    setting: str
    count: int = 1


@dataclass(frozen=True, slots=True)
class PeerIdentified(NodeEvent):
    """A peer told what it is; texts are its own words. `observed` is how it sees this node."""

    peer: PeerId
    agent: str
    protocols: tuple[str, ...]
    addresses: tuple[Multiaddr, ...]
    observed: Multiaddr | None


@dataclass(frozen=True, slots=True)
class ReachabilityChanged(NodeEvent):
    """Others have found that this node can, or cannot, be dialled; `addresses`: at which it can."""

    reachability: Reachability
    addresses: tuple[Multiaddr, ...]


@dataclass(frozen=True, slots=True)
class HolePunched(NodeEvent):
    """A relayed connection has been joined by a direct one, which takes its place.

    `attempts` counts the meetings that were needed; 0 if the peer could simply be dialled.
    """

    peer: PeerId
    address: Multiaddr
    attempts: int


@dataclass(frozen=True, slots=True)
class HolePunchFailed(NodeEvent):
    """A relayed connection stays the only one to a peer.

    `next_at` is when this node tries it again, in seconds since 1970; None if the peer has gone.
    """

    peer: PeerId
    reason: str
    next_at: float | None = None


@dataclass(frozen=True, slots=True)
class PeerFound(NodeEvent):
    """A peer was found on the LAN, or at other addresses there; nobody has proven that it is so."""

    peer: PeerId
    addresses: tuple[Multiaddr, ...]


@dataclass(frozen=True, slots=True)
class MulticastUnavailable(NodeEvent):
    """On these interfaces the node finds nobody and is not found."""

    interfaces: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class DialFailed(NodeEvent):
    """No address led to the peer; `peer` is None if the addresses did not name one."""

    peer: PeerId | None
    reason: str


@dataclass(frozen=True, slots=True)
class LinkChanged(NodeEvent):
    """The link to a peer is in another state; `reason` is why."""

    peer: PeerId
    state: LinkState
    reason: str


@dataclass(frozen=True, slots=True)
class PathChanged(NodeEvent):
    """What this node opens to a peer goes over another connection from now on."""

    peer: PeerId
    address: Multiaddr
    previous: Multiaddr
    reason: str


@dataclass(frozen=True, slots=True)
class PeerOnline(NodeEvent):
    """A kept peer is connected."""

    peer: PeerId


@dataclass(frozen=True, slots=True)
class PeerOffline(NodeEvent):
    """A kept peer is not connected any more."""

    peer: PeerId
    reason: str


@dataclass(frozen=True, slots=True)
class RelayReserved(NodeEvent):
    """A relay leads peers here, at `addresses`, until then (seconds since 1970); it is renewed."""

    relay: PeerId
    addresses: tuple[Multiaddr, ...]
    until: float


@dataclass(frozen=True, slots=True)
class RelayLost(NodeEvent):
    """A relay leads nobody here any more; one that the user has named is tried again."""

    relay: PeerId
    reason: str


@dataclass(frozen=True, slots=True)
class RelayRefused(NodeEvent):
    """A relay does not lead peers here, and has said why; told once for each reason."""

    relay: PeerId
    reason: str


@dataclass(frozen=True, slots=True)
class HandlerFailed(NodeEvent):
    """A stream handler raised; its stream was reset."""

    peer: PeerId
    protocol: str
    error: BaseException


@dataclass(frozen=True, slots=True)
class StoreDegraded(NodeEvent):
    """What the node learns is in memory only, since the file cannot be used; told once."""

    path: Path
    reason: str


@dataclass(frozen=True, slots=True)
class StoreRecovered(NodeEvent):
    """The file is written again, and has all that the node knows, or soon will."""

    path: Path


@dataclass(frozen=True, slots=True)
class RelayReservationMade(NodeEvent):
    """A peer can be reached through this node, until then (Unix seconds) if it does not renew."""

    peer: PeerId
    until: float


@dataclass(frozen=True, slots=True)
class RelayReservationEnded(NodeEvent):
    """A peer can be reached through this node no more."""

    peer: PeerId
    reason: str


@dataclass(frozen=True, slots=True)
class CircuitOpened(NodeEvent):
    """This node relays between two peers; the source has dialled the target."""

    source: PeerId
    target: PeerId


@dataclass(frozen=True, slots=True)
class CircuitEnded(NodeEvent):
    """Such a circuit has ended, after `seconds`; `bytes` counts what it carried both ways."""

    source: PeerId
    target: PeerId
    bytes: int
    seconds: float
    reason: str


@dataclass(frozen=True, slots=True)
class ServiceProvided(NodeEvent):
    """So many servers of the DHT have been told that this node offers a service."""

    service: str
    servers: int


@dataclass(frozen=True, slots=True)
class ProvidingFailed(NodeEvent):
    """No server of the DHT has taken that this node offers a service; it is tried again."""

    service: str
    reason: str


@dataclass(frozen=True, slots=True)
class EventsLost(NodeEvent):
    """This reader was too slow for `count` events."""

    count: int


class EventReader(AsyncIterator[NodeEvent]):
    """The events since this reader was made, in order, until the node has stopped."""

    def __init__(self, *, limit: int = READER_LIMIT) -> None:
        self._limit = limit
        self._waiting: deque[NodeEvent] = deque()
        self._lost = 0
        self._closed = False
        self._wake: anyio.Event | None = None

    def __aiter__(self) -> EventReader:
        return self

    async def __anext__(self) -> NodeEvent:
        while not self._waiting:
            if self._lost:
                lost, self._lost = self._lost, 0
                return EventsLost(lost)
            if self._closed:
                raise StopAsyncIteration
            self._wake = anyio.Event()
            await self._wake.wait()
        return self._waiting.popleft()

    def put(self, event: NodeEvent) -> None:
        """Queue an event, or count it as lost; an EventsLost stands where the gap is."""
        if self._closed:
            return
        room = self._limit - len(self._waiting)
        if room < (2 if self._lost else 1):
            self._lost += 1
            return
        if self._lost:
            self._waiting.append(EventsLost(self._lost))
            self._lost = 0
        self._waiting.append(event)
        self._poke()

    def close(self) -> None:
        """End the iteration after what waits; harmless twice."""
        self._closed = True
        self._poke()

    def _poke(self) -> None:
        if self._wake is not None:
            self._wake.set()


class EventHub:
    """Hands each event to every reader; a reader that nobody holds any more is forgotten."""

    def __init__(self) -> None:
        self._readers: WeakSet[EventReader] = WeakSet()
        self._closed = False

    def reader(self) -> EventReader:
        """Make a reader that sees every event from now on."""
        reader = EventReader()
        if self._closed:
            reader.close()
        self._readers.add(reader)
        return reader

    def publish(self, event: NodeEvent) -> None:
        """Hand an event to every reader; never waits."""
        if self._readers:  # an empty set of this kind takes longer to go through
            for reader in self._readers:
                reader.put(event)

    def close(self) -> None:
        """End every reader's iteration."""
        self._closed = True
        for reader in self._readers:
            reader.close()


@cache
def event_name(class_name: str) -> str:
    """Return the name that an event bears in JSON: its class's, in snake case."""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", class_name).lower()


def _plain(value: object) -> Json:
    if isinstance(value, Enum):
        return value.name.lower()
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (tuple, list)):
        return [_plain(item) for item in value]
    if isinstance(value, BaseException):
        return f"{type(value).__name__}: {value}"
    return str(value)
