"""Byte streams and connections over virtual links, on a virtual clock that never waits."""

from __future__ import annotations

from contextlib import asynccontextmanager
from itertools import pairwise
from random import Random

import anyio
import pytest
from anyio.lowlevel import checkpoint
from isthmus.transports.core.errors import (
    AddressError,
    ConnectionClosed,
    DialError,
    LimitExceeded,
    LocalProtocolError,
    StreamReset,
)
from isthmus.transports.core.multiaddr import Multiaddr
from isthmus.transports.memory.connection import LINGER
from isthmus.transports.memory.network import BACKLOG, MemoryNetwork, shared_network
from isthmus.transports.memory.pipe import MAX_WAITING
from isthmus.transports.memory.plain import PlainMemoryTransport
from isthmus.transports.memory.settings import LinkSettings
from isthmus.transports.memory.stream import MemoryTransport
from isthmus.transports.testing.pair import connected, make_pair, open_pair
from trio.testing import MockClock

ANY = Multiaddr.parse("/memory/0")


@pytest.fixture
def anyio_backend():
    return "trio", {"clock": MockClock(autojump_threshold=0)}


@asynccontextmanager
async def streams(network):
    """Both ends of a byte stream: the dialer's, the listener's."""
    transport = MemoryTransport(network)
    listener = await transport.listen_raw(ANY)
    send, receive = anyio.create_memory_object_stream(1)

    async def accept(stream, _):
        await send.send(stream)

    async with send, receive, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, accept)
        near = await transport.dial_raw(listener.addresses[0])
        far = await receive.receive()
        yield near, far
        await listener.aclose()


def plain(network):
    """A factory of pairs of plain transports."""
    transports = PlainMemoryTransport(network), PlainMemoryTransport(network)
    return lambda: make_pair(*transports, ANY)


async def receive_all(stream):
    return b"".join([part async for part in stream])


class TestTime:
    async def test_dialling_takes_a_round_trip(self):
        transport = MemoryTransport(MemoryNetwork(settings=LinkSettings(delay=0.1)))
        start = anyio.current_time()
        async with await transport.listen_raw(ANY) as listener:
            await transport.dial_raw(listener.addresses[0])
            assert anyio.current_time() - start == pytest.approx(0.2)
        with pytest.raises(DialError, match="nobody listens"):
            await transport.dial_raw(Multiaddr.parse("/memory/99"))
        assert anyio.current_time() - start == pytest.approx(0.4)

    async def test_delay_is_exact(self):
        async with streams(MemoryNetwork(settings=LinkSettings(delay=0.04))) as (near, far):
            for _ in range(10):
                start = anyio.current_time()
                await near.send(b"ping")
                assert await far.receive() == b"ping"
                assert anyio.current_time() - start == pytest.approx(0.04, abs=1e-9)
                await far.send(b"pong")
                assert await near.receive() == b"pong"
                assert anyio.current_time() - start == pytest.approx(0.08, abs=1e-9)

    @pytest.mark.parametrize("rate", [10_000, 1_250_000, 100e6])
    async def test_rate_holds(self, rate):
        size = 2_000_000
        settings = LinkSettings(delay=0.005, rate=rate, queue=max(65_536, int(rate * 0.02)))
        async with streams(MemoryNetwork(settings=settings)) as (near, far):
            start, got = anyio.current_time(), 0
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(near.send, bytes(size))
                while got < size:
                    got += len(await far.receive())
            took = anyio.current_time() - start - settings.delay
            assert size / took == pytest.approx(rate, rel=0.02)

    async def test_rate_is_shared_by_the_streams_of_a_connection(self):
        settings = LinkSettings(delay=0.01, rate=1e6)
        async with connected(plain(MemoryNetwork(settings=settings))) as (near, far):
            pairs = [await open_pair(near, far) for _ in range(4)]
            start = anyio.current_time()
            got = []

            async def send(stream):
                await stream.send(bytes(250_000))
                await stream.send_eof()

            async def receive(stream):
                got.append(len(await receive_all(stream)))

            async with anyio.create_task_group() as tasks:
                for opened, accepted in pairs:
                    tasks.start_soon(send, opened)
                    tasks.start_soon(receive, accepted)
            assert got == [250_000] * 4
            assert anyio.current_time() - start == pytest.approx(1, rel=0.02)

    async def test_probe_is_the_round_trip(self):
        settings = LinkSettings(delay=0.03)
        async with connected(plain(MemoryNetwork(settings=settings))) as (near, far):
            assert await near.probe() == pytest.approx(0.06)
            assert await far.probe() == pytest.approx(0.06)
            assert near.statistics().round_trip_time == pytest.approx(0.06)

    async def test_an_hour_of_pings_takes_no_time(self):
        async with connected(plain(MemoryNetwork())) as (near, _):
            for _ in range(120):
                await anyio.sleep(30)
                await near.probe()


class TestByteStreams:
    async def test_loss_slows_but_loses_nothing(self):
        data = Random(1).randbytes(500_000)
        took = []
        for loss in (0.0, 0.02):
            settings = LinkSettings(delay=0.02, rate=10e6, loss=loss, reorder=loss, jitter=loss)
            async with streams(MemoryNetwork(settings=settings)) as (near, far):
                start = anyio.current_time()

                async def send(stream=near):
                    await stream.send(data)
                    await stream.send_eof()

                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(send)
                    assert await receive_all(far) == data
                took.append(anyio.current_time() - start)
                lost = near.link.forth.lane.items_lost
                assert lost == 0 if loss == 0 else lost == pytest.approx(343 * loss, abs=8)
        assert took[1] > took[0] + 0.04

    async def test_send_waits_for_the_reader(self):
        async with streams(MemoryNetwork(settings=LinkSettings(queue=10_000))) as (near, far):
            with anyio.move_on_after(1) as scope:
                await near.send(bytes(10_001))
            assert scope.cancelled_caught
            assert near.link.forth.lane.held == 10_000
            assert len(await far.receive(4000)) == 4000
            with anyio.fail_after(1):
                await near.send(b"x")

    async def test_half_close(self):
        network = MemoryNetwork(settings=LinkSettings(delay=0.01))
        async with streams(network) as (near, far):
            await near.send(b"question")
            await near.send_eof()
            await near.send_eof()
            with pytest.raises(anyio.ClosedResourceError):
                await near.send(b"x")
            assert await receive_all(far) == b"question"
            await far.send(b"answer")
            await far.aclose()
            assert await receive_all(near) == b"answer"
            with pytest.raises(anyio.EndOfStream):
                await near.receive()
            await near.aclose()
            assert network.links == ()

    async def test_close_is_noticed_as_over_tcp(self):
        async with streams(MemoryNetwork(settings=LinkSettings(delay=0.01))) as (near, far):
            await far.send(b"last words")
            await far.aclose()
            await far.aclose()
            await anyio.sleep(0.02)
            await near.send(b"into the void")
            await anyio.sleep(0.019)
            await near.send(b"still unaware")
            await anyio.sleep(0.001)
            with pytest.raises(anyio.BrokenResourceError):
                await near.send(b"x")
            assert await receive_all(near) == b"last words"
            with pytest.raises(anyio.ClosedResourceError):
                await far.receive()
            with pytest.raises(anyio.ClosedResourceError):
                await far.send(b"x")
            with pytest.raises(anyio.ClosedResourceError):
                await far.send_eof()

    async def test_waiting_sender_learns_of_the_close(self):
        settings = LinkSettings(delay=0.01, queue=1000)
        async with streams(MemoryNetwork(settings=settings)) as (near, far):

            async def send():
                with pytest.raises(anyio.BrokenResourceError):
                    await near.send(bytes(5000))

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(send)
                await anyio.wait_all_tasks_blocked()
                await far.aclose()

    async def test_receive_wakes_on_close(self):
        async with streams(MemoryNetwork()) as (near, _):

            async def receive():
                with pytest.raises(anyio.ClosedResourceError):
                    await near.receive()

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(receive)
                await anyio.wait_all_tasks_blocked()
                with pytest.raises(anyio.BusyResourceError):
                    await near.receive()
                await near.aclose()

    async def test_cut_breaks_both_ends_at_once(self):
        network = MemoryNetwork(settings=LinkSettings(delay=1, queue=1000))
        async with streams(network) as (near, far):
            broken = []

            async def expect_broken(act):
                with pytest.raises(anyio.BrokenResourceError):
                    await act()
                broken.append(act)

            async with anyio.create_task_group() as tasks:
                for act in (near.receive, far.receive, lambda: near.send(bytes(2000))):
                    tasks.start_soon(expect_broken, act)
                await anyio.wait_all_tasks_blocked()
                start = anyio.current_time()
                assert len(network.links) == 1
                network.break_links()
            assert (len(broken), anyio.current_time()) == (3, start)
            assert near.link.is_cut
            assert network.links == ()
            await expect_broken(lambda: far.send(b"x"))

    async def test_stall_holds_everything_back(self):
        async with streams(MemoryNetwork(settings=LinkSettings(delay=0.01))) as (near, far):
            near.link.stall()
            await near.send(b"patience")
            with anyio.move_on_after(100):
                await far.receive()
                pytest.fail("a stalled link has delivered")
            near.link.resume()
            start = anyio.current_time()
            assert await far.receive() == b"patience"
            assert anyio.current_time() == start

    async def test_settings_can_change(self):
        network = MemoryNetwork()
        async with streams(network) as (near, far):
            network.shape(LinkSettings(delay=0.5))
            start = anyio.current_time()
            await near.send(b"x")
            await far.receive()
            assert anyio.current_time() - start == 0.5
            network.shape(LinkSettings(delay=2), address=near.link.address)
            network.shape(LinkSettings(delay=1))
            assert near.link.settings.delay == 2
            near.link.settings = LinkSettings(delay=0.25)
            await near.send(b"x")
            await far.receive()
            assert anyio.current_time() - start == 0.75

    async def test_bounds_of_receive(self):
        async with streams(MemoryNetwork()) as (near, far):
            with pytest.raises(ValueError, match="max_bytes"):
                await near.receive(0)
            await near.send(b"abcdef")
            await near.send_eof()
            assert [await far.receive(4), await far.receive(4)] == [b"abcd", b"ef"]
            assert near.extra_attributes == {}


class TestNetwork:
    async def test_addresses(self):
        transport = MemoryTransport(MemoryNetwork())
        seven = Multiaddr.parse("/memory/7")
        async with await transport.listen_raw(seven) as listener:
            assert listener.addresses == (seven,)
            with pytest.raises(OSError, match="/memory/7"):
                await transport.listen_raw(seven)
            async with await transport.listen_raw(ANY) as other:
                assert other.addresses == (Multiaddr.parse("/memory/1"),)
            # Byte streams and whole connections do not meet, so they do not collide either.
            with pytest.raises(LocalProtocolError):
                await PlainMemoryTransport(transport.network).listen(seven)
        async with await transport.listen_raw(seven):
            pass
        for text in ("/ip4/127.0.0.1/tcp/1", "/memory/4294967296"):
            with pytest.raises(AddressError):
                await transport.listen_raw(Multiaddr.parse(text))
        for each in (transport, PlainMemoryTransport(transport.network)):
            dial = each.dial_raw if isinstance(each, MemoryTransport) else each.dial
            with pytest.raises(DialError):
                await dial(Multiaddr.parse("/ip4/127.0.0.1/tcp/1"))

    async def test_networks_are_apart(self):
        async with await MemoryTransport(MemoryNetwork()).listen_raw(ANY) as listener:
            with pytest.raises(DialError):
                await MemoryTransport(MemoryNetwork()).dial_raw(listener.addresses[0])

    async def test_the_process_shares_one(self):
        assert MemoryTransport().network is PlainMemoryTransport().network is shared_network()

    async def test_backlog_is_bounded(self):
        network = MemoryNetwork()
        transport = MemoryTransport(network)
        async with await transport.listen_raw(ANY) as listener:
            waiting = [await transport.dial_raw(listener.addresses[0]) for _ in range(BACKLOG)]
            with pytest.raises(DialError, match="too many"):
                await transport.dial_raw(listener.addresses[0])
        with pytest.raises(anyio.BrokenResourceError):
            await waiting[0].receive()
        assert network.links == ()

    async def test_dial_that_is_given_up_leaves_no_link(self):
        network = MemoryNetwork(settings=LinkSettings(delay=1))
        transport = MemoryTransport(network)
        async with await transport.listen_raw(ANY) as listener:
            with anyio.move_on_after(1.5):
                await transport.dial_raw(listener.addresses[0])
            assert network.links == ()

    async def test_seed_decides(self):
        counts = []
        for seed in (1, 1, 2):
            settings = LinkSettings(loss=0.1)
            async with connected(plain(MemoryNetwork(seed=seed, settings=settings))) as (near, far):
                pipe = await near.open_pipe("", max_retransmits=0)
                for number in range(200):
                    await pipe.send(b"%d" % number)
                await pipe.aclose()
                accepted = await far.accept_pipe()
                counts.append((near.channel_binding, [each async for each in accepted]))
        assert counts[0] == counts[1] != counts[2]


class TestConnections:
    async def test_cut_is_nobodys_doing(self):
        network = MemoryNetwork()
        async with connected(plain(network)) as (near, far):
            opened, accepted = await open_pair(near, far)
            pipe = await near.open_pipe("")
            network.break_links()
            for connection in (near, far):
                end = await connection.wait_closed()
                assert end.remote is None
                assert isinstance(end.cause, anyio.BrokenResourceError)
            for act in (opened.receive, accepted.receive, lambda: opened.send(b"x")):
                with pytest.raises(StreamReset) as caught:
                    await act()
                assert caught.value.remote
            with pytest.raises(anyio.BrokenResourceError):
                await pipe.send(b"x")
            with pytest.raises(anyio.BrokenResourceError):
                await pipe.receive()

    async def test_cut_is_seen_by_who_acts_first(self):
        network = MemoryNetwork()
        transport = PlainMemoryTransport(network)
        async with (
            make_pair(transport, PlainMemoryTransport(network), ANY) as pair,
            await pair.listener.listen(ANY) as listener,
        ):
            connection = await transport.dial(listener.addresses[0])
            network.break_links()
            with pytest.raises(ConnectionClosed):
                await connection.open_stream()
            await connection.run()

    async def test_closed_stream_lingers_and_is_reset(self):
        async with connected(plain(MemoryNetwork())) as (near, far):
            opened, accepted = await open_pair(near, far)
            await opened.aclose()
            start = anyio.current_time()
            assert await receive_all(accepted) == b""
            await accepted.send(bytes(1_000_000))
            near.drain()
            await far.wait_closed()
            assert anyio.current_time() - start == LINGER
            with pytest.raises(StreamReset):
                await accepted.send(b"x")

    async def test_receive_of_nothing_is_refused(self):
        async with connected(plain(MemoryNetwork())) as (near, far):
            opened, _ = await open_pair(near, far)
            assert opened.extra_attributes == {}
            await opened.aclose()
            with pytest.raises(anyio.ClosedResourceError):
                await opened.send_eof()


class TestPipes:
    async def test_loss_is_real(self):
        network = MemoryNetwork(settings=LinkSettings(delay=0.01, loss=0.1))
        async with connected(plain(network)) as (near, far):
            pipe = await near.open_pipe("loss", max_retransmits=0)
            got = await exchange(pipe, await far.accept_pipe(), 2000)
            assert len(got) == pytest.approx(1800, abs=60)
            assert got == sorted(got)

    async def test_retransmits_save_messages(self):
        network = MemoryNetwork(settings=LinkSettings(delay=0.01, loss=0.1))
        async with connected(plain(network)) as (near, far):
            pipe = await near.open_pipe("retransmits", max_retransmits=3)
            got = await exchange(pipe, await far.accept_pipe(), 2000)
            assert len(got) > 1990
            assert got != sorted(got)

    async def test_age_bounds_the_wait(self):
        settings = LinkSettings(delay=0.01, rate=10_000, loss=0.1)
        async with connected(plain(MemoryNetwork(settings=settings))) as (near, far):
            pipe = await near.open_pipe("age", max_age=0.1)
            accepted = await far.accept_pipe()
            # 100 bytes take some 11 ms of the link: most are too old before their turn.
            start = anyio.current_time()
            for number in range(100):
                await pipe.send(b"%-100d" % number)
            ages = []
            with anyio.move_on_after(5):
                while True:
                    await accepted.receive()
                    ages.append(anyio.current_time() - start)
            assert 5 <= len(ages) <= 10
            assert max(ages) <= 0.1

    async def test_reordering_is_real(self):
        network = MemoryNetwork(settings=LinkSettings(delay=0.02, reorder=0.1))
        async with connected(plain(network)) as (near, far):
            pipe = await near.open_pipe("reorder")
            got = await exchange(pipe, await far.accept_pipe(), 2000)
            assert sorted(got) == list(range(2000))
            steps_back = sum(1 for one, two in pairwise(got) if one > two)
            assert steps_back == pytest.approx(200, abs=60)

    async def test_full_receiver_loses_the_oldest(self):
        async with connected(plain(MemoryNetwork())) as (near, far):
            pipe = await near.open_pipe("full")
            accepted = await far.accept_pipe()
            for number in range(MAX_WAITING + 10):
                await pipe.send(b"%d" % number)
                await checkpoint()
            await pipe.send_eof()
            with pytest.raises(anyio.ClosedResourceError):
                await pipe.send(b"x")
            await anyio.wait_all_tasks_blocked()
            got = [int(message) async for message in accepted]
            assert got == list(range(10, MAX_WAITING + 10))

    async def test_send_waits_for_the_link(self):
        settings = LinkSettings(rate=10_000, queue=5000)
        async with connected(plain(MemoryNetwork(settings=settings))) as (near, far):
            pipe = await near.open_pipe("slow")
            await far.accept_pipe()
            start = anyio.current_time()
            for _ in range(20):
                await pipe.send(bytes(1000))
            assert anyio.current_time() - start == pytest.approx(1.5, abs=0.2)

    async def test_bounds(self):
        async with connected(plain(MemoryNetwork())) as (near, far):
            pipe = await near.open_pipe("bounds")
            with pytest.raises(LimitExceeded):
                await pipe.send(bytes(pipe.max_message_size + 1))
            assert pipe.extra_attributes == {}
            accepted = await far.accept_pipe()
            await accepted.aclose()
            await accepted.aclose()
            for act in (accepted.receive, accepted.send_eof):
                with pytest.raises(anyio.ClosedResourceError):
                    await act()


async def exchange(pipe, accepted, count):
    """Send numbers a millisecond apart; return those that arrive."""
    got = []

    async def receive():
        while True:
            got.append(int(await accepted.receive()))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(receive)
        for number in range(count):
            await pipe.send(b"%d" % number)
            await anyio.sleep(0.001)
        await anyio.sleep(1)
        tasks.cancel_scope.cancel()
    return got
