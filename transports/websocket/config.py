"""The settings of the WebSocket transport."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..core.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

SMALLEST_MESSAGE = 65_537
"""Bytes of the largest Noise message behind its length: peers send each as one message."""

SMALLEST_HEAD = 1024
"""Bytes; a browser's request has some 500."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WebSocketConfig:
    """Certificates, policy and bounds of the WebSocket transport; times are in seconds."""

    cert_file: Path | str | None = None
    """PEM file of the certificate, and of those between it and its authority, for /tls/ws.

    Read again when it or `key_file` has changed on disk, so that a renewed one needs no restart.
    """

    key_file: Path | str | None = None
    """PEM file of the certificate's key, which no password may protect."""

    ca_file: Path | str | None = None
    """PEM file of authorities to trust besides the system's, when dialling /tls/ws."""

    insecure: bool = False
    """Dial /tls/ws whatever the certificate: Noise still proves the peer, but to whoever listens
    in between the HTTP request is open, and an address alone, without a peer id, proves nothing."""

    origins: tuple[str, ...] | None = None
    """Pages that may connect, such as "https://example.com"; None stands for any.

    A browser names its page; other peers name none and are not concerned. Any is what libp2p
    does: a connection brings no right with it, since Noise proves the peer.
    """

    handshake_timeout: float = 10.0
    """For TLS and the HTTP upgrade together, either way (slow loris)."""

    max_pending_handshakes: int = 64
    """Connections a listener has between TCP and WebSocket; more are closed unanswered."""

    max_message_size: int = 2**20
    """Bytes of one message that comes in, its fragments together; peers send one Noise message
    or a few in each."""

    max_head_size: int = 16_384
    """Bytes of an HTTP request or answer; what web servers usually allow, cookies included."""

    def __post_init__(self) -> None:
        if (self.cert_file is None) != (self.key_file is None):
            raise ConfigError("websocket.cert_file and websocket.key_file go together: name both")
        if not self.handshake_timeout > 0:
            raise ConfigError("websocket.handshake_timeout must be above 0 seconds")
        if self.max_pending_handshakes < 1:
            raise ConfigError("websocket.max_pending_handshakes must be at least 1")
        if self.max_message_size < SMALLEST_MESSAGE:
            raise ConfigError(f"websocket.max_message_size must be at least {SMALLEST_MESSAGE}")
        if self.max_head_size < SMALLEST_HEAD:
            raise ConfigError(f"websocket.max_head_size must be at least {SMALLEST_HEAD}")
