"""One WebSocket connection, sans-IO: the rules of `websockets`, and ours above them.

Feed `receive_data` and take its payloads; after every call, and after an error, send what
`data_to_send` returns. Messages are carriers: where one ends means nothing, and so a fragment is
handed on as it comes. Frames: RFC 6455.
"""

from __future__ import annotations

import http
import logging
import re
from typing import TYPE_CHECKING

from websockets.client import ClientProtocol
from websockets.frames import CloseCode, Frame, Opcode
from websockets.http11 import Request
from websockets.protocol import State
from websockets.server import ServerProtocol
from websockets.uri import WebSocketURI

from ..core.errors import HandshakeError, LocalProtocolError, RemoteProtocolError

if TYPE_CHECKING:
    from typing import Any

    from .addresses import Endpoint
    from .config import WebSocketConfig
    from .tls import TlsMachine

END_OF_HEAD = b"\r\n\r\n"
STATUS = re.compile(rb"HTTP/1\.[01] ([1-5][0-9][0-9])[ \r]")
HTTP = b"HTTP/1."
SWITCHING = 101

MAX_REASON = 200
"""Characters of the library's reason that are told: peers can choose the rest of some."""

# The library would report every connection, which is ours to do.
_silent = logging.Logger(__name__, logging.CRITICAL)  # noqa: LOG001 - no handler may see it


class WebSocketMachine:
    """One end of a connection, on either side, with or without TLS below."""

    def __init__(
        self,
        protocol: ClientProtocol | ServerProtocol,
        tls: TlsMachine | None,
        *,
        max_head_size: int,
    ) -> None:
        self._protocol = protocol
        self._tls = tls
        self._max_head_size = max_head_size
        self._head = bytearray()
        self._is_past_head = False
        self._is_broken = False

    @classmethod
    def client(
        cls, endpoint: Endpoint, tls: TlsMachine | None, config: WebSocketConfig
    ) -> WebSocketMachine:
        """Make the dialer's end, which has a request to send.

        Raises HandshakeError for a host that no HTTP request can name.
        """
        try:
            host = endpoint.host.encode("idna" if not endpoint.host.isascii() else "ascii")
        except UnicodeError as error:
            raise HandshakeError(f"{endpoint.host!r} is no name for an HTTP request") from error
        port = endpoint.tcp.port or 0
        uri = WebSocketURI(endpoint.is_secure, host.decode(), port, endpoint.path, "")
        protocol = ClientProtocol(uri, max_size=config.max_message_size, logger=_silent)
        protocol.send_request(protocol.connect())
        return cls(protocol, tls, max_head_size=config.max_head_size)

    @classmethod
    def server(cls, tls: TlsMachine | None, config: WebSocketConfig) -> WebSocketMachine:
        """Make the listener's end, which waits for a request."""
        # None among the origins stands for a peer that names no page: no browser.
        origins: Any = None if config.origins is None else [None, *config.origins]
        protocol = ServerProtocol(origins=origins, max_size=config.max_message_size, logger=_silent)
        return cls(protocol, tls, max_head_size=config.max_head_size)

    @property
    def is_open(self) -> bool:
        """Whether data can be sent."""
        return self._protocol.state is State.OPEN and not self._is_broken

    @property
    def has_ended(self) -> bool:
        """Whether the peer sends nothing more."""
        has_closed = self._protocol.close_rcvd is not None
        return has_closed or (self._tls is not None and self._tls.has_ended)

    @property
    def is_last(self) -> bool:
        """Whether nothing is to be sent behind what `data_to_send` returns."""
        return self._protocol.eof_sent or self._is_broken

    def receive_data(self, data: bytes | memoryview) -> list[bytes]:
        """Take bytes of the peer and return the payloads in them.

        Raises HandshakeError if there is no WebSocket to be had, RemoteProtocolError for a breach
        afterwards; then the machine is dead.
        """
        if self._is_broken or self.has_ended:
            return []
        try:
            if self._tls is not None:
                data = self._tls.receive_data(data)
            if not self._is_past_head:
                data = self._take_head(data)
            return self._take_frames(data) if data else []
        except (HandshakeError, RemoteProtocolError):
            self._is_broken = True
            raise

    def send(self, data: bytes | memoryview) -> None:
        """Send bytes as one message; raises LocalProtocolError unless `is_open`."""
        if not self.is_open:
            raise LocalProtocolError("a WebSocket that is not open")
        self._protocol.send_binary(data)

    def close(self) -> None:
        """Begin to close, if there is anything to close."""
        if self.is_open:
            self._protocol.send_close(CloseCode.NORMAL_CLOSURE)

    def close_tls(self) -> None:
        """Say goodbye below the last frame."""
        if self._tls is not None:
            self._tls.close()

    def data_to_send(self) -> bytes:
        """Return what the peer is to be sent."""
        if self._tls is None:
            return b"".join(self._protocol.data_to_send())
        if self._tls.is_open:
            for part in self._protocol.data_to_send():
                if part:
                    self._tls.send(part)
        return self._tls.data_to_send()

    # The HTTP upgrade

    def _take_head(self, data: bytes | memoryview) -> bytes:
        """Take bytes of the request or answer; return what came behind it, if it is complete."""
        self._head += data
        end = self._head.find(END_OF_HEAD)
        if end < 0 and len(self._head) <= self._max_head_size:
            self._check_beginning()
            return b""
        if not 0 <= end <= self._max_head_size:
            if isinstance(self._protocol, ServerProtocol):
                status = http.HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
                self._protocol.send_response(self._protocol.reject(status, "too large\n"))
            raise HandshakeError(
                f"an HTTP head of more than {self._max_head_size} bytes"
                " (setting: websocket.max_head_size)"
            )
        end += len(END_OF_HEAD)
        head, rest = bytes(self._head[:end]), bytes(self._head[end:])
        self._head.clear()
        self._is_past_head = True
        if isinstance(self._protocol, ServerProtocol):
            self._take_request(self._protocol, head)
        else:
            self._take_answer(head)
        return rest

    def _check_beginning(self) -> None:
        """Refuse an answer that is no HTTP, whose end might never come."""
        size = min(len(HTTP), len(self._head))
        if isinstance(self._protocol, ClientProtocol) and self._head[:size] != HTTP[:size]:
            raise HandshakeError("the answer is no HTTP: no web server is there")

    def _take_answer(self, head: bytes) -> None:
        found = STATUS.match(head)
        if found is not None and (status := int(found[1])) != SWITCHING:
            # The body is of no use, and might never end.
            raise HandshakeError(_describe(status))
        self._protocol.receive_data(head)
        self._protocol.events_received()
        if self._protocol.handshake_exc is not None:
            raise HandshakeError(
                f"the answer is no WebSocket handshake: {_tell(self._protocol.handshake_exc)}"
            )

    def _take_request(self, protocol: ServerProtocol, head: bytes) -> None:
        protocol.receive_data(head)
        for event in protocol.events_received():
            assert isinstance(event, Request), "what a head is"
            protocol.send_response(protocol.accept(event))
        if protocol.handshake_exc is not None:
            if protocol.writes == [b""]:
                # The library only hangs up on what is no HTTP.
                answer = protocol.reject(http.HTTPStatus.BAD_REQUEST, "no HTTP/1.1 request\n")
                protocol.writes.insert(0, answer.serialize())
            raise HandshakeError(f"no WebSocket handshake: {_tell(protocol.handshake_exc)}")

    # Frames

    def _take_frames(self, data: bytes | memoryview) -> list[bytes]:
        protocol = self._protocol
        protocol.receive_data(data)  # type: ignore[arg-type]  # it adds them to a bytearray
        payloads: list[bytes] = []
        for event in protocol.events_received():
            assert isinstance(event, Frame), "what comes behind the head"
            if event.opcode is Opcode.TEXT:
                protocol.fail(CloseCode.UNSUPPORTED_DATA, "binary messages only")
                raise RemoteProtocolError("a text message", CloseCode.UNSUPPORTED_DATA)
            if event.opcode in (Opcode.BINARY, Opcode.CONT) and event.data:
                payloads.append(event.data)  # type: ignore[arg-type]  # a bytearray will do
        if protocol.parser_exc is not None:
            code = protocol.close_sent.code if protocol.close_sent else CloseCode.PROTOCOL_ERROR
            raise RemoteProtocolError(f"WebSocket: {_tell(protocol.parser_exc)}", code)
        return payloads


def _describe(status: int) -> str:
    try:
        phrase = f" {http.HTTPStatus(status).phrase}"
    except ValueError:
        phrase = ""
    also = "; redirects are not followed" if 300 <= status < 400 else ""
    return f"the server answered HTTP {status}{phrase} to the WebSocket handshake{also}"


def _tell(error: BaseException) -> str:
    """Return what the library says, and nothing of a peer's that steers a terminal."""
    texts = [str(error)]
    while (cause := error.__cause__) is not None:
        texts.append(str(cause))
        error = cause
    return ascii("; ".join(texts)[:MAX_REASON])[1:-1]
