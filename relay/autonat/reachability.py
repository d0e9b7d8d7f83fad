"""Whether each of our addresses can be reached from elsewhere; sans-IO, the time is an argument.

Several servers are asked, in different networks. Call `set_addresses` when they change, `plan` for
the next question, then `answered` or `failed`; come back at `next_timeout`, or when there is
another server. `network_changed` has all asked again.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from enum import Enum
from math import inf
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Sequence

    from ...transports.core.multiaddr import Multiaddr
    from ...transports.core.peer_id import PeerId

MAX_ADDRESSES = 16
"""Addresses that are looked at: as many as a peer would try of us."""

MAX_ASKED = 8
"""Addresses in one question; a server dials the first that it can."""

MAX_VOTES = 5
"""Answers that count for one address, the newest of as many networks: two more than the least that
make it sure, so that old ones are outvoted."""

SURE = 3
"""Answers of one kind, more than of the other, after which an address is asked about seldom."""

VOTE_LIFETIME = 3 * 3600.0
"""Seconds that an answer counts: three times the pause below, so that one may be missed."""

REFRESH = 3600.0
"""Seconds after which an address is asked about again of which we are sure; as go."""

RECHECK = 900.0
"""Seconds after which one network is asked again about one address: it would say the same. Another
one is asked at once while we are not sure."""

DOUBT = 600.0
"""Seconds that a verdict stands after the network has changed, while no answers confirm it."""

SERVER_PAUSE = 120.0
"""Seconds between questions to one server; as go, whose servers allow more."""

SERVER_BACKOFF = 600.0
"""Seconds for which a server is left alone that refused, or broke off: it hands out no verdicts on
our addresses, or has too much to do."""

MAX_SERVERS = 256
"""Servers of which it is remembered when they were asked."""


class Reachability(Enum):
    """What is known of an address, or of the node."""

    UNKNOWN = "unknown"
    PUBLIC = "public"
    PRIVATE = "private"


class Server(NamedTuple):
    """A peer that serves AutoNAT v2, and the network that it is in."""

    peer: PeerId
    source: Hashable


class Vote(NamedTuple):
    """What a peer has last said of an address, for the network that it is in."""

    time: float
    is_reached: bool
    peer: PeerId


@dataclass(frozen=True, slots=True)
class Question:
    """Ask this server for these addresses, best first."""

    server: Server
    addresses: tuple[Multiaddr, ...]


@dataclass(slots=True)
class _Record:
    votes: OrderedDict[Hashable, Vote] = field(default_factory=OrderedDict)
    """The last answer of each network."""
    verdict: Reachability = Reachability.UNKNOWN
    doubted_until: float | None = None
    due: float = -inf

    def score(self) -> int:
        return sum(1 if vote.is_reached else -1 for vote in self.votes.values())

    def voted_at(self, source: Hashable) -> float:
        vote = self.votes.get(source)
        return -inf if vote is None else vote.time


class ReachabilityTable:
    """The verdicts. `confidence` networks must agree, more than disagree, for one."""

    def __init__(self, *, confidence: int = 2) -> None:
        self._confidence = confidence
        self._sure = max(SURE, confidence)
        self._records: dict[Multiaddr, _Record] = {}
        self._free_at: OrderedDict[PeerId, float] = OrderedDict()

    def verdicts(self) -> dict[Multiaddr, Reachability]:
        """Return the verdict on each address."""
        return {address: record.verdict for address, record in self._records.items()}

    def of(self, address: Multiaddr) -> Reachability:
        """Return the verdict on one."""
        record = self._records.get(address)
        return Reachability.UNKNOWN if record is None else record.verdict

    def votes(self, address: Multiaddr) -> tuple[Vote, ...]:
        """Return the answers that count for the verdict on one, the newest last."""
        record = self._records.get(address)
        return () if record is None else tuple(record.votes.values())

    def overall(self) -> Reachability:
        """Return that on the node: public if one address is, private if all are."""
        verdicts = {record.verdict for record in self._records.values()}
        if Reachability.PUBLIC in verdicts:
            return Reachability.PUBLIC
        if verdicts == {Reachability.PRIVATE}:
            return Reachability.PRIVATE
        return Reachability.UNKNOWN

    def set_addresses(self, addresses: Iterable[Multiaddr]) -> None:
        """Look at these addresses from now on, the first ones if there are too many."""
        kept = [*dict.fromkeys(addresses)][:MAX_ADDRESSES]
        self._records = {each: self._records.get(each) or _Record() for each in kept}

    def network_changed(self, now: float) -> None:
        """Ask for everything anew; a verdict that is not confirmed soon is dropped."""
        for record in self._records.values():
            record.votes.clear()
            record.due = now
            if record.verdict is not Reachability.UNKNOWN:
                record.doubted_until = now + DOUBT
        self._free_at.clear()

    def plan(self, servers: Sequence[Server], now: float) -> Question | None:
        """Return what to ask now, if anything; until it is answered that server is not asked."""
        asked = [
            (abs(record.score()), record.voted_at(server.source), index, address)
            for index, server in enumerate(servers)
            for address, record in self._records.items()
            if self._due(address, server) <= now
        ]
        if not asked:
            return None
        # The address that we know least of, since a server looks at one only, and a network that
        # has not said anything of it yet.
        _, _, index, first = min(asked, key=lambda each: each[:3])
        server = servers[index]
        self._rest(server.peer, now + SERVER_PAUSE)
        others = [each for *_, which, each in asked if which == index and each != first]
        return Question(server, (first, *others)[:MAX_ASKED])

    def answered(
        self, question: Question, address: Multiaddr, now: float, *, is_reached: bool
    ) -> bool:
        """Note a server's answer on one address; return whether a verdict has changed."""
        record = self._records.get(address)
        if record is None:
            return False
        votes = record.votes
        votes[question.server.source] = Vote(now, is_reached, question.server.peer)
        votes.move_to_end(question.server.source)
        if len(votes) > MAX_VOTES:
            votes.popitem(last=False)
        is_sure = abs(record.score()) >= self._sure
        record.due = now + REFRESH * is_sure
        return self._judge(record, now)

    def failed(self, question: Question, now: float) -> None:
        """Note that a server gave no answer, or refused: it is no news on the addresses."""
        self._rest(question.server.peer, now + SERVER_BACKOFF)

    def handle_timeout(self, now: float) -> bool:
        """Drop what has become too old; return whether a verdict has changed."""
        changed = [self._judge(record, now) for record in self._records.values()]
        return any(changed)

    def next_timeout(self, servers: Sequence[Server]) -> float:
        """Return when there is something to ask of these servers, or a verdict to drop."""
        times = [self._due(address, each) for address in self._records for each in servers]
        for record in self._records.values():
            times += [vote.time + VOTE_LIFETIME for vote in record.votes.values()]
            if record.doubted_until is not None:
                times.append(record.doubted_until)
        return min(times, default=inf)

    def _due(self, address: Multiaddr, server: Server) -> float:
        """Return when a server may be asked about an address."""
        record = self._records[address]
        voted = record.voted_at(server.source)
        return max(record.due, voted + RECHECK, self._free_at.get(server.peer, -inf))

    def _judge(self, record: _Record, now: float) -> bool:
        for source, vote in [*record.votes.items()]:
            if vote.time + VOTE_LIFETIME <= now:
                del record.votes[source]
        before, score = record.verdict, record.score()
        if record.doubted_until is not None and now >= record.doubted_until:
            record.doubted_until, record.verdict = None, Reachability.UNKNOWN
        if abs(score) >= self._confidence:
            record.doubted_until = None
            record.verdict = Reachability.PUBLIC if score > 0 else Reachability.PRIVATE
        elif record.doubted_until is None:
            record.verdict = self._weakened(record, score)
        return record.verdict is not before

    def _weakened(self, record: _Record, score: int) -> Reachability:
        """Return a verdict that has lost votes: it stands while more speak for it than against."""
        speaks = score > 0 if record.verdict is Reachability.PUBLIC else score < 0
        return record.verdict if speaks else Reachability.UNKNOWN

    def _rest(self, peer: PeerId, until: float) -> None:
        self._free_at[peer] = until
        self._free_at.move_to_end(peer)
        if len(self._free_at) > MAX_SERVERS:
            self._free_at.popitem(last=False)
