"""The client of AutoNAT v2: asks several servers whether our addresses can be reached.

A server's word that it has reached one counts only with the proof: the nonce of the request, on a
connection that came in since. That it has not cannot be proven, so several must say so.
"""

from __future__ import annotations

import logging
import secrets
from typing import TYPE_CHECKING

import anyio

from ...transports.core.errors import P2PError, RemoteProtocolError
from ...transports.core.interfaces import Side
from ...transports.core.varint import LengthPrefixReader
from .machine import RequestClient
from .reachability import ReachabilityTable
from .wire import (
    DIAL_BACK_OK,
    DIAL_BACK_PROTOCOL,
    DIAL_REQUEST_PROTOCOL,
    MAX_DIAL_BACK_BYTES,
    DialStatus,
    ResponseStatus,
    decode_dial_back,
    fitting,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ...transports.core.interfaces import Host, Stream
    from ...transports.core.multiaddr import Multiaddr
    from ...transports.core.peer_id import PeerId
    from .reachability import Question, Reachability, Server

REQUEST_TIME = 35.0
"""Seconds for a request: data over a slow line, a server's pause, its dial and our answer to it."""

DIAL_BACK_TIME = 5.0
"""Seconds for the nonce to come in, after its connection, and after a server's answer."""

PAUSE = 0.5
"""Seconds between two questions, whatever the table says: to gather what changes at once."""

_FAILURES = (
    *(P2PError, OSError, TimeoutError),
    *(anyio.BrokenResourceError, anyio.ClosedResourceError, anyio.EndOfStream),
)

logger = logging.getLogger(__name__)


class _Expected:
    """A nonce that is out, when it was sent, and by what transport its proof came in."""

    def __init__(self, now: float) -> None:
        self.sent_at = now
        self.came = anyio.Event()
        self.names: tuple[str, ...] = ()


class AutonatClient:
    """Asks, and keeps the verdicts in `table`.

    `candidates` are the addresses to ask about, `servers` the connected peers that may be asked;
    `on_change` is called when a verdict has changed; for `proof_time` seconds after a server's
    answer its proof may still come.
    """

    def __init__(
        self,
        host: Host,
        *,
        candidates: Callable[[], Sequence[Multiaddr]],
        servers: Callable[[], Sequence[Server]],
        on_change: Callable[[], None],
        confidence: int = 2,
        proof_time: float = DIAL_BACK_TIME,
        draw_nonce: Callable[[], int] = lambda: secrets.randbits(64),
    ) -> None:
        self.table = ReachabilityTable(confidence=confidence)
        self._host = host
        self._candidates = candidates
        self._servers = servers
        self._on_change = on_change
        self._proof_time = proof_time
        self._draw_nonce = draw_nonce
        self._expected: dict[int, _Expected] = {}
        self._poke = anyio.Event()
        self._has_changed_network = False
        self._is_asking = False

    def register(self) -> None:
        """Take proofs; never over a relay that sets limits."""
        self._host.handle(DIAL_BACK_PROTOCOL, self.serve_dial_back)

    @property
    def reachability(self) -> Reachability:
        """The verdict on this node."""
        return self.table.overall()

    @property
    def is_asking(self) -> bool:
        """Whether a server is being asked, or about to be."""
        return self._is_asking or self.table.next_timeout(self._servers()) <= anyio.current_time()

    def poke(self) -> None:
        """Look again: there is another server, or another address."""
        self._poke.set()

    def network_changed(self) -> None:
        """Ask about everything again."""
        self._has_changed_network = True
        self._poke.set()

    async def run(self) -> None:
        """Ask what is due until cancelled."""
        while True:
            self._poke = anyio.Event()
            now = anyio.current_time()
            if self._has_changed_network:
                self._has_changed_network = False
                self.table.network_changed(now)
            before = self.table.overall()
            self.table.set_addresses(self._candidates())
            if self.table.handle_timeout(now) or self.table.overall() is not before:
                self._on_change()
            servers = self._servers()
            question = self.table.plan(servers, now)
            if question is None:
                with anyio.CancelScope(deadline=self.table.next_timeout(servers)):
                    await self._poke.wait()
            else:
                await self._put(question)
            await anyio.sleep(PAUSE)

    async def serve_dial_back(self, stream: Stream) -> None:
        """Take a proof; one that nobody waits for is a breach.

        Raises RemoteProtocolError, TimeoutError, EndOfStream.
        """
        reader = LengthPrefixReader(MAX_DIAL_BACK_BYTES)
        with anyio.fail_after(DIAL_BACK_TIME):
            while (frame := reader.next_frame()) is None:
                reader.feed(await stream.receive())
        connection = stream.connection
        expected = self._expected.get(decode_dial_back(frame))
        came_since = (
            connection.side is Side.LISTENER
            and expected is not None
            and connection.statistics().opened_at >= expected.sent_at
        )
        if expected is None or not came_since or expected.came.is_set():
            raise RemoteProtocolError("a proof that no question was asked for")
        expected.names = connection.remote_addr.names
        expected.came.set()
        await stream.send(DIAL_BACK_OK)

    async def ask(self, question: Question) -> tuple[Multiaddr, bool] | None:
        """Return an address and whether a server has reached it; None if it did not say.

        Raises RemoteProtocolError for a claim without proof, and what a stream may raise.
        """
        addresses = fitting(question.addresses)
        nonce = self._draw_nonce()
        expected = self._expected[nonce] = _Expected(anyio.current_time())
        try:
            machine = RequestClient(addresses, nonce)
            with anyio.fail_after(REQUEST_TIME):
                await self._converse(question.server.peer, machine)
            answer = machine.answer
            if answer is None or answer.status is not ResponseStatus.OK:
                return None
            address = addresses[answer.index]
            if answer.dial_status is DialStatus.DIAL_ERROR:
                return address, False
            if answer.dial_status is DialStatus.UNUSED:
                raise RemoteProtocolError("a request is answered, and nothing was dialled")
            # Also where the server failed to see our answer: the proof says more than its word.
            with anyio.move_on_after(self._proof_time):
                await expected.came.wait()
            if not expected.came.is_set() or not _fits(address, expected):
                raise RemoteProtocolError(f"no proof came in for {address}")
            return address, True
        finally:
            del self._expected[nonce]

    async def _put(self, question: Question) -> None:
        now = anyio.current_time
        self._is_asking = True
        try:
            verdict = await self.ask(question)
        except _FAILURES as error:
            logger.debug("%s gave no answer: %r", question.server.peer, error)
            self.table.failed(question, now())
            return
        finally:
            self._is_asking = False
        if verdict is None:
            self.table.failed(question, now())
            return
        address, is_reached = verdict
        logger.debug("%s: %s, %s", question.server.peer, address, is_reached)
        if self.table.answered(question, address, now(), is_reached=is_reached):
            self._on_change()

    async def _converse(self, peer: PeerId, machine: RequestClient) -> None:
        async with await self._host.open_stream(peer, DIAL_REQUEST_PROTOCOL) as stream:
            while machine.answer is None:
                while data := machine.data_to_send():
                    await stream.send(data)
                try:
                    machine.receive_data(await stream.receive())
                except anyio.EndOfStream:
                    machine.receive_eof()


def _fits(address: Multiaddr, expected: _Expected) -> bool:
    """Say whether a proof came in by the transport and the kind of IP that an address has."""
    names = address.without_peer().names
    if names[1:] != expected.names[1:]:
        return False
    kinds = {"ip4": {"ip4"}, "ip6": {"ip6"}, "dns4": {"ip4"}, "dns6": {"ip6"}}
    return expected.names[0] in kinds.get(names[0], {"ip4", "ip6"})
