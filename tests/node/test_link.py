"""One link: its states, its attempts, and what is told of it."""

from __future__ import annotations

from math import inf

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from isthmus.node.link import HISTORY, KEPT_INTERVAL, Link, LinkChange, LinkState
from isthmus.node.reconnect import ReconnectPolicy
from isthmus.transports.core.keys import PrivateKey
from isthmus.transports.core.peer_id import PeerId

PEER = PeerId.from_public_key(PrivateKey.from_seed(bytes(32)).public_key)
POLICY = ReconnectPolicy(max_attempts=3, jitter=0)

ALLOWED = {
    LinkState.DISCONNECTED: {LinkState.CONNECTING, LinkState.CONNECTED},
    LinkState.CONNECTING: {LinkState.SIGNALING, LinkState.CONNECTED, LinkState.DISCONNECTED},
    LinkState.SIGNALING: {LinkState.GATHERING, LinkState.CONNECTED},
    LinkState.GATHERING: {LinkState.CONNECTING, LinkState.CONNECTED},
    LinkState.CONNECTED: {LinkState.RECONNECTING, LinkState.DISCONNECTED},
    LinkState.RECONNECTING: {LinkState.CONNECTED, LinkState.SIGNALING, LinkState.DISCONNECTED},
    LinkState.FAILED: {LinkState.CONNECTING, LinkState.CONNECTED},
    LinkState.CLOSED: set(),
}


def make(**options) -> Link:
    return Link(PEER, policy=POLICY, clock=lambda: 5.0, **options)


def states(link: Link) -> list[LinkState]:
    return [each.state for each in link.history]


@pytest.mark.parametrize("state", LinkState)
@pytest.mark.parametrize("other", LinkState)
def test_transitions(state, other):
    final = {LinkState.FAILED, LinkState.CLOSED} if state is not LinkState.CLOSED else set()
    expected = other in ALLOWED[state] | final and other is not state
    assert state.can_transition_to(other) is expected


def test_a_link_that_broke_is_dialled_until_its_attempts_are_used_up():
    link, told = make(), []
    stop = link.on_state(lambda _, change: told.append(change.state))
    link.dialling(0)
    link.connected(1, "/ip4/192.0.2.1/tcp/1")
    assert link.next_timeout() == inf
    link.lost(10, 0.5, "the path failed")
    now = 10.0
    for delay in (0.1, 0.25, 0.625):
        assert link.next_timeout() == pytest.approx(now + delay)
        now = link.next_timeout()
        assert not link.handle_timeout(now - 0.01)
        assert link.handle_timeout(now)
        link.dialling(now)
        assert link.next_timeout() == inf
        link.dial_failed(now, 0.5, "nothing listens there")
        link.dial_failed(now, 0.5, "told twice")
    assert (link.state, link.reason) == (LinkState.FAILED, "nothing listens there")
    assert link.next_timeout() == inf
    assert told == states(link)
    assert told[1:] == [LinkState.CONNECTED, LinkState.RECONNECTING, LinkState.FAILED]
    stop()
    link.dialling(now)
    assert link.state is LinkState.CONNECTING
    assert len(told) == 4


def test_a_dial_that_fails_is_not_repeated_unless_the_peer_is_kept():
    link = make()
    link.dialling(0)
    link.dial_failed(1, 0.5, "nothing listens there")
    assert link.state is LinkState.FAILED
    assert link.next_timeout() == inf
    link.keep(2)
    assert link.handle_timeout(2)
    link.dialling(2)
    link.dial_failed(3, 0.5, "nothing listens there")
    assert link.next_timeout() == 3 + KEPT_INTERVAL


def test_a_kept_link_has_no_last_attempt():
    link = make(is_kept=True)
    assert link.handle_timeout(0)
    link.dialling(0)
    link.connected(0)
    link.lost(0, 0.5, "gone")
    for _ in range(100):
        now = link.next_timeout()
        link.dialling(now)
        link.dial_failed(now, 0.5, "no")
    assert link.state is LinkState.RECONNECTING
    assert now < link.next_timeout() <= now + 30


def test_a_link_that_was_left_rests_or_is_looked_for_if_it_is_kept():
    link = make()
    link.connected(0)
    link.left(1, "the peer closed it")
    assert link.state is LinkState.DISCONNECTED
    assert link.next_timeout() == inf
    link.news(2)
    assert link.next_timeout() == inf
    link.keep(3)
    link.dialling(3)
    link.connected(3)
    link.left(4, "the peer closed it")
    assert link.next_timeout() == 4 + KEPT_INTERVAL
    link.news(5)
    assert link.handle_timeout(5)
    link.keep(6, is_kept=False)
    assert link.next_timeout() == inf


def test_news_shortens_the_wait():
    link = make()
    link.connected(0)
    link.lost(0, 0.5, "gone")
    link.dialling(link.next_timeout())
    link.news(1)
    assert link.next_timeout() == inf
    link.dial_failed(1, 0.5, "no")
    link.news(1.01)
    assert link.handle_timeout(1.01)
    link.dialling(1.01)
    link.dial_failed(1.02, 0.5, "no")
    # Anybody can make up news.
    link.news(1.03)
    assert not link.handle_timeout(1.03)


def test_nothing_follows_a_close():
    link, told = make(is_kept=True), []
    link.on_state(lambda _, change: told.append(change.state))
    link.close()
    link.close()
    link.connected(1)
    link.news(2)
    link.keep(3)
    assert link.state is LinkState.CLOSED
    assert told == [LinkState.CLOSED]


def test_history_begins_with_what_was_known_and_is_bounded():
    known = [LinkChange(LinkState.CONNECTED, float(number), "") for number in range(HISTORY)]
    link = make(known=known)
    assert link.state is LinkState.DISCONNECTED
    link.dialling(0)
    assert len(link.history) == HISTORY
    assert link.history[-1] == LinkChange(LinkState.CONNECTING, 5.0, "")


class Comings(RuleBasedStateMachine):
    """Whatever happens, a kept link is connected, dialled, or waits for a time that is near."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.link = make(is_kept=True)
        self.dialling = False
        self.link.on_state(self.follow)
        self.state = self.link.state

    def follow(self, link: Link, change: LinkChange) -> None:
        assert change.state in ALLOWED[self.state] | {LinkState.FAILED, LinkState.CLOSED}
        self.state = change.state

    @rule(seconds=st.floats(0, 100))
    def wait(self, seconds: float) -> None:
        self.now = min(self.now + seconds, max(self.link.next_timeout(), self.now))
        if self.link.handle_timeout(self.now):
            self.link.dialling(self.now)
            self.dialling = True

    @precondition(lambda self: self.dialling)
    @rule(works=st.booleans(), draw=st.floats(0, 1))
    def dialled(self, *, works: bool, draw: float) -> None:
        self.dialling = False
        if works:
            self.link.connected(self.now)
        else:
            self.link.dial_failed(self.now, draw, "no")

    @rule()
    def comes_in(self) -> None:
        self.link.connected(self.now)
        self.dialling = False

    @precondition(lambda self: self.state is LinkState.CONNECTED)
    @rule(broke=st.booleans(), draw=st.floats(0, 1))
    def goes(self, *, broke: bool, draw: float) -> None:
        if broke:
            self.link.lost(self.now, draw, "broke")
        else:
            self.link.left(self.now, "left")

    @rule()
    def news(self) -> None:
        self.link.news(self.now)

    @invariant()
    def is_cared_for(self) -> None:
        assert self.link.state is self.state
        if self.state is LinkState.CONNECTED:
            assert self.link.next_timeout() == inf
        elif not self.dialling:
            assert self.link.next_timeout() <= self.now + KEPT_INTERVAL


TestComings = Comings.TestCase
TestComings.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
