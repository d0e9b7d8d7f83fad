"""What turns values into text: sizes, texts of peers, events, errors."""

from __future__ import annotations

import errno
import unicodedata
from pathlib import Path

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st
from isthmus import Multiaddr, PeerId
from isthmus.node.cli.lines import describe_event
from isthmus.node.cli.sizes import format_size, megabytes_per_second, parse_size
from isthmus.node.events import (
    AddressesChanged,
    CircuitEnded,
    CircuitOpened,
    ConnectionEnded,
    ConnectionOpened,
    ConnectionRefused,
    DialFailed,
    EventsLost,
    HandlerFailed,
    HolePunched,
    HolePunchFailed,
    LinkChanged,
    Listening,
    MulticastUnavailable,
    PathChanged,
    PeerFound,
    PeerIdentified,
    PeerOffline,
    PeerOnline,
    ProvidingFailed,
    ReachabilityChanged,
    RelayLost,
    RelayRefused,
    RelayReservationEnded,
    RelayReservationMade,
    RelayReserved,
    ServiceProvided,
    StoreDegraded,
    StoreRecovered,
    StreamRefused,
)
from isthmus.node.link import LinkState
from isthmus.node.printable import printable
from isthmus.node.sentences import describe
from isthmus.relay.autonat.reachability import Reachability
from isthmus.transports.core.errors import (
    DialError,
    DialTimeout,
    FailedAttempt,
    NegotiationError,
    NoiseError,
    SelfDial,
)
from isthmus.transports.core.interfaces import Side

PEER = PeerId.parse("12D3KooWGJAmQyRkvK6Cf7Jr3zhMmtLX2Q8d2hKS9sMLUFWEPTpo")
ADDRESS = Multiaddr.parse("/ip4/127.0.0.1/tcp/4001")
HOSTILE = "a\x1b[2Jb\nc\u202ed\x9be\u200bf\ud800g\x00"


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("65536", 65536),
        ("200MB", 200_000_000),
        ("1GiB", 2**30),
        ("1.5 kb", 1500),
        ("3B", 3),
        ("2tib", 2 * 2**40),
    ],
)
def test_sizes(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "text", ["", "MB", "-1", "1e6", "1M", "0.1B", "1.0.0", "٣MB", "9999999999TB", "1 0"]
)
def test_what_is_no_size(text):
    with pytest.raises(ValueError, match="is not a"):
        parse_size(text)


def test_sizes_and_rates_are_shown_in_decimal_units():
    assert [format_size(each) for each in (999, 1000, 200_000_000, 2**30)] == [
        "999 B",
        "1 kB",
        "200 MB",
        "1.074 GB",
    ]
    assert megabytes_per_second(0, 1.0) is None
    assert megabytes_per_second(200_000_000, 0.5) == 400


def test_a_peers_text_cannot_steer_a_terminal():
    assert printable(HOSTILE) == "a[2Jb cdefg"
    assert printable("Grüße, 世界") == "Grüße, 世界"
    assert printable("x" * 300) == "x" * 197 + "..."
    assert printable("x" * 200) == "x" * 200
    assert printable("\x00" * 10**6 + "x", limit=5) == "..."
    assert printable("abcdef", limit=2) == ".."


@given(st.text(), st.integers(3, 50))
def test_a_printable_text_is_short_and_has_only_what_can_be_seen(text, limit):
    shown = printable(text, limit=limit)
    assert len(shown) <= limit
    assert not {unicodedata.category(each) for each in shown} & {"Cc", "Cf", "Cs", "Cn", "Zl", "Zp"}


@pytest.mark.parametrize(
    ("event", "line"),
    [
        (Listening(PEER, ()), None),
        (
            ConnectionOpened(PEER, ADDRESS, Side.LISTENER, limited=False),
            f"connection from {PEER} ({ADDRESS})",
        ),
        (
            ConnectionOpened(PEER, ADDRESS, Side.DIALER, limited=True),
            f"connected to {PEER} ({ADDRESS}, limited)",
        ),
        (ConnectionEnded(PEER, ADDRESS, True, HOSTILE), f"disconnected from {PEER}: a[2Jb cdefg"),
        (ConnectionRefused(PEER, ADDRESS, "full", "x"), f"turned {PEER} away: full"),
        (ConnectionRefused(None, ADDRESS, "fast", "x", 9), f"turned {ADDRESS} away, 9 times: fast"),
        (StreamRefused(PEER, "many", "x"), f"refused a stream of {PEER}: many"),
        (StreamRefused(PEER, "many", "x", 2), f"refused a stream of {PEER}, 2 times: many"),
        (PeerIdentified(PEER, HOSTILE, (), (), None), f'{PEER} calls itself "a[2Jb cdefg"'),
        (DialFailed(None, HOSTILE), "a[2Jb cdefg"),
        (HandlerFailed(PEER, "/x", KeyError()), f"/x for {PEER} failed: KeyError"),
        (
            RelayReserved(PEER, (ADDRESS,), 5.0),
            f"reached through the relay {PEER} (/ip4/127.0.0.1/tcp/4001)",
        ),
        (RelayRefused(PEER, "it is full"), "it is full"),
        (RelayLost(PEER, "it left"), f"no longer reached through the relay {PEER}: it left"),
        (RelayReservationMade(PEER, 5.0), f"relaying for {PEER}"),
        (RelayReservationEnded(PEER, "it left"), f"relaying for {PEER} no more: it left"),
        (CircuitOpened(PEER, PEER), f"circuit from {PEER} to {PEER}"),
        (
            CircuitEnded(PEER, PEER, 2000, 1.5, "its time was over"),
            f"circuit from {PEER} to {PEER} ended after 2 kB: its time was over",
        ),
        (AddressesChanged((ADDRESS,)), f"addresses are now: {ADDRESS}"),
        (PeerFound(PEER, (ADDRESS,)), f"found {PEER} on the LAN (/ip4/127.0.0.1/tcp/4001)"),
        (
            ReachabilityChanged(Reachability.PUBLIC, (ADDRESS,)),
            f"others can dial this node at {ADDRESS}",
        ),
        (
            ReachabilityChanged(Reachability.PRIVATE, ()),
            "others cannot dial this node: it is behind a NAT or a firewall",
        ),
        (
            ReachabilityChanged(Reachability.UNKNOWN, ()),
            "whether others can dial this node is not known any more",
        ),
        (HolePunched(PEER, ADDRESS, 1), f"connected to {PEER} without the relay ({ADDRESS})"),
        (HolePunchFailed(PEER, HOSTILE), f"no connection to {PEER} without the relay: a[2Jb cdefg"),
        (MulticastUnavailable(("eth0", "br\x1b1")), "LAN: no multicast on eth0, br1"),
        (LinkChanged(PEER, LinkState.CONNECTED, ""), None),
        (
            LinkChanged(PEER, LinkState.RECONNECTING, "it broke"),
            f"reconnecting to {PEER}: it broke",
        ),
        (LinkChanged(PEER, LinkState.FAILED, HOSTILE), f"gave up on {PEER}: a[2Jb cdefg"),
        (
            PathChanged(PEER, ADDRESS, ADDRESS, "the path before has ended"),
            f"{PEER} is reached at {ADDRESS} now: the path before has ended",
        ),
        (PeerOnline(PEER), f"{PEER} is online"),
        (PeerOffline(PEER, "it broke"), f"{PEER} is offline: it broke"),
        (
            StoreDegraded(Path("/d/x\x1b.sqlite3"), "no room"),
            "what is known of peers is in memory only: /d/x.sqlite3: no room",
        ),
        (StoreRecovered(Path("/d/x")), "what is known of peers is kept again: /d/x"),
        (ServiceProvided("chat", 1), "offers chat: 1 server of the DHT took note"),
        (ServiceProvided("chat", 20), "offers chat: 20 servers of the DHT took note"),
        (
            ProvidingFailed("chat", "no\nroom"),
            "could not tell the DHT that this node offers chat: no room",
        ),
        (EventsLost(3), "3 events were too many to be shown"),
    ],
)
def test_events_as_lines(event, line):
    assert describe_event(event) == line


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (SelfDial("x"), "the address leads to this very node"),
        (DialError("no address is known"), "no address is known"),
        (NegotiationError(["/x/1"], "na"), "the peer does not serve /x/1"),
        (NegotiationError(["/x/1"], HOSTILE), "no agreement on /x/1: the peer answered "),
        (NoiseError(HOSTILE), "a[2Jb cdefg"),
        (anyio.EndOfStream(), "the peer ended the stream too early"),
        (anyio.ClosedResourceError(), "the connection was closed"),
        (TimeoutError(), "no answer in time"),
        (TimeoutError("no answer to a ping"), "no answer to a ping"),
        (OSError(errno.ENOSPC, "full", "/a"), "/a: full"),
        (ExceptionGroup("two", [OSError("one"), OSError("other")]), "one"),
    ],
)
def test_errors_as_sentences(error, line):
    text = describe(error)
    assert text.startswith(line)
    assert text.isprintable()


def test_a_dial_that_failed_everywhere_names_each_address_and_cause():
    refused = DialError(f"cannot connect to {ADDRESS}: refused")
    refused.__cause__ = OSError(errno.EHOSTUNREACH, "No route to host")
    attempts = [
        FailedAttempt(ADDRESS, "connect", 0.1, refused),
        FailedAttempt(ADDRESS, "connect", 10, DialTimeout("no connection within 10 s")),
        FailedAttempt(ADDRESS, "handshake", 0.1, NoiseError("bad tag")),
    ]
    assert describe(DialError("none", attempts)) == (
        f"cannot connect by any of 3 addresses: {ADDRESS}: No route to host: no machine answers"
        f" there; {ADDRESS}: no connection within 10 s; {ADDRESS}: the handshake failed: bad tag"
    )
