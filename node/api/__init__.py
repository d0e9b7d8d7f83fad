"""The control API of a running node: HTTP/1.1 with JSON, on a Unix socket of its user alone."""

from __future__ import annotations

SOCKET_FILE = "control.sock"
"""The name of the control socket in a data directory."""
