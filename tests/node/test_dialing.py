"""What a caller may name a peer by."""

from __future__ import annotations

import pytest
from isthmus.node.dialing import MAX_ADDRESSES, Dial, Target, explain, failed_attempt, parse_target
from isthmus.transports.core.errors import (
    AddressError,
    DialError,
    DialTimeout,
    FailedAttempt,
    NoTransport,
)
from isthmus.transports.core.keys import PrivateKey
from isthmus.transports.core.multiaddr import Multiaddr
from isthmus.transports.core.peer_id import PeerId

PEER, OTHER = (
    PeerId.from_public_key(PrivateKey.from_seed(bytes([number]) * 32).public_key)
    for number in (1, 2)
)
ADDRESS = Multiaddr.parse("/ip4/192.0.2.1/tcp/1")


def test_every_form_is_read():
    assert parse_target(PEER) == parse_target(str(PEER)) == Target(PEER)
    assert parse_target(ADDRESS) == parse_target(str(ADDRESS)) == Target(None, (ADDRESS,))
    full = ADDRESS.with_peer(PEER)
    assert parse_target([str(full), ADDRESS]) == Target(PEER, (full, ADDRESS))


@pytest.mark.parametrize(
    "to", [[], "", "12D3", "/ip4/1", [ADDRESS.with_peer(PEER), ADDRESS.with_peer(OTHER)]]
)
def test_what_names_no_peer_is_refused(to):
    with pytest.raises(AddressError):
        parse_target(to)


async def test_a_dial_tries_each_address_once_and_not_too_many():
    dial = Dial(PEER)
    dial.add([ADDRESS, ADDRESS])
    assert dial.next_address() == ADDRESS
    assert dial.next_address() is None
    dial.add(Multiaddr.parse(f"/ip4/192.0.2.1/tcp/{port}") for port in range(1, 100))
    count = 1
    while dial.next_address():
        count += 1
    assert count == MAX_ADDRESSES


async def test_the_error_tells_the_common_cause():
    dial = Dial(PEER)
    assert f"no address of {PEER}" in str(explain(dial))
    nothing = NoTransport(ADDRESS)
    dial.attempts.append(failed_attempt(ADDRESS, 0.0, nothing))
    assert explain(dial) is nothing
    dial.attempts = [failed_attempt(ADDRESS, 10.0, DialTimeout("late"))] * 2
    assert type(explain(dial)) is DialTimeout
    dial.attempts.append(failed_attempt(ADDRESS, 1.0, nothing))
    assert type(explain(dial)) is DialError
    assert len(explain(dial).attempts) == 3


def test_a_transports_own_report_of_one_attempt_is_kept():
    inner = FailedAttempt(ADDRESS, "signalling", 1.0, OSError("no"))
    assert failed_attempt(ADDRESS, 2.0, DialError("failed", [inner])) is inner
