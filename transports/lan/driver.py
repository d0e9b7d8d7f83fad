"""mDNS for one node: moves what is said and heard between the machine and the responder."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

import anyio

from ..portal import open_portal
from .interfaces import lan_interfaces
from .machine import LanMachine, PeerHeard

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from ..core.multiaddr import Multiaddr
    from ..core.peer_id import PeerId
    from ..portal import Inbox, Portal
    from .config import LanConfig
    from .interfaces import Interface
    from .responder import Responder

logger = logging.getLogger(__name__)

POLL_INTERVAL = 2.0
"""Seconds between two looks at the interfaces, each of which takes some 0.1 ms."""

ECHO_TIMEOUT = 3.0
"""Seconds after which this node should have heard its own announcement, sent three times."""

FIND_TIMEOUT = 4.0
"""Seconds for a peer that is asked for: four questions fit, and answers take up to 0.12 s."""

CLOSE_TIMEOUT = 0.7
"""Seconds for the goodbyes: three packets in 0.25 s."""

HEARD_LIMIT = 256
"""Records that wait to be looked at; more have to be a flood."""


@dataclass(frozen=True, slots=True)
class MulticastMissing:
    """On these interfaces nobody can be found: multicast is off, or what was sent does not come."""

    interfaces: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class LanState:
    """What is used to find peers, where that does not work, and how many there are.

    `is_proving`: it waits to hear its own announcement, which shows that multicast works.
    """

    interfaces: tuple[Interface, ...]
    missing: tuple[str, ...]
    peers: int
    is_proving: bool


class LanDiscovery:
    """Finds peers and lets itself be found; `tell` is called with every event.

    `addresses` returns where the node can be dialled, now, and `interfaces` what there is to find
    peers on; `run` is to run as long as the node.
    """

    def __init__(
        self,
        own: PeerId,
        config: LanConfig,
        *,
        addresses: Callable[[], Iterable[Multiaddr]],
        tell: Callable[[PeerHeard | MulticastMissing], object],
        interfaces: Callable[[], Iterable[Interface]] = lan_interfaces,
    ) -> None:
        self._machine = LanMachine(own, config)
        self._addresses = addresses
        self._tell = tell
        self._interfaces = interfaces
        self._poke = anyio.Event()
        self._heard = anyio.Event()
        self._missing: tuple[str, ...] = ()
        self._echo_deadline: float | None = None

    async def run(self) -> None:
        """Speak and listen until cancelled; then say goodbye."""
        # Loaded only here, where it is used.
        from .responder import Responder

        async with open_portal() as portal:
            inbox: Inbox[tuple[bytes, float]] = portal.inbox(limit=HEARD_LIMIT)
            responder = Responder(portal.guard(lambda data, ttl: inbox.put((data, ttl))))
            try:
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(self._hear, inbox)
                    await self._tend(portal, responder)
            finally:
                with anyio.move_on_after(CLOSE_TIMEOUT, shield=True):
                    await portal.run(responder.close)

    def is_known(self, peer: PeerId) -> bool:
        """Say whether a peer has been heard to be here, and not forgotten since."""
        return bool(self._machine.addresses(peer))

    def state(self) -> LanState:
        """Return how it stands now."""
        is_proving = self._echo_deadline is not None
        return LanState(self._machine.interfaces, self._missing, len(self._machine), is_proving)

    async def find(self, peer: PeerId) -> tuple[Multiaddr, ...]:
        """Return where a peer is, asking the LAN if it has not been heard of; empty: not here."""
        found = self._machine.addresses(peer)
        if found:
            return found
        self._machine.expect(peer, anyio.current_time())
        self._poke.set()
        try:
            with anyio.move_on_after(FIND_TIMEOUT):
                while not (found := self._machine.addresses(peer)):
                    await self._heard.wait()
        finally:
            self._machine.expect_no_more(peer)
        return found

    async def _tend(self, portal: Portal, responder: Responder) -> None:
        machine = self._machine
        while True:
            self._poke = anyio.Event()
            now = anyio.current_time()
            if machine.set_network(self._interfaces(), self._addresses(), now):
                await self._apply(portal, responder)
            if machine.handle_timeout(now):
                await portal.run(responder.ask)
            self._check_echo(now)
            deadline = min(machine.next_timeout(), now + POLL_INTERVAL)
            with anyio.CancelScope(deadline=deadline):
                await self._poke.wait()

    async def _apply(self, portal: Portal, responder: Responder) -> None:
        places: dict[str, str] = {}
        missing = []
        for interface in self._machine.interfaces:
            ips = [str(each.ip) for each in interface.addresses if each.version == 4]
            if ips and interface.has_multicast:
                places[ips[0]] = interface.name
            else:
                missing.append(interface.name)
        failed = await portal.run(responder.use, tuple(places))
        await portal.run(responder.announce, self._machine.announcement)
        self._report([*missing, *(places[ip] for ip in failed)])
        expects_echo = self._machine.announcement is not None and len(failed) < len(places)
        self._echo_deadline = anyio.current_time() + ECHO_TIMEOUT if expects_echo else None

    def _check_echo(self, now: float) -> None:
        if self._echo_deadline is not None and now >= self._echo_deadline:
            self._echo_deadline = None
            self._report([each.name for each in self._machine.interfaces])

    def _report(self, missing: list[str]) -> None:
        names = tuple(dict.fromkeys(missing))
        if names and names != self._missing:
            self._tell(MulticastMissing(names))
        self._missing = names

    async def _hear(self, inbox: Inbox[tuple[bytes, float]]) -> None:
        async for data, ttl in inbox:
            own = self._machine.announcement
            if own is not None and data == own.text:
                self._echo_deadline = None
                continue
            for event in self._machine.receive_text(data, ttl, anyio.current_time()):
                self._tell(event)
                self._heard.set()
                self._heard = anyio.Event()
