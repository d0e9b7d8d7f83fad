"""Thousands of peers of a DHT in virtual time, some of which are gone and some of which lie."""

from __future__ import annotations

import heapq
from bisect import bisect_left
from itertools import count

from isthmus.relay.kad.machine import K
from isthmus.relay.kad.wire import FoundPeer, distance_hash
from isthmus.transports.core.multiaddr import Multiaddr
from isthmus.transports.core.peer_id import PeerId

SPACE = 256
"""Bits of a distance."""
ADDRESS = Multiaddr.parse("/ip4/192.0.2.1/tcp/4001")
OWN = PeerId.from_bytes(b"\x12\x20" + b"\xff" * 32)


def random_peer(rng):
    return PeerId.from_bytes(b"\x12\x20" + rng.randbytes(32))


def at(peer):
    return FoundPeer(peer, (ADDRESS,))


class Network:
    """Each peer knows up to K others of each distance, as Kademlia's buckets hold them."""

    def __init__(self, rng, size, *, gone=0.0, lying=0.0):
        self._rng = rng
        self._places = {distance_hash(bytes(peer)): peer for peer in _many(rng, size)}
        self._sorted = sorted(self._places)
        self.peers = list(self._places.values())
        rng.shuffle(self.peers)
        self.gone = set(self.peers[: int(size * gone)])
        alive = self.peers[len(self.gone) :]
        self.liars = set(alive[: int(size * lying)])
        self.honest = alive[len(self.liars) :]
        self._tables = {}
        self._invented = _many(rng, 10 * size)

    def closest(self, target, among=None):
        """Return the K closest of some peers, by default of all that are alive."""
        peers = set(self.peers) - self.gone if among is None else among
        return sorted(peers, key=lambda peer: distance_hash(bytes(peer)) ^ target)[:K]

    def answer(self, peer, target):
        """Return whom a peer names, or None if it says nothing."""
        if peer in self.liars:
            # Ids can be made until they lie as near to a target as one likes.
            near = sorted(self._invented, key=lambda each: distance_hash(bytes(each)) ^ target)
            return [at(each) for each in self._rng.sample(near[: 10 * K], K)]
        if peer in self.gone or peer not in self._places.values():
            return None
        return [at(each) for each in self.closest(target, self._table(peer))]

    def _table(self, peer):
        table = self._tables.get(peer)
        if table is None:
            place = distance_hash(bytes(peer))
            table = self._tables[peer] = set()
            for bit in reversed(range(SPACE)):
                # The peers that differ first in this bit are a range of the sorted places.
                low = ((place >> bit) ^ 1) << bit
                begin = bisect_left(self._sorted, low)
                end = bisect_left(self._sorted, low + (1 << bit))
                bucket = self._sorted[begin:end]
                chosen = self._rng.sample(bucket, min(K, len(bucket)))
                table.update(self._places[each] for each in chosen)
                if end - begin == 0 and bit < SPACE - 40:
                    break
        return table


class Walk:
    """Runs one lookup over a network; `now` is the virtual time that it took."""

    def __init__(self, network, lookup, target):
        self.network = network
        self.lookup = lookup
        self.now = 0.0
        self.asked = []
        self.most_at_a_time = 0
        self._target = target
        self._rng = network._rng
        self._events = []
        self._order = count()
        self._waiting = set()

    def run(self):
        while not self.lookup.is_finished:
            self._send()
            timeout = self.lookup.next_timeout()
            if self._events and (timeout is None or self._events[0][0] <= timeout):
                self.now, _, peer, named = heapq.heappop(self._events)
                if peer in self._waiting:
                    self._waiting.discard(peer)
                    self._deliver(peer, named)
                continue
            assert timeout is not None, "it waits for nothing, and for ever"
            assert timeout >= self.now
            self.now = timeout
            self._waiting.difference_update(self.lookup.handle_timeout(self.now))
        return self

    def _send(self):
        for found in self.lookup.next_requests(self.now):
            assert found.peer not in self.asked, "nobody is asked twice"
            self.asked.append(found.peer)
            self._waiting.add(found.peer)
            named = self.network.answer(found.peer, self._target)
            is_silent = named is None and self._rng.random() < 0.5
            if not is_silent:
                delay = self._rng.uniform(0.01, 0.4)
                event = (self.now + delay, next(self._order), found.peer, named)
                heapq.heappush(self._events, event)
        self.most_at_a_time = max(self.most_at_a_time, len(self._waiting))

    def _deliver(self, peer, named):
        if named is None:
            self.lookup.receive_failure(peer)
        else:
            self.lookup.receive_answer(peer, named)


def _many(rng, size):
    return [random_peer(rng) for _ in range(size)]
