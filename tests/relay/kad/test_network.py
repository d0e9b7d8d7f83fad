"""Lookups in networks of thousands: they end, cost a bounded number of messages, and find."""

from __future__ import annotations

import random

import pytest
from isthmus.relay.kad.machine import (
    BETA,
    MAX_REQUESTS,
    MAX_WAITING,
    Claims,
    K,
    Lookup,
    LookupConfig,
)
from isthmus.relay.kad.wire import distance_hash

from .network import OWN, Network, Walk, at, random_peer

SIZE = 2000
WALKS = 10
"""Of each network, at full scale ten times as many."""


@pytest.fixture(scope="module")
def worlds(seed):
    """Networks by the share that is gone and the share that lies, each made once."""
    made = {}

    def world(gone, lying):
        if (gone, lying) not in made:
            rng = random.Random(f"{seed} {gone} {lying}")
            made[gone, lying] = Network(rng, SIZE, gone=gone, lying=lying)
        return made[gone, lying]

    return world


def walk(network, rng, *, settle=K, seeds=3):
    target = distance_hash(rng.randbytes(34))
    begin = [at(each) for each in rng.sample(network.honest, seeds)]
    config = LookupConfig(settle=settle)
    lookup = Lookup(target, begin, own=OWN, now=0.0, config=config)
    done = Walk(network, lookup, target).run()
    assert len(done.asked) == lookup.requests <= MAX_REQUESTS
    assert done.now <= config.lookup_timeout
    assert done.most_at_a_time <= MAX_WAITING
    assert OWN not in done.asked
    return target, done


@pytest.mark.parametrize("gone", [0.0, 0.3])
def test_an_honest_network_shows_the_closest(worlds, seed, scaled, gone):
    network, rng = worlds(gone, 0.0), random.Random(seed)
    requests = []
    for _ in range(scaled(10 * WALKS)):
        target, done = walk(network, rng)
        found = [each.peer for each in done.lookup.closest()]
        # Those that are gone take places in every answer: what is behind them, nobody may name.
        named = network.closest(target, network.peers)
        expected = [peer for peer in named if peer not in network.gone]
        assert found[: len(expected)] == expected
        assert len(found) == K
        requests.append(len(done.asked))
    # Some steps to get near, the K closest, and those of them that are gone.
    assert sum(requests) / len(requests) < 2 * K / (1 - gone)


def test_a_walk_that_only_looks_costs_little(worlds, seed, scaled):
    network, rng = worlds(0.0, 0.0), random.Random(seed)
    hits, requests = 0, []
    walks = scaled(10 * WALKS)
    for _ in range(walks):
        target, done = walk(network, rng, settle=BETA)
        hits += done.lookup.closest()[0].peer == network.closest(target)[0]
        requests.append(len(done.asked))
    assert hits == walks
    assert sum(requests) / walks < K


@pytest.mark.parametrize(
    ("gone", "lying"), [pytest.param(0.0, 0.1, marks=pytest.mark.slow), (0.0, 0.25), (0.3, 0.1)]
)
def test_what_an_honest_majority_holds_is_found(worlds, seed, scaled, gone, lying):
    network, rng = worlds(gone, lying), random.Random(seed)
    walks = scaled(10 * WALKS)
    found = 0
    for _ in range(walks):
        provider, fakes = random_peer(rng), [at(random_peer(rng)) for _ in range(K)]
        claims = Claims(own=OWN, limit=1)
        target, done = walk(network, rng)
        holders = set(network.closest(target)) - network.liars
        for peer in done.asked:
            # Whoever lies names its own, and never what it holds.
            if peer in network.liars:
                claims.add(peer, rng.sample(fakes, 5))
            elif peer in holders:
                claims.add(peer, [at(provider)])
        found += [each.peer for each in claims.best()] == [provider]
    assert found == walks


def test_nothing_but_liars_ends_too(seed):
    network = Network(random.Random(seed), 200, lying=1.0)
    rng = random.Random(seed)
    target = distance_hash(rng.randbytes(34))
    begin = [at(each) for each in rng.sample(sorted(network.liars), 3)]
    lookup = Lookup(target, begin, own=OWN, now=0.0)
    done = Walk(network, lookup, target).run()
    # Each of the three named others that are not there, and was believed a few times.
    assert len(done.asked) < 40
    assert {each.peer for each in lookup.closest()} == {each.peer for each in begin}


def test_nobody_there_ends_in_time(seed):
    network = Network(random.Random(seed), 200, gone=1.0)
    begin = [at(each) for each in network.peers[:100]]
    lookup = Lookup(0, begin, own=OWN, now=0.0, config=LookupConfig(lookup_timeout=15.0))
    done = Walk(network, lookup, 0).run()
    assert done.now <= 15.0
    assert lookup.closest() == []
