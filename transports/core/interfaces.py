"""The interfaces that transports offer and that their owner offers to them.

An address leads, through a `Transport`, to a `Connection`: secure, multiplexed, to one proven
peer. It carries `Stream`s, and, where the path has them, `MessagePipe`s. What is here does not
change when a transport is added.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Literal, Protocol, runtime_checkable

from anyio import TypedAttributeSet, typed_attribute
from anyio.abc import AsyncResource, ByteStream, ObjectStream

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
    from types import TracebackType

    from .errors import ConnectionClosed
    from .keys import PrivateKey
    from .multiaddr import Multiaddr
    from .peer_id import PeerId

__all__ = [
    "AddressesChanged",
    "ChannelBinding",
    "Connection",
    "ConnectionListener",
    "ConnectionStatistics",
    "Doorkeeper",
    "Host",
    "Limit",
    "MessagePipe",
    "PathAttribute",
    "Preface",
    "Priority",
    "Puncher",
    "RawListener",
    "RawPuncher",
    "RawTransport",
    "Side",
    "Stream",
    "StreamStatistics",
    "Transport",
]


class Priority(IntEnum):
    """How urgent a stream is: the names of W3C's RTCPriorityType, the values of RFC 8832."""

    VERY_LOW = 128
    LOW = 256
    MEDIUM = 512
    HIGH = 1024


class Side(IntEnum):
    """The negotiated role in a connection; not who called connect()."""

    DIALER = 0
    LISTENER = 1

    @property
    def other(self) -> Side:
        """The peer's side."""
        return Side(1 - self)


@dataclass(frozen=True, slots=True)
class ChannelBinding:
    """What both ends of a connection, and nobody else, have in common (RFC 5056)."""

    kind: Literal["noise", "dtls"]
    data: bytes


class Limit(Protocol):
    """What is left of a relayed connection; each None where the relay named no such limit."""

    @property
    def bytes_left(self) -> int | None:
        """Bytes that may still pass in both directions together."""

    @property
    def seconds_left(self) -> float | None:
        """Seconds until the relay ends the connection."""


class PathAttribute(TypedAttributeSet):
    """What a raw byte stream may know of its path; its upgrade looks at it."""

    limit: Limit = typed_attribute()
    """What a relay lets pass through it."""

    peer: PeerId = typed_attribute()
    """Who has to prove itself at the other end, where this side is the listener."""


@dataclass(frozen=True, slots=True)
class StreamStatistics:
    """A stream's counters: application bytes, and bytes received but not taken yet."""

    bytes_sent: int
    bytes_received: int
    bytes_unread: int
    opened_at: float


@dataclass(frozen=True, slots=True)
class ConnectionStatistics:
    """A connection's counters, under the names of W3C's webrtc-stats; times are the loop's clock.

    Bytes are counted on the wire. None means that this path cannot tell.
    """

    bytes_sent: int
    bytes_received: int
    round_trip_time: float | None
    jitter: float | None
    packet_loss: float | None
    data_channels_opened: int
    data_channels_closed: int
    opened_at: float
    last_received_at: float


class Preface(Protocol):
    """A negotiation that rides on a stream's first bytes (multistream-select's lazy form)."""

    def data_to_send(self) -> bytes:
        """Bytes that must precede the first ones of the application; empty once taken."""

    def receive_data(self, data: bytes) -> bytes | None:
        """Take bytes of the peer; return the application's once done, None while more is needed.

        Raises NegotiationError if the peer refuses, RemoteProtocolError if it talks nonsense.
        """


class Stream(ByteStream):
    """One ordered byte stream of a connection; leaving `async with` by an exception resets it.

    `receive` raises EndOfStream after the peer's last byte, StreamReset after a reset, and
    ClosedResourceError after `aclose`; `send` raises the latter two.
    """

    id: int
    connection: Connection
    protocol: str | None

    @property
    @abstractmethod
    def priority(self) -> Priority:
        """The class that the scheduler serves this stream's data in; may be set at any time."""

    @priority.setter
    @abstractmethod
    def priority(self, value: Priority) -> None: ...

    @abstractmethod
    async def receive(self, max_bytes: int = 65536) -> bytes:
        """Receive at least one byte and at most `max_bytes`."""

    @abstractmethod
    async def send(self, item: bytes) -> None:
        """Send all of `item`, waiting while the peer grants no credit; keeps no reference to it."""

    @abstractmethod
    def reset(self, code: int = 0) -> None:
        """End both directions at once and drop what waits; never blocks, harmless twice."""

    @abstractmethod
    def unread(self, data: bytes) -> None:
        """Put back the first bytes of what was received, for the next layer to read."""

    @abstractmethod
    def begin(self, preface: Preface) -> None:
        """Let a negotiation ride on the first bytes each way; before anything is sent."""

    @abstractmethod
    def statistics(self) -> StreamStatistics:
        """This stream's counters."""

    def move_in_steps(self, step: int, rate: float) -> None:
        """Have little wait here and on the way; `rate` is what will be taken, in bytes a second.

        Two steps of so many bytes are queued to be sent, and the peer may send what the rate needs
        and not much more. For who sets the pace of what passes. A stream whose windows are not this
        side's to grant may do nothing.
        """

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_val: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> None:
        if exc_type is not None:
            self.reset()
        await self.aclose()


class MessagePipe(ObjectStream[bytes]):
    """Unordered, unreliable messages of at most `max_message_size` bytes."""

    label: str
    max_message_size: int


@runtime_checkable
class Connection(Protocol):
    """A secure, multiplexed connection to one authenticated peer."""

    side: Side
    remote_peer: PeerId
    remote_addr: Multiaddr
    channel_binding: ChannelBinding
    limit: Limit | None

    async def run(self) -> None:
        """Run every task of the connection until it has ended; raises nothing of the peer's doing.

        Only the node and the contract suite call it, once.
        """

    async def open_stream(self, *, priority: Priority = Priority.MEDIUM) -> Stream:
        """Open a stream; waits while too many are unacknowledged.

        Raises ConnectionClosed once the connection has ended or drains.
        """

    async def accept_stream(self) -> Stream:
        """Wait for the next stream that the peer opens; raises ConnectionClosed at the end."""

    async def open_pipe(
        self,
        label: str,
        *,
        priority: Priority = Priority.MEDIUM,
        max_age: float | None = None,
        max_retransmits: int | None = None,
    ) -> MessagePipe | None:
        """Open a message pipe; None where the path has none (TCP, WebSocket, relay)."""

    async def accept_pipe(self) -> MessagePipe:
        """Wait for the next pipe that the peer opens; raises ConnectionClosed at the end."""

    async def probe(self) -> float:
        """Measure one round trip below the streams, in seconds; raises ConnectionClosed."""

    def drain(self) -> None:
        """Take no new streams, and close when the last one has ended, with a go-away only then."""

    async def aclose(self, *, code: int = 0) -> None:
        """Flush what waits for at most a second, say go-away, close; harmless twice.

        `code` (see `core.codes`) tells the peer why, where the muxer can carry it.
        """

    async def wait_closed(self) -> ConnectionClosed:
        """Wait for the end and return what ended it."""

    def statistics(self) -> ConnectionStatistics:
        """This connection's counters."""


@runtime_checkable
class Host(Protocol):
    """All that a transport or relay part may ask of its owner."""

    @property
    def peer_id(self) -> PeerId:
        """The owner's peer id."""

    @property
    def key(self) -> PrivateKey:
        """The owner's identity key, for handshakes to sign with."""

    def handle(
        self,
        protocol: str,
        handler: Callable[[Stream], Awaitable[None]],
        *,
        allow_limited: bool = False,
    ) -> None:
        """Serve a protocol; on relayed connections with a limit only if `allow_limited`."""

    async def open_stream(
        self, to: PeerId | Multiaddr, *protocols: str, allow_limited: bool = False
    ) -> Stream:
        """Open a stream that speaks one of the protocols, connecting if need be."""

    async def connect(
        self, addr: Multiaddr, *, side: Side = Side.DIALER, fresh: bool = False
    ) -> Connection:
        """Connect to an address; `fresh`: also where a connection to the peer stands."""

    @property
    def addresses(self) -> Sequence[Multiaddr]:
        """The addresses the owner can be dialled at, each ending in /p2p/<id>."""


@runtime_checkable
class Doorkeeper(Protocol):
    """An owner that is asked before anything is spent on what comes in.

    A transport whose owner is one asks it where it accepts, before TLS and Noise.
    """

    def begin_upgrade(self, addr: Multiaddr) -> bool:
        """Say whether a connection from there may begin its upgrade; if not, close it unanswered.

        If it may, `end_upgrade` follows.
        """

    def end_upgrade(self, addr: Multiaddr) -> None:
        """Note that the upgrade has ended, either way."""


@dataclass(frozen=True, slots=True)
class AddressesChanged:
    """A listener's addresses changed; `addresses` are the ones that hold from now on."""

    addresses: tuple[Multiaddr, ...]


class ConnectionListener(AsyncResource, ABC):
    """A place where connections come in."""

    @property
    @abstractmethod
    def addresses(self) -> tuple[Multiaddr, ...]:
        """The addresses bound, without /p2p; a wildcard address is reported as bound."""

    @abstractmethod
    def changes(self) -> AsyncIterator[AddressesChanged]:
        """Yield each change of `addresses` until the listener is closed."""

    @abstractmethod
    async def serve(self, handler: Callable[[Connection], Awaitable[None]]) -> None:
        """Upgrade every connection that comes in and run `handler` on it, until closed.

        A connection that fails its upgrade is dropped and counted; it never ends the listener.
        """


class RawListener(AsyncResource, ABC):
    """A place where byte streams come in that a security protocol and a muxer go on top of."""

    @property
    @abstractmethod
    def addresses(self) -> tuple[Multiaddr, ...]:
        """The addresses bound, without /p2p."""

    async def changes(self) -> AsyncIterator[AddressesChanged]:
        """Yield each change of `addresses`; a listener whose addresses never change yields none."""
        return
        yield  # never: it makes this an asynchronous generator

    @abstractmethod
    async def serve(self, handler: Callable[[ByteStream, Multiaddr], Awaitable[None]]) -> None:
        """Run `handler(stream, remote_addr)` in a task for every byte stream that comes in."""


@runtime_checkable
class Transport(Protocol):
    """The one socket interface: from an address to a connection."""

    @property
    def protocols(self) -> Sequence[str]:
        """The multiaddr protocols claimed: an address belongs to the transport of its last one."""

    def attach(self, host: Host) -> None:
        """Learn the owner; called once, before any other method."""

    def can_dial(self, addr: Multiaddr) -> bool:
        """Say whether `dial` could use this address; pure."""

    async def dial(
        self, addr: Multiaddr, *, peer: PeerId | None = None, side: Side = Side.DIALER
    ) -> Connection:
        """Connect; `side` is the role at every layer (DCUtR dials as LISTENER).

        Raises DialError if there is no path, HandshakeError or NegotiationError if the peer
        fails the upgrade, PeerIdMismatch if it is not `peer` (or the address's own /p2p).
        """

    async def listen(self, addr: Multiaddr) -> ConnectionListener:
        """Bind an address; raises AddressError or OSError with the address in its text."""


@runtime_checkable
class RawTransport(Protocol):
    """A transport of plain byte streams; `upgrade.Upgraded` adds Noise and Yamux to it."""

    @property
    def protocols(self) -> Sequence[str]:
        """As in `Transport`."""

    def attach(self, host: Host) -> None:
        """As in `Transport`."""

    def can_dial(self, addr: Multiaddr) -> bool:
        """Say whether `dial_raw` could use this address; pure."""

    async def dial_raw(self, addr: Multiaddr) -> ByteStream:
        """Connect; raises DialError.

        The address has no /p2p at its end, unless a relay that it leads through must know whom to.
        """

    async def listen_raw(self, addr: Multiaddr) -> RawListener:
        """Bind an address; raises AddressError or OSError with the address in its text."""


@runtime_checkable
class Puncher(Protocol):
    """A transport that opens a connection which its peer opens at the same moment (DCUtR)."""

    def can_punch(self, addr: Multiaddr) -> bool:
        """Say whether `punch` could use this address; pure."""

    async def punch(self, addr: Multiaddr, *, peer: PeerId, side: Side) -> Connection:
        """Try until there is a connection to `peer`, or until cancelled; the caller bounds it.

        `side` is the role at every layer, which is not who called connect(). One that comes in from
        that address meanwhile gets the same role. Raises PeerIdMismatch if another peer answers.
        """


@runtime_checkable
class RawPuncher(Protocol):
    """The same for a raw transport, whose byte streams `upgrade.Upgraded` makes connections of."""

    def can_punch(self, addr: Multiaddr) -> bool:
        """As in `Puncher`."""

    async def punch_raw(self, addr: Multiaddr) -> ByteStream:
        """Connect once from the port listened on, and from no other; raises DialError."""
