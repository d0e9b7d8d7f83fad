"""Several paths to one peer in the table of connections, by a virtual clock."""

from __future__ import annotations

import gc
import weakref

import anyio
import anyio.lowlevel
import pytest
from isthmus.node.events import ConnectionEnded, LinkChanged, PathChanged
from isthmus.node.link import LinkState
from isthmus.node.liveness import MIN_PATIENCE, PROBE_INTERVAL, SILENCE
from isthmus.node.path import BAD_FOR, LAST_FOR, MEMORY, Rank
from isthmus.node.paths import LOOK_TIME
from isthmus.node.selection import CLOSE_AFTER, RECHECK_AFTER, rank_of
from isthmus.node.upgrades import MIN_DELAY, SETTLE_TIME
from isthmus.transports.core.errors import ConnectionClosed, DialError
from isthmus.transports.core.interfaces import Side
from isthmus.transports.core.multiaddr import Multiaddr
from sim.fakes import FakeConnection
from trio.testing import MockClock

from .test_swarm import HIGH, LOW, running

LAN = Multiaddr.parse("/ip4/10.0.0.7/tcp/4001")
WAN = Multiaddr.parse("/ip4/192.0.2.7/tcp/4001")
OTHER = Multiaddr.parse("/ip4/192.0.2.8/tcp/4001")
WORSE = Multiaddr.parse("/ip4/192.0.2.7/tcp/4002/ws")
NOTICED = PROBE_INTERVAL + MIN_PATIENCE + 0.1


@pytest.fixture
def anyio_backend():
    return ("trio", {"clock": MockClock(autojump_threshold=0)})


class Two:
    """A swarm whose peer is at an address of the LAN, which is used, and at one of the WAN."""

    def __init__(self, it, peer=LOW, *, side=Side.DIALER):
        self.it, self.peer = it, peer
        it.swarm._is_on_link = lambda address: str(address).startswith("/ip4/10.")
        self.lan, self.wan = (FakeConnection(peer, each) for each in (LAN, WAN))
        self.lan.side = side
        self.lan.rtt, self.wan.rtt = 0.001, 0.02
        it.online = {LAN: self.lan, WAN: self.wan}

    async def start(self):
        if self.lan.side is Side.DIALER:
            self.it.peers.add_addresses(self.peer, [LAN, WAN])
            assert await self.it.connect(self.peer) is self.lan
        else:
            await self.it.swarm.accept(self.lan)
            self.it.peers.add_addresses(self.peer, [LAN, WAN])
        return self

    @property
    def best(self):
        return self.it.swarm.best(self.peer)

    def moves(self):
        return [(each.previous, each.address) for each in self.it.told(PathChanged)]

    def dialled(self, address):
        return self.it.transport.dialled.count(address)

    def cut(self):
        """Let the LAN vanish: what is dialled there hangs."""
        self.lan.is_silent = True
        self.it.online[LAN] = None

    def restore(self, *, with_new=True):
        self.lan.is_silent = False
        self.new = FakeConnection(self.peer, LAN)
        self.it.online[LAN] = self.new if with_new else self.lan


async def test_nothing_is_probed_while_nobody_waits():
    async with running() as it:
        two = await Two(it).start()
        await anyio.sleep(3600)
        assert two.lan.probes == 0


async def test_who_waits_has_the_path_probed_and_left_when_it_is_silent():
    async with running() as it:
        two = await Two(it).start()
        with it.swarm.attend(two.lan):
            await anyio.sleep(1)
            assert 8 <= two.lan.probes <= 10
            two.cut()
            await anyio.sleep(NOTICED)
            assert two.best is two.wan
            assert two.moves() == [(LAN, WAN)]
            assert it.told(PathChanged)[0].reason == "the path before does not answer"
            await anyio.sleep(3)
            two.restore(with_new=False)
            await anyio.sleep(0.2)
            assert two.best is two.lan
            assert two.moves() == [(LAN, WAN), (WAN, LAN)]
        await anyio.sleep(29.7)
        assert not two.wan.is_drained
        await anyio.sleep(0.6)
        assert two.wan.is_drained
        assert two.moves() == [(LAN, WAN), (WAN, LAN)]
        assert [each.state for each in it.told(LinkChanged)][-1] is LinkState.CONNECTED
        before = two.lan.probes
        await anyio.sleep(600)
        assert two.lan.probes == before, "alone again, it is compared to nothing"


async def test_a_path_that_stays_silent_is_closed_and_looked_for():
    async with running() as it:
        two = await Two(it).start()
        with it.swarm.attend(two.lan):
            two.cut()
            await anyio.sleep(NOTICED + SILENCE + 0.2)
            assert two.lan.is_closed
            (ended,) = it.told(ConnectionEnded)
            assert f"silent for {SILENCE:g} s" in ended.reason
            assert two.moves() == [(LAN, WAN)]
            looks = two.dialled(LAN)
            await anyio.sleep(10)
            assert 5 <= two.dialled(LAN) - looks <= 8
            two.restore()
            await anyio.sleep(1.6)
            assert two.best is two.new
            assert two.moves() == [(LAN, WAN), (WAN, LAN)]
            looks = two.dialled(LAN)
            await anyio.sleep(3600)
            assert two.dialled(LAN) == looks


async def test_the_only_path_stays_until_it_is_given_up_and_is_then_lost():
    async with running() as it:
        two = Two(it)
        it.online[WAN] = DialError("unreachable")
        await two.start()
        two.cut()
        with it.swarm.attend(two.lan):
            await anyio.sleep(NOTICED)
            assert two.best is two.lan
            await anyio.sleep(SILENCE + 0.2)
        assert two.best is None
        assert two.moves() == []
        assert it.told(LinkChanged)[-1].state is LinkState.RECONNECTING


async def test_a_path_that_broke_is_looked_for_too():
    async with running() as it:
        two = await Two(it).start()
        await it.connect(WAN, fresh=True)
        two.cut()
        two.lan.closed = ConnectionClosed(remote=None)
        two.lan.fail()
        await anyio.lowlevel.checkpoint()
        await anyio.wait_all_tasks_blocked()
        assert two.best is two.wan
        assert two.moves() == [(LAN, WAN)]
        await anyio.sleep(120)
        assert 35 < two.dialled(LAN) < 60
        looks = two.dialled(LAN)
        await anyio.sleep(3600)
        assert two.dialled(LAN) - looks <= 7


async def test_what_is_learnt_of_a_better_path_is_tried():
    async with running() as it:
        two = Two(it)
        it.peers.add_addresses(two.peer, [WAN])
        assert await it.connect(two.peer) is two.wan
        it.swarm.paths.learnt(two.peer)
        await anyio.sleep(10)
        assert it.transport.dialled == [WAN]
        it.peers.add_addresses(two.peer, [LAN, WORSE, Multiaddr.parse("/ip4/10.0.0.7/udp/1")])
        it.swarm.paths.learnt(two.peer)
        await anyio.sleep(SETTLE_TIME + 0.1)
        assert it.transport.dialled == [WAN, LAN]
        assert two.best is two.lan
        assert it.told(PathChanged)[0].reason == "it is a better kind of path"


async def test_one_that_cannot_be_had_is_tried_ever_more_rarely_until_there_is_news():
    async with running() as it:
        two = Two(it)
        it.online[LAN] = DialError("refused")
        it.peers.add_addresses(two.peer, [WAN])
        await it.connect(two.peer)
        it.peers.add_addresses(two.peer, [LAN])
        it.swarm.paths.learnt(two.peer)
        await anyio.sleep(SETTLE_TIME + MIN_DELAY * 7 + 1)
        assert two.dialled(LAN) == 4
        it.swarm.paths.news()
        it.online[LAN] = two.lan
        await anyio.sleep(SETTLE_TIME + 0.1)
        assert two.best is two.lan


@pytest.mark.parametrize("is_kept", [False, True])
async def test_for_a_peer_that_came_in_nothing_is_dialled_unless_it_is_kept(is_kept):
    async with running() as it:
        if is_kept:
            it.kept.add(HIGH)
        two = Two(it, HIGH, side=Side.LISTENER)
        two.lan.remote_addr = WAN
        it.online[LAN] = FakeConnection(HIGH, LAN)
        await two.start()
        it.swarm.paths.learnt(HIGH)
        it.swarm.paths.news()
        await anyio.sleep(60)
        assert two.dialled(LAN) == is_kept


async def test_a_path_left_twice_is_not_taken_again_for_a_while():
    async with running() as it:
        two = await Two(it).start()
        with it.swarm.attend(two.lan):
            for _ in range(2):
                two.cut()
                await anyio.sleep(2)
                assert two.best is two.wan
                two.restore(with_new=False)
                await anyio.sleep(2)
            two.restore()
            assert two.best is two.wan
            looks = two.dialled(LAN)
            await anyio.sleep(290)
            assert two.best is two.wan
            assert two.dialled(LAN) == looks
            await anyio.sleep(200)
            assert two.best is two.new
        assert len(two.moves()) == 4


async def test_a_path_that_stood_by_is_taken_again_as_soon_as_its_time_is_over():
    async with running() as it:
        two = await Two(it, side=Side.LISTENER).start()
        await it.connect(WAN, fresh=True)
        with it.swarm.attend(two.lan):
            for _ in range(2):
                two.cut()
                await anyio.sleep(2)
                two.restore(with_new=False)
                await anyio.sleep(2)
            assert two.best is two.wan
            last_until = anyio.current_time() - 4 + NOTICED + LAST_FOR
        await anyio.sleep(last_until - 1 - anyio.current_time())
        assert two.best is two.wan
        await anyio.sleep(1)
        assert two.best is two.lan
        assert it.told(PathChanged)[-1].reason == "it is a better kind of path"


@pytest.mark.parametrize("peer", [LOW, HIGH])
async def test_of_crossed_dials_the_one_of_the_lower_id_is_used(peer):
    async with running() as it:
        mine, theirs = (FakeConnection(peer, WAN, side=side) for side in Side)
        it.online[WAN] = mine
        assert await it.connect(WAN) is mine
        await it.swarm.accept(theirs)
        assert it.swarm.best(peer) is (theirs if peer is LOW else mine)


async def test_a_path_with_limits_is_not_for_everything():
    async with running() as it:
        two = Two(it)
        two.wan.limit = object()
        await it.swarm.accept(two.wan)
        assert two.best is two.wan
        assert it.swarm.best(two.peer, allow_limited=False) is None


async def test_who_waits_for_a_peer_that_came_in_has_better_paths_looked_for():
    async with running() as it:
        two = await Two(it, side=Side.LISTENER).start()
        with it.swarm.attend(two.lan):
            two.cut()
            await anyio.sleep(NOTICED)
            assert two.best is two.wan


async def test_a_peer_that_came_in_twice_is_not_looked_for_when_one_breaks():
    async with running() as it:
        two = await Two(it, side=Side.LISTENER).start()
        two.wan.side = Side.LISTENER
        await it.swarm.accept(two.wan)
        two.lan.fail()
        await anyio.sleep(60)
        assert two.moves() == [(LAN, WAN)]
        assert it.transport.dialled == []


async def test_a_byte_of_long_ago_keeps_a_silent_path_but_brings_it_not_back():
    async with running() as it:
        two = await Two(it).start()
        with it.swarm.attend(two.lan):
            two.cut()
            await anyio.sleep(3)
            two.lan.last_received_at = heard = anyio.current_time()
            await anyio.sleep(SILENCE - 0.1)
            assert two.moves() == [(LAN, WAN)]
            assert not two.lan.is_closed
            await anyio.sleep(heard + SILENCE + 0.1 - anyio.current_time())
            assert two.lan.is_closed


async def test_a_byte_brings_a_silent_path_back():
    async with running() as it:
        two = await Two(it).start()
        with it.swarm.attend(two.lan):
            two.cut()
            await anyio.sleep(SILENCE)
            two.lan.last_received_at = anyio.current_time()
            await anyio.sleep(0.2)
            assert two.moves() == [(LAN, WAN), (WAN, LAN)]


async def test_a_lossy_path_is_left_and_not_made_anew():
    async with running() as it:
        two = await Two(it).start()
        await it.connect(WAN, fresh=True)
        two.restore()
        with it.swarm.attend(two.lan):
            two.lan.loss = 0.2
            await anyio.sleep(BAD_FOR + 0.5)
            assert two.best is two.wan
            assert it.told(PathChanged)[0].reason == "the path before is lossy or far"
            await anyio.sleep(60)
            assert two.moves() == [(LAN, WAN)]
            assert two.dialled(LAN) == 1
        assert two.lan.is_drained
        await anyio.sleep(MEMORY - 60)
        assert two.best is two.wan


async def test_what_carries_a_stream_is_not_closed():
    async with running() as it:
        two = await Two(it).start()
        await it.connect(WAN, fresh=True)
        two.wan.streams = 1
        await anyio.sleep(2 * CLOSE_AFTER)
        assert not two.wan.is_drained
        two.wan.streams = 0
        # Of what is due at the same instant either may come first.
        await anyio.sleep(RECHECK_AFTER + 0.1)
        assert two.wan.is_drained


async def test_what_somebody_holds_is_not_closed_before_it_is_released():
    async with running() as it:
        two = await Two(it).start()
        await it.connect(WAN, fresh=True)
        it.swarm.hold(two.wan, "reservation")
        await anyio.sleep(2 * CLOSE_AFTER)
        assert not two.wan.is_drained
        it.swarm.release(two.wan, "reservation")
        await anyio.sleep(RECHECK_AFTER + 0.1)
        assert two.wan.is_drained


async def test_a_better_path_that_takes_some_round_trips_is_waited_for():
    async with running() as it:
        two = Two(it)
        it.swarm._transports["ws"] = it.transport
        two.worse = FakeConnection(two.peer, WORSE)
        it.online |= {WORSE: two.worse, WAN: anyio.Event()}
        it.answers[WAN] = two.wan
        assert await it.connect(WORSE) is two.worse
        it.peers.add_addresses(two.peer, [WAN])
        it.swarm.paths.learnt(two.peer)
        await anyio.sleep(SETTLE_TIME + LOOK_TIME - 0.2)
        it.online[WAN].set()
        await anyio.sleep(0.1)
        assert two.best is two.wan


async def test_one_that_has_ended_is_not_kept_until_there_is_something_to_do():
    async with running() as it:
        two = await Two(it, side=Side.LISTENER).start()
        with it.swarm.attend(two.lan):
            await anyio.sleep(1)
        two.lan.fail()
        gone = weakref.ref(two.lan)
        it.online.clear()
        del two
        await anyio.sleep(1)
        gc.collect()
        assert gone() is None


async def test_what_runs_on_one_that_has_ended_is_not_watched():
    async with running() as it:
        two = await Two(it).start()
        two.lan.fail()
        with it.swarm.attend(two.lan):
            await anyio.sleep(5)
            assert two.lan.probes == 0
        with it.swarm.attend(FakeConnection(LOW, LAN)):
            await anyio.sleep(5)


async def test_a_silent_path_in_a_crowd_leaves_the_others_alone():
    async with running() as it:
        two = await Two(it).start()
        fine = FakeConnection(HIGH, OTHER)
        fine.rtt = 0.01
        it.online[OTHER] = fine
        await it.connect(OTHER)
        with it.swarm.attend(two.lan), it.swarm.attend(fine):
            two.cut()
            await anyio.sleep(5)
            assert fine.probes > 40
            assert it.swarm.best(HIGH) is fine
            assert not it.swarm.paths.is_suspect(it.swarm.entry(fine))
            assert it.swarm.paths.is_suspect(it.swarm.entry(two.lan))


def test_ranks_of_the_addresses_used_here():
    ranks = [rank_of(each, lambda address: address is LAN) for each in (LAN, WAN, WORSE)]
    assert ranks == [Rank.LAN, Rank.DIRECT, Rank.WEBSOCKET]


async def test_a_needless_connection_does_not_stay_for_upkeep_that_never_ends():
    async with running() as it:
        await it.swarm.accept(FakeConnection(LOW, LAN, side=Side.LISTENER))
        mine = FakeConnection(LOW, WAN)
        # It ends by itself once it carries nothing, which is never.
        mine.drain = lambda: setattr(mine, "is_drained", True)
        it.online = {WAN: mine}
        await it.connect(WAN, fresh=True)
        await anyio.sleep(31)
        assert mine.is_drained
        assert len(it.swarm.entries) == 2
        mine.streams = 1
        await anyio.sleep(31)
        assert len(it.swarm.entries) == 2
        # Such as the one that rust has for its pings.
        it.swarm.entry(mine).upkeep["/ipfs/ping/1.0.0"] = 1
        await anyio.sleep(31)
        assert len(it.swarm.entries) == 1
