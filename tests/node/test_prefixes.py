"""Where connections come from, and how fast and how many at a time may begin."""

from __future__ import annotations

from collections import defaultdict
from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st
from isthmus.node.config import LimitsConfig
from isthmus.node.prefixes import Doorway, TokenBuckets
from isthmus.transports.core.addresses import prefix_of
from isthmus.transports.core.errors import LimitExceeded
from isthmus.transports.core.multiaddr import Multiaddr

RELAY = "/ip4/192.0.2.1/tcp/1/p2p/12D3KooWK99VoVxNE7XzyBwXEzW7xhK7Gpv85r9F3V3fyKSUKPH5"


def at(host: int, port: int = 1) -> Multiaddr:
    return Multiaddr.parse(f"/ip4/192.0.2.{host}/tcp/{port}")


@pytest.mark.parametrize(
    ("address", "prefix"),
    [
        ("/ip4/192.0.2.7/tcp/4001", "192.0.2.7"),
        ("/ip4/192.0.2.7/tcp/9/ws", "192.0.2.7"),
        ("/ip4/127.0.0.1/tcp/4001", "127.0.0.1"),
        ("/ip6/2001:db8:1:2ff:3::4/tcp/4001", "2001:db8:1:200::/56"),
        ("/ip6/2001:db8:1:200::/tcp/4001", "2001:db8:1:200::/56"),
        ("/ip6/::1/tcp/4001", "::/56"),
        ("/ip6/::ffff:192.0.2.7/tcp/4001", "192.0.2.7"),
        ("/memory/7", None),
        (f"{RELAY}/p2p-circuit", None),
    ],
)
def test_what_an_address_counts_against(address, prefix):
    found = prefix_of(Multiaddr.parse(address))
    read = ip_network if "/" in str(prefix) else ip_address
    assert found == (None if prefix is None else read(prefix))


def test_a_burst_then_a_rate():
    buckets = TokenBuckets(burst=3, rate=2.0)
    here, there = prefix_of(at(1)), prefix_of(at(2))
    assert [buckets.take(here, 10.0) for _ in range(5)] == [True] * 3 + [False] * 2
    assert buckets.take(there, 10.0)
    assert not buckets.take(here, 10.4)
    assert buckets.take(here, 10.5)
    assert not buckets.take(here, 10.5)
    # Rest fills it to the brim, and no further.
    assert [buckets.take(here, 100.0) for _ in range(5)] == [True] * 3 + [False] * 2


@given(
    st.integers(1, 5),
    st.sampled_from([0.5, 1.0, 3.0]),
    st.lists(st.tuples(st.integers(1, 3), st.integers(0, 8)), max_size=60),
)
def test_buckets_do_what_counting_tokens_does(burst, rate, steps):
    buckets = TokenBuckets(burst=burst, rate=rate)
    tokens: dict[int, float] = defaultdict(lambda: float(burst))
    seen: dict[int, float] = defaultdict(float)
    now = 0.0
    for host, eighths in steps:
        now += eighths / 8
        tokens[host] = min(burst, tokens[host] + (now - seen[host]) * rate)
        seen[host] = now
        expected = tokens[host] >= 1 - 1e-6
        tokens[host] -= expected
        assert buckets.take(prefix_of(at(host)), now) is expected


def test_the_table_of_buckets_is_bounded_and_forgets_who_was_not_seen_longest():
    buckets = TokenBuckets(burst=1, rate=0.001, max_prefixes=2)
    assert buckets.take(prefix_of(at(1)), 0)
    assert buckets.take(prefix_of(at(2)), 0)
    assert not buckets.take(prefix_of(at(1)), 1)  # seen again, though refused
    assert buckets.take(prefix_of(at(3)), 2)
    assert len(buckets) == 2
    assert not buckets.take(prefix_of(at(1)), 3)
    assert buckets.take(prefix_of(at(2)), 4)


def test_handshakes_under_way_are_bounded_for_all_and_for_each():
    limits = LimitsConfig(pending_inbound=3, connections_per_prefix=2)
    door = Doorway(limits)
    door.enter(at(1), 0)
    door.enter(at(1, 2), 0)
    with pytest.raises(LimitExceeded, match=r"3 .* of 2 .*limits\.connections_per_prefix"):
        door.enter(at(1, 3), 0)
    door.enter(Multiaddr.parse("/memory/1"), 0)
    with pytest.raises(LimitExceeded, match=r"4 .* of 3 .*limits\.pending_inbound"):
        door.enter(at(2), 0)
    assert door.pending == 3
    door.leave(at(1))
    door.enter(at(2), 0)
    door.leave(at(2))
    door.enter(at(1), 0)
    for address in (at(1), at(1), Multiaddr.parse("/memory/1")):
        door.leave(address)
    assert (door.pending, door._pending_of) == (0, {})


def test_the_rate_of_a_prefix_is_named():
    door = Doorway(LimitsConfig(connection_burst=2, connection_rate=1))
    for now in (0, 0, 1):
        door.enter(at(1), now)
        door.leave(at(1))
    with pytest.raises(LimitExceeded, match=r"192\.0\.2\.1 .*limits\.connection_burst") as caught:
        door.enter(at(1), 1.5)
    assert (caught.value.value, caught.value.limit) == (3, 2)
    door.enter(at(2), 1.5)
