"""The bounds of the control API."""

from __future__ import annotations

from dataclasses import dataclass, fields

from ...transports.core.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlConfig:
    """How much of the node's time and memory its control socket may take; times in seconds."""

    max_connections: int = 16
    """Connections at a time: some readers of events, and the commands that a person types."""

    max_head: int = 16 * 1024
    """Bytes of a request's line and headers; those of curl and of our client take 100."""

    max_body: int = 64 * 1024
    """Bytes of a request's body; sixteen addresses, the longest there is, take 16 KiB."""

    request_time: float = 5.0
    """For a request to arrive whole, from the connection on: it comes from the same machine."""

    answer_time: float = 5.0
    """For a client to take an answer, other than a stream of events, which may stand still."""

    drain_time: float = 0.2
    """For clients to take what is left when the node has stopped: the last events."""

    def __post_init__(self) -> None:
        for item in fields(self):
            if not getattr(self, item.name) > 0:
                raise ConfigError(f"{item.name} must be above 0")
