"""Non-blocking sockets on asyncio and trio: one byte stream with a fast way in and out.

`SocketStream` is an anyio ByteStream. Besides, as any `FastStream`, it lets a driver send without
waiting (`send_nowait`) and be called with every chunk that arrives (`receive_each`), which saves a
task switch a chunk.
"""

from __future__ import annotations

import asyncio
import errno
import socket
import sys
import time
from abc import abstractmethod
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

import anyio
from anyio.abc import ByteStream, SocketAttribute
from anyio.lowlevel import checkpoint

from .readiness import notify_closing, wait_readable, wait_writable, watch_readable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from socket import socket as Socket
    from typing import Any

# Read at a time: less costs system calls, more does not gain (a receive buffer is shared).
READ_SIZE = 262_144
# Reads that closing spends on what nobody will take: 4 MiB, a full receive buffer of the kernel's.
DISCARDED_READS = 16
# Above every buffer that is used often; glibc keeps at most twice this much free memory.
_LARGE_BLOCK = 4 * 2**20
# asyncio on Windows cannot watch sockets by callback on its default loop.
_HAS_READER = sys.platform != "win32"

_read_buffer = bytearray(READ_SIZE)


def loop_clock() -> Callable[[], float]:
    """Return the running loop's clock; on asyncio in full resolution (uvloop's own has ms)."""
    if is_asyncio():
        return time.monotonic
    import trio

    return trio.current_time


def is_asyncio() -> bool:
    """Say whether this code runs on asyncio."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


# Linux's; elsewhere the last bytes and the end are two packets.
_MSG_MORE: int = getattr(socket, "MSG_MORE", 0)


def settle_allocator() -> None:
    """Keep glibc from giving memory back to the kernel between records.

    A record's buffers are about as large as the size from which glibc maps memory afresh and gives
    it back at once, which costs page faults for every record, or not, as addresses fall (a factor
    of two in throughput). Freeing one large block raises that size for the process (mallopt(3),
    M_MMAP_THRESHOLD). The block is never touched, so it costs no memory.
    """
    bytes(_LARGE_BLOCK)


class FastStream(ByteStream):
    """A byte stream with a way in and out that saves task switches; the muxer takes it if it can.

    Each direction serves one task, and either the fast way or the plain one at a time.
    """

    record: int | None = None
    """Bytes at a time that suit a path which keeps what `send_nowait` was given, so that this must
    not change any more; None if it keeps nothing, and any number will do."""

    @abstractmethod
    def send_nowait(self, data: memoryview | bytes) -> int:
        """Send what can go now and return how much that was; keeps `data` if it has a `record`.

        Raises BrokenResourceError when the path is gone.
        """

    def send_last_nowait(self, data: memoryview | bytes) -> int:
        """Do the same with what is last; `end_sending` follows in this turn, or the next."""
        return self.send_nowait(data)

    @abstractmethod
    def end_sending(self) -> None:
        """Tell the peer that nothing more comes; a path that is gone already raises nothing."""

    @abstractmethod
    async def wait_writable(self) -> None:
        """Wait until more can go; raises ClosedResourceError after it was closed."""

    @abstractmethod
    async def receive_each(self, handler: Callable[[memoryview], bool]) -> None:
        """Call `handler` with every chunk until the peer's last one, or until it returns False.

        The memory is reused: it holds only during the call. What `handler` raises ends the reading
        and is raised here. Raises BrokenResourceError, ClosedResourceError.
        """

    @property
    @abstractmethod
    def is_reading_paused(self) -> bool:
        """Whether `receive_each` holds back until `resume_reading`."""

    @abstractmethod
    def pause_reading(self) -> None:
        """Let `receive_each` read no more; the kernel's buffer fills instead."""

    @abstractmethod
    def resume_reading(self) -> None:
        """Let `receive_each` go on."""


class SocketStream(FastStream):
    """A connected, non-blocking stream socket."""

    def __init__(self, sock: Socket) -> None:
        self._socket = sock
        self._closed = False
        # While `receive_each` runs by callback: how to watch the socket, to stop, and the end.
        self._watch: Callable[[], Callable[[], None]] | None = None
        self._stop_watching: Callable[[], None] | None = None
        self._done: asyncio.Future[None] | None = None
        self._paused: anyio.Event | None = None

    @property
    def socket(self) -> Socket:
        """The socket, for its options and addresses."""
        return self._socket

    @property
    def extra_attributes(self) -> Mapping[Any, Callable[[], Any]]:
        return {SocketAttribute.local_address: lambda: self._socket.getsockname()[:2]}

    # The plain way

    async def receive(self, max_bytes: int = 65536) -> bytes:
        while True:
            try:
                data = self._socket.recv(max_bytes)
            except BlockingIOError:
                await self._wait(wait_readable)
            except OSError as error:
                raise self._broken(error) from error
            else:
                if not data:
                    raise anyio.EndOfStream
                return data

    async def send(self, item: bytes) -> None:
        view = memoryview(item)
        while view:
            sent = self.send_nowait(view)
            view = view[sent:]
            if view:
                await self.wait_writable()

    async def send_eof(self) -> None:
        try:
            self._socket.shutdown(socket.SHUT_WR)
        except OSError as error:
            raise self._broken(error) from error

    async def aclose(self) -> None:
        self.close()
        await checkpoint()

    # The fast way

    def send_nowait(self, data: memoryview | bytes | bytearray, flags: int = 0) -> int:
        try:
            return self._socket.send(data, flags)
        except BlockingIOError:
            return 0
        except OSError as error:
            raise self._broken(error) from error

    def send_last_nowait(self, data: memoryview | bytes) -> int:
        # The end goes along in the same segment: one packet less, and the peer is woken once.
        return self.send_nowait(data, _MSG_MORE)

    def end_sending(self) -> None:
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)

    async def wait_writable(self) -> None:
        await self._wait(wait_writable)

    async def receive_each(self, handler: Callable[[memoryview], bool]) -> None:
        if _HAS_READER and is_asyncio():
            await self._receive_each_by_callback(handler)
        else:
            while self._receive_one(handler):
                if self._paused is not None:
                    await self._paused.wait()
                await self._wait(wait_readable)

    @property
    def is_reading_paused(self) -> bool:
        return self._paused is not None

    def pause_reading(self) -> None:
        if self._paused is None:
            self._paused = anyio.Event()
            if self._stop_watching is not None:
                self._stop_watching()
                self._stop_watching = None

    def resume_reading(self) -> None:
        if self._paused is not None:
            self._paused.set()
            self._paused = None
            if self._watch is not None:
                self._stop_watching = self._watch()

    def close(self) -> None:
        """Close at once; who waits on the socket gets ClosedResourceError."""
        if not self._closed:
            self._closed = True
            self._end_watch()
            if self._done is not None and not self._done.done():
                self._done.set_exception(anyio.ClosedResourceError())
            if self._paused is not None:
                self._paused.set()
            notify_closing(self._socket)
            self._discard()
            self._socket.close()

    # Helpers

    def _discard(self) -> None:
        """Read what has arrived and nobody will take.

        A socket closed before that resets the path, and the peer may lose our last words.
        """
        with suppress(OSError):
            for _ in range(DISCARDED_READS):
                if not self._socket.recv_into(_read_buffer):
                    return

    def _receive_one(self, handler: Callable[[memoryview], bool]) -> bool:
        """Read once; False at the end of the stream or when the handler has enough."""
        try:
            size = self._socket.recv_into(_read_buffer)
        except BlockingIOError:
            return True
        except OSError as error:
            raise self._broken(error) from error
        return size > 0 and handler(memoryview(_read_buffer)[:size])

    async def _receive_each_by_callback(self, handler: Callable[[memoryview], bool]) -> None:
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def on_readable() -> None:
            more = False
            try:
                more = self._receive_one(handler)
            except (anyio.BrokenResourceError, anyio.ClosedResourceError) as error:
                if not done.done():
                    done.set_exception(error)
            finally:
                if not more and not done.done():
                    # A handler that raises is a bug: the loop reports it, the reader ends with it.
                    bug = sys.exception()
                    done.set_result(None) if bug is None else done.set_exception(bug)

        if self._closed:
            raise anyio.ClosedResourceError
        self._done = done
        self._watch = partial(watch_readable, self._socket, on_readable)
        self._stop_watching = self._watch()
        try:
            await done
        finally:
            self._end_watch()

    def _end_watch(self) -> None:
        self._watch = None
        if self._stop_watching is not None:
            self._stop_watching()
            self._stop_watching = None

    async def _wait(self, wait: Callable[[Socket], Awaitable[None]]) -> None:
        if self._closed:
            raise anyio.ClosedResourceError
        await wait(self._socket)
        if self._closed:
            raise anyio.ClosedResourceError

    def _broken(self, error: OSError) -> Exception:
        if self._closed or error.errno == errno.EBADF:
            return anyio.ClosedResourceError()
        return anyio.BrokenResourceError(error.strerror or str(error))
