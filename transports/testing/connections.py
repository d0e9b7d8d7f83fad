"""The contract of `Connection`."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

import anyio

from ..core.errors import ConnectionClosed, StreamReset
from ..core.interfaces import Side
from .pair import (
    connected,
    expect,
    expect_raises,
    listening,
    open_pair,
    receive_all,
    receive_exactly,
    settle,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from ..core.interfaces import Connection, MessagePipe, Stream
    from .pair import PairFactory

AT_ONCE = 300
# More streams than any side lets another open without accepting one.
TOO_MANY = 1200


async def check_connection_identifies_both_ends(factory: PairFactory) -> None:
    """Both ends name each other, take opposite sides and share one secret."""
    async with listening(factory) as place:
        near, far = await place.dial()
        hosts = place.pair.dialer_host, place.pair.listener_host
        expect(near.remote_peer == hosts[1].peer_id, "the dialer sees the listener's peer id")
        expect(far.remote_peer == hosts[0].peer_id, "the listener sees the dialer's peer id")
        expect((near.side, far.side) == (Side.DIALER, Side.LISTENER), "the sides")
        expect(near.remote_addr == place.address, "the dialer names the address it dialled")
        expect(far.remote_addr.names[-1] != "p2p", "remote_addr without /p2p at its end")
        expect(near.channel_binding == far.channel_binding, "equal channel bindings")
        expect(len(near.channel_binding.data) >= 32, "at least 32 bytes of channel binding")
        other, _ = await place.dial()
        expect(other.channel_binding != near.channel_binding, "another binding per connection")


async def check_connection_many_streams(factory: PairFactory) -> None:
    """Both sides open streams at the same time; each carries its own bytes."""
    async with connected(factory) as (near, far), anyio.create_task_group() as tasks:
        for connection in (near, far):
            tasks.start_soon(_echo_all, connection)
        async with anyio.create_task_group() as asking:
            for number in range(50):
                asking.start_soon(_ask, near, b"near %d" % number)
                asking.start_soon(_ask, far, b"far %d" % number)
        tasks.cancel_scope.cancel()


async def _echo_all(connection: Connection) -> None:
    async with anyio.create_task_group() as tasks:
        while True:
            tasks.start_soon(_echo, await connection.accept_stream())


async def _echo(stream: Stream) -> None:
    async with stream:
        await stream.send(await receive_all(stream))


async def _ask(connection: Connection, question: bytes) -> None:
    async with await connection.open_stream() as stream:
        await stream.send(question)
        await stream.send_eof()
        expect(await receive_all(stream) == question, "the bytes of this stream come back")


async def check_connection_accept_order(factory: PairFactory) -> None:
    """Streams are accepted in the order in which they were opened."""
    async with connected(factory) as (near, far):
        opened = []
        for number in range(20):
            opened.append(await near.open_stream())
            await opened[-1].send(bytes([number]))
        for number in range(20):
            accepted = await far.accept_stream()
            expect(await accepted.receive() == bytes([number]), f"stream {number} in its turn")


async def check_connection_streams_at_once(factory: PairFactory) -> None:
    """Three hundred streams are open at the same time, and all of them work."""
    async with connected(factory) as (near, far):
        accepted: list[Stream] = []

        async def accept() -> None:
            while len(accepted) < AT_ONCE:
                accepted.append(await far.accept_stream())

        opened: list[Stream] = []
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(accept)
            for number in range(AT_ONCE):
                opened.append(await near.open_stream())
                await opened[-1].send(b"%03d" % number)
        for number, stream in enumerate(accepted):
            expect(await receive_exactly(stream, 3) == b"%03d" % number, "what was sent on it")
            await stream.send(b"%03d" % number)
        for number, stream in enumerate(opened):
            expect(await receive_exactly(stream, 3) == b"%03d" % number, "what was sent back")


async def check_connection_open_waits(factory: PairFactory) -> None:
    """Opening waits for a peer that accepts nothing; no stream that was opened is lost."""
    async with connected(factory) as (near, far):
        opened: list[Stream] = []

        async def open_many() -> None:
            while len(opened) < TOO_MANY:
                opened.append(await near.open_stream())
                await opened[-1].send(b"%d" % len(opened))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(open_many)
            await settle(lambda: len(opened))
            count = len(opened)
            expect(0 < count < TOO_MANY, f"opening waits; {count} were opened")
            for number in range(1, count + 1):
                accepted = await far.accept_stream()
                expect(await accepted.receive() == b"%d" % number, "no stream is lost")
                accepted.reset()
            await settle(lambda: len(opened))
            expect(len(opened) > count, "opening goes on once streams are accepted")
            tasks.cancel_scope.cancel()


async def check_connection_streams_before_run(factory: PairFactory) -> None:
    """Streams opened before the peer runs its end, and before it accepts, are not lost."""
    async with listening(factory) as place:
        near = await place.pair.dialer.dial(place.address)
        place.run(near)
        far = await place.accepted.receive()
        opened = await near.open_stream()
        await opened.send(b"early")
        await opened.send_eof()
        await settle(lambda: near.statistics().bytes_sent)
        place.run(far)
        await settle(lambda: far.statistics().bytes_received)
        accepted = await far.accept_stream()
        expect(await receive_all(accepted) == b"early", "what was sent early arrives")


async def check_connection_accept_is_cancel_safe(factory: PairFactory) -> None:
    """Accepts that are cancelled, or wait side by side, lose no stream."""
    async with connected(factory) as (near, far):
        random, got = Random(1), list[bytes]()

        async def accept() -> None:
            while len(got) < 30:
                with anyio.move_on_after(random.choice((0, 0.001))):
                    stream = await far.accept_stream()
                    with anyio.CancelScope(shield=True):
                        got.append(await stream.receive())
                await anyio.lowlevel.checkpoint()

        async with anyio.create_task_group() as tasks:
            for _ in range(3):
                tasks.start_soon(accept)
            opened = []
            for number in range(30):
                opened.append(await near.open_stream())
                await opened[-1].send(b"%d" % number)
        expect(sorted(map(int, got)) == list(range(30)), "every stream is accepted once")


async def check_connection_reset_spares_others(factory: PairFactory) -> None:
    """A stream that is reset takes no other one with it, nor does one that nobody reads."""
    async with connected(factory) as (near, far):
        kept, kept_far = await open_pair(near, far)
        broken, broken_far = await open_pair(near, far)
        stuck, _ = await open_pair(near, far)
        with anyio.move_on_after(0.2):
            while True:
                await stuck.send(bytes(65_536))
        broken.reset()
        with expect_raises(StreamReset, "on the stream that was reset"):
            await broken_far.receive()
        await kept.send(b"fine")
        expect(await receive_exactly(kept_far, 4) == b"fine", "the others go on")
        await kept_far.send(b"good")
        expect(await receive_exactly(kept, 4) == b"good", "in both directions")
        stuck.reset()  # or closing would wait for what it has queued


async def check_connection_drain(factory: PairFactory) -> None:
    """After drain no stream can be opened, those there are go on, and the last one closes it."""
    async with connected(factory) as (near, far):
        opened, accepted = await open_pair(near, far)
        near.drain()
        with expect_raises(ConnectionClosed, "when opening after drain"):
            await near.open_stream()
        await opened.send(b"still")
        expect(await receive_exactly(accepted, 5) == b"still", "open streams go on")
        await accepted.send(b"open")
        await accepted.aclose()
        expect(await receive_all(opened) == b"open", "open streams go on")
        await opened.aclose()
        expect((await near.wait_closed()).remote is False, "ended by the side that drained")
        expect((await far.wait_closed()).code == 0, "the peer is told that this was meant")


async def check_connection_drain_idle(factory: PairFactory) -> None:
    """A connection without streams closes when it is drained."""
    async with connected(factory) as (near, far):
        await near.probe()
        near.drain()
        await near.wait_closed()
        await far.wait_closed()


async def check_connection_close_flushes(factory: PairFactory) -> None:
    """What was sent before aclose arrives."""
    async with connected(factory) as (near, far):
        opened, accepted = await open_pair(near, far)
        data, got = Random(1).randbytes(200_000), list[bytes]()

        async def receive() -> None:
            got.append(await receive_all(accepted))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(receive)
            await opened.send(data)
            await opened.send_eof()
            await near.aclose()
        expect(got == [data], "all that was sent before the connection closed")


async def check_connection_close_keeps_what_arrived(factory: PairFactory) -> None:
    """What a peer sent and finished before it closed can be read after the end."""
    async with connected(factory) as (near, far):
        opened, accepted = await open_pair(near, far)
        data = Random(1).randbytes(100_000)
        await opened.send(data)
        await opened.send_eof()
        await near.aclose()
        await far.wait_closed()
        expect(await receive_all(accepted) == data, "all that arrived, and then the end")


async def check_connection_close_is_told(factory: PairFactory) -> None:
    """wait_closed tells both ends who closed; everything that waits is woken."""
    async with connected(factory) as (near, far):
        opened, accepted = await open_pair(near, far)
        woken: list[str] = []

        async def expect_end(
            act: Callable[[], Awaitable[object]], error: type[Exception], name: str
        ) -> None:
            with expect_raises(error, f"in {name} when the connection ends"):
                await act()
            woken.append(name)

        async with anyio.create_task_group() as tasks:
            for connection, stream, name in ((near, opened, "near"), (far, accepted, "far")):
                for act, error in (
                    (connection.accept_stream, ConnectionClosed),
                    (connection.accept_pipe, ConnectionClosed),
                    (stream.receive, StreamReset),
                ):
                    tasks.start_soon(expect_end, act, error, f"{name} {act.__name__}")
            await settle(lambda: len(woken))
            expect(woken == [], "all wait")
            await near.aclose()
            await near.aclose()
        ends = await near.wait_closed(), await far.wait_closed()
        expect(ends[0].remote is False, "this side has closed: remote is False")
        expect(ends[1].remote is True, "the peer has closed: remote is True")
        await _check_closed(near)
        await _check_closed(far)


async def _check_closed(connection: Connection) -> None:
    actions: tuple[Callable[[], Awaitable[object]], ...] = (
        connection.open_stream,
        connection.accept_stream,
        connection.accept_pipe,
        connection.probe,
    )
    for act in actions:
        with expect_raises(ConnectionClosed, f"from {act} after the end"):
            await act()
    await connection.aclose()
    connection.drain()


async def check_connection_run_ends(factory: PairFactory) -> None:
    """Run returns at both ends once one has closed."""
    await _check_run(factory, lambda near, _: near.aclose())


async def check_connection_cancelled_run_closes(factory: PairFactory) -> None:
    """A run that is cancelled closes the connection, at both ends."""

    async def cancel(_: Connection, scope: anyio.CancelScope) -> None:
        scope.cancel()

    await _check_run(factory, cancel)


async def _check_run(
    factory: PairFactory, end: Callable[[Connection, anyio.CancelScope], Awaitable[None]]
) -> None:
    async with listening(factory) as place:
        near = await place.pair.dialer.dial(place.address)
        far = await place.accepted.receive()
        scope = anyio.CancelScope()

        async def run_near() -> None:
            with scope:
                await near.run()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(run_near)
            tasks.start_soon(far.run)
            await open_pair(near, far)
            await end(near, scope)
        await near.wait_closed()
        await far.wait_closed()
        await _check_closed(near)
        await _check_closed(far)


async def check_connection_close_before_run(factory: PairFactory) -> None:
    """A connection that is closed before it runs ends at both ends."""
    async with listening(factory) as place:
        near = await place.pair.dialer.dial(place.address)
        far = await place.accepted.receive()
        place.run(far)
        await near.aclose()
        await near.wait_closed()
        await far.wait_closed()
        await near.run()


async def check_connection_probe(factory: PairFactory) -> None:
    """A probe takes time, also beside streams that nobody reads, and several at once."""
    async with connected(factory) as (near, far):
        expect(await near.probe() > 0, "a round trip above 0 seconds")
        expect(await far.probe() > 0, "a round trip above 0 seconds")
        stuck, _ = await open_pair(near, far)
        with anyio.move_on_after(0.2):
            while True:
                await stuck.send(bytes(65_536))
        async with anyio.create_task_group() as tasks:
            for _ in range(20):
                tasks.start_soon(near.probe)
                tasks.start_soon(far.probe)
        stuck.reset()  # or closing would wait for what it has queued


async def check_connection_statistics(factory: PairFactory) -> None:
    """Bytes and streams are counted; times are the loop's."""
    async with connected(factory) as (near, far):
        before = near.statistics(), far.statistics()
        opened, accepted = await open_pair(near, far)
        await opened.send(bytes(10_000))
        await receive_exactly(accepted, 10_000)
        await near.probe()
        after = near.statistics(), far.statistics()
        expect(after[0].bytes_sent - before[0].bytes_sent >= 10_000, "bytes sent are counted")
        grown = after[1].bytes_received - before[1].bytes_received
        expect(grown >= 10_000, "bytes received are counted")
        for old, new in zip(before, after, strict=True):
            count = new.data_channels_opened - old.data_channels_opened
            expect(count == 1, f"one stream more, not {count}")
            expect(new.opened_at <= new.last_received_at, "received after it was opened")
            rtt = new.round_trip_time
            expect(rtt is None or rtt >= 0, "no negative round trip")
        opened.reset()
        with expect_raises(StreamReset, "at the peer of a reset"):
            await accepted.receive()
        closed = far.statistics().data_channels_closed - before[1].data_channels_closed
        expect(closed == 1, f"one stream has ended, not {closed}")


async def check_connection_pipes(factory: PairFactory) -> None:
    """Pipes carry whole messages both ways, or there are none."""
    async with connected(factory) as (near, far):
        pipe = await near.open_pipe("telemetry", max_retransmits=0)
        if pipe is None:
            expect(await far.open_pipe("telemetry") is None, "no pipes at either end")
            return
        await pipe.send(b"first")
        accepted = await far.accept_pipe()
        expect(accepted.label == pipe.label == "telemetry", "the label at both ends")
        expect(await accepted.receive() == b"first", "a message as it was sent")
        limit = min(pipe.max_message_size, accepted.max_message_size)
        messages = [b"", b"x", bytes(limit), *(b"%d" % number for number in range(50))]
        await _check_messages(pipe, accepted, messages)
        await _check_messages(accepted, pipe, messages)
        await pipe.aclose()
        with expect_raises(anyio.ClosedResourceError, "when sending on a closed pipe"):
            await pipe.send(b"x")
        with expect_raises(anyio.EndOfStream, "at the peer of a closed pipe"):
            await accepted.receive()


async def _check_messages(
    sender: MessagePipe, receiver: MessagePipe, messages: list[bytes]
) -> None:
    for message in messages:
        await sender.send(message)
    got = [await receiver.receive() for _ in messages]
    expect(sorted(got) == sorted(messages), "every message whole and once, in whatever order")
