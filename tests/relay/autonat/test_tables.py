"""What is believed of observed addresses and of verdicts, with a clock that only the test moves."""

from __future__ import annotations

from math import inf

from hypothesis import given
from hypothesis import strategies as st
from isthmus.relay.autonat.observed import (
    LIFETIME,
    MAX_CANDIDATES,
    MAX_OBSERVATIONS,
    MIN_OBSERVERS,
    NatKind,
    ObservedAddresses,
)
from isthmus.relay.autonat.reachability import (
    DOUBT,
    MAX_ADDRESSES,
    MAX_ASKED,
    MAX_SERVERS,
    MAX_VOTES,
    RECHECK,
    REFRESH,
    SERVER_BACKOFF,
    SERVER_PAUSE,
    VOTE_LIFETIME,
    Reachability,
    ReachabilityTable,
    Server,
)
from isthmus.transports.core.multiaddr import Multiaddr

LOCAL = Multiaddr.parse("/ip4/192.168.1.2/tcp/4001")
PUBLIC, PRIVATE, UNKNOWN = Reachability.PUBLIC, Reachability.PRIVATE, Reachability.UNKNOWN


def outside(number):
    return Multiaddr.parse(f"/ip4/1.2.3.4/tcp/{1000 + number}")


def seen(table, *externals, local=LOCAL, start=0):
    for number, external in enumerate(externals, start):
        table.add(("c", number), local=local, external=external, observer=number)


def servers(*numbers):
    return [Server(f"peer {number}", f"net {number}") for number in numbers]


def test_an_address_is_claimed_after_enough_networks_have_seen_it():
    table = ObservedAddresses()
    seen(table, *[outside(1)] * (MIN_OBSERVERS - 1))
    table.add("again", local=LOCAL, external=outside(1), observer=0)
    assert table.candidates(0) == (outside(1),)
    assert table.claimed(0) == ()
    seen(table, outside(1), start=MIN_OBSERVERS)
    assert table.claimed(0) == (outside(1),)


def test_our_own_address_and_other_kinds_are_no_mapping():
    table = ObservedAddresses()
    seen(table, *[LOCAL] * MIN_OBSERVERS)
    table.add("ws", local=LOCAL, external=Multiaddr.parse("/ip4/1.2.3.4/tcp/1/ws"), observer=9)
    assert table.candidates(0) == table.claimed(0) == ()
    assert table.nat_kind(0) is NatKind.NONE


def test_what_was_seen_outlives_its_connection_for_a_while():
    table = ObservedAddresses()
    seen(table, outside(1))
    table.remove(("c", 0), 100)
    table.remove(("c", 0), 100)
    assert table.candidates(100 + LIFETIME - 1) == (outside(1),)
    assert table.candidates(100 + LIFETIME) == ()
    assert len(table) == 0


def test_of_addresses_not_listened_on_any_more_nothing_is_kept():
    table = ObservedAddresses()
    seen(table, outside(1))
    table.keep_locals([LOCAL])
    assert len(table) == 1
    table.keep_locals([outside(1)])
    assert len(table) == 0


def test_kinds_of_nat():
    def kind(*externals):
        table = ObservedAddresses()
        seen(table, *externals)
        return table.nat_kind(0)

    assert kind() is kind(outside(1)) is NatKind.UNKNOWN
    assert kind(outside(1), outside(1)) is NatKind.ENDPOINT_INDEPENDENT
    assert kind(outside(1), outside(1), outside(2)) is NatKind.ENDPOINT_INDEPENDENT
    assert kind(outside(1), outside(2)) is NatKind.SYMMETRIC
    assert kind(*map(outside, range(9))) is NatKind.SYMMETRIC


@given(st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 30), st.booleans()), max_size=60))
def test_observations_are_bounded_whatever_comes(steps):
    table = ObservedAddresses()
    now = 0.0
    for key, external, ends in steps:
        now += 60
        if ends:
            table.remove(key, now)
        else:
            table.add(key, local=LOCAL, external=outside(external), observer=key)
        assert len(table.candidates(now)) <= MAX_CANDIDATES
        assert set(table.claimed(now)) <= set(table.candidates(now))


def test_as_many_observations_as_there_are_places_are_kept():
    table = ObservedAddresses()
    for number in range(2 * MAX_OBSERVATIONS):
        table.add(number, local=LOCAL, external=outside(1), observer=number)
    assert len(table) == MAX_OBSERVATIONS


def test_two_networks_make_a_verdict_and_three_make_it_sure():
    table, asked = ReachabilityTable(), servers(1, 2, 3, 4)
    table.set_addresses([LOCAL])
    assert table.overall() is UNKNOWN
    changes = []
    for expected in asked[:3]:
        question = table.plan(asked, 10)
        assert question.server == expected
        assert question.addresses == (LOCAL,)
        changes.append(table.answered(question, LOCAL, 10, is_reached=True))
    assert changes == [False, True, False]
    assert table.overall() is table.of(LOCAL) is PUBLIC
    assert table.verdicts() == {LOCAL: PUBLIC}
    assert table.plan(asked, 10) is None
    assert table.next_timeout(asked) == 10 + REFRESH
    assert table.plan(asked, 10 + REFRESH).server == asked[3]


def test_one_network_has_one_vote_whatever_its_peers_say():
    table = ReachabilityTable()
    table.set_addresses([LOCAL])
    crowd = [Server(f"peer {number}", "net") for number in range(9)]
    question = table.plan(crowd, 0)
    assert not table.answered(question, LOCAL, 0, is_reached=False)
    assert table.plan(crowd, SERVER_PAUSE) is None
    assert table.next_timeout(crowd) == RECHECK
    assert not table.answered(question, LOCAL, 1, is_reached=False)
    assert table.overall() is UNKNOWN


def test_those_who_lie_are_outvoted():
    table = ReachabilityTable()
    table.set_addresses([LOCAL])
    for number, is_reached in enumerate([False, True, False, True, True, True]):
        question = table.plan(servers(number), 0)
        table.answered(question, LOCAL, 0, is_reached=is_reached)
    assert table.overall() is PUBLIC
    assert len(table._records[LOCAL].votes) == MAX_VOTES


def test_a_server_that_fails_is_left_alone_and_says_nothing():
    table, asked = ReachabilityTable(), servers(1)
    table.set_addresses([LOCAL])
    question = table.plan(asked, 0)
    assert table.plan(asked, SERVER_PAUSE - 1) is None
    table.failed(question, 5)
    assert table.plan(asked, SERVER_BACKOFF) is None
    assert table.next_timeout(asked) == 5 + SERVER_BACKOFF
    assert table.plan(asked, 5 + SERVER_BACKOFF) is not None
    assert table.overall() is UNKNOWN


def test_old_answers_count_no_more():
    table = ReachabilityTable()
    table.set_addresses([LOCAL])
    for number, when in ((1, 0), (2, 100)):
        table.answered(table.plan(servers(number), when), LOCAL, when, is_reached=False)
    assert table.overall() is PRIVATE
    assert table.next_timeout([]) == VOTE_LIFETIME
    assert not table.handle_timeout(VOTE_LIFETIME)
    assert table.overall() is PRIVATE
    assert table.handle_timeout(100 + VOTE_LIFETIME)
    assert table.overall() is UNKNOWN
    assert table.next_timeout([]) == inf


def test_after_a_change_of_network_a_verdict_stands_until_it_is_confirmed_or_doubted_too_long():
    table, asked = ReachabilityTable(), servers(1, 2, 3)
    table.set_addresses([LOCAL])

    def answer(now, *, is_reached):
        return table.answered(table.plan(asked, now), LOCAL, now, is_reached=is_reached)

    answer(0, is_reached=True)
    assert answer(0, is_reached=True)
    table.network_changed(50)
    assert table.overall() is PUBLIC
    assert not answer(50, is_reached=False)
    assert table.overall() is PUBLIC
    assert answer(50, is_reached=False)
    assert table.overall() is PRIVATE
    table.network_changed(100)
    assert table.next_timeout([]) == 100 + DOUBT
    assert table.handle_timeout(100 + DOUBT)
    assert table.overall() is UNKNOWN


def test_the_address_least_known_is_asked_about_first():
    table = ReachabilityTable()
    many = [outside(number) for number in range(2 * MAX_ADDRESSES)]
    table.set_addresses(many)
    assert len(table.verdicts()) == MAX_ADDRESSES
    question = table.plan(servers(1), 0)
    assert question.addresses == tuple(many[:MAX_ASKED])
    table.answered(question, many[0], 0, is_reached=True)
    assert table.plan(servers(2), 0).addresses[0] == many[1]
    table.set_addresses(many[1:2])
    assert not table.answered(question, many[0], 0, is_reached=True)
    assert table.verdicts() == {many[1]: UNKNOWN}


def test_servers_are_remembered_up_to_a_bound():
    table = ReachabilityTable()
    table.set_addresses([LOCAL])
    for number in range(2 * MAX_SERVERS):
        table.failed(table.plan(servers(number), 0), 0)
    assert len(table._free_at) == MAX_SERVERS


@given(
    st.lists(
        st.tuples(st.integers(0, 5), st.sampled_from(["yes", "no", "fail", "net"])), max_size=60
    )
)
def test_a_verdict_always_has_more_votes_for_it_than_against(steps):
    table, now = ReachabilityTable(), 0.0
    table.set_addresses([LOCAL, outside(1)])
    for number, what in steps:
        now += 400
        if what == "net":
            table.network_changed(now)
            continue
        table.handle_timeout(now)
        question = table.plan(servers(number), now)
        if question is None:
            assert table.next_timeout(servers(number)) > now
        elif what == "fail":
            table.failed(question, now)
        else:
            table.answered(question, question.addresses[0], now, is_reached=what == "yes")
        for record in table._records.values():
            if record.doubted_until is None and record.verdict is not UNKNOWN:
                assert (record.score() > 0) is (record.verdict is PUBLIC)
                assert record.score() != 0
