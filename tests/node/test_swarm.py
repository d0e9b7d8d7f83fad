"""The table of connections, over connections that carry nothing; on trio by a virtual clock."""

from __future__ import annotations

from functools import partial

import anyio
import pytest
from isthmus.node.config import LimitsConfig
from isthmus.node.dialing import parse_target
from isthmus.node.dialplan import STAGGER
from isthmus.node.dialreport import MAX_REPORTS, Outcome
from isthmus.node.events import (
    ConnectionEnded,
    ConnectionOpened,
    ConnectionRefused,
    DialFailed,
    LinkChanged,
)
from isthmus.transports.core.codes import ConnectionCode
from isthmus.transports.core.errors import (
    DialError,
    DialTimeout,
    LimitExceeded,
    NegotiationError,
    PeerIdMismatch,
    RemoteProtocolError,
    SelfDial,
    unwrap_group,
)
from isthmus.transports.core.interfaces import Priority, Side
from isthmus.transports.core.keys import PrivateKey
from isthmus.transports.core.multiaddr import Multiaddr
from isthmus.transports.core.peer_id import PeerId
from sim.fakes import FakeConnection
from sim.swarms import HIGH, LOCAL, LOW, PEERS, address, running
from trio.testing import MockClock


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request):
    if request.param == "asyncio":
        return "asyncio"
    return ("trio", {"clock": MockClock(autojump_threshold=0)})


with_virtual_time = pytest.mark.parametrize("anyio_backend", ["trio"], indirect=True)


def is_virtual(anyio_backend) -> bool:
    return anyio_backend != "asyncio"


async def test_addresses_are_tried_in_order_until_one_answers():
    async with running() as it:
        good = FakeConnection(LOW, address(3))
        it.online = {
            address(1): DialError("no"),
            address(2): NegotiationError(["/noise"], "na"),
            address(3): good,
        }
        assert await it.connect([address(port) for port in (1, 2, 3, 4)]) is good
        assert it.transport.dialled == [address(1), address(2), address(3)]
        assert it.peers.addresses(LOW) == (address(3),)


async def test_a_refused_look_for_a_better_path_concerns_nobody():
    async with running(limits=LimitsConfig(connections=1, dial_wait=0)) as it:
        it.online = {address(1): FakeConnection(LOW, address(1))}
        await it.connect(address(1, LOW))
        report = it.swarm.reports[LOW]
        for options in ({"is_extra": True}, {}):
            target = parse_target(address(2, LOW))
            dial = it.swarm.dial(target, fresh=True, is_quiet=True, **options)
            with pytest.raises(LimitExceeded):
                await dial.wait()
            assert (it.swarm.reports[LOW] is report) == bool(options)
        assert it.told(DialFailed) == []
        with pytest.raises(LimitExceeded):
            await it.connect(address(2, LOW), fresh=True)
        assert len(it.told(DialFailed)) == 1


async def test_every_failed_attempt_is_told():
    async with running() as it:
        it.online = {
            address(1): DialError("no way"),
            address(2): NegotiationError(["/noise"], "na"),
            address(3): PeerIdMismatch(LOW, HIGH),
            address(4): ValueError("a bug of the transport"),
            address(5): FakeConnection(HIGH, address(5)),
        }
        to = [address(port, LOW) for port in range(1, 6)]
        to.append(Multiaddr.parse("/ip4/192.0.2.1/udp/6"))
        with pytest.raises(DialError) as caught:
            await it.connect(to)
        assert [attempt.phase for attempt in caught.value.attempts] == [
            "connect",
            "negotiation",
            "handshake",
            "connect",
            "handshake",
            "address",
        ]
        assert "a bug of the transport" in str(caught.value)
        assert it.online[address(5)].is_closed


async def test_a_dial_that_leads_back_is_closed():
    async with running() as it:
        it.online = {address(1): FakeConnection(LOCAL, address(1))}
        with pytest.raises(SelfDial):
            await it.connect(address(1))
        assert it.online[address(1)].is_closed
        assert it.swarm.entries == ()


@with_virtual_time
async def test_beside_a_silent_address_the_next_is_tried_and_the_first_that_answers_wins():
    async with running() as it:
        it.online = dict.fromkeys(map(address, range(1, 4)))
        it.online[address(4)] = FakeConnection(LOW, address(4))
        started = anyio.current_time()
        await it.connect([address(port, LOW) for port in range(1, 6)])
        assert anyio.current_time() - started == pytest.approx(3 * STAGGER)
        assert len(it.transport.dialled) == 4
        report = it.swarm.reports[LOW]
        assert [each.outcome for each in report.steps] == [
            *[Outcome.CANCELLED] * 3,
            Outcome.CONNECTED,
            Outcome.NOT_TRIED,
        ]
        assert not report.error


@with_virtual_time
async def test_of_two_that_answer_together_one_is_closed():
    async with running() as it:
        both = [FakeConnection(LOW, address(port)) for port in (1, 2)]
        gate = anyio.Event()
        it.online = {address(1): gate, address(2): gate}
        it.answers = {address(port): found for port, found in zip((1, 2), both, strict=True)}
        found = []

        async def connect() -> None:
            found.append(await it.connect([address(1), address(2)]))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(connect)
            await anyio.sleep(STAGGER * 1.5)
            assert len(it.transport.dialled) == 2
            gate.set()
        (won,) = found
        (lost,) = (each for each in both if each is not won)
        await anyio.wait_all_tasks_blocked()
        assert lost.is_closed
        assert [each.connection for each in it.swarm.entries] == [won]


async def test_attempts_under_way_go_on_when_the_peer_comes_in_meanwhile():
    async with running() as it:
        gate = anyio.Event()
        mine = FakeConnection(LOW, address(1))
        it.online, it.answers = {address(1): gate}, {address(1): mine}
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(it.connect, address(1, LOW))
            await anyio.wait_all_tasks_blocked()
            came = FakeConnection(LOW, address(9), side=Side.LISTENER)
            await it.swarm.accept(came)
        gate.set()
        await anyio.wait_all_tasks_blocked()
        assert {each.connection for each in it.swarm.entries} == {mine, came}


async def test_a_dial_that_a_limit_forbids_is_reported_too():
    async with running(limits=LimitsConfig(connections=1, waiting_dials=1)) as it:
        it.online = {address(1): None}
        async with anyio.create_task_group() as tasks:
            for port, peer in ((1, LOW), (2, PEERS[1])):
                tasks.start_soon(it.connect, address(port, peer))
                await anyio.wait_all_tasks_blocked()
            with pytest.raises(LimitExceeded):
                await it.connect(address(2, HIGH))
            report = it.swarm.reports[HIGH]
            assert "limits.waiting_dials" in report.error
            assert "raise the setting" in report.hint
            assert all(each.started is None for each in report.steps)
            tasks.cancel_scope.cancel()


async def test_reports_are_bounded():
    async with running() as it:
        peers = [
            PeerId.from_public_key(PrivateKey.from_seed(bytes([9, number]) * 16).public_key)
            for number in range(MAX_REPORTS // 2)
        ]
        it.online = {address(1): DialError("no")}
        for _ in range(2):
            for each in peers:
                with pytest.raises(DialError):
                    await it.connect(address(1, each))
        assert len(it.swarm.reports) == len(peers)
        it.swarm.reports.update((str(number), None) for number in range(MAX_REPORTS))
        with pytest.raises(DialError):
            await it.connect(address(1, LOW))
        assert list(it.swarm.reports)[-1] == LOW
        assert peers[0] not in it.swarm.reports


async def test_a_silent_address_is_left_in_time(anyio_backend):
    timeout = 10.0 if is_virtual(anyio_backend) else 0.05
    async with running(dial_timeout=timeout) as it:
        it.online = {address(1): None}
        with pytest.raises(DialTimeout) as caught:
            await it.connect(address(1, HIGH))
        assert caught.value.attempts[0].duration >= timeout


async def test_who_gives_up_leaves_the_dial_to_the_others():
    async with running() as it:
        it.online = {address(1): None}
        impatient = anyio.CancelScope()

        async def wait(scope: anyio.CancelScope) -> None:
            with scope:
                await it.connect(address(1, LOW))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(wait, impatient)
            patient = anyio.CancelScope()
            tasks.start_soon(wait, patient)
            await anyio.wait_all_tasks_blocked()
            assert len(it.transport.dialled) == 1
            impatient.cancel()
            await anyio.wait_all_tasks_blocked()
            # A third one adds the address where the peer really is.
            it.online[address(2)] = FakeConnection(LOW, address(2))
            patient.cancel()
            await anyio.wait_all_tasks_blocked()
        # The last one to give up has ended the dial; the next one starts anew.
        assert await it.connect(address(2, LOW)) is it.online[address(2)]
        assert it.transport.dialled == [address(1, LOW), address(2, LOW)]


async def test_a_peer_that_comes_in_ends_the_wait_for_it():
    async with running() as it:
        it.online = {address(1): None}
        found = []

        async def connect() -> None:
            found.append(await it.connect(address(1, LOW)))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(connect)
            await anyio.wait_all_tasks_blocked()
            came = FakeConnection(LOW, address(9), side=Side.LISTENER)
            await it.swarm.accept(came)
        assert found == [came]


async def test_stopping_ends_dials_and_closes_connections():
    async def dial_and_stop() -> None:
        async with running() as it:
            connection = FakeConnection(HIGH, address(2))
            it.online = {address(1): None, address(2): connection}
            await it.connect(address(2))
            async with anyio.create_task_group() as tasks:

                async def stop() -> None:
                    await anyio.wait_all_tasks_blocked()
                    await it.swarm.stop()
                    late = FakeConnection(LOW, address(3), side=Side.LISTENER)
                    await it.swarm.accept(late)
                    assert late.is_closed
                    assert connection.is_closed

                tasks.start_soon(stop)
                await it.connect(address(1))

    with pytest.raises(DialError, match="the node stops"), unwrap_group():
        await dial_and_stop()


async def test_a_broken_connection_leaves_the_others_alone(caplog):
    async with running() as it:
        for fault in (RemoteProtocolError("nonsense"), OSError("broken"), None):
            connection = FakeConnection(LOW, address(1), fault=fault)
            it.online = {address(1): connection}
            assert await it.connect(address(1)) is connection
            connection.fail()
            await anyio.wait_all_tasks_blocked()
            assert it.swarm.best(LOW) is None
            assert [type(each) for each in it.events[-2:]] == [ConnectionEnded, LinkChanged]
        assert len(caplog.records) == 2


async def test_dials_that_wait_are_bounded():
    config = LimitsConfig(connections=1, waiting_dials=1)
    async with running(limits=config) as it:
        it.online = {address(port): None for port in (1, 2, 3)}
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(it.connect, address(1, LOW))
            await anyio.wait_all_tasks_blocked()
            tasks.start_soon(it.connect, address(2, HIGH))
            await anyio.wait_all_tasks_blocked()
            with pytest.raises(LimitExceeded, match=r"limits\.waiting_dials"):
                await it.connect(address(3, PEERS[1]))
            assert it.transport.dialled == [address(1, LOW)]
            assert [event.peer for event in it.told(DialFailed)] == [PEERS[1]]
            tasks.cancel_scope.cancel()
        # Whoever gave up takes no place.
        await anyio.wait_all_tasks_blocked()
        it.online[address(3)] = FakeConnection(PEERS[1], address(3))
        await it.connect(address(3, PEERS[1]))


@with_virtual_time
async def test_dials_wait_for_a_place_by_their_priority():
    config = LimitsConfig(connections=1, outbound_share=0)
    async with running(limits=config) as it:
        peers = (LOW, PEERS[1], HIGH)
        it.online = {
            address(port): FakeConnection(peer, address(port)) for port, peer in enumerate(peers, 1)
        }
        there = FakeConnection(PEERS[3], address(9), side=Side.LISTENER)
        await it.swarm.accept(there)
        async with anyio.create_task_group() as tasks:
            for port, priority in enumerate((Priority.LOW, Priority.MEDIUM, Priority.LOW), 1):
                to = address(port, peers[port - 1])
                tasks.start_soon(partial(it.connect, to, priority=priority))
                await anyio.wait_all_tasks_blocked()
            # One more who wants the same makes it urgent.
            tasks.start_soon(partial(it.connect, address(3, HIGH), priority=Priority.HIGH))
            await anyio.wait_all_tasks_blocked()
            assert it.transport.dialled == []
            await anyio.sleep(29)
            order = [there, it.online[address(3)], it.online[address(2)]]
            for connection in order:
                connection.fail()
                await anyio.wait_all_tasks_blocked()
        assert [each.port for each in it.transport.dialled] == [3, 2, 1]


@with_virtual_time
async def test_a_dial_that_waits_in_vain_names_the_limit():
    async with running(limits=LimitsConfig(connections=1)) as it:
        it.kept.add(LOW)
        it.online = {address(1): FakeConnection(LOW, address(1))}
        await it.connect(address(1))
        started = anyio.current_time()
        with pytest.raises(LimitExceeded, match=r"2 .*limit of 1 .*limits\.connections"):
            await it.connect(address(2, HIGH))
        assert anyio.current_time() - started == 30
        assert [event.peer for event in it.told(DialFailed)] == [HIGH]


@with_virtual_time
async def test_a_connection_of_another_dial_ends_the_wait_for_a_place():
    async with running(limits=LimitsConfig(connections=1, outbound_share=0)) as it:
        first = FakeConnection(HIGH, address(9), side=Side.LISTENER)
        await it.swarm.accept(first)
        it.online = {address(1): None, address(2): FakeConnection(LOW, address(2))}
        found = []

        async def wait() -> None:
            found.append(await it.connect(address(1, LOW)))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(wait)
            await anyio.wait_all_tasks_blocked()
            first.fail()
            urgent = await it.connect(address(2, LOW), fresh=True, priority=Priority.HIGH)
        assert found == [urgent]
        assert it.transport.dialled == [address(2, LOW)]


@with_virtual_time
async def test_who_makes_room_is_told_so_and_not_let_in_again_at_once():
    async with running(limits=LimitsConfig(connections=1, outbound_share=0)) as it:
        first = FakeConnection(LOW, address(1), side=Side.LISTENER)
        await it.swarm.accept(first)
        early = FakeConnection(HIGH, address(2), side=Side.LISTENER)
        await it.swarm.accept(early)
        assert (early.is_closed, early.code) == (True, ConnectionCode.RESOURCE_LIMIT_EXCEEDED)
        await anyio.sleep(60)
        second = FakeConnection(HIGH, address(2), side=Side.LISTENER)
        await it.swarm.accept(second)
        await anyio.wait_all_tasks_blocked()
        assert (first.is_closed, first.code) == (True, ConnectionCode.GARBAGE_COLLECTED)
        assert [entry.connection for entry in it.swarm.entries] == [second]
        (ended,) = it.told(ConnectionEnded)
        assert "limits.connections" in ended.reason
        again = FakeConnection(LOW, address(1), side=Side.LISTENER)
        await it.swarm.accept(again)
        assert again.is_closed
        settings = [event.setting for event in it.told(ConnectionRefused)]
        assert settings == ["limits.connections", "limits.eviction_pause"]


@with_virtual_time
async def test_a_connection_that_is_held_stays():
    async with running(limits=LimitsConfig(connections=1, outbound_share=0)) as it:
        relay = FakeConnection(LOW, address(1), side=Side.LISTENER)
        await it.swarm.accept(relay)
        it.swarm.hold(relay, "reservation")
        await anyio.sleep(1300)
        other = FakeConnection(HIGH, address(2), side=Side.LISTENER)
        await it.swarm.accept(other)
        assert other.is_closed
        assert not relay.is_drained
        it.swarm.release(relay, "reservation")
        await anyio.sleep(151)
        assert relay.is_drained
        for act in (it.swarm.hold, it.swarm.release):
            act(relay, "too late")


@with_virtual_time
async def test_an_idle_connection_ends_and_a_busy_one_stays():
    async with running() as it:
        idle = FakeConnection(LOW, address(1), side=Side.LISTENER)
        busy = FakeConnection(HIGH, address(2), side=Side.LISTENER)
        kept = FakeConnection(PEERS[1], address(3), side=Side.LISTENER)
        it.kept.add(PEERS[1])
        busy.streams = 1
        for connection in (idle, busy, kept):
            await it.swarm.accept(connection)
        # Its one stream is upkeep.
        idle.streams = 1
        it.swarm.entry(idle).upkeep["/ipfs/ping/1.0.0"] += 1
        await anyio.sleep(599)
        assert not idle.is_drained
        await anyio.sleep(2)
        assert idle.is_drained
        await anyio.sleep(3600)
        assert not busy.is_drained
        assert not kept.is_drained
        (ended,) = it.told(ConnectionEnded)
        assert "limits.idle_timeout" in ended.reason


@with_virtual_time
async def test_many_refusals_are_told_once_a_second():
    async with running(limits=LimitsConfig(connections_per_prefix=1)) as it:
        for number in range(1000):
            peer = PEERS[number % 5]
            await it.swarm.accept(FakeConnection(peer, address(number + 1), side=Side.LISTENER))
            if not number % 100:
                await anyio.sleep(0.25)
        await anyio.sleep(3)
        told = it.told(ConnectionRefused)
        assert 3 <= len(told) <= 4
        assert sum(event.count for event in told) == 999 - 200
        assert {event.setting for event in told} == {"limits.connections_per_prefix"}
        assert len(it.told(ConnectionOpened)) == 1


async def test_limited_connections_are_for_those_who_allow_them():
    async with running() as it:
        relayed = FakeConnection(LOW, address(1))
        relayed.limit = object()
        direct = FakeConnection(LOW, address(2))
        it.online = {address(1): relayed, address(2): direct}
        assert await it.connect(address(1)) is relayed
        assert it.swarm.best(LOW) is relayed
        assert it.swarm.best(LOW, allow_limited=False) is None
        assert await it.connect(address(2, LOW)) is relayed
        assert await it.connect(address(2, LOW), allow_limited=False) is direct
        assert await it.connect(address(2), allow_limited=False) is direct


@pytest.mark.parametrize(("peer", "closes_own"), [(LOW, True), (HIGH, False)])
@with_virtual_time
async def test_of_crossed_dials_one_is_closed_by_who_dialled_it(peer, closes_own):
    async with running() as it:
        mine = FakeConnection(peer, address(1))
        theirs = FakeConnection(peer, address(9), side=Side.LISTENER)
        it.online = {address(1): mine}
        await it.connect(address(1))
        await it.swarm.accept(theirs)
        assert it.swarm.best(peer) is (theirs if closes_own else mine)
        await anyio.sleep(29)
        assert not mine.is_drained
        await anyio.sleep(2)
        assert mine.is_drained is closes_own
        assert not theirs.is_drained
        assert len(it.swarm.entries) == (1 if closes_own else 2)


@with_virtual_time
async def test_a_needless_connection_stays_while_it_carries_streams():
    async with running() as it:
        first = FakeConnection(LOW, address(1), side=Side.LISTENER)
        await it.swarm.accept(first)
        mine = FakeConnection(LOW, address(2))
        mine.streams = 2
        it.online = {address(2): mine}
        await it.connect(address(2), fresh=True)
        entry = it.swarm.entry(mine)
        await anyio.sleep(60)
        assert not mine.is_drained
        # Streams of identify and ping do not count.
        entry.upkeep["/ipfs/ping/1.0.0"] = 2
        await anyio.sleep(6)
        assert mine.is_drained
        assert not first.is_drained
