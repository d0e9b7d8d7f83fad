"""The links of a node: told what happens to connections and dials, they have lost peers dialled."""

from __future__ import annotations

import logging
import random
import time
from collections import OrderedDict
from contextlib import suppress
from math import inf
from typing import TYPE_CHECKING

import anyio

from ..transports.core.errors import P2PError
from .events import LinkChanged, PeerOffline, PeerOnline
from .link import Link, LinkChange, LinkState

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from ..transports.core.peer_id import PeerId
    from .events import NodeEvent
    from .reconnect import ReconnectPolicy
    from .store.links import LinkHistories

logger = logging.getLogger(__name__)

MAX_LINKS = 4096
"""Links remembered; beyond it the one that changed longest ago goes, of those that rest."""

DIALS_AT_ONCE = 32
"""Dials that links have under way: a network that comes back must not be met by a burst."""

DIALS_PER_SECOND = 64
"""The same, begun in a second: a relay's worth of kept peers is back within some seconds."""

_AT_REST = (LinkState.DISCONNECTED, LinkState.FAILED)


class Links:
    """One link for each peer that this node has to do with; iterating yields them.

    `connect` dials a peer; its failure is told through `dial_failed`, by whoever dials.
    """

    def __init__(
        self,
        *,
        policy: ReconnectPolicy,
        publish: Callable[[NodeEvent], None],
        connect: Callable[[PeerId], Awaitable[object]],
        histories: LinkHistories | None = None,
        draw: Callable[[], float] = random.random,
        max_links: int = MAX_LINKS,
    ) -> None:
        self._policy = policy
        self._publish = publish
        self._connect = connect
        self._histories = histories
        self._draw = draw
        self._max_links = max_links
        self._links: OrderedDict[PeerId, Link] = OrderedDict()
        self._online: set[PeerId] = set()
        self._poke = anyio.Event()

    def __iter__(self) -> Iterator[Link]:
        return iter(tuple(self._links.values()))

    def __len__(self) -> int:
        return len(self._links)

    def get(self, peer: PeerId) -> Link | None:
        """Return the link to a peer, if this node has anything to do with it."""
        return self._links.get(peer)

    def keep(self, peer: PeerId) -> Link:
        """Have a peer connected at all times, as far as that is up to this node."""
        link = self._link(peer)
        link.keep(_now())
        self._tell_presence(link)
        self._poke.set()
        return link

    def forget(self, peer: PeerId) -> None:
        """Keep a peer no more, and close its link; harmless if there is none."""
        if (link := self._links.pop(peer, None)) is not None:
            link.close()

    def news(self, peer: PeerId | None = None) -> None:
        """Try at once what waits: there was a sign of a peer, or, without one, of the network."""
        now = _now()
        for link in self._links.values() if peer is None else (self._links.get(peer),):
            if link is not None:
                link.news(now)
        self._poke.set()

    # What the table of connections says

    def dialling(self, peer: PeerId) -> None:
        """Note that a dial has begun."""
        self._link(peer).dialling(anyio.current_time())

    def connected(self, peer: PeerId, where: str) -> None:
        """Note that a connection stands."""
        self._link(peer).connected(anyio.current_time(), where)

    def dial_failed(self, peer: PeerId, error: Exception) -> None:
        """Note that a dial has failed."""
        if link := self._links.get(peer):
            link.dial_failed(anyio.current_time(), self._draw(), str(error))
            self._look_at(link)

    def ended(self, peer: PeerId, reason: str, *, broke: bool, was_dialled: bool) -> None:
        """Note that the last connection to a peer has ended.

        One that broke is made again, if it was this side that had dialled or if the peer is kept;
        one that either side ended in order is not, but for a kept peer, after a while.
        """
        if (link := self._links.get(peer)) is None:
            return
        now = anyio.current_time()
        if broke and (was_dialled or link.is_kept):
            link.lost(now, self._draw(), reason)
        else:
            link.left(now, reason)
        self._look_at(link)

    # Dialling

    async def run(self) -> None:
        """Dial what is due until cancelled."""
        limiter = anyio.CapacityLimiter(DIALS_AT_ONCE)
        async with anyio.create_task_group() as tasks:
            while True:
                self._poke = anyio.Event()
                now = anyio.current_time()
                due = [link for link in self._links.values() if link.handle_timeout(now)]
                for link in due:
                    link.dialling(now)
                    await limiter.acquire_on_behalf_of(link)
                    tasks.start_soon(self._dial, link, limiter)
                    await anyio.sleep(1 / DIALS_PER_SECOND)
                if due:
                    continue
                times = (link.next_timeout() for link in self._links.values())
                with anyio.CancelScope(deadline=min(times, default=inf)):
                    await self._poke.wait()

    async def _dial(self, link: Link, limiter: anyio.CapacityLimiter) -> None:
        try:
            await self._connect(link.peer)
        except P2PError as error:
            # Told already, unless it was refused before it began.
            link.dial_failed(anyio.current_time(), self._draw(), str(error))
            logger.debug("%r: %s", link, error)
        else:
            if link.state is LinkState.CONNECTING:
                link.connected(anyio.current_time())
        finally:
            limiter.release_on_behalf_of(link)
            self._poke.set()

    # Helpers

    def _look_at(self, link: Link) -> None:
        """Have a dial that became due noticed; most links have none."""
        if link.next_timeout() < inf:
            self._poke.set()

    def _link(self, peer: PeerId) -> Link:
        link = self._links.get(peer)
        if link is None:
            self._make_room()
            link = self._links[peer] = Link(
                peer, policy=self._policy, clock=time.time, known=self._known(peer)
            )
            link.on_state(self._changed)
        self._links.move_to_end(peer)
        return link

    def _known(self, peer: PeerId) -> Iterator[LinkChange]:
        """Yield what became of the link to a peer in earlier runs."""
        if self._histories is not None:
            for change in self._histories.history(peer):
                # Another version may have had other states.
                with suppress(ValueError):
                    yield LinkChange(LinkState(change.state), change.time, change.reason)

    def _make_room(self) -> None:
        if len(self._links) >= self._max_links:
            for peer, link in self._links.items():
                if link.state in _AT_REST and not link.is_kept:
                    del self._links[peer]
                    return

    def _changed(self, link: Link, change: LinkChange) -> None:
        self._publish(LinkChanged(link.peer, change.state, change.reason))
        if self._histories is not None:
            state = change.state.value
            self._histories.add(link.peer, state, now=change.time, reason=change.reason)
        if link.is_kept or link.peer in self._online:
            self._tell_presence(link)

    def _tell_presence(self, link: Link) -> None:
        is_online = link.state is LinkState.CONNECTED
        if is_online and link.peer not in self._online:
            self._online.add(link.peer)
            self._publish(PeerOnline(link.peer))
        elif not is_online and link.peer in self._online:
            self._online.discard(link.peer)
            self._publish(PeerOffline(link.peer, link.reason))


def _now() -> float:
    """Return the loop's time, or, before there is a loop, one before all others."""
    try:
        return anyio.current_time()
    except RuntimeError:
        return -inf
