"""The contract of `Stream`."""

from __future__ import annotations

import hashlib
from functools import partial
from random import Random
from typing import TYPE_CHECKING

import anyio
from anyio.lowlevel import checkpoint

from ..core.errors import NegotiationError, StreamReset
from ..core.interfaces import Priority
from .pair import (
    connected,
    expect,
    expect_raises,
    open_pair,
    receive_all,
    receive_exactly,
    settle,
    streaming,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from ..core.interfaces import Stream
    from .pair import PairFactory

# What a stream may hold unread of a peer that its application does not listen to.
MAX_UNREAD = 2**20
# What both ends and everything between them may hold of one stream that nobody reads.
MAX_BUFFERED = 16 * 2**20
LARGE = 4 * 2**20


async def check_stream_carries_bytes(factory: PairFactory) -> None:
    """Bytes arrive in both directions, in order, and end with EndOfStream for good."""
    async with streaming(factory) as (near, far):
        await near.send(b"one ")
        await near.send(b"two")
        await near.send_eof()
        expect(await receive_all(far) == b"one two", "what was sent arrives")
        for _ in range(2):
            with expect_raises(anyio.EndOfStream, "at every receive after the end"):
                await far.receive()
        await far.send(b"three")
        await far.aclose()
        expect(await receive_all(near) == b"three", "what was sent before aclose arrives")
        await near.aclose()


async def check_stream_half_close_by_acceptor(factory: PairFactory) -> None:
    """The end that accepted can finish first and still receive."""
    async with streaming(factory) as (near, far):
        await far.send(b"done")
        await far.send_eof()
        expect(await receive_all(near) == b"done", "the acceptor's bytes and end arrive")
        await near.send(b"still here")
        await near.send_eof()
        await near.send_eof()
        expect(await receive_all(far) == b"still here", "the other direction goes on")


async def check_stream_reset_by_opener(factory: PairFactory) -> None:
    """A reset by the opener ends both directions at both ends."""
    async with streaming(factory) as (near, far):
        await _check_reset(near, far)


async def check_stream_reset_by_acceptor(factory: PairFactory) -> None:
    """A reset by the acceptor ends both directions at both ends."""
    async with streaming(factory) as (near, far):
        await _check_reset(far, near)


async def _check_reset(resetter: Stream, other: Stream) -> None:
    resetter.reset(7)
    resetter.reset(8)
    for is_sending in (False, True):
        with expect_raises(StreamReset, "after one's own reset") as caught:
            await (resetter.send(b"x") if is_sending else resetter.receive())
        expect(_is_remote(caught) is False, "one's own reset has remote=False")
    with expect_raises(StreamReset, "at the receiver of a reset") as caught:
        await other.receive()
    expect(_is_remote(caught) is True, "the peer's reset has remote=True")
    with expect_raises(StreamReset, "when sending after the peer's reset"):
        await other.send(b"x")
    await resetter.aclose()
    await other.aclose()


def _is_remote(caught: list[Exception]) -> bool | None:
    error = caught[0]
    return error.remote if isinstance(error, StreamReset) else None


async def check_stream_reset_wakes(factory: PairFactory) -> None:
    """A reset wakes the peer's waiting receiver and waiting sender, and one's own."""
    async with connected(factory) as (near, far):
        for is_remote in (True, False):
            opened, accepted = await open_pair(near, far)
            ended: list[str] = []
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(_note_reset, opened.receive, "receiver", ended)
                tasks.start_soon(_note_reset, partial(_send_much, opened), "sender", ended)
                await settle(partial(_progress, opened))
                expect(ended == [], "receiver and sender wait")
                (accepted if is_remote else opened).reset()
            expect(sorted(ended) == ["receiver", "sender"], "both get StreamReset")


async def _note_reset(act: Callable[[], Awaitable[object]], name: str, ended: list[str]) -> None:
    try:
        await act()
    except StreamReset:
        ended.append(name)


async def _send_much(stream: Stream) -> None:
    for _ in range(2 * MAX_BUFFERED // 65_536):
        await stream.send(bytes(65_536))


def _progress(stream: Stream) -> int:
    return stream.statistics().bytes_sent


async def check_stream_send_after_end(factory: PairFactory) -> None:
    """Sending after send_eof or aclose raises ClosedResourceError."""
    async with connected(factory) as (near, far):
        opened, accepted = await open_pair(near, far)
        await opened.send_eof()
        with expect_raises(anyio.ClosedResourceError, "when sending after send_eof"):
            await opened.send(b"x")
        await accepted.aclose()
        await accepted.aclose()
        with expect_raises(anyio.ClosedResourceError, "when sending after aclose"):
            await accepted.send(b"x")


async def check_stream_receive_after_close(factory: PairFactory) -> None:
    """Receiving after aclose raises ClosedResourceError, and so does a receive that waits."""
    async with streaming(factory) as (near, far):
        await far.send(b"never read")
        closed = anyio.Event()

        async def receive() -> None:
            await receive_exactly(near, 10)
            with expect_raises(anyio.ClosedResourceError, "in a receive that waits"):
                await near.receive()
            closed.set()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(receive)
            await settle(near.statistics)
            expect(not closed.is_set(), "the receiver waits")
            await near.aclose()
        with expect_raises(anyio.ClosedResourceError, "when receiving after aclose"):
            await near.receive()


async def check_stream_close_delivers(factory: PairFactory) -> None:
    """All that was sent before aclose arrives, though nobody waits for it."""
    async with streaming(factory) as (near, far):
        data = Random(1).randbytes(150_000)
        await near.send(data)
        await near.aclose()
        expect(await receive_all(far) == data, "everything sent before aclose arrives")


async def check_stream_close_spares_the_sender(factory: PairFactory) -> None:
    """A peer that closes its end without reading does not break what is sent meanwhile."""
    async with streaming(factory) as (near, far):
        await far.aclose()
        await near.send(bytes(100_000))
        await near.send_eof()
        expect(await receive_all(near) == b"", "the end, and no reset")


async def check_stream_both_directions_at_once(factory: PairFactory) -> None:
    """Both ends send and receive a mebibyte at the same time, in tasks of their own."""
    async with streaming(factory) as (near, far):
        sent = {near: Random(1).randbytes(2**20), far: Random(2).randbytes(2**20)}
        got: dict[Stream, bytes] = {}

        async def receive(stream: Stream) -> None:
            got[stream] = await receive_all(stream)

        async def send(stream: Stream) -> None:
            await stream.send(sent[stream])
            await stream.send_eof()

        async with anyio.create_task_group() as tasks:
            for stream in (near, far):
                tasks.start_soon(receive, stream)
                tasks.start_soon(send, stream)
        expect(got[far] == sent[near], "the opener's bytes arrive")
        expect(got[near] == sent[far], "the acceptor's bytes arrive")


async def check_stream_receive_is_cancel_safe(factory: PairFactory) -> None:
    """A receive that is cancelled loses nothing."""
    async with streaming(factory) as (near, far):
        random, data = Random(3), Random(4).randbytes(100_000)

        async def send() -> None:
            for start in range(0, len(data), 1000):
                await near.send(data[start : start + 1000])
                await checkpoint()
            await near.send_eof()

        got = bytearray()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(send)
            while len(got) < len(data):
                with anyio.move_on_after(random.choice((0, 0, 0.0005, 1))):
                    got += await far.receive(random.randrange(1, 3000))
                # Something must come in between, or no cancelled receive would be at work.
                await checkpoint()
        expect(await receive_all(far) == b"", "the end")
        expect(bytes(got) == data, "nothing is lost or doubled by cancelled receives")


async def check_stream_exception_resets(factory: PairFactory) -> None:
    """Leaving `async with` by an exception resets; leaving it otherwise closes."""
    async with connected(factory) as (near, far):
        opened, accepted = await open_pair(near, far)
        with expect_raises(ValueError, "out of the block"):
            async with opened:
                await opened.send(b"half of a message")
                raise ValueError
        with expect_raises(StreamReset, "at the peer of a block left by an exception"):
            await receive_all(accepted)
        opened, accepted = await open_pair(near, far)
        async with opened:
            await opened.send(b"whole")
        expect(await receive_all(accepted) == b"whole", "a block left normally closes")


async def check_stream_empty_send(factory: PairFactory) -> None:
    """Sending nothing is allowed, and nothing is received for it."""
    async with streaming(factory) as (near, far):
        await near.send(b"")
        await near.send(b"x")
        expect(await far.receive() == b"x", "no empty bytes object is received")
        await near.send_eof()
        expect(await receive_all(far) == b"", "nothing more arrives")


async def check_stream_receive_keeps_to_max_bytes(factory: PairFactory) -> None:
    """A receive returns between one byte and as many as were asked for."""
    async with streaming(factory) as (near, far):
        await near.send(b"abcdef")
        await near.send_eof()
        expect(await far.receive(1) == b"a", "one byte if one was asked for")
        expect(len(await far.receive(2)) in (1, 2), "one or two bytes if two were asked for")
        with expect_raises(ValueError, "for max_bytes below 1"):
            await far.receive(0)


async def check_stream_keeps_no_reference(factory: PairFactory) -> None:
    """What was passed to send may be changed once send has returned."""
    async with streaming(factory) as (near, far):
        data = bytearray(b"a" * 50_000)
        await near.send(memoryview(data))  # type: ignore[arg-type]  # as everybody does
        data[:] = b"b" * 50_000
        expect(await receive_exactly(far, 50_000) == b"a" * 50_000, "what was sent arrives")


async def check_stream_large_transfer(factory: PairFactory) -> None:
    """Four mebibytes in pieces of any size arrive at a reader that takes them piecemeal."""
    async with streaming(factory) as (near, far):
        random = Random(5)
        data = random.randbytes(LARGE)

        async def send() -> None:
            start = 0
            while start < len(data):
                size = random.choice((1, 100, 5000, 70_000, 400_000))
                await near.send(data[start : start + size])
                start += size
            await near.send_eof()

        digest, size = hashlib.sha256(), 0
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(send)
            while size < LARGE:
                part = await far.receive(random.choice((1, 1000, 30_000, 100_000)))
                digest.update(part)
                size += len(part)
                await checkpoint()
        expect(digest.digest() == hashlib.sha256(data).digest(), "all bytes, in order")
        with expect_raises(anyio.EndOfStream, "after the last byte"):
            await far.receive()


async def check_stream_backpressure(factory: PairFactory) -> None:
    """A writer waits for a reader that does not read, who holds little; then all arrives."""
    async with streaming(factory) as (near, far):
        total, finished = 2 * MAX_BUFFERED, anyio.Event()
        piece = Random(6).randbytes(65_536)

        async def send() -> None:
            for _ in range(total // len(piece)):
                await near.send(piece)
            await near.send_eof()
            finished.set()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(send)
            await settle(lambda: (near.statistics().bytes_sent, far.statistics().bytes_unread))
            expect(not finished.is_set(), "the writer waits for the reader")
            unread = far.statistics().bytes_unread
            expect(unread <= MAX_UNREAD, f"at most {MAX_UNREAD} bytes unread, not {unread}")
            while total:
                part = await receive_exactly(far, len(piece))
                expect(part == piece, "what was held back arrives")
                total -= len(piece)
        with expect_raises(anyio.EndOfStream, "after the last byte"):
            await far.receive()


async def check_stream_unread(factory: PairFactory) -> None:
    """What was put back is received again, before the rest."""
    async with streaming(factory) as (near, far):
        await near.send(b"headbody")
        data = await receive_exactly(far, 6)
        far.unread(data[4:])
        expect(await receive_exactly(far, 4) == b"body", "what was put back comes first")
        far.unread(b"again")
        far.unread(b"")
        expect(await receive_exactly(far, 5) == b"again", "it can be received at once")
        await near.send_eof()
        with expect_raises(anyio.EndOfStream, "after the last byte"):
            await far.receive()
        far.unread(b"late")
        expect(await receive_all(far) == b"late", "what was put back comes before the end")


class _Greeting:
    """A negotiation that sends a word and waits for the same one."""

    def __init__(self, word: bytes) -> None:
        self._word = self._to_send = word
        self._received = b""

    def data_to_send(self) -> bytes:
        data, self._to_send = self._to_send, b""
        return data

    def receive_data(self, data: bytes) -> bytes | None:
        self._received += data
        if len(self._received) < len(self._word):
            return None
        if not self._received.startswith(self._word):
            raise NegotiationError((self._word.decode(),), "another word")
        return self._received[len(self._word) :]


async def check_stream_preface(factory: PairFactory) -> None:
    """A preface goes before the application's bytes, and is gone before it receives its first."""
    async with connected(factory) as (near, far):
        opened = await near.open_stream()
        opened.begin(_Greeting(b"hello\n"))
        await opened.send(b"ping")
        accepted = await far.accept_stream()
        accepted.begin(_Greeting(b"hello\n"))
        expect(await receive_exactly(accepted, 4) == b"ping", "the application's bytes alone")
        await accepted.send(b"pong")
        expect(await receive_exactly(opened, 4) == b"pong", "the application's bytes alone")


async def check_stream_preface_goes_alone(factory: PairFactory) -> None:
    """A preface goes out even if the application sends nothing; a refusal is raised."""
    async with connected(factory) as (near, far):
        opened = await near.open_stream()
        opened.begin(_Greeting(b"hello\n"))
        accepted = await far.accept_stream()
        expect(await receive_exactly(accepted, 6) == b"hello\n", "the preface arrives")
        await accepted.send(b"goodbye\n")
        with expect_raises(NegotiationError, "that the preface raises, out of receive"):
            await opened.receive()


async def check_stream_describes_itself(factory: PairFactory) -> None:
    """A stream knows its connection and counts its bytes; its priority can be set."""
    async with connected(factory) as (near, far):
        opened = await near.open_stream(priority=Priority.LOW)
        expect(opened.priority is Priority.LOW, "the priority it was opened with")
        opened.priority = Priority.HIGH
        expect(opened.priority is Priority.HIGH, "the priority that was set")
        await opened.send(bytes(1000))
        accepted = await far.accept_stream()
        expect(opened.connection is near, "the connection it was opened on")
        expect(accepted.connection is far, "the connection it was accepted on")
        expect(opened.protocol is None, "no protocol before one is agreed")
        opened.protocol = "/test/1"
        await receive_exactly(accepted, 300)
        await settle(lambda: accepted.statistics().bytes_received)
        sent, received = opened.statistics(), accepted.statistics()
        expect(sent.bytes_sent == 1000, "1000 bytes sent")
        expect(received.bytes_received == 1000, "1000 bytes received")
        expect(received.bytes_unread == 700, "700 bytes unread")
        expect(sent.opened_at <= received.opened_at + 1, "both opened at about the same time")
        other = await near.open_stream()
        expect(other.id != opened.id, "an id of its own for every stream")
