"""What a caller may name a peer by."""

from __future__ import annotations

import errno

import pytest
from isthmus.node.dialing import Dial, Target, explain, failed_attempt, parse_target
from isthmus.node.dialreport import Outcome
from isthmus.node.path import Rank
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


def direct(address: Multiaddr) -> Rank:
    return Rank.DIRECT


async def test_a_dial_reports_every_address():
    addresses = [Multiaddr.parse(f"/ip4/192.0.2.1/tcp/{port}") for port in range(1, 5)]
    dial = Dial(PEER, 10.0)
    dial.add([*addresses, addresses[0]], direct)
    for now in (10.0, 10.25, 10.5):
        (address,) = dial.plan.take(now)
        dial.begin(address, now)
    refused = DialError("refused")
    refused.__cause__ = OSError(errno.ECONNREFUSED, "refused")
    dial.end(addresses[0], 12.0, refused)
    dial.end(addresses[1], 14.0)
    report = dial.report(15.0)
    assert (report.peer, report.duration, report.error) == (PEER, 5.0, "")
    assert [(each.outcome, each.started, each.duration) for each in report.steps] == [
        (Outcome.FAILED, 0.0, 2.0),
        (Outcome.CONNECTED, 0.25, 3.75),
        (Outcome.CANCELLED, 0.5, 4.5),
        (Outcome.NOT_TRIED, None, None),
    ]
    assert report.to_json()["steps"][0] == {
        "address": "/ip4/192.0.2.1/tcp/1",
        "rank": "direct",
        "outcome": "failed",
        "started_ms": 0.0,
        "duration_ms": 2000.0,
        "phase": "connect",
        "cause": "refused",
        "hint": "nothing listens there",
    }
    dial.fail(DialError("nothing left"))
    assert dial.report(16.0).to_json()["error"] == "nothing left"


async def test_of_an_address_that_was_tried_twice_the_last_attempt_is_told():
    first, second = (Multiaddr.parse(f"/ip4/192.0.2.1/tcp/{port}") for port in (1, 2))
    dial = Dial(PEER, 0.0)
    dial.add([first, second], direct)
    for now in (0.0, 0.25):
        (address,) = dial.plan.take(now)
        dial.begin(address, now)
    dial.end(first, 1.0, DialError("refused"))
    dial.add([first], direct)
    # It waits for its turn; what is known of it is told until then.
    assert [each.cause for each in dial.report(1.0).steps] == ["refused", ""]
    assert dial.plan.take(2.0) == (first,)
    dial.begin(first, 2.0)
    dial.end(second, 3.0, DialError("silent"))
    dial.end(first, 4.0, DialError("gone"))
    assert [each.cause for each in dial.report(4.0).steps] == ["gone", "silent"]
    assert [str(each.cause) for each in explain(dial).attempts] == ["silent", "gone"]


async def test_the_error_tells_the_common_cause():
    dial = Dial(PEER, 0.0)
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
