"""One dial made to see what comes of it, address by address, whatever connections there are."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import anyio

from ..transports.core.errors import (
    ConnectionClosed,
    DialError,
    LimitExceeded,
    NoTransport,
    SelfDial,
)

if TYPE_CHECKING:
    from .dialing import Target
    from .dialreport import DialReport
    from .swarm import Swarm

PROOF_TIME = 10.0
"""Seconds for the first round trip on a new connection; who is slower is connected all the same."""

HINT_FULL = "it may be full (its setting limits.connections), or it does not want this peer"


async def examine(swarm: Swarm, target: Target, *, dial_timeout: float | None = None) -> DialReport:
    """Dial anew, and return the report; see `Node.examine`. Raises SelfDial."""
    stood = target.peer is not None and swarm.best(target.peer) is not None
    dial = swarm.dial(target, fresh=True)
    dial.timeout = dial_timeout
    try:
        connection = await dial.wait()
    except SelfDial:
        raise
    except (DialError, NoTransport, LimitExceeded):
        return dial.report(anyio.current_time())
    report = replace(dial.report(anyio.current_time()), peer=connection.remote_peer)
    try:
        # A peer that is full closes what it has just taken.
        with anyio.move_on_after(PROOF_TIME):
            await connection.probe()
    except ConnectionClosed as error:
        why = f"the peer ended the connection as soon as it stood: {error}"
        return replace(report, error=why, hint=HINT_FULL)
    if stood:
        # Peers take but few connections of one peer, and this one has shown what it was for.
        swarm.discard(connection)
        connection.drain()
    return report
