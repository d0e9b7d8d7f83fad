"""The server of AutoNAT v2: dials one address of a client back, as somebody else.

It dials from a port and with a key of its own, so that what answers is not a hole that the client
has punched, and keeps no connection.
"""

from __future__ import annotations

import logging
import random
from contextlib import suppress
from typing import TYPE_CHECKING

import anyio

from ...transports.core.errors import P2PError, StreamReset
from ...transports.core.varint import LengthPrefixReader
from ...transports.multistream import negotiate_dialer
from .limits import RequestLimits
from .machine import RequestServer
from .wire import (
    DIAL_BACK_PROTOCOL,
    DIAL_REQUEST_PROTOCOL,
    MAX_DATA,
    MAX_DIAL_BACK_BYTES,
    MIN_DATA,
    DialStatus,
    encode_dial_back,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Hashable

    from ...transports.core.interfaces import Connection, Host, Stream
    from ...transports.core.multiaddr import Multiaddr
    from .machine import DialWanted

REQUEST_TIME = 15.0
"""Seconds for a request and its data; as go."""

DIAL_TIME = 10.0
"""Seconds for the dial back; as go."""

DIAL_BACK_TIME = 5.0
"""Seconds for the proof to be delivered; as go."""

MAX_DELAY = 3.0
"""Seconds that a dial elsewhere waits, by chance: many clients must not be able to have many
servers knock at one place at the same moment. As go."""

_FAILURES = (P2PError, OSError, anyio.BrokenResourceError, anyio.ClosedResourceError)

logger = logging.getLogger(__name__)


class AutonatServer:
    """Serves dial requests.

    `dial` connects to an address as a stranger, with a connection that runs until it is closed;
    `may_dial` says which addresses are dialled at all, `source_of` what network an address is in.
    """

    def __init__(
        self,
        *,
        dial: Callable[[Multiaddr], Awaitable[Connection]],
        may_dial: Callable[[Multiaddr], bool],
        source_of: Callable[[Multiaddr], Hashable],
        draw: Callable[[], float] = random.random,
    ) -> None:
        self._dial = dial
        self._may_dial = may_dial
        self._source_of = source_of
        self._draw = draw
        self._limits = RequestLimits()
        self.dials = 0
        """Dials that were made for others."""

    def register(self, host: Host) -> None:
        """Have requests served; never over a relay that sets limits."""
        host.handle(DIAL_REQUEST_PROTOCOL, self.serve)

    async def serve(self, stream: Stream) -> None:
        """Serve one request; raises RemoteProtocolError for a breach, TimeoutError."""
        connection = stream.connection
        address = connection.remote_addr
        sources = tuple({connection.remote_peer, self._source_of(address)} - {None})
        price = MIN_DATA + int(self._draw() * (MAX_DATA - MIN_DATA))
        machine = RequestServer(
            observed=None if "p2p-circuit" in address.names else address.ip,
            may_dial=self._may_dial,
            price=price,
            may_charge=lambda: self._limits.charge(anyio.current_time()),
        )
        if not self._limits.begin(sources, anyio.current_time()):
            machine.reject()
            await stream.send(machine.data_to_send())
            return
        try:
            await self._serve(stream, machine)
        finally:
            self._limits.end(sources)

    async def _serve(self, stream: Stream, machine: RequestServer) -> None:
        wanted = None
        with anyio.fail_after(REQUEST_TIME):
            while wanted is None and not machine.is_done:
                wanted = machine.receive_data(await stream.receive())
                if answer := machine.data_to_send():
                    await stream.send(answer)
        if wanted is None:
            return
        if wanted.is_paid:
            await anyio.sleep(self._draw() * MAX_DELAY)
        self.dials += 1
        status = await self._dial_back(wanted)
        machine.dialled(status)
        await stream.send(machine.data_to_send())

    async def _dial_back(self, wanted: DialWanted) -> DialStatus:
        try:
            with anyio.fail_after(DIAL_TIME):
                connection = await self._dial(wanted.address)
        except (*_FAILURES, TimeoutError) as error:
            logger.debug("%s cannot be dialled: %r", wanted.address, error)
            return DialStatus.DIAL_ERROR
        try:
            with anyio.fail_after(DIAL_BACK_TIME):
                await _prove(connection, wanted.nonce)
        except (*_FAILURES, anyio.EndOfStream, TimeoutError) as error:
            logger.debug("%s took no proof: %r", wanted.address, error)
            return DialStatus.DIAL_BACK_ERROR
        finally:
            with anyio.CancelScope(shield=True):
                await connection.aclose()
        return DialStatus.OK


async def _prove(connection: Connection, nonce: int) -> None:
    """Deliver the nonce, and wait until the stream has ended: the connection is closed then.

    Whether it was taken the client knows itself, as go. rust resets the stream right behind its
    answer, which is lost where both arrive together.
    """
    async with await connection.open_stream() as stream:
        _, trailing = await negotiate_dialer(stream, (DIAL_BACK_PROTOCOL,))
        await stream.send(encode_dial_back(nonce))
        await stream.send_eof()
        reader = LengthPrefixReader(MAX_DIAL_BACK_BYTES)
        reader.feed(trailing)
        with suppress(StreamReset, anyio.EndOfStream):
            while reader.next_frame() is None:
                reader.feed(await stream.receive())
