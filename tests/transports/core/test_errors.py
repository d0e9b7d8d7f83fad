"""What errors keep and say, and the two helpers that translate and unwrap them."""

from __future__ import annotations

import anyio
import pytest
from isthmus.transports.core.codes import ConnectionCode, StreamCode, explain_code
from isthmus.transports.core.errors import (
    AddressError,
    ConnectionClosed,
    DialError,
    FailedAttempt,
    LimitExceeded,
    NegotiationError,
    NoTransport,
    P2PError,
    RemoteProtocolError,
    StreamReset,
    map_errors,
    unwrap_group,
)
from isthmus.transports.core.multiaddr import Multiaddr

ADDRESS = Multiaddr.parse("/ip4/192.0.2.1/tcp/4001")


def test_texts_name_what_they_keep():
    attempt = FailedAttempt(ADDRESS, "connect", 0.25, TimeoutError())
    assert str(attempt) == f"{ADDRESS}: connect failed after 250 ms: TimeoutError"
    assert str(DialError("no way", [attempt])) == f"no way; {attempt}"
    assert str(NoTransport(ADDRESS)) == f"no transport of this node can use {ADDRESS}"
    assert str(NegotiationError(["/a", "/b"], "na")) == "offered /a, /b; the peer answered 'na'"
    assert str(LimitExceeded("streams", value=3, limit=2, setting="max")) == (
        "streams: 3 is over the limit of 2 (setting: max)"
    )


@pytest.mark.parametrize(
    ("remote", "who"),
    [(True, "by the peer"), (False, "by this side"), (None, "because the path failed")],
)
def test_an_ended_connection_says_who_ended_it(remote, who):
    assert str(ConnectionClosed(remote=remote)) == f"the connection was closed {who}"
    closed = ConnectionClosed(remote=remote, code=1, cause=RemoteProtocolError("nonsense"))
    assert str(closed) == f"the connection was closed {who}: nonsense"
    assert (closed.remote, closed.code) == (remote, 1)


@pytest.mark.parametrize(("remote", "who"), [(True, "the peer"), (False, "this side")])
def test_a_reset_is_a_broken_resource(remote, who):
    reset = StreamReset(7, remote=remote)
    assert isinstance(reset, anyio.BrokenResourceError)
    assert isinstance(reset, P2PError)
    assert str(reset) == f"the stream was reset by {who} (code 7)"
    assert str(StreamReset(remote=remote, why="enough")).endswith("(code 0): enough")


def test_a_code_of_the_peer_says_why():
    code = ConnectionCode.RESOURCE_LIMIT_EXCEEDED
    assert str(ConnectionClosed(remote=True, code=code)).endswith("peer: a limit of it is reached")
    # What this side has sent it knows the reason of, and a code may mean nothing.
    assert str(ConnectionClosed(remote=False, code=code)).endswith("by this side")
    assert str(ConnectionClosed(remote=True, code=0xFFFF)).endswith("by the peer")
    reset = StreamReset(StreamCode.RATE_LIMITED, remote=True)
    assert str(reset).endswith("(code 4099): this came too fast for it")
    assert str(StreamReset(StreamCode.RATE_LIMITED, remote=False)).endswith("(code 4099)")
    for kind in (ConnectionCode, StreamCode):
        assert all(explain_code(kind, each) for each in kind if each)
        assert explain_code(kind, 0) == ""


def test_foreign_errors_are_translated():
    mapping = {(KeyError, ValueError): AddressError, OSError: P2PError}
    with pytest.raises(AddressError, match="odd") as caught, map_errors(mapping):
        raise ValueError("odd")
    assert isinstance(caught.value.__cause__, ValueError)
    with pytest.raises(P2PError, match="ConnectionResetError"), map_errors(mapping):
        raise ConnectionResetError
    with pytest.raises(ZeroDivisionError), map_errors(mapping):
        raise ZeroDivisionError
    with map_errors(mapping):
        pass


def test_a_group_of_one_is_unwrapped_however_deep():
    inner, why = AddressError("odd"), OSError("why")
    inner.__cause__ = why
    with pytest.raises(AddressError) as caught, unwrap_group():
        raise ExceptionGroup("outer", [ExceptionGroup("inner", [inner])])
    assert caught.value is inner
    assert inner.__cause__ is why


def test_other_groups_and_errors_pass():
    group = ExceptionGroup("two", [ValueError(), KeyError()])
    for error, raised in ((group, group), (ExceptionGroup("one", [group]), group)):
        with pytest.raises(ExceptionGroup) as caught, unwrap_group():
            raise error
        assert caught.value is raised
    with pytest.raises(KeyError), unwrap_group():
        raise KeyError
    with unwrap_group():
        pass
