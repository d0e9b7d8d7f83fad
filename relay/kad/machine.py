"""One walk towards a key: whom to ask next, when it is over, and what to believe. Sans-IO.

Kademlia's iterative lookup: ask the closest peers known, learn of closer ones, and stop when the
closest of those that answer have been asked
(https://github.com/libp2p/specs/blob/master/kad-dht/README.md).
"""

from __future__ import annotations

from bisect import insort
from dataclasses import dataclass, field
from enum import Enum
from itertools import zip_longest
from typing import TYPE_CHECKING

from .wire import MAX_ADDRESSES, MAX_CLOSER, FoundPeer, distance_hash

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from ...transports.core.peer_id import PeerId

K = 20
"""Peers closest to a key that hold what is stored there."""

BETA = 3
"""The closest peers that must have answered to end a walk that only looks, as in go."""

MAX_WAITING = 10
"""Requests at a time, whatever is slow: what go and js have always under way."""

SLOW_AFTER = 1.0
"""Seconds after which a request no longer keeps the next one from being sent: most peers that
answer at all have done so, and those that do not would hold up everything."""

MAX_REQUESTS = 160
"""Requests of one walk: one in a network of millions needs some forty, and a liar costs a few."""

MAX_CANDIDATES = 320
"""Peers known to one walk: twice what it ever asks."""

MAX_BLAME = 4
"""Peers named by another that may fail before the others that only it has named are passed over:
of an honest peer's, with one half gone, the first four are all gone one time in sixteen."""

MAX_CLAIMED = 2048
"""Providers that one search takes note of, some megabytes."""

CONFIRMATIONS = 3
"""Peers that must have named the same before a search ends early: one liar is not enough."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LookupConfig:
    """How a walk goes; times are in seconds."""

    parallel: int = 3
    """Requests at a time that are not slow."""

    request_timeout: float = 10.0
    """For one peer to answer."""

    lookup_timeout: float = 60.0
    """For the whole walk."""

    settle: int = K
    """The closest peers that must have answered."""


class _State(Enum):
    HEARD = "heard"
    WAITING = "waiting"
    ANSWERED = "answered"
    FAILED = "failed"


@dataclass(slots=True, eq=False)
class _Candidate:
    found: FoundPeer
    distance: int
    sources: set[PeerId | None]
    state: _State = _State.HEARD
    asked_at: float = 0.0


@dataclass(slots=True)
class _Record:
    """What has become of the peers that one has named."""

    answered: int = 0
    failed: int = 0

    @property
    def is_doubtful(self) -> bool:
        return self.failed >= MAX_BLAME and self.failed > 2 * self.answered


class Lookup:
    """A walk towards `target`, a place as `distance_hash` returns it.

    Ask whom `next_requests` returns, tell `receive_answer` or `receive_failure` of each, and call
    `handle_timeout` at `next_timeout`; go on until `is_finished`. It ends by itself in the time of
    its configuration, after MAX_REQUESTS at most.
    """

    def __init__(
        self,
        target: int,
        seeds: Iterable[FoundPeer],
        *,
        own: PeerId,
        now: float,
        config: LookupConfig | None = None,
    ) -> None:
        self._target = target
        self._own = own
        self._config = config or LookupConfig()
        self._now = now
        self._deadline = now + self._config.lookup_timeout
        self._by_peer: dict[PeerId, _Candidate] = {}
        self._nearest: list[_Candidate] = []
        self._records: dict[PeerId, _Record] = {}
        self.requests = 0
        """Requests sent so far."""
        self.is_finished = False
        """Whether there is nobody left to be asked."""
        for seed in seeds:
            self._hear(seed, None)
        self._look()

    def next_requests(self, now: float) -> list[FoundPeer]:
        """Return whom to ask now; each counts as asked from then on."""
        chosen: list[FoundPeer] = []
        if self.is_finished:
            return chosen
        self._now = now
        waiting = self._waiting()
        quick = sum(each.asked_at + SLOW_AFTER > now for each in waiting)
        room = min(MAX_WAITING - len(waiting), self._config.parallel - quick)
        for candidate in self._window(K):
            if len(chosen) >= room or self.requests >= MAX_REQUESTS:
                break
            if candidate.state is _State.HEARD:
                candidate.state, candidate.asked_at = _State.WAITING, now
                self.requests += 1
                chosen.append(candidate.found)
        return chosen

    def receive_answer(self, peer: PeerId, closer: Iterable[FoundPeer]) -> None:
        """Take an answer; of one that was not waited for nothing is believed."""
        candidate = self._by_peer.get(peer)
        if candidate is None or candidate.state is not _State.WAITING:
            return
        candidate.state = _State.ANSWERED
        for record in self._blamed(candidate):
            record.answered += 1
        for number, found in enumerate(closer):
            if number == MAX_CLOSER:
                break
            self._hear(found, peer)
        self._look()

    def receive_failure(self, peer: PeerId) -> None:
        """Note that a peer could not be asked, or said nothing of use."""
        candidate = self._by_peer.get(peer)
        if candidate is None or candidate.state is not _State.WAITING:
            return
        candidate.state = _State.FAILED
        for record in self._blamed(candidate):
            record.failed += 1
        self._look()

    def handle_timeout(self, now: float) -> list[PeerId]:
        """Return the peers that have had their time, whose requests are to be given up."""
        self._now = now
        if now >= self._deadline:
            self.finish()
        late = [
            each.found.peer
            for each in self._waiting()
            if self.is_finished or now >= each.asked_at + self._config.request_timeout
        ]
        for peer in late:
            self.receive_failure(peer)
        return late

    def next_timeout(self) -> float | None:
        """Return when `handle_timeout` and `next_requests` have something to do; None: never."""
        if self.is_finished:
            return None
        times = [self._deadline]
        for each in self._waiting():
            times.append(each.asked_at + self._config.request_timeout)
            if each.asked_at + SLOW_AFTER > self._now:
                times.append(each.asked_at + SLOW_AFTER)
        return min(times)

    def finish(self) -> None:
        """End the walk: what was looked for has been found."""
        self.is_finished = True

    def closest(self) -> list[FoundPeer]:
        """Return the closest peers that have answered, at most K."""
        answered = (each for each in self._nearest if each.state is _State.ANSWERED)
        return [each.found for each, _ in zip(answered, range(K), strict=False)]

    def _hear(self, found: FoundPeer, source: PeerId | None) -> None:
        if found.peer == self._own:
            return
        known = self._by_peer.get(found.peer)
        if known is not None:
            known.sources.add(source)
            if known.state is _State.HEARD:
                known.found = merged(known.found, found)
            return
        distance = distance_hash(bytes(found.peer)) ^ self._target
        candidate = _Candidate(found, distance, {source})
        self._by_peer[found.peer] = candidate
        insort(self._nearest, candidate, key=lambda each: each.distance)
        if len(self._nearest) > MAX_CANDIDATES:
            self._drop_farthest()

    def _drop_farthest(self) -> None:
        # There is one: those that were asked are far fewer.
        farthest = next(each for each in reversed(self._nearest) if each.state is _State.HEARD)
        self._nearest.remove(farthest)
        del self._by_peer[farthest.found.peer]

    def _window(self, size: int) -> Iterator[_Candidate]:
        """Yield the closest candidates that have not failed and that somebody credible names."""
        for candidate in self._nearest:
            if candidate.state is _State.FAILED:
                continue
            if candidate.state is _State.HEARD and not self._is_credible(candidate):
                continue
            yield candidate
            size -= 1
            if not size:
                return

    def _is_credible(self, candidate: _Candidate) -> bool:
        return any(
            source is None or source not in self._records or not self._records[source].is_doubtful
            for source in candidate.sources
        )

    def _blamed(self, candidate: _Candidate) -> list[_Record]:
        return [
            self._records.setdefault(source, _Record())
            for source in candidate.sources
            if source is not None
        ]

    def _waiting(self) -> list[_Candidate]:
        return [each for each in self._nearest if each.state is _State.WAITING]

    def _look(self) -> None:
        """See whether the walk is over."""
        closest = list(self._window(self._config.settle))
        is_spent = self.requests >= MAX_REQUESTS and not self._waiting()
        if is_spent or all(each.state is _State.ANSWERED for each in closest):
            self.finish()


@dataclass(slots=True)
class _Claim:
    found: FoundPeer
    sources: set[PeerId] = field(default_factory=set)


class Claims:
    """What several peers have said of others: those that most of them name come first.

    A record is stored at the K closest peers, so that what is true is said by many of them, and
    what one liar makes up by itself alone.
    """

    def __init__(self, *, own: PeerId, limit: int) -> None:
        self._own = own
        self._limit = limit
        self._claims: dict[PeerId, _Claim] = {}

    def add(self, source: PeerId, named: Iterable[FoundPeer]) -> None:
        """Take note of whom one peer names, at most as many as are wanted in all, or K."""
        most = max(self._limit, K)
        for number, found in enumerate(named):
            if number == most:
                break
            claim = self._claims.get(found.peer)
            if found.peer == self._own or (claim is None and len(self._claims) >= MAX_CLAIMED):
                continue
            if claim is None:
                claim = self._claims[found.peer] = _Claim(found)
            else:
                claim.found = merged(claim.found, found)
            claim.sources.add(source)

    def is_settled(self) -> bool:
        """Say whether as many as are wanted have been named by several peers."""
        sure = sum(
            len(each.sources) >= CONFIRMATIONS and bool(each.found.addresses)
            for each in self._claims.values()
        )
        return sure >= self._limit

    def best(self) -> list[FoundPeer]:
        """Return those that most peers have named, at most as many as are wanted."""
        ordered = sorted(self._claims.values(), key=lambda each: -len(each.sources))
        return [each.found for each in ordered[: self._limit]]


def merged(first: FoundPeer, then: FoundPeer) -> FoundPeer:
    """Return one peer with the addresses of both by turns, so that neither crowds out the other."""
    turns = zip_longest(first.addresses, then.addresses)
    addresses = dict.fromkeys(each for turn in turns for each in turn if each is not None)
    return FoundPeer(first.peer, tuple(addresses)[:MAX_ADDRESSES])
