"""Both ends of a dial request, byte by byte, beside each other, and against what is no peer."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st
from isthmus.relay.autonat.config import AutonatConfig
from isthmus.relay.autonat.limits import (
    AT_ONCE,
    AT_ONCE_PER_SOURCE,
    PAID_REQUESTS,
    REQUESTS,
    REQUESTS_PER_SOURCE,
    WINDOW,
    RequestLimits,
)
from isthmus.relay.autonat.machine import MAX_RESPONSES, DialWanted, RequestClient, RequestServer
from isthmus.relay.autonat.wire import (
    MAX_CHUNK,
    MAX_DATA,
    MIN_DATA,
    DialData,
    DialDataRequest,
    DialRequest,
    DialResponse,
    DialStatus,
    ResponseStatus,
    encode_message,
)
from isthmus.relay.dcutr.config import DcutrConfig
from isthmus.transports.core.errors import (
    ConfigError,
    LocalProtocolError,
    P2PError,
    RemoteProtocolError,
)
from isthmus.transports.core.multiaddr import Multiaddr

HOME = Multiaddr.parse("/ip4/1.2.3.4/tcp/4001")
AWAY = Multiaddr.parse("/ip4/5.6.7.8/tcp/4001")
BAD = Multiaddr.parse("/ip4/10.0.0.1/tcp/1")
OK = DialResponse(ResponseStatus.OK, 0, DialStatus.OK)
REFUSED = DialResponse(ResponseStatus.DIAL_REFUSED)


def server(**settings):
    found = {
        "observed": ip_address("1.2.3.4"),
        "may_dial": lambda address: address != BAD,
        "price": MIN_DATA,
    }
    return RequestServer(**found | settings)


def ask(machine, *addresses, step=10_000):
    """Feed a request in steps; return what the last step made of it."""
    data = encode_message(DialRequest(addresses, 7))
    wanted = None
    for start in range(0, len(data), step):
        assert wanted is None
        wanted = machine.receive_data(data[start : start + step])
    return wanted


def pass_on(client, machine):
    """Carry bytes until the server wants to dial; return that, and the bytes of the client."""
    count = 0
    while data := client.data_to_send():
        count += len(data)
        if (wanted := machine.receive_data(data)) is not None:
            return wanted, count
        client.receive_data(machine.data_to_send())
    return None, count


@pytest.mark.parametrize("step", [1, 3, 10_000])
def test_an_own_address_is_dialled_for_nothing(step):
    machine = server()
    assert ask(machine, None, BAD, HOME, AWAY, step=step) == DialWanted(HOME, 7, is_paid=False)
    assert machine.data_to_send() == b""
    machine.dialled(DialStatus.OK)
    assert machine.is_done
    assert machine.data_to_send() == encode_message(
        DialResponse(ResponseStatus.OK, 2, DialStatus.OK)
    )
    assert machine.receive_data(b"\xff") is None
    with pytest.raises(LocalProtocolError):
        machine.dialled(DialStatus.OK)


@pytest.mark.parametrize("price", [MIN_DATA, 54_321, MAX_DATA])
def test_another_is_paid_for_before_it_is_dialled(price):
    client, machine = RequestClient((AWAY, HOME), 9), server(price=price)
    wanted, count = pass_on(client, machine)
    assert wanted == DialWanted(AWAY, 9, is_paid=True)
    assert price < count < price + MAX_CHUNK + 1000
    machine.dialled(DialStatus.DIAL_ERROR)
    client.receive_data(machine.data_to_send())
    assert client.answer == DialResponse(ResponseStatus.OK, 0, DialStatus.DIAL_ERROR)
    assert client.data_to_send() == b""


def test_whoever_is_seen_through_a_relay_pays_for_every_address():
    assert ask(server(observed=None), HOME) is None


def test_a_price_is_paid_in_full():
    machine = server()
    assert ask(machine, AWAY) is None
    machine.data_to_send()
    chunk = encode_message(DialData(bytes(1000)))
    for _ in range(MIN_DATA // 1000 - 1):
        assert machine.receive_data(chunk) is None
    # The last one may be small, or larger than what is owed.
    assert machine.receive_data(encode_message(DialData(bytes(999)))) is None
    assert machine.receive_data(encode_message(DialData(b"x"))) is not None


@pytest.mark.parametrize(
    "data",
    [
        encode_message(DialData(b"")),
        encode_message(DialData(bytes(99))),
        encode_message(DialRequest((HOME,), 1)),
        encode_message(OK),
        b"\xff" * 9,
    ],
)
def test_crumbs_and_nonsense_instead_of_data_are_a_breach(data):
    machine = server()
    assert ask(machine, AWAY) is None
    with pytest.raises(RemoteProtocolError):
        machine.receive_data(data)


@pytest.mark.parametrize("message", [OK, DialDataRequest(0, 1), DialData(b"x")])
def test_a_server_takes_requests_only(message):
    with pytest.raises(RemoteProtocolError):
        server().receive_data(encode_message(message))


def test_what_is_refused_is_answered():
    machine = server()
    assert ask(machine, BAD, None) is None
    assert machine.is_done
    assert machine.data_to_send() == encode_message(REFUSED)
    machine = server(may_charge=lambda: False)
    assert ask(machine, AWAY) is None
    rejected = encode_message(DialResponse(ResponseStatus.REQUEST_REJECTED))
    assert machine.data_to_send() == rejected
    machine = server()
    machine.reject()
    assert (machine.is_done, machine.data_to_send()) == (True, rejected)


def test_js_answers_for_each_address_and_the_dialled_one_counts():
    client = RequestClient((BAD, HOME), 1)
    dialled = DialResponse(ResponseStatus.OK, 1, DialStatus.OK)
    client.receive_data(encode_message(REFUSED) + encode_message(dialled) + encode_message(REFUSED))
    assert client.answer == dialled
    client = RequestClient((BAD, HOME), 1)
    client.receive_data(encode_message(REFUSED) * 2)
    assert client.answer is None
    client.receive_eof()
    assert client.answer == REFUSED
    with pytest.raises(RemoteProtocolError):
        RequestClient((HOME,), 1).receive_eof()


@pytest.mark.parametrize(
    "data",
    [
        encode_message(DialResponse(ResponseStatus.OK, 1, DialStatus.OK)),
        encode_message(DialDataRequest(1, MIN_DATA)),
        encode_message(DialDataRequest(0, MAX_DATA + 1)),
        encode_message(DialDataRequest(0, 1)) * 2,
        encode_message(DialRequest((HOME,), 1)),
        encode_message(DialData(b"")),
        encode_message(REFUSED) * (MAX_RESPONSES + 1),
        b"\xff" * 9,
    ],
)
def test_a_server_that_asks_too_much_or_names_what_it_was_not_told_is_left(data):
    client = RequestClient((AWAY,), 1)
    client.data_to_send()
    with pytest.raises(RemoteProtocolError):
        client.receive_data(data)


@given(st.lists(st.binary(max_size=60), max_size=5), st.booleans())
def test_only_errors_of_the_tree_leave_the_machines(pieces, asked):
    client, machine = RequestClient((AWAY,), 1), server()
    if asked:
        ask(machine, AWAY)
    for end in (client, machine):
        try:
            for piece in pieces:
                end.receive_data(piece)
        except P2PError as error:
            assert str(error)  # noqa: PT017 - the only exception that may come


def test_one_source_has_its_share_of_each_minute():
    limits = RequestLimits()
    for second in range(REQUESTS_PER_SOURCE):
        assert limits.begin(("peer", "net"), second)
        limits.end(("peer", "net"))
    assert not limits.begin(("peer", "other net"), 20)
    assert not limits.begin(("other peer", "net"), 20)
    assert limits.begin(("other peer", "other net"), 20)
    assert limits.begin(("peer", "net"), WINDOW)
    assert not limits.begin(("peer", "net"), WINDOW + 0.5)


def test_few_run_at_once():
    limits = RequestLimits()
    for _ in range(AT_ONCE_PER_SOURCE):
        assert limits.begin(("peer",), 0)
    assert not limits.begin(("peer",), 0)
    for number in range(AT_ONCE - AT_ONCE_PER_SOURCE):
        assert limits.begin((number,), 0)
    assert not limits.begin(("late",), 0)
    limits.end(("peer",))
    assert limits.begin(("late",), 0)
    assert len(limits._running) == AT_ONCE


def test_all_together_have_theirs_and_paid_ones_fewer():
    limits = RequestLimits()
    for number in range(REQUESTS):
        assert limits.begin((number,), 1)
        limits.end((number,))
    assert not limits.begin(("late",), WINDOW)
    assert limits.begin(("late",), WINDOW + 1)
    assert [limits.charge(1) for _ in range(PAID_REQUESTS + 1)] == [True] * PAID_REQUESTS + [False]
    assert not limits.charge(WINDOW)
    assert limits.charge(WINDOW + 1)
    assert len(limits._running) == 1


def test_a_rejection_is_the_end_of_a_request():
    client = RequestClient((HOME,), 1)
    rejected = DialResponse(ResponseStatus.REQUEST_REJECTED)
    client.receive_data(encode_message(rejected) + encode_message(OK))
    assert client.answer == rejected


def test_settings_have_bounds():
    for confidence in (0, 9):
        with pytest.raises(ConfigError, match=r"autonat\.confidence"):
            AutonatConfig(confidence=confidence)
    for timeout in (0, 61):
        with pytest.raises(ConfigError, match=r"dcutr\.attempt_timeout"):
            DcutrConfig(attempt_timeout=timeout)
