"""The connections as paths: picks one for each peer, sees whether it answers, finds better ones.

What is decided is in `selection`, `liveness` and `upgrades`; this drives them.
"""

from __future__ import annotations

import logging
from contextlib import contextmanager
from math import inf
from typing import TYPE_CHECKING

import anyio

from ..transports.core.errors import P2PError
from ..transports.core.interfaces import Side
from .events import PathChanged
from .liveness import SILENCE, Beat, Pulse
from .path import Rank
from .selection import Selection
from .upgrades import Upgrades

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Hashable, Iterator

    from anyio.abc import TaskGroup

    from ..transports.core.multiaddr import Multiaddr
    from ..transports.core.peer_id import PeerId
    from .entries import Entry
    from .events import NodeEvent
    from .peerstore import PeerStore

LAN_LOOK_TIME = 1.0
"""Seconds that one look for a better path on the LAN takes at most: who is there answers at once,
and what was lost on the way is asked again sooner than the kernel would."""

LOOK_TIME = 3.0
"""The same for other paths: an answer may be lost, and the handshakes take round trips."""

DRAIN_TIME = 30.0
"""Seconds for what is needless to end by itself: rust keeps a stream for its pings as long as there
is a connection."""

_FAILURES = (P2PError, OSError, anyio.BrokenResourceError, anyio.ClosedResourceError)

logger = logging.getLogger(__name__)


class Paths:
    """The paths to every connected peer.

    `dial` connects to a peer at some addresses and raises P2PError; `can_dial` says whether a
    transport claims one; `is_wanted` names the peers for which this node does more than it is
    asked to; `close` ends a connection that is silent, with the reason.
    """

    def __init__(  # noqa: PLR0913
        self,
        own: PeerId,
        *,
        rank_of: Callable[[Multiaddr], Rank],
        can_dial: Callable[[Multiaddr], bool],
        peers: PeerStore,
        publish: Callable[[NodeEvent], None],
        dial: Callable[[PeerId, tuple[Multiaddr, ...]], Awaitable[object]],
        close: Callable[[Entry, str], None],
        is_held: Callable[[Entry], bool],
        is_wanted: Callable[[PeerId], bool],
    ) -> None:
        self._own = own
        self._rank_of = rank_of
        self._can_dial = can_dial
        self._peers = peers
        self._publish = publish
        self._dial = dial
        self._close = close
        self._is_held = is_held
        self._is_wanted = is_wanted
        self._selections: dict[PeerId, Selection[Entry]] = {}
        self._several: dict[PeerId, Selection[Entry]] = {}
        self._beating: dict[Entry, Pulse] = {}
        self._draining: dict[Entry, float] = {}
        self._upgrades: Upgrades[PeerId] = Upgrades()
        self._poke = anyio.Event()
        self._sleeps_until = -inf

    def __contains__(self, peer: PeerId) -> bool:
        return peer in self._selections

    def __len__(self) -> int:
        return len(self._selections)

    def best(self, peer: PeerId, *, allow_limited: bool = True) -> Entry | None:
        """Return the connection for what this side opens, if there is one."""
        selection = self._selections.get(peer)
        return None if selection is None else selection.best(allow_limited=allow_limited)

    def is_suspect(self, entry: Entry | None) -> bool:
        """Say whether a connection does not answer at present."""
        return entry is not None and entry.pulse is not None and entry.pulse.is_suspect

    def add(self, entry: Entry, now: float) -> None:
        """Take a connection that stands from now on."""
        connection = entry.connection
        peer, address = connection.remote_peer, connection.remote_addr
        selection = self._selections.get(peer)
        if selection is None:
            selection = Selection(is_local_lower=self._own < peer)
            self._selections[peer] = selection
        rank = self._rank_of(address)
        selection.add(
            entry,
            rank,
            dialled=connection.side is Side.DIALER,
            limited=connection.limit is not None,
            now=now,
            place=(rank, address.host),
        )
        self._look_at(peer, selection, now)

    def remove(self, entry: Entry, now: float) -> bool:
        """Take a connection out; say whether it was the last one to its peer."""
        peer = entry.connection.remote_peer
        self._beating.pop(entry, None)
        self._draining.pop(entry, None)
        selection = self._selections[peer]
        selection.remove(entry, now)
        entry.pulse = None
        if is_last := selection.is_empty:
            del self._selections[peer]
            self._upgrades.forget(peer)
        self._look_at(peer, selection, now)
        return is_last

    @contextmanager
    def attend(self, entry: Entry) -> Iterator[None]:
        """Have it noticed at once if a connection does not answer, as long as the context lasts."""
        pulse = self._begin(entry, anyio.current_time())
        try:
            yield
        finally:
            pulse.release(anyio.current_time())
            if pulse.is_needless:
                self._beating.pop(entry, None)

    @contextmanager
    def attend_until_suspect(self, entry: Entry) -> Iterator[None]:
        """As `attend`; what runs in the context is cancelled if the connection does not answer."""
        with anyio.CancelScope() as scope, self.attend(entry):
            entry.until_suspect.add(scope)
            if self.is_suspect(entry):
                scope.cancel()
            try:
                yield
            finally:
                entry.until_suspect.discard(scope)

    def learnt(self, peer: PeerId) -> None:
        """Note that there is news of where a peer is: there may be a better path to it."""
        selection = self._selections.get(peer)
        if selection is not None and self._cares(peer, selection):
            now = anyio.current_time()
            if self._better(peer, selection, now):
                self._upgrades.learnt(peer, now)
                self._keep(self._upgrades.next_timeout())

    def news(self) -> None:
        """Note that this machine's networks have changed."""
        self._upgrades.news(anyio.current_time())
        for peer in tuple(self._selections):
            self.learnt(peer)

    async def run(self) -> None:
        """Probe, close and look for better paths, until cancelled."""
        async with anyio.create_task_group() as tasks:
            while True:
                self._poke = anyio.Event()
                self._sleeps_until = self._next_timeout()
                with anyio.CancelScope(deadline=self._sleeps_until):
                    await self._poke.wait()
                self._turn(anyio.current_time(), tasks)

    def _turn(self, now: float, tasks: TaskGroup) -> None:
        # Not in the loop above: its variables would hold the last connection, long closed, for
        # as long as it then waits.
        for entry, pulse in tuple(self._beating.items()):
            self._handle_beat(entry, pulse, now, tasks)
        for peer, selection in tuple(self._several.items()):
            self._close_needless(peer, selection, now)
        self._end_drained(now)
        for peer in self._upgrades.take(now):
            tasks.start_soon(self._look_for_better, peer)

    # Liveness

    def _begin(self, entry: Entry, now: float) -> Pulse:
        pulse = self._pulse(entry)
        pulse.attend(now)
        self._watch(entry, pulse)
        return pulse

    def _pulse(self, entry: Entry) -> Pulse:
        pulse = entry.pulse
        if pulse is None:
            pulse = entry.pulse = Pulse()
        return pulse

    def _watch(self, entry: Entry, pulse: Pulse) -> None:
        if pulse.is_needless or entry.is_ended:
            self._beating.pop(entry, None)
        else:
            self._beating[entry] = pulse
            self._keep(pulse.next_timeout())

    def _handle_beat(self, entry: Entry, pulse: Pulse, now: float, tasks: TaskGroup) -> None:
        if now < pulse.next_timeout() or entry.is_ended:
            return
        peer = entry.connection.remote_peer
        selection = self._selections[peer]
        counts = entry.connection.statistics()
        match pulse.handle_timeout(now, counts.last_received_at, counts.round_trip_time):
            case Beat.PROBE:
                tasks.start_soon(self._probe, entry, pulse)
            case Beat.SUSPECT:
                logger.debug("%s does not answer at %s", peer, entry.connection.remote_addr)
                selection.suspect(entry, now)
                for scope in entry.until_suspect:
                    scope.cancel()
                if pulse.is_attended or self._cares(peer, selection):
                    self._upgrades.lost(peer, now)
                self._look_at(peer, selection, now)
            case Beat.ALIVE:
                selection.answered(entry, now)
                self._look_at(peer, selection, now)
            case Beat.SILENT:
                self._close(entry, f"it was silent for {SILENCE:g} s")

    async def _probe(self, entry: Entry, pulse: Pulse) -> None:
        try:
            rtt = await entry.connection.probe()
        except _FAILURES as error:
            logger.debug("a probe of %s failed: %r", entry.connection.remote_peer, error)
            return
        peer = entry.connection.remote_peer
        if entry.is_ended or (selection := self._selections.get(peer)) is None:
            return
        now = anyio.current_time()
        if pulse.answered(now, rtt) is Beat.ALIVE:
            selection.answered(entry, now)
        selection.measured(entry, now, rtt, entry.connection.statistics().packet_loss)
        if pulse.is_needless:
            self._beating.pop(entry, None)
        self._look_at(peer, selection, now)
        self._keep(pulse.next_timeout())

    # Selection

    def _look_at(self, peer: PeerId, selection: Selection[Entry], now: float) -> None:
        """Do what follows from a change of the paths to a peer."""
        self._compare(peer, selection, now)
        move = selection.take_move()
        if move is None:
            return
        old, new = move.old.connection, move.new.connection
        self._publish(PathChanged(peer, new.remote_addr, old.remote_addr, move.reason))
        if self._rank_of(old.remote_addr) < self._rank_of(new.remote_addr):
            if self._cares(peer, selection):
                self._upgrades.lost(peer, now)
        elif not self._better(peer, selection, now):
            self._upgrades.forget(peer)
        self._keep(self._upgrades.next_timeout())

    def _compare(self, peer: PeerId, selection: Selection[Entry], now: float) -> None:
        """Have the paths to a peer probed now and then while there are several."""
        is_one_of_several = len(selection) > 1
        if not is_one_of_several and self._several.pop(peer, None) is None:
            return
        if is_one_of_several:
            self._several[peer] = selection
        for entry in selection:
            pulse = self._pulse(entry)
            if pulse.is_compared is not is_one_of_several:
                pulse.compare(now, is_one_of_several=is_one_of_several)
                self._watch(entry, pulse)
        due = selection.next_timeout()
        self._keep(inf if due is None else due)

    def _close_needless(self, peer: PeerId, selection: Selection[Entry], now: float) -> None:
        due = selection.next_timeout()
        if due is None or now < due:
            return
        for entry in selection.handle_timeout(now, self._is_needed):
            logger.debug("closing a needless connection to %s", peer)
            entry.connection.drain()
            self._draining[entry] = now + DRAIN_TIME
        self._look_at(peer, selection, now)

    def _is_needed(self, entry: Entry) -> bool:
        """Say whether a connection that is not chosen carries something, such as a reservation."""
        return entry.is_busy() or self._is_held(entry)

    def _end_drained(self, now: float) -> None:
        """Close what was needless and has not ended by itself, unless it is used after all."""
        for entry, due in tuple(self._draining.items()):
            if due <= now and not entry.is_ended:
                self._draining[entry] = now + DRAIN_TIME
                if not self._is_needed(entry):
                    self._close(entry, "another path is used")

    # Better paths

    def _cares(self, peer: PeerId, selection: Selection[Entry]) -> bool:
        """Say whether this node looks for a better path though nobody has asked it to."""
        return self._is_wanted(peer) or any(
            entry.connection.side is Side.DIALER for entry in selection
        )

    def _better(
        self, peer: PeerId, selection: Selection[Entry], now: float
    ) -> tuple[Multiaddr, ...]:
        """Return the known addresses of a peer that would be better than the path in use."""
        return tuple(
            address
            for address in self._peers.addresses(peer)
            if self._can_dial(address) and self._is_better(address, selection, now)
        )

    def _is_better(self, address: Multiaddr, selection: Selection[Entry], now: float) -> bool:
        rank = self._rank_of(address)
        place: Hashable = (rank, address.host)
        return selection.would_gain(rank, place, now)

    async def _look_for_better(self, peer: PeerId) -> None:
        try:
            await self._look(peer)
        finally:
            self._upgrades.ended(peer, anyio.current_time())
            self._keep(self._upgrades.next_timeout())

    async def _look(self, peer: PeerId) -> None:
        selection = self._selections.get(peer)
        now = anyio.current_time()
        if selection is None:
            self._upgrades.forget(peer)
            return
        addresses = self._better(peer, selection, now)
        if not addresses:
            # Those of a place that comes and goes, or is lossy, have their turn later.
            if not self._better(peer, selection, inf):
                self._upgrades.forget(peer)
            return
        is_lan = all(self._rank_of(each) is Rank.LAN for each in addresses)
        try:
            with anyio.move_on_after(LAN_LOOK_TIME if is_lan else LOOK_TIME):
                await self._dial(peer, addresses)
        except _FAILURES as error:
            logger.debug("no better path to %s: %s", peer, error)

    # Time

    def _next_timeout(self) -> float:
        times = [pulse.next_timeout() for pulse in self._beating.values()]
        times += [each.next_timeout() or inf for each in self._several.values()]
        times += self._draining.values()
        times.append(self._upgrades.next_timeout())
        return min(times)

    def _keep(self, deadline: float) -> None:
        if deadline < self._sleeps_until:
            self._poke.set()
