"""The client: it walks the DHT by requests over streams, and announces while it runs."""

from __future__ import annotations

import logging
from contextlib import contextmanager, suppress
from math import inf
from typing import TYPE_CHECKING, Protocol

import anyio

from ...transports.core.errors import (
    AddressError,
    DialError,
    P2PError,
    RemoteProtocolError,
    unwrap_group,
)
from ...transports.core.interfaces import Side
from ...transports.core.varint import LengthPrefixReader, length_prefixed
from .machine import BETA, CONFIRMATIONS, MAX_WAITING, Claims, K, Lookup, LookupConfig, merged
from .table import Schedule, SeedTable
from .wire import (
    MAX_MESSAGE_BYTES,
    FoundPeer,
    KadMessage,
    MessageType,
    announcement,
    decode,
    distance_hash,
    encode,
    service_key,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from ...transports.core.interfaces import Stream
    from ...transports.core.multiaddr import Multiaddr
    from ...transports.core.peer_id import PeerId
    from .config import KadConfig

_FAILURES = (P2PError, anyio.BrokenResourceError, anyio.ClosedResourceError, anyio.EndOfStream)

MAX_UNRESOLVED = 3
"""Providers of one search whose addresses are looked for when nobody has told them: each is a walk
of its own."""

logger = logging.getLogger(__name__)


class KadHost(Protocol):
    """All that the client asks of its owner."""

    @property
    def peer_id(self) -> PeerId:
        """The owner's peer id, which is never asked and never found."""

    async def open_stream(self, to: FoundPeer, protocol: str) -> Stream:
        """Open a stream to a peer at addresses that may be lies, connecting if need be."""

    def addresses(self) -> tuple[Multiaddr, ...]:
        """Return the addresses that others may be told, without /p2p."""

    def believable(self, claimed: Iterable[Multiaddr], seen_at: Multiaddr) -> tuple[Multiaddr, ...]:
        """Return the addresses worth a dial of those that a peer told, by where it is itself."""

    def neighbours(self) -> Iterable[FoundPeer]:
        """Return the connected peers that serve the DHT."""

    def settled(self) -> None:
        """Take note that nothing is asked any more, of anyone: connections may go."""


class KadClient:
    """Finds and announces on one DHT; `run` is what announces.

    `tell(service, taken, reason)` is called after each announcement with the number of servers that
    have taken it, and why if none has.
    """

    def __init__(
        self, host: KadHost, config: KadConfig, *, tell: Callable[[str, int, str], None]
    ) -> None:
        self._host = host
        self._config = config
        self._tell = tell
        self._seeds = SeedTable(config.bootstrap)
        self._schedule = Schedule(interval=config.provide_interval)
        self._poke = anyio.Event()
        self._at_work = 0

    async def find_providers(self, key: bytes, *, limit: int) -> list[FoundPeer]:
        """Return who is said to provide what `key` stands for, whom most servers name first.

        Raises DialError if no server answers.
        """
        claims = Claims(own=self._host.peer_id, limit=limit)
        lookup = self._lookup(key, settle=K)
        deadline = anyio.current_time() + self._config.lookup_timeout

        def take(source: PeerId, answer: KadMessage) -> None:
            claims.add(source, answer.providers)
            if claims.is_settled():
                lookup.finish()

        with self._working():
            await self._walk(lookup, KadMessage(MessageType.GET_PROVIDERS, key), take)
            return await self._resolved(claims.best(), deadline)

    async def find_peer(self, peer: PeerId) -> FoundPeer | None:
        """Return where a peer is said to be; None if no server that was asked knows.

        Raises DialError if no server answers.
        """
        key = bytes(peer)
        lookup = self._lookup(key, settle=BETA)
        found = FoundPeer(peer)
        named = 0

        def take(source: PeerId, answer: KadMessage) -> None:
            nonlocal found, named
            for each in answer.closer:
                if each.peer == peer and each.addresses:
                    found = merged(found, each)
                    named += 1
            if named >= CONFIRMATIONS:
                lookup.finish()

        with self._working():
            await self._walk(lookup, KadMessage(MessageType.FIND_NODE, key), take)
        return found if found.addresses else None

    async def announce(self, key: bytes) -> int:
        """Tell the servers closest to `key` that this node provides it; return how many took it.

        Raises AddressError if this node is nowhere, DialError if no server answers.
        """
        own = FoundPeer(self._host.peer_id, self._host.addresses())
        if not own.addresses:
            raise AddressError("this node has no address to announce: it listens nowhere")
        # An announcement has no answer: that to a request behind it shows that it was taken, since
        # a server resets the stream of one that it refuses. The end of the stream would show it,
        # too, but js resets many a stream that was half-closed in order.
        request = KadMessage(MessageType.FIND_NODE, key)
        message = length_prefixed(announcement(key, own)) + length_prefixed(encode(request))
        lookup = self._lookup(key, settle=K)
        with self._working():
            await self._walk(lookup, request, _take_nothing)
            return await self._tell_all(lookup.closest(), message)

    def provide(self, service: str) -> None:
        """Announce a service from now on, while `run` runs; raises LimitExceeded."""
        self._schedule.add(service, anyio.current_time())
        self._poke.set()

    def moved(self) -> None:
        """Announce everything anew, soon, since this node's addresses have changed."""
        self._schedule.hurry(anyio.current_time())
        self._poke.set()

    async def run(self) -> None:
        """Announce what is to be provided, again and again, until cancelled."""
        while True:
            self._poke = anyio.Event()
            for service in self._schedule.due(anyio.current_time()):
                taken, reason = 0, "no server took it"
                try:
                    taken = await self.announce(service_key(service))
                except (AddressError, DialError) as error:
                    reason = str(error)
                self._schedule.announced(service, anyio.current_time(), taken=taken)
                self._tell(service, taken, "" if taken else reason)
            deadline = self._schedule.next_timeout()
            with anyio.CancelScope(deadline=inf if deadline is None else deadline):
                await self._poke.wait()

    def _lookup(self, key: bytes, *, settle: int) -> Lookup:
        target = distance_hash(key)
        config = LookupConfig(
            parallel=self._config.parallel,
            request_timeout=self._config.request_timeout,
            lookup_timeout=self._config.lookup_timeout,
            settle=settle,
        )
        seeds = [*self._host.neighbours(), *self._seeds.seeds(target)]
        own = self._host.peer_id
        return Lookup(target, seeds, own=own, now=anyio.current_time(), config=config)

    @contextmanager
    def _working(self) -> Iterator[None]:
        """Tell the owner when the last of those who ask at one time is done."""
        self._at_work += 1
        try:
            yield
        finally:
            self._at_work -= 1
            if not self._at_work:
                self._host.settled()

    async def _walk(
        self,
        lookup: Lookup,
        request: KadMessage,
        take: Callable[[PeerId, KadMessage], None],
    ) -> None:
        """Send the requests of a walk until it is over; `take` is given each answer.

        Raises DialError if there has been none.
        """
        changed = anyio.Event()
        scopes: dict[PeerId, anyio.CancelScope] = {}
        failure = ""

        async def ask(found: FoundPeer, scope: anyio.CancelScope) -> None:
            nonlocal failure
            with scope:
                try:
                    answer = await self._ask(found, request)
                except _FAILURES as error:
                    logger.debug("%s did not answer: %r", found.peer, error)
                    failure = f"; the last one asked: {str(error) or type(error).__name__}"
                    self._seeds.lost(found.peer)
                    lookup.receive_failure(found.peer)
                else:
                    take(found.peer, answer)
                    lookup.receive_answer(found.peer, answer.closer)
            changed.set()

        with unwrap_group():
            async with anyio.create_task_group() as tasks:
                while not lookup.is_finished:
                    # No await between looking and waiting, so no answer can be missed.
                    changed = anyio.Event()
                    for found in lookup.next_requests(anyio.current_time()):
                        scope = scopes[found.peer] = anyio.CancelScope()
                        tasks.start_soon(ask, found, scope)
                    deadline = lookup.next_timeout()
                    with anyio.CancelScope(deadline=inf if deadline is None else deadline):
                        await changed.wait()
                    for peer in lookup.handle_timeout(anyio.current_time()):
                        scopes[peer].cancel()
                        self._seeds.lost(peer)
                        failure = f"; the last one asked, {peer}, says nothing"
                tasks.cancel_scope.cancel()
        if not lookup.closest():
            raise DialError(f"no server of the DHT answers{failure}")

    async def _ask(self, found: FoundPeer, request: KadMessage) -> KadMessage:
        """Return the answer of one peer, with what is believed of it; raises _FAILURES."""
        stream = await self._host.open_stream(found, self._config.protocol)
        async with stream:
            # Not half-closed before the answer: js takes that for the end of the requests.
            await stream.send(length_prefixed(encode(request)))
            answer = await _receive(stream)
        if answer.type is not request.type:
            raise RemoteProtocolError(f"{request.type.name} was answered by {answer.type.name}")
        seen_at = stream.connection.remote_addr
        if stream.connection.side is Side.DIALER:
            # Where it was reached comes before where it is said to be.
            found = merged(FoundPeer(found.peer, (seen_at.without_peer(),)), found)
        self._seeds.met(found)
        closer = [each for each in self._believed(answer.closer, seen_at) if each.addresses]
        providers = self._believed(answer.providers, seen_at)
        return KadMessage(answer.type, answer.key, tuple(closer), tuple(providers))

    def _believed(self, named: Iterable[FoundPeer], seen_at: Multiaddr) -> list[FoundPeer]:
        return [
            FoundPeer(each.peer, self._host.believable(each.addresses, seen_at)) for each in named
        ]

    async def _tell_all(self, servers: Iterable[FoundPeer], message: bytes) -> int:
        """Send an announcement to several; return how many have taken it."""
        taken: list[PeerId] = []
        limiter = anyio.CapacityLimiter(MAX_WAITING)

        async def tell(found: FoundPeer) -> None:
            async with limiter:
                if await self._tell_one(found, message):
                    taken.append(found.peer)

        with unwrap_group():
            async with anyio.create_task_group() as tasks:
                for found in servers:
                    tasks.start_soon(tell, found)
        return len(taken)

    async def _tell_one(self, found: FoundPeer, message: bytes) -> bool:
        """Send an announcement; say whether the peer has read it and not refused."""
        try:
            with anyio.fail_after(self._config.request_timeout):
                stream = await self._host.open_stream(found, self._config.protocol)
                async with stream:
                    await stream.send(message)
                    await _receive_consent(stream)
        except (*_FAILURES, TimeoutError) as error:
            logger.debug("%s did not take an announcement: %r", found.peer, error)
            return False
        return True

    async def _resolved(self, found: list[FoundPeer], deadline: float) -> list[FoundPeer]:
        """Look for the addresses of providers that were named without any."""
        resolved = {each.peer: each for each in found}
        nowhere = [each.peer for each in found if not each.addresses][:MAX_UNRESOLVED]
        with anyio.CancelScope(deadline=deadline):
            for peer in nowhere:
                # What has been found counts, whoever answers no more.
                with suppress(DialError):
                    resolved[peer] = await self.find_peer(peer) or resolved[peer]
        return list(resolved.values())


def _take_nothing(_source: PeerId, _answer: KadMessage) -> None:
    """Look only at who is closer."""


async def _receive(stream: Stream) -> KadMessage:
    reader = LengthPrefixReader(MAX_MESSAGE_BYTES)
    while True:
        for frame in reader.receive_data(await stream.receive()):
            return decode(frame)


async def _receive_consent(stream: Stream) -> None:
    """Wait until an announcement, and the request behind it, have been served; raises _FAILURES.

    A server that takes one request a stream ends it; py-libp2p's answers the announcement itself.
    """
    try:
        answer = await _receive(stream)
    except anyio.EndOfStream:
        return
    if answer.type not in (MessageType.FIND_NODE, MessageType.ADD_PROVIDER):
        raise RemoteProtocolError(f"an announcement was answered by {answer.type.name}")
