"""From a plain byte stream to a connection: multistream-select, Noise XX, Yamux.

https://github.com/libp2p/specs/blob/master/connections/README.md
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import anyio
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from .core.errors import (
    DialError,
    DialTimeout,
    LocalProtocolError,
    NegotiationError,
    NoTransport,
    P2PError,
    PeerIdMismatch,
)
from .core.interfaces import (
    AddressesChanged,
    ConnectionListener,
    PathAttribute,
    RawPuncher,
    Side,
)
from .multistream import (
    LazyDialer,
    ListenerNegotiation,
    negotiate_dialer,
    negotiate_listener,
)
from .noise.driver import secure
from .noise.machine import NoiseHandshake, StaticKey
from .noise.stream import SecureStream
from .sockets import FastStream, is_asyncio, loop_clock, settle_allocator
from .upgrade_config import UpgradeConfig
from .yamux.driver import YamuxConnection
from .yamux.flow import NodeBudget
from .yamux.machine import YamuxMachine

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

    from anyio.abc import ByteStream

    from .core.interfaces import Connection, Host, RawListener, RawTransport
    from .core.multiaddr import Multiaddr
    from .core.peer_id import PeerId
    from .noise.machine import HandshakeResult

logger = logging.getLogger(__name__)

PUNCH_PAUSE = 0.1
"""Seconds between attempts at an address whose NAT or host refuses: the peer's packet, which opens
the way, is some tens of milliseconds away."""

PUNCH_UPGRADE_TIME = 3.0
"""Seconds for the upgrade of a punched connection: five round trips of half a second, and little
enough to try again where both sides took the same role."""

SECURITY = "/noise"
MUXER = "/yamux/1.0.0"


class Upgraded:
    """A transport made of a raw one: each byte stream gets Noise and Yamux on top."""

    def __init__(
        self,
        raw: RawTransport,
        *,
        config: UpgradeConfig | None = None,
        budget: NodeBudget | None = None,
    ) -> None:
        self.raw = raw
        self.config = config or UpgradeConfig()
        self.budget = budget or NodeBudget(self.config.receive_budget)
        """What all connections share; several transports may share one."""
        self._static: StaticKey | None = None
        self._ephemeral: X25519PrivateKey | None = None
        self._expected: dict[Multiaddr, tuple[PeerId, Side]] = {}
        self._undecided: dict[Multiaddr, list[anyio.CancelScope]] = {}

    @property
    def protocols(self) -> Sequence[str]:
        """The raw transport's."""
        return self.raw.protocols

    def attach(self, host: Host) -> None:
        """Learn the owner, and make this process's Noise key: signed once, used for every peer."""
        settle_allocator()
        self._static = StaticKey.generate(host.key)
        self.raw.attach(host)

    def can_dial(self, addr: Multiaddr) -> bool:
        """Say whether the raw transport could use this address."""
        return self.raw.can_dial(addr)

    async def dial(
        self, addr: Multiaddr, *, peer: PeerId | None = None, side: Side = Side.DIALER
    ) -> Connection:
        """Connect and upgrade; see `Transport.dial` for what it raises."""
        limit = self.config.dial_timeout
        peer = peer or addr.peer_id
        place = addr.without_peer()
        if peer is not None and place.names[-1] == "p2p-circuit":
            # A relay has to be told who is meant; any other address leads to one place only.
            place = place.with_peer(peer)
        stream: ByteStream | None = None
        try:
            with anyio.fail_after(limit) as scope:
                stream = await self.raw.dial_raw(place)
                scope.deadline = anyio.current_time() + limit
                return await self._upgrade_dialled(stream, addr, side=side, peer=peer)
        except TimeoutError:
            if stream is None:
                raise DialTimeout(f"{addr} did not answer within {limit:g} s") from None
            why = f"{addr} did not finish its upgrade within {limit:g} s"
            raise DialTimeout(why, phase="upgrade") from None

    async def listen(self, addr: Multiaddr) -> UpgradedListener:
        """Bind an address; raises AddressError or OSError with the address in its text."""
        return UpgradedListener(self, await self.raw.listen_raw(addr))

    def can_punch(self, addr: Multiaddr) -> bool:
        """Say whether the raw transport can open what the peer opens at the same moment."""
        return isinstance(self.raw, RawPuncher) and self.raw.can_punch(addr)

    async def punch(self, addr: Multiaddr, *, peer: PeerId, side: Side) -> Connection:
        """Try until there is a connection, or until cancelled; see `Puncher.punch`."""
        raw, place = self.raw, addr.without_peer()
        if not isinstance(raw, RawPuncher) or not self.can_punch(addr):
            raise NoTransport(addr)
        self._expected[place] = peer, side
        # What has come in from there before this side knew its role has one now.
        for scope in self._undecided.get(place, ()):
            scope.cancel()
        try:
            while True:
                try:
                    stream = await raw.punch_raw(place)
                    return await self._upgrade_punched(stream, place, side=side, peer=peer)
                except PeerIdMismatch:
                    raise
                except (P2PError, anyio.EndOfStream, anyio.BrokenResourceError) as error:
                    logger.debug("punching %s failed: %r", place, error)
                await anyio.sleep(PUNCH_PAUSE)
        finally:
            self._expected.pop(place, None)

    def expected(self, addr: Multiaddr) -> tuple[PeerId | None, Side]:
        """Return who may come in from an address, and this side's role then."""
        return self._expected.get(addr, (None, Side.LISTENER))

    async def first_bytes(self, stream: ByteStream, addr: Multiaddr) -> bytes | None:
        """Return what comes first on a stream that came in; None if `expected` has an answer now.

        Raises NegotiationError if nothing comes, and the stream is ended.
        """
        scope = anyio.CancelScope()
        self._undecided.setdefault(addr, []).append(scope)
        try:
            with scope:
                return await _receive(stream)
        finally:
            self._undecided[addr].remove(scope)
            if not self._undecided[addr]:
                del self._undecided[addr]
        return None

    async def _upgrade_punched(
        self, stream: ByteStream, addr: Multiaddr, *, side: Side, peer: PeerId
    ) -> Connection:
        try:
            with anyio.fail_after(PUNCH_UPGRADE_TIME):
                return await self.upgrade(stream, addr, side=side, peer=peer)
        except TimeoutError:
            await anyio.aclose_forcefully(stream)
            raise DialTimeout(f"{addr} did not finish its upgrade", phase="upgrade") from None
        except BaseException:
            await anyio.aclose_forcefully(stream)
            raise

    async def _upgrade_dialled(
        self, stream: ByteStream, addr: Multiaddr, *, side: Side, peer: PeerId | None
    ) -> Connection:
        try:
            return await self.upgrade(stream, addr, side=side, peer=peer)
        except anyio.BrokenResourceError as error:
            await anyio.aclose_forcefully(stream)
            why = f"{addr} broke off during the upgrade: {error}"
            raise DialError(why, phase="upgrade") from error
        except BaseException:
            await anyio.aclose_forcefully(stream)
            raise

    def _prepare(self) -> None:
        """Make the next handshake's key while the peer computes: a tenth of a handshake."""
        if self._ephemeral is None:
            self._ephemeral = X25519PrivateKey.generate()

    def _take_ephemeral(self) -> X25519PrivateKey:
        key, self._ephemeral = self._ephemeral, None
        return key or X25519PrivateKey.generate()

    async def upgrade(
        self,
        stream: ByteStream,
        addr: Multiaddr,
        *,
        side: Side,
        peer: PeerId | None = None,
        received: bytes = b"",
    ) -> YamuxConnection:
        """Make a connection of a byte stream, in any role; the caller bounds the time.

        `received` is what a dialer has said already, to a listener.
        Raises NegotiationError, NoiseError, PeerIdMismatch, RemoteProtocolError.
        """
        if self._static is None:
            raise LocalProtocolError("attach the transport to its owner first")
        handshake = NoiseHandshake(
            side,
            self._static,
            ephemeral=self._take_ephemeral(),
            muxers=(MUXER,),
            expected_peer=peer,
        )
        clock = loop_clock()
        began, round_trip_time = clock(), None
        if side is Side.DIALER:
            trailing = await _propose_security(stream, handshake.data_to_send(), self._prepare)
            round_trip_time = clock() - began
            # The last message goes along with the first record, within two turns of the loop: one
            # packet less, and the peer is woken once.
            keeps_last = isinstance(stream, FastStream) and is_asyncio()
            result = await secure(stream, handshake, trailing=trailing, keeps_last=keeps_last)
        else:
            # The agreement rides along with the second message of Noise.
            agreement, trailing = await _agree_on_security(stream, received)
            result = await secure(
                stream, handshake, trailing=trailing, ahead=agreement, meanwhile=self._prepare
            )
        early = result.session.receive_data(result.trailing) if result.trailing else []
        if result.muxer is None:
            early = await _negotiate_muxer(stream, result, early, side)
        machine = YamuxMachine(side, clock(), config=self.config.yamux, budget=self.budget)
        return YamuxConnection(
            stream,
            result.session,
            machine,
            remote_peer=result.remote_peer,
            remote_addr=addr.without_peer(),
            channel_binding=result.channel_binding,
            clock=clock,
            early=early,
            ahead=handshake.data_to_send(),
            limit=stream.extra(PathAttribute.limit, None),
            budget=self.budget,
            round_trip_time=round_trip_time,
        )


class UpgradedListener(ConnectionListener):
    """Where raw streams come in and connections come out."""

    def __init__(self, transport: Upgraded, raw: RawListener) -> None:
        self._transport = transport
        self._raw = raw
        self.pending = 0
        self.refused = 0
        self.failed = 0

    @property
    def addresses(self) -> tuple[Multiaddr, ...]:
        """The raw listener's."""
        return self._raw.addresses

    def changes(self) -> AsyncIterator[AddressesChanged]:
        """Yield the raw listener's changes."""
        return self._raw.changes()

    async def serve(self, handler: Callable[[Connection], Awaitable[None]]) -> None:
        """Upgrade what comes in and run `handler` on it, until closed."""

        async def accept(stream: ByteStream, addr: Multiaddr) -> None:
            connection = await self._upgrade(stream, addr)
            if connection is not None:
                await handler(connection)

        await self._raw.serve(accept)

    async def aclose(self) -> None:
        """Stop listening; connections that came in stay."""
        await self._raw.aclose()

    async def _upgrade(self, stream: ByteStream, addr: Multiaddr) -> Connection | None:
        config = self._transport.config
        if self.pending >= config.max_pending_inbound:
            self.refused += 1
            await anyio.aclose_forcefully(stream)
            return None
        self.pending += 1
        try:
            peer, side = self._transport.expected(addr)
            with anyio.fail_after(config.inbound_timeout):
                received = b""
                if peer is None and self._transport.can_punch(addr):
                    # The peer of a punch may be quicker than the word that says so.
                    received = await self._transport.first_bytes(stream, addr) or b""
                    if not received:
                        peer, side = self._transport.expected(addr)
                if peer is None:
                    peer = stream.extra(PathAttribute.peer, None)
                return await self._transport.upgrade(
                    stream, addr, side=side, peer=peer, received=received
                )
        except (P2PError, TimeoutError, anyio.EndOfStream, anyio.BrokenResourceError) as error:
            self.failed += 1
            logger.debug("upgrade of %s failed: %r", addr, error)
            await anyio.aclose_forcefully(stream)
            return None
        except BaseException:
            await anyio.aclose_forcefully(stream)
            raise
        finally:
            self.pending -= 1


async def _propose_security(
    stream: ByteStream, first: bytes, meanwhile: Callable[[], None]
) -> bytes:
    """Negotiate as the dialer; return what came behind the answer.

    Noise is the only proposal, so its first message rides along with it.
    """
    lazy = LazyDialer(SECURITY)
    await stream.send(lazy.data_to_send() + first)
    meanwhile()
    while (trailing := lazy.receive_data(await _receive(stream))) is None:
        pass
    return trailing


async def _agree_on_security(stream: ByteStream, received: bytes) -> tuple[bytes, bytes]:
    """Negotiate as the listener; return the last answer, not sent yet, and what came behind."""
    negotiation = ListenerNegotiation(SECURITY.__eq__)
    while True:
        negotiation.receive_data(received or await _receive(stream))
        received = b""
        answer = negotiation.data_to_send()
        if negotiation.is_complete:
            return answer, negotiation.take_trailing()
        if answer:
            await stream.send(answer)


async def _receive(stream: ByteStream) -> bytes:
    try:
        return await stream.receive()
    except anyio.EndOfStream:
        raise NegotiationError((SECURITY,), "end of stream") from None


async def _negotiate_muxer(
    stream: ByteStream, result: HandshakeResult, early: list[bytes], side: Side
) -> list[bytes]:
    """Agree on Yamux inside Noise, with a peer that does not do so within the handshake."""
    secured = SecureStream(stream, result.session, b"".join(early))
    if side is Side.DIALER:
        _, trailing = await negotiate_dialer(secured, (MUXER,))
    else:
        _, trailing = await negotiate_listener(secured, MUXER.__eq__)
    rest = trailing + secured.take_received()
    return [rest] if rest else []
