"""Both roles of DCUtR, with a clock that only the test moves."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from isthmus.relay.dcutr.machine import MAX_ATTEMPTS, MAX_WAIT, Initiator, Punch, Responder
from isthmus.relay.dcutr.wire import HolePunch, HolePunchType, encode
from isthmus.transports.core.errors import LocalProtocolError, P2PError, RemoteProtocolError
from isthmus.transports.core.interfaces import Side
from isthmus.transports.core.multiaddr import Multiaddr

OURS = Multiaddr.parse("/ip4/1.2.3.4/tcp/4001")
THEIRS = Multiaddr.parse("/ip4/5.6.7.8/tcp/4001")
CONNECT, SYNC = (encode(HolePunch(kind)) for kind in HolePunchType)


@pytest.mark.parametrize("step", [1, 5, 1000])
@given(delay=st.floats(0, 20), relay=st.floats(0, 20))
def test_both_dial_at_the_same_moment(step, delay, relay):
    """The messages take `delay` there and back: the dials start as far apart as the ways differ."""
    initiator, responder = Initiator([OURS]), Responder([THEIRS])
    initiator.begin(100)
    connect = initiator.data_to_send()
    arrived = 100 + delay
    for start in range(0, len(connect), step):
        assert responder.receive_data(connect[start : start + step], arrived) is None
    back = 100 + delay + relay
    answer = responder.data_to_send()
    punch = None
    for start in range(0, len(answer), step):
        assert punch is None
        punch = initiator.receive_data(answer[start : start + step], back)
    assert initiator.round_trip == pytest.approx(delay + relay)
    sync = initiator.data_to_send()
    theirs = None
    for start in range(0, len(sync), step):
        assert theirs is None
        theirs = responder.receive_data(sync[start : start + step], back + delay)
    assert theirs == Punch((OURS,), back + delay, Side.DIALER)
    assert punch.side is Side.LISTENER
    assert punch.addresses == (THEIRS,)
    if delay + relay <= 2 * MAX_WAIT:
        assert theirs.at - punch.at == pytest.approx((delay - relay) / 2)
    else:
        assert punch.at == back + MAX_WAIT


def test_each_attempt_measures_anew_and_there_are_three():
    initiator = Initiator([OURS])
    for number in range(1, MAX_ATTEMPTS + 1):
        assert initiator.may_begin
        initiator.begin(number * 10)
        assert initiator.data_to_send() == encode(HolePunch(HolePunchType.CONNECT, (OURS,)))
        # What is left of an earlier stream does not reach the next one.
        assert initiator.receive_data(CONNECT[:1], number * 10) is None
        assert initiator.receive_data(CONNECT[1:], number * 11).at == number * 10 + number * 1.5
        assert initiator.receive_data(CONNECT, 0) is None
        assert initiator.data_to_send() == SYNC
    assert not initiator.may_begin
    with pytest.raises(LocalProtocolError):
        initiator.begin(0)


def test_nothing_is_received_before_it_begins_and_after_it_ends():
    initiator, responder = Initiator([OURS]), Responder([OURS])
    assert initiator.receive_data(CONNECT, 0) is None
    assert responder.receive_data(CONNECT + SYNC, 5) == Punch((), 5, Side.DIALER)
    assert responder.receive_data(CONNECT + SYNC, 5) is None


@pytest.mark.parametrize("data", [SYNC, b"\x02\x08\x65", b"\xff" * 9, b"\x00"])
def test_what_is_out_of_order_is_a_breach(data):
    initiator = Initiator([OURS])
    initiator.begin(0)
    for machine in (initiator, Responder([OURS])):
        with pytest.raises(RemoteProtocolError):
            machine.receive_data(data, 0)
    responder = Responder([OURS])
    responder.receive_data(CONNECT, 0)
    with pytest.raises(RemoteProtocolError):
        responder.receive_data(CONNECT, 0)


@given(st.lists(st.binary(max_size=40) | st.sampled_from([CONNECT, SYNC]), max_size=6))
def test_only_errors_of_the_tree_leave_the_machines(pieces):
    initiator = Initiator([OURS])
    initiator.begin(0)
    for machine in (initiator, Responder([OURS])):
        try:
            for piece in pieces:
                machine.receive_data(piece, 0)
        except P2PError as error:
            assert str(error)  # noqa: PT017 - the only exception that may come
