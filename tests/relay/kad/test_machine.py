"""One walk, step by step: whom it asks, when it gives up, what it passes over."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from isthmus.relay.kad.machine import (
    CONFIRMATIONS,
    MAX_BLAME,
    MAX_CANDIDATES,
    MAX_CLAIMED,
    MAX_REQUESTS,
    MAX_WAITING,
    SLOW_AFTER,
    Claims,
    K,
    Lookup,
    LookupConfig,
    merged,
)
from isthmus.relay.kad.wire import MAX_ADDRESSES, FoundPeer, distance_hash
from isthmus.transports.core.multiaddr import Multiaddr
from isthmus.transports.core.peer_id import PeerId

OWN = PeerId.from_bytes(b"\x12\x20" + b"\xff" * 32)
CONFIG = LookupConfig()


def address(port):
    return Multiaddr.parse(f"/ip4/192.0.2.1/tcp/{port}")


def peer(number):
    return FoundPeer(PeerId.from_bytes(b"\x12\x20" + number.to_bytes(32, "big")), (address(1),))


PEERS = sorted(map(peer, range(400)), key=lambda each: distance_hash(bytes(each.peer)))
"""By their distance from the target 0, the closest first."""


def lookup(*seeds, **config):
    return Lookup(0, seeds, own=OWN, now=0.0, config=LookupConfig(**config))


def test_the_closest_are_asked_first_a_few_at_a_time():
    walk = lookup(*reversed(PEERS[:10]))
    assert walk.next_requests(0.0) == PEERS[:3]
    assert walk.next_requests(0.0) == []
    walk.receive_answer(PEERS[1].peer, [])
    assert walk.next_requests(0.1) == [PEERS[3]]
    assert walk.requests == 4


def test_closer_peers_of_an_answer_come_next():
    walk = lookup(PEERS[5])
    assert walk.next_requests(0.0) == [PEERS[5]]
    walk.receive_answer(PEERS[5].peer, [PEERS[9], PEERS[2]])
    assert walk.next_requests(0.1) == [PEERS[2], PEERS[9]]


def test_it_ends_when_the_closest_have_answered():
    walk = lookup(*PEERS[:10], settle=2)
    walk.next_requests(0.0)
    walk.receive_answer(PEERS[0].peer, [])
    assert not walk.is_finished
    walk.receive_answer(PEERS[1].peer, [])
    assert walk.is_finished
    assert walk.next_requests(0.1) == []
    assert walk.next_timeout() is None
    assert walk.closest() == PEERS[:2]


def test_one_that_fails_is_replaced_by_the_next():
    walk = lookup(*PEERS[:3], settle=2)
    walk.next_requests(0.0)
    walk.receive_answer(PEERS[0].peer, [])
    walk.receive_failure(PEERS[1].peer)
    assert not walk.is_finished
    walk.receive_answer(PEERS[2].peer, [])
    assert walk.is_finished
    assert walk.closest() == [PEERS[0], PEERS[2]]


def test_without_seeds_it_is_over():
    assert lookup().is_finished
    assert lookup(FoundPeer(OWN)).is_finished


def test_who_is_not_among_the_closest_known_is_not_asked():
    walk = lookup(*PEERS[: K + 5], parallel=10)
    for _ in range(4):
        for found in walk.next_requests(0.0):
            walk.receive_answer(found.peer, [])
    assert walk.is_finished
    assert walk.requests == K
    assert walk.closest() == PEERS[:K]


def test_slow_requests_let_others_go_ahead_up_to_a_bound():
    walk = lookup(*PEERS[:K])
    asked = walk.next_requests(0.0)
    assert walk.next_timeout() == SLOW_AFTER
    now = SLOW_AFTER
    assert walk.handle_timeout(now) == []
    asked += walk.next_requests(now)
    assert asked == PEERS[:6]
    for _ in range(3):
        now += SLOW_AFTER
        asked += walk.next_requests(now)
    assert asked == PEERS[:MAX_WAITING]
    assert walk.next_timeout() == CONFIG.request_timeout


def test_who_does_not_answer_is_given_up():
    walk = lookup(*PEERS[:2], request_timeout=5.0)
    walk.next_requests(0.0)
    walk.receive_answer(PEERS[1].peer, [])
    walk.handle_timeout(SLOW_AFTER)
    assert walk.next_timeout() == 5.0
    assert walk.handle_timeout(4.9) == []
    assert walk.handle_timeout(5.0) == [PEERS[0].peer]
    assert walk.is_finished
    # What comes later is not believed.
    walk.receive_answer(PEERS[0].peer, PEERS[5:9])
    assert walk.closest() == [PEERS[1]]


def test_the_whole_takes_no_longer_than_allowed():
    walk = lookup(*PEERS[:9], lookup_timeout=7.0)
    asked = walk.next_requests(0.0)
    walk.handle_timeout(SLOW_AFTER)
    assert walk.next_timeout() == 7.0
    assert walk.handle_timeout(7.0) == [each.peer for each in asked]
    assert walk.is_finished


def test_answers_of_nobody_who_was_asked_count_for_nothing():
    walk = lookup(*PEERS[5:9])
    walk.receive_answer(PEERS[300].peer, PEERS[:5])
    walk.receive_answer(PEERS[5].peer, PEERS[:5])
    walk.receive_failure(PEERS[6].peer)
    assert walk.next_requests(0.0) == PEERS[5:8]
    walk.receive_answer(PEERS[5].peer, [])
    walk.receive_answer(PEERS[5].peer, PEERS[:5])
    assert walk.next_requests(0.0) == [PEERS[8]]


def test_own_id_is_never_asked():
    walk = lookup(PEERS[3])
    walk.next_requests(0.0)
    walk.receive_answer(PEERS[3].peer, [FoundPeer(OWN, (address(1),)), PEERS[4]])
    assert walk.next_requests(0.0) == [PEERS[4]]


def test_who_names_only_what_fails_is_passed_over():
    liar, honest = PEERS[300], PEERS[301]
    walk = lookup(liar, honest)
    walk.next_requests(0.0)
    walk.receive_answer(liar.peer, PEERS[:K])
    asked = []
    for _ in range(MAX_BLAME + 2):
        for found in walk.next_requests(0.0):
            walk.receive_failure(found.peer)
            asked.append(found)
    # As many as were under way when the last straw came.
    assert MAX_BLAME <= len(asked) < MAX_BLAME + 3
    rest = [each for each in PEERS[:K] if each not in asked]
    # Another who names one of them is believed.
    walk.receive_answer(honest.peer, [rest[3]])
    assert walk.next_requests(0.0) == [rest[3]]


def test_one_good_name_does_not_excuse_many_bad_ones():
    walk = lookup(PEERS[300])
    walk.next_requests(0.0)
    walk.receive_answer(PEERS[300].peer, PEERS[:K])
    asked = 0
    while not walk.is_finished:
        for found in walk.next_requests(0.0):
            asked += 1
            if found == PEERS[0]:
                walk.receive_answer(found.peer, [])
            else:
                walk.receive_failure(found.peer)
    assert asked <= 2 * MAX_BLAME


def test_many_good_names_excuse_some_bad_ones():
    walk = lookup(PEERS[300], parallel=1)
    walk.next_requests(0.0)
    walk.receive_answer(PEERS[300].peer, PEERS[:K])
    for number in range(K):
        (found,) = walk.next_requests(0.0)
        assert found == PEERS[number]
        if number % 3:
            walk.receive_failure(found.peer)
        else:
            walk.receive_answer(found.peer, [])
    assert walk.is_finished


def test_requests_are_bounded():
    """Whoever makes up peers that answer, each of which knows closer ones, does so not for ever."""
    walk = lookup(PEERS[-1], parallel=1)
    for found in reversed(PEERS[:-1]):
        asked = walk.next_requests(0.0)
        if not asked:
            break
        walk.receive_answer(asked[0].peer, [found])
    assert walk.is_finished
    assert walk.requests == MAX_REQUESTS


def test_requests_at_one_time_do_not_exceed_the_bound():
    walk = lookup(*PEERS[: MAX_REQUESTS + 50], parallel=10)
    while not walk.is_finished:
        for found in walk.next_requests(0.0):
            # Of all but one the failure comes at once, so that the number is no multiple of ten.
            if found != PEERS[0]:
                walk.receive_failure(found.peer)
        if walk.requests == MAX_REQUESTS:
            break
    assert walk.next_requests(0.0) == []
    walk.receive_answer(PEERS[0].peer, [])
    assert walk.is_finished
    assert walk.requests == MAX_REQUESTS


def test_candidates_are_bounded_and_the_closest_stay():
    walk = lookup(*PEERS[:3])
    walk.next_requests(0.0)
    for number in range(3):
        for begin in range(390, 0, -K):
            walk._hear(PEERS[begin], PEERS[number].peer)
    for found in PEERS:
        walk._hear(found, PEERS[0].peer)
    assert len(walk._nearest) == len(walk._by_peer) == MAX_CANDIDATES
    assert [each.found.peer for each in walk._nearest] == [
        each.peer for each in PEERS[:MAX_CANDIDATES]
    ]


def test_no_more_is_taken_of_one_answer_than_it_may_have():
    walk = lookup(PEERS[300])
    walk.next_requests(0.0)
    walk.receive_answer(PEERS[300].peer, reversed(PEERS[:100]))
    assert len(walk._nearest) == 1 + K


def test_addresses_of_several_sources_come_by_turns():
    first = FoundPeer(OWN, tuple(map(address, range(1, 17))))
    then = FoundPeer(OWN, (address(5), address(100), address(101)))
    both = merged(first, then)
    assert both.addresses[:5] == (address(1), address(5), address(2), address(100), address(3))
    assert len(both.addresses) == MAX_ADDRESSES
    walk = lookup(*PEERS[:2])
    walk.next_requests(0.0)
    walk.receive_answer(PEERS[0].peer, [FoundPeer(PEERS[2].peer, first.addresses)])
    walk.receive_answer(PEERS[1].peer, [FoundPeer(PEERS[2].peer, then.addresses)])
    assert walk.next_requests(0.0) == [FoundPeer(PEERS[2].peer, both.addresses)]


def test_whom_most_name_comes_first():
    claims = Claims(own=OWN, limit=2)
    claims.add(PEERS[0].peer, [PEERS[10], FoundPeer(OWN)])
    claims.add(PEERS[1].peer, [PEERS[11], PEERS[12]])
    claims.add(PEERS[2].peer, [PEERS[12], PEERS[13], PEERS[14]])
    assert claims.best() == [PEERS[12], PEERS[10]]


def test_naming_twice_counts_once():
    claims = Claims(own=OWN, limit=3)
    for _ in range(CONFIRMATIONS):
        claims.add(PEERS[0].peer, [PEERS[10]])
    for source in PEERS[1:3]:
        claims.add(source.peer, [PEERS[11]])
    assert claims.best() == [PEERS[11], PEERS[10]]


def test_a_search_is_settled_when_several_have_named_enough():
    claims = Claims(own=OWN, limit=1)
    for number in range(CONFIRMATIONS):
        assert not claims.is_settled()
        claims.add(PEERS[number].peer, [PEERS[10]])
    assert claims.is_settled()
    nowhere = Claims(own=OWN, limit=1)
    for number in range(CONFIRMATIONS):
        nowhere.add(PEERS[number].peer, [FoundPeer(PEERS[10].peer)])
    assert not nowhere.is_settled(), "a peer that is nowhere is of no use yet"


def test_claims_are_bounded():
    claims = Claims(own=OWN, limit=100)
    for number in range(2 * MAX_CLAIMED // 100):
        claims.add(PEERS[number].peer, map(peer, range(1000 * number, 1000 * number + 500)))
    assert len(claims._claims) == MAX_CLAIMED
    # Whoever is known already still is named.
    claims.add(PEERS[399].peer, [peer(0)])
    assert claims.best()[0].peer == peer(0).peer


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["ask", "answer", "fail", "time"]),
        st.integers(0, 60),
        st.lists(st.integers(0, 60), max_size=30),
    ),
    max_size=60,
)


@given(STEPS, st.integers(1, K), st.integers(1, 10))
def test_whatever_happens_it_stays_within_its_bounds(steps, settle, parallel):
    walk = lookup(*PEERS[:5], settle=settle, parallel=parallel)
    now, waiting, asked = 0.0, set(), []
    for step, number, others in steps:
        found = PEERS[number].peer
        if step == "answer":
            walk.receive_answer(found, [PEERS[each] for each in others])
            waiting.discard(found)
        elif step == "fail":
            walk.receive_failure(found)
            waiting.discard(found)
        elif step == "time":
            now += number / 4
            waiting -= set(walk.handle_timeout(now))
        if step == "ask" or not (waiting or walk.is_finished):
            new = [each.peer for each in walk.next_requests(now)]
            asked += new
            waiting |= set(new)
        assert len(waiting) <= MAX_WAITING
        assert len(set(asked)) == len(asked) == walk.requests
        assert walk.is_finished or (waiting and walk.next_timeout() is not None), "it is stuck"
    assert len(walk.closest()) <= K


@pytest.mark.parametrize("settle", [1, 3, K])
def test_everyone_answering_nothing_is_the_shortest_walk(settle):
    walk = lookup(*PEERS[:30], settle=settle)
    while not walk.is_finished:
        for found in walk.next_requests(0.0):
            walk.receive_answer(found.peer, [])
    assert settle <= walk.requests <= settle + CONFIG.parallel - 1
