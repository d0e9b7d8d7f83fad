"""WebSocket: byte streams to /ws and /tls/ws addresses, over TCP."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING

import anyio
import anyio.to_thread

from ..core.errors import (
    AddressError,
    ConfigError,
    DialError,
    DialTimeout,
    HandshakeError,
    RemoteProtocolError,
)
from ..core.interfaces import RawListener, Side
from ..tcp import TcpTransport
from .addresses import PROTOCOLS, Endpoint
from .config import WebSocketConfig

if TYPE_CHECKING:
    import ssl
    from collections.abc import Awaitable, Callable, Sequence

    from anyio.abc import ByteStream

    from ..core.interfaces import Host
    from ..core.multiaddr import Multiaddr
    from .stream import WebSocketStream
    from .tls import Certificate

logger = logging.getLogger(__name__)

# What a peer can make of a handshake: a breach may come with the last bytes of it.
_REFUSALS = (HandshakeError, RemoteProtocolError)
_FAILURES = (*_REFUSALS, anyio.EndOfStream, anyio.BrokenResourceError)


class WebSocketTransport:
    """WebSocket as a raw transport; a node that uses no such address loads little of it."""

    protocols: Sequence[str] = PROTOCOLS

    def __init__(self, config: WebSocketConfig | None = None) -> None:
        self.config = config or WebSocketConfig()
        self._tcp = TcpTransport()
        self._context: ssl.SSLContext | None = None

    def attach(self, host: Host) -> None:
        """Learn the owner, whom TCP asks about each connection that comes in."""
        self._tcp.attach(host)

    def can_dial(self, addr: Multiaddr) -> bool:
        """Say whether this is a WebSocket address, with or without /p2p at its end."""
        return Endpoint.of(addr) is not None

    async def dial_raw(self, addr: Multiaddr) -> ByteStream:
        """Connect; raises DialError, also if TLS or HTTP refuse, ConfigError for `ca_file`."""
        endpoint = Endpoint.of(addr)
        if endpoint is None:
            raise DialError(f"{addr} is no WebSocket address")
        raw = await self._tcp.dial_raw(endpoint.tcp)
        limit = self.config.handshake_timeout
        try:
            with anyio.fail_after(limit):
                return await self._open(raw, endpoint)
        except TimeoutError:
            why = f"{addr} did not finish TLS and HTTP within {limit:g} s"
            why += " (setting: websocket.handshake_timeout)"
            raise DialTimeout(why, phase="websocket") from None
        except _REFUSALS as error:
            phase = "tls" if isinstance(error, HandshakeError) else "websocket"
            raise DialError(f"cannot connect to {addr}: {error}", phase=phase) from error
        except (anyio.EndOfStream, anyio.BrokenResourceError) as error:
            why = "the server hung up during the WebSocket handshake"
            raise DialError(f"cannot connect to {addr}: {why}", phase="websocket") from error

    async def listen_raw(self, addr: Multiaddr) -> WebSocketListener:
        """Bind an address; port 0 picks a free one.

        Raises AddressError if it is no WebSocket address with an IP, OSError if it cannot be
        bound, ConfigError if there is no certificate for /tls/ws, or none that can be used.
        """
        endpoint = Endpoint.of(addr)
        if endpoint is None or endpoint.tcp.ip is None:
            raise AddressError(f"{addr} is not an address to listen on by WebSocket")
        certificate = None
        if endpoint.is_secure:
            certificate = await anyio.to_thread.run_sync(self._certificate, addr)
        try:
            tcp = await self._tcp.listen_raw(endpoint.tcp)
        except OSError as error:
            why = os.strerror(error.errno or 0)
            raise OSError(error.errno, f"cannot listen on {addr}: {why}") from error
        return WebSocketListener(tcp, endpoint, certificate, self.config)

    async def _open(self, raw: ByteStream, endpoint: Endpoint) -> WebSocketStream:
        # Loaded here: the library and TLS are most of what this transport costs to import.
        from .machine import WebSocketMachine
        from .stream import WebSocketStream
        from .tls import TlsMachine

        try:
            tls = None
            if endpoint.is_secure:
                context = await self._client_context()
                name = endpoint.host.rstrip(".")
                tls = TlsMachine(context, side=Side.DIALER, server_name=name)
            stream = WebSocketStream(raw, WebSocketMachine.client(endpoint, tls, self.config))
            await stream.open()
        except BaseException:
            await anyio.aclose_forcefully(raw)
            raise
        return stream

    async def _client_context(self) -> ssl.SSLContext:
        if self._context is None:
            from .tls import client_context

            # In a thread: it reads the system's authorities, some hundred of them.
            self._context = await anyio.to_thread.run_sync(client_context, self.config)
        return self._context

    def _certificate(self, addr: Multiaddr) -> Certificate:
        from .tls import Certificate

        config = self.config
        if config.cert_file is None or config.key_file is None:
            raise ConfigError(
                f"cannot listen on {addr} without a certificate: name its files in the settings"
                " websocket.cert_file and websocket.key_file (isthmus run: --tls-cert, --tls-key)"
            )
        return Certificate(config.cert_file, config.key_file)


class WebSocketListener(RawListener):
    """A listening socket whose connections are WebSockets; `failed` counts those that were not."""

    def __init__(
        self,
        tcp: RawListener,
        endpoint: Endpoint,
        certificate: Certificate | None,
        config: WebSocketConfig,
    ) -> None:
        self._tcp = tcp
        self._endpoint = endpoint
        self._certificate = certificate
        self._config = config
        self.pending = 0
        self.refused = 0
        self.failed = 0

    @property
    def addresses(self) -> tuple[Multiaddr, ...]:
        """The address bound, its port filled in; /wss is told as /tls/ws."""
        return tuple(self._endpoint.above(each) for each in self._tcp.addresses)

    async def serve(self, handler: Callable[[ByteStream, Multiaddr], Awaitable[None]]) -> None:
        """Run `handler` in a task for every WebSocket that comes in, until closed."""

        async def accept(raw: ByteStream, remote: Multiaddr) -> None:
            stream = await self._open(raw, remote)
            if stream is not None:
                await handler(stream, self._endpoint.of_peer(remote))

        await self._tcp.serve(accept)

    async def aclose(self) -> None:
        """Stop listening; connections that came in stay."""
        await self._tcp.aclose()

    async def _open(self, raw: ByteStream, remote: Multiaddr) -> ByteStream | None:
        """Run TLS and the HTTP upgrade, in bounded time and number; None if they fail."""
        if self.pending >= self._config.max_pending_handshakes:
            self.refused += 1
            await anyio.aclose_forcefully(raw)
            return None
        self.pending += 1
        try:
            return await self._shake(raw, remote)
        finally:
            self.pending -= 1

    async def _shake(self, raw: ByteStream, remote: Multiaddr) -> ByteStream | None:
        from .machine import WebSocketMachine
        from .stream import WebSocketStream
        from .tls import TlsMachine

        tls = None
        if self._certificate is not None:
            tls = TlsMachine(self._certificate.context(), side=Side.LISTENER)
        stream = WebSocketStream(raw, WebSocketMachine.server(tls, self._config))
        try:
            with anyio.fail_after(self._config.handshake_timeout):
                await stream.open()
        except (*_FAILURES, TimeoutError) as error:
            self.failed += 1
            logger.debug("WebSocket handshake of %s failed: %r", remote, error)
            # It waits a moment for the peer, which may still read why it is refused.
            await stream.aclose()
            return None
        except BaseException:
            await anyio.aclose_forcefully(stream)
            raise
        return stream
