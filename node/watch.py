"""Notices that this machine's networks have changed: an address, a link, a route came or went."""

from __future__ import annotations

import logging
import socket
import sys
from contextlib import closing
from typing import TYPE_CHECKING

import anyio

from ..transports.readiness import wait_readable
from .interfaces import interface_addresses

if TYPE_CHECKING:
    from collections.abc import Callable

logger = logging.getLogger(__name__)

SETTLE_TIME = 0.1
"""Seconds for which changes are gathered: one cable is a dozen messages."""

POLL_INTERVAL = 2.0
"""Seconds between looks at the addresses where the kernel does not tell."""

# linux/rtnetlink.h: RTMGRP_LINK, _IPV4_IFADDR, _IPV4_ROUTE, _IPV6_IFADDR, _IPV6_ROUTE.
_GROUPS = 0x1 | 0x10 | 0x40 | 0x100 | 0x400
_DRAIN_SIZE = 65_536


async def watch_networks(on_change: Callable[[], object]) -> None:
    """Call `on_change()` after every change, some tenths of a second late, until cancelled.

    On Linux the kernel tells (rtnetlink(7)); elsewhere the addresses are looked at every 2 seconds.
    """
    sock = _netlink()
    if sock is None:
        await poll_networks(on_change)
        return
    with closing(sock):
        while True:
            await wait_readable(sock)
            await anyio.sleep(SETTLE_TIME)
            _drain(sock)
            on_change()


def _netlink() -> socket.socket | None:
    if sys.platform != "linux":
        return None
    sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
    try:
        sock.settimeout(0)
        sock.bind((0, _GROUPS))
    except OSError as error:
        # As in a sandbox that filters it.
        logger.debug("the kernel does not tell of networks: %s", error)
        sock.close()
        return None
    return sock


def _drain(sock: socket.socket) -> None:
    """Read what waits; that something came says it all, also where the buffer has overflown."""
    while True:
        try:
            sock.recv(_DRAIN_SIZE)
        except BlockingIOError:
            return
        except OSError as error:
            logger.debug("messages of the kernel were lost: %s", error)


async def poll_networks(
    on_change: Callable[[], object], look: Callable[[], object] | None = None
) -> None:
    """Do the same by looking at the addresses every 2 seconds."""
    look = look or _addresses
    known = look()
    while True:
        await anyio.sleep(POLL_INTERVAL)
        if (found := look()) != known:
            known = found
            on_change()


def _addresses() -> tuple[tuple[str, ...], ...]:
    return interface_addresses(4), interface_addresses(6)
