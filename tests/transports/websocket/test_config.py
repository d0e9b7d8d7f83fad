"""Settings that cannot be."""

from __future__ import annotations

import pytest
from isthmus.transports.core.errors import ConfigError
from isthmus.transports.websocket.config import WebSocketConfig


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"cert_file": "a"}, "key_file"),
        ({"key_file": "a"}, "cert_file"),
        ({"handshake_timeout": 0}, "handshake_timeout"),
        ({"handshake_timeout": float("nan")}, "handshake_timeout"),
        ({"max_pending_handshakes": 0}, "max_pending_handshakes"),
        ({"max_message_size": 65_536}, "max_message_size"),
        ({"max_head_size": 1023}, "max_head_size"),
    ],
)
def test_refused(settings, named):
    with pytest.raises(ConfigError, match=f"websocket.*{named}"):
        WebSocketConfig(**settings)


def test_defaults_and_pairs_are_good():
    assert WebSocketConfig().cert_file is None
    assert WebSocketConfig(cert_file="a", key_file="b").key_file == "b"
