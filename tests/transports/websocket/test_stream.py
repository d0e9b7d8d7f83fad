"""The byte stream over real loopback sockets: frames, waiting, closing, and the fast way."""

from __future__ import annotations

import socket

import anyio
import pytest
from isthmus.transports.websocket.stream import MAX_ANSWERS

from .places import (
    PATIENCE,
    answering_websocket,
    echoed,
    quiet_dialer,
    quiet_listener,
    read_to_end,
    serving,
    upgraded,
)
from .wire import BINARY, CLOSE, CONT, PING, PONG, TEXT, frame

# Frames


@pytest.mark.parametrize(
    ("wire", "code", "why"),
    [
        (frame(TEXT, b"hello"), 1003, "text"),
        (frame(BINARY, bytes(65_538)), 1009, "65538"),
        (frame(BINARY, b"x", mask=None), 1002, "masking"),
    ],
)
async def test_breaches_are_told_and_end_it(wire, code, why):
    async with serving(max_message_size=65_537) as served:
        raw = await upgraded(served)
        await raw.send(wire)
        answer = await read_to_end(raw)
        assert answer[0] == 0x80 | CLOSE
        assert int.from_bytes(answer[2:4]) == code
        assert why in str(await served.error())


async def test_fragments_and_pings():
    async with serving() as served:
        raw = await upgraded(served)
        await raw.send(frame(BINARY, b"one", fin=False) + frame(PING, b"?") + frame(CONT, b"two"))
        expected = [
            frame(PONG, b"?", mask=None),
            *(frame(BINARY, x, mask=None) for x in (b"one", b"two")),
        ]
        got = b""
        with anyio.fail_after(PATIENCE):
            while len(got) < len(b"".join(expected)):
                got += await raw.receive()
        assert got == b"".join(expected)
        await raw.send(frame(CLOSE, b"\x03\xe8"))
        assert await read_to_end(raw) == frame(CLOSE, b"\x03\xe8", mask=None)
        assert isinstance(await served.error(), anyio.EndOfStream)


async def test_pings_whose_answers_nobody_reads_pile_up_nowhere():
    async with serving() as served:
        raw = await upgraded(served)
        raw.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        flood = frame(PING, bytes(125)) * 500
        with anyio.move_on_after(1) as scope:
            while True:
                await raw.send(flood)
        assert scope.cancelled_caught
        assert len(served.streams[0]._unsent) < 2 * len(flood)
        assert len(served.streams[0]._machine._protocol.writes) < 1000
        raw.close()


async def test_empty_frames_without_end_leave_others_their_turns():
    async with serving() as served:
        raw = await upgraded(served)
        with anyio.move_on_after(0.3):
            while True:
                await raw.send(frame(BINARY) * 5000)
        with anyio.fail_after(PATIENCE):
            async with await quiet_dialer().dial_raw(served.address) as stream:
                await echoed(stream)
        raw.close()


async def test_a_slow_reader_stops_its_writer():
    """Both ways: what waits is in the kernel's buffers, and a message or two."""
    async with serving() as served:
        stream = await quiet_dialer().dial_raw(served.address)
        sent = 0
        with anyio.move_on_after(0.5) as scope:
            while True:
                await stream.send(bytes(60_000))
                sent += 60_000
        assert scope.cancelled_caught
        far = served.streams[0]
        assert len(stream._unsent) < 70_000
        assert len(far._unsent) < 70_000
        assert sum(map(len, far._received)) < 200_000
        # What was cut off by the cancelled send goes out whole once there is room.
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(stream.send, b"end")
            got, last = 0, b""
            with anyio.fail_after(PATIENCE):
                while not last.endswith(b"end"):
                    last = await stream.receive()
                    got += len(last)
        assert got in (sent + 3, sent + 60_003)
        await stream.aclose()


async def test_small_reads():
    async with serving() as served, await quiet_dialer().dial_raw(served.address) as stream:
        await stream.send(b"hello")
        assert [await stream.receive(2) for _ in range(3)] == [b"he", b"ll", b"o"]


# The end


async def test_what_closed_streams_raise():
    async with serving() as served:
        stream = await quiet_dialer().dial_raw(served.address)
        await echoed(stream)
        await stream.aclose()
        await stream.aclose()
        with pytest.raises(anyio.ClosedResourceError):
            await stream.receive()
        with pytest.raises(anyio.ClosedResourceError):
            await stream.send(b"x")
        with pytest.raises(anyio.ClosedResourceError):
            await stream.receive_each(lambda _: True)
        with pytest.raises(anyio.ClosedResourceError):
            stream.send_nowait(b"x")


async def test_send_eof_ends_both_directions():
    async with serving() as served:
        stream = await quiet_dialer().dial_raw(served.address)
        await echoed(stream)
        await stream.send_eof()
        with pytest.raises(anyio.BrokenResourceError):
            await stream.send(b"x")
        for _ in range(2):
            with pytest.raises(anyio.EndOfStream):
                await stream.receive()
        await stream.receive_each(lambda _: False)
        await stream.aclose()
        assert isinstance(await served.error(), anyio.EndOfStream)


@pytest.mark.parametrize("is_forced", [False, True])
async def test_closing_while_another_task_reads_waits_for_nobody(is_forced):
    async with serving() as served:
        raw = await upgraded(served)
        await raw.send(frame(BINARY, b"x"))
        assert await raw.receive() == frame(BINARY, b"x", mask=None)
        await anyio.wait_all_tasks_blocked()  # the other task reads again
        stream, started = served.streams[0], anyio.current_time()
        await (anyio.aclose_forcefully(stream) if is_forced else stream.aclose())
        assert anyio.current_time() - started < 0.5
        assert isinstance(await served.error(), anyio.ClosedResourceError)
        assert await read_to_end(raw) == frame(CLOSE, b"\x03\xe8", mask=None)


async def test_a_close_waits_a_second_at_most():
    hold = anyio.Event()

    async def ignore(stream) -> None:
        await hold.wait()

    async with answering_websocket(ignore) as place:
        stream = await quiet_dialer().dial_raw(place)
        started = anyio.current_time()
        await stream.aclose()
        assert 0.9 < anyio.current_time() - started < 2
        hold.set()


async def test_a_server_that_hangs_up_without_a_close():
    async def leave(stream) -> None:
        await stream.send(frame(BINARY, b"x", mask=None))

    async with answering_websocket(leave) as place:
        stream = await quiet_dialer().dial_raw(place)
        assert await stream.receive() == b"x"
        with pytest.raises(anyio.EndOfStream):
            await stream.receive()
        await stream.aclose()


# The fast way


async def test_the_fast_way_reads_pauses_and_sends():
    async with serving() as served:
        stream = await quiet_dialer().dial_raw(served.address)
        got, paused = bytearray(), anyio.Event()

        def take(data: memoryview) -> bool:
            got.extend(data)
            if len(got) == 5:
                stream.pause_reading()
                paused.set()
            return len(got) < 10

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(stream.receive_each, take)
            assert stream.send_nowait(b"hello") == 5
            with anyio.fail_after(PATIENCE):
                await paused.wait()
            assert stream.is_reading_paused
            stream.send_nowait(memoryview(b"world"))
            await stream.wait_writable()
            with anyio.move_on_after(0.05):
                await anyio.sleep_forever()
            assert got == b"hello"
            stream.resume_reading()
        assert got == b"helloworld"
        stream.end_sending()
        await stream.aclose()


async def test_the_fast_way_takes_a_message_whole_or_not():
    async with serving() as served:
        stream = await quiet_dialer().dial_raw(served.address)
        sizes = set()
        while 0 not in sizes:
            sizes.add(stream.send_nowait(bytes(60_000)))
        assert sizes == {0, 60_000}
        assert 0 < len(stream._unsent) < 60_020
        await anyio.aclose_forcefully(stream)


async def test_the_fast_way_sends_the_rest_of_the_last_message_by_itself():
    """The socket takes a part of it, and nothing that is sent later takes the rest along."""
    size, got = len(frame(BINARY, bytes(4_000_000), mask=None)), 0
    async with quiet_listener() as (listener, streams):
        raw = await upgraded(listener)
        with anyio.fail_after(PATIENCE):
            while not streams:
                await anyio.lowlevel.checkpoint()
            (far,) = streams
            await anyio.wait_all_tasks_blocked()
            assert far.send_nowait(bytes(4_000_000)) == 4_000_000
            assert far._unsent
            while got < size:
                got += len(await raw.receive())
        raw.close()


async def test_the_fast_way_holds_a_peer_that_reads_no_answers():
    """Its pongs fill the socket; then it is not read until they have gone."""
    async with quiet_listener() as (listener, streams):
        raw = await upgraded(listener)
        raw.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        with anyio.fail_after(PATIENCE):
            while not streams:
                await anyio.lowlevel.checkpoint()
        far, flood = streams[0], frame(PING, bytes(125)) * 500
        far._raw.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        with anyio.fail_after(PATIENCE):
            while not far._is_held:
                with anyio.move_on_after(0.05):
                    await raw.send(flood)
        assert MAX_ANSWERS < len(far._unsent) < 10 * len(flood)
        assert far._raw.is_reading_paused
        with anyio.fail_after(PATIENCE):
            while far._is_held:
                await raw.receive()
        assert not far._raw.is_reading_paused
        raw.close()


async def test_the_fast_way_tells_a_breach():
    async with quiet_listener() as (listener, streams):
        raw = await upgraded(listener)
        await raw.send(frame(BINARY, b"x") + frame(TEXT, b"x"))
        assert (await read_to_end(raw))[:4] == b"\x88\x16\x03\xeb"
        assert not streams[0]._machine.is_open
