"""TLS for WebSocket: contexts, a certificate that may be renewed on disk, and TLS without sockets.

libp2p's own proof of identity is Noise, above this; TLS is what browsers and proxies insist on.
"""

from __future__ import annotations

import logging
import os
import ssl
from contextlib import suppress
from typing import TYPE_CHECKING

from ..core.errors import ConfigError, HandshakeError
from ..core.interfaces import Side

if TYPE_CHECKING:
    from pathlib import Path

    from .config import WebSocketConfig

logger = logging.getLogger(__name__)

RECORD = 16_384
"""Bytes of the largest TLS record's plaintext."""

ALPN = ["http/1.1"]
"""What browsers offer for WebSocket."""

# OpenSSL's X509_V_ERR_*: what a certificate lacks, and what to do about it.
_WRONG_NAME = {62, 64}
_UNKNOWN_ISSUER = {2, 18, 19, 20, 21}
_NAME_HINT = "dial a name that it holds, as in /tls/sni/NAME/ws"
_ISSUER_HINT = "if you trust its issuer, give the issuer's certificate to the setting ca_file"
_OTHER_HINT = "it has to be replaced where it is served"


def client_context(config: WebSocketConfig) -> ssl.SSLContext:
    """Make the context for dialling, which reads files; raises ConfigError for `ca_file`."""
    context = ssl.create_default_context(ssl.Purpose.SERVER_AUTH)
    context.set_alpn_protocols(ALPN)
    if config.ca_file is not None:
        try:
            context.load_verify_locations(config.ca_file)
        except OSError as error:
            raise ConfigError(
                f"websocket.ca_file: {config.ca_file} cannot be used: {_why(error)}"
            ) from error
    if config.insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


class Certificate:
    """The certificate that a listener shows, read again when its files have changed."""

    def __init__(self, cert_file: Path | str, key_file: Path | str) -> None:
        self._cert_file = cert_file
        self._key_file = key_file
        self._seen = self._look()
        self._context = self._load()

    def context(self) -> ssl.SSLContext:
        """Return the context for accepting, with what the files hold now.

        The old one stays in use while the files cannot be used, such as halfway through a renewal.
        """
        now = self._look()
        if now != self._seen:
            self._seen = now
            try:
                self._context = self._load()
            except ConfigError as error:
                logger.warning("the certificate in use stays: %s", error)
        return self._context

    def _look(self) -> tuple[object, ...]:
        found: list[object] = []
        for path in (self._cert_file, self._key_file):
            try:
                status = os.stat(path)
            except OSError as error:
                found.append(error.errno)
            else:
                found.append((status.st_mtime_ns, status.st_size, status.st_ino))
        return tuple(found)

    def _load(self) -> ssl.SSLContext:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.set_alpn_protocols(ALPN)
        try:
            context.load_cert_chain(self._cert_file, self._key_file, password=_no_password)
        except OSError as error:
            raise ConfigError(
                f"websocket.cert_file {self._cert_file} and websocket.key_file {self._key_file}"
                f" cannot be used together: {_why(error)}"
            ) from error
        return context


class TlsMachine:
    """One TLS connection, sans-IO: ciphertext and plaintext in, plaintext and ciphertext out.

    Feed `receive_data`; send what `data_to_send` returns, also after an error, which leaves an
    alert there. Raises HandshakeError for whatever TLS refuses, with the library's error as cause.
    """

    def __init__(
        self, context: ssl.SSLContext, *, side: Side, server_name: str | None = None
    ) -> None:
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        try:
            self._tls = context.wrap_bio(
                self._incoming,
                self._outgoing,
                server_side=side is Side.LISTENER,
                server_hostname=server_name,
            )
        except ValueError as error:
            # UnicodeError is one, too: what IDNA cannot encode.
            raise HandshakeError(f"{server_name!r} is no name for a certificate") from error
        self.is_open = False
        """Whether the handshake is over, and nothing has failed or been closed since."""
        self.has_ended = False
        """Whether the peer has said that it sends nothing more."""
        self._shake()

    def receive_data(self, data: bytes | memoryview) -> bytes:
        """Take bytes of the peer and return the plaintext in them."""
        self._incoming.write(data)
        if not self.is_open:
            self._shake()
        return self._read() if self.is_open else b""

    def send(self, data: bytes) -> None:
        """Encrypt bytes; only once `is_open`."""
        self._tls.write(data)

    def close(self) -> None:
        """Say that nothing more comes (close_notify); the peer's answer is not waited for."""
        if self.is_open:
            self.is_open = False
            # It raises for want of the answer, or since the peer broke TLS and it is over.
            with suppress(ssl.SSLError):
                self._tls.unwrap()

    def data_to_send(self) -> bytes:
        """Return what the peer is to be sent."""
        return self._outgoing.read()

    def _shake(self) -> None:
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            return
        except ssl.SSLError as error:
            raise HandshakeError(_explain(error)) from error
        self.is_open = True

    def _read(self) -> bytes:
        parts: list[bytes] = []
        while not self.has_ended:
            try:
                part = self._tls.read(RECORD)
            except ssl.SSLWantReadError:
                break
            except ssl.SSLError as error:
                self.is_open = False
                raise HandshakeError(_explain(error)) from error
            self.has_ended = not part
            parts.append(part)
        return b"".join(parts)


def _explain(error: ssl.SSLError) -> str:
    if not isinstance(error, ssl.SSLCertVerificationError):
        return f"TLS failed: {_why(error)}"
    hint = _OTHER_HINT
    if error.verify_code in _WRONG_NAME:
        hint = _NAME_HINT
    elif error.verify_code in _UNKNOWN_ISSUER:
        hint = _ISSUER_HINT
    what = error.verify_message.rstrip(".")
    return f"the certificate is refused: {what}; {hint} (the setting insecure takes any)"


def _why(error: OSError) -> str:
    if isinstance(error, ssl.SSLError):
        return (error.reason or "it is no PEM file").lower().replace("_", " ")
    return error.strerror or str(error)


def _no_password() -> str:
    """Stand in for the question that the library would put to the terminal."""
    raise ConfigError("websocket.key_file is protected by a password; write it without one")
