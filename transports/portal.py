"""A way into libraries that only know asyncio, and their callbacks' way out, from either backend.

On asyncio the library runs in the loop that is there. On trio it gets an asyncio loop of its own
in one thread, which ends with the portal. Either way a call is a task of that loop, and what a
callback has to say goes through an `Inbox`.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
from collections import deque
from contextlib import asynccontextmanager, contextmanager
from functools import partial, wraps
from typing import TYPE_CHECKING, Generic, ParamSpec, TypeVar, TypeVarTuple

import anyio

from .core.errors import unwrap_group

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
    from typing import Any, Self

    from anyio.abc import TaskGroup

logger = logging.getLogger(__name__)

T = TypeVar("T")
P = ParamSpec("P")
Ts = TypeVarTuple("Ts")

START_TIMEOUT = 5.0
"""Seconds for the thread to run its loop; it takes a few milliseconds on a busy machine."""

CANCEL_TIMEOUT = 1.0
"""Seconds that a cancelled call may go on cleaning up before nobody waits for it any more."""

STOP_TIMEOUT = 1.0
"""Seconds for everything that runs to end when the portal stops, and again for the thread."""

INBOX_LIMIT = 1024
"""Events of callbacks that wait for their reader, unless an inbox says otherwise."""


@asynccontextmanager
async def open_portal() -> AsyncIterator[Portal]:
    """Open a portal for the time of the block; at its end nothing that ran in it is left.

    Raises what a guarded callback raised, and TimeoutError if the thread does not start.
    """
    loop = _running_loop()
    portal = Portal(_Here(loop) if loop is not None else _Thread())
    with unwrap_group(), _without_consequences():
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(portal._watch)  # noqa: SLF001 - two halves of one module
            try:
                await portal._side.start(tasks, portal._died)  # noqa: SLF001
                yield portal
            finally:
                with anyio.CancelScope(shield=True):
                    await portal._stop()  # noqa: SLF001
                tasks.cancel_scope.cancel()


@contextmanager
def _without_consequences() -> Iterator[None]:
    """Leave out of a group the calls that ended because the portal did, where it says why."""
    try:
        yield
    except BaseExceptionGroup as group:
        cause = group.split(anyio.ClosedResourceError)[1]
        raise group if cause is None else cause from None


class Portal:
    """Runs calls on the library's loop; made by `open_portal`, used by the tasks of one backend."""

    def __init__(self, side: _Here | _Thread) -> None:
        self._side = side
        self._calls: set[_Call[Any]] = set()
        self._inboxes: list[Inbox[Any]] = []
        self._is_closed = False
        self._failure: Exception | None = None
        self._failed = anyio.Event()

    async def run(self, function: Callable[[*Ts], Coroutine[Any, Any, T]], *args: *Ts) -> T:
        """Run an asynchronous function of the library and return its result, or raise its error.

        Cancelling this cancels the function and waits for it. Raises ClosedResourceError if the
        portal stops first, or if the function was cancelled from within.
        """
        if self._is_closed:
            raise anyio.ClosedResourceError("the portal has stopped")
        call = _Call(lambda: function(*args), self._side.to_host)
        ended = call.ended
        self._calls.add(call)
        try:
            self._side.to_loop(call.start)
            await ended.wait()
        except BaseException:
            self._side.to_loop(call.cancel)
            with anyio.move_on_after(CANCEL_TIMEOUT, shield=True):
                await ended.wait()
            if not ended.is_set():
                logger.warning("a call went on for %g s after it was cancelled", CANCEL_TIMEOUT)
            raise
        finally:
            self._calls.discard(call)
        return call.result()

    def inbox(self, *, limit: int = INBOX_LIMIT) -> Inbox[Any]:
        """Make an inbox for what callbacks have to say; it ends when the portal stops."""
        inbox: Inbox[Any] = Inbox(self._side, limit)
        self._inboxes.append(inbox)
        if self._is_closed:
            inbox.close()
        return inbox

    def guard(self, callback: Callable[P, object]) -> Callable[P, None]:
        """Wrap a callback for the library; what it raises ends the portal, and is raised there."""

        @wraps(callback)
        def guarded(*args: P.args, **kwargs: P.kwargs) -> None:
            try:
                callback(*args, **kwargs)
            except Exception as error:  # noqa: BLE001  # boundary
                self._side.to_host(partial(self._fail, error))

        return guarded

    def _died(self) -> None:
        if not self._is_closed:
            self._fail(anyio.BrokenResourceError("the loop of an asyncio library has ended"))

    def _fail(self, error: Exception) -> None:
        if self._failure is None:
            self._failure = error
        else:
            logger.error("one more callback failed: %r", error)
        self._failed.set()

    async def _watch(self) -> None:
        await self._failed.wait()
        assert self._failure is not None
        raise self._failure

    async def _stop(self) -> None:
        self._is_closed = True
        for inbox in self._inboxes:
            inbox.close()
        calls = tuple(self._calls)
        await self._side.stop(calls)
        for call in calls:
            call.ended.set()  # also where the task has not ended


class Inbox(Generic[T]):
    """A bounded queue from callbacks on the library's loop to one reader on the backend."""

    def __init__(self, side: _Here | _Thread, limit: int) -> None:
        self._side = side
        self._limit = limit
        self._items: deque[T] = deque()
        self._lock = threading.Lock()
        self._room: list[asyncio.Future[None]] = []
        self._arrived = anyio.Event()
        self._is_closed = False
        self.lost = 0
        """Items that found the queue full."""

    def put(self, item: T) -> bool:
        """Queue an item, on the library's loop; False, and one more `lost`, if it is full."""
        with self._lock:
            has_room = len(self._items) < self._limit and not self._is_closed
            if has_room:
                self._items.append(item)
            else:
                self.lost += 1
        if has_room:
            self._side.to_host(self._wake)
        return has_room

    async def put_wait(self, item: T) -> None:
        """Queue an item, on the library's loop, waiting for room; raises ClosedResourceError."""
        while True:
            with self._lock:
                if self._is_closed:
                    raise anyio.ClosedResourceError("nobody reads any more")
                if len(self._items) < self._limit:
                    self._items.append(item)
                    break
                room = asyncio.get_running_loop().create_future()
                self._room.append(room)
            await room
        self._side.to_host(self._wake)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        """Return the next item; the iteration ends when the portal stops."""
        while True:
            arrived = self._arrived = anyio.Event()
            with self._lock:
                if self._items:
                    item = self._items.popleft()
                    self._grant()
                    return item
                if self._is_closed:
                    raise StopAsyncIteration
            await arrived.wait()

    def close(self) -> None:
        """End the iteration after what waits, and whoever waits for room; harmless twice."""
        with self._lock:
            self._is_closed = True
            self._grant()
        self._wake()

    def _wake(self) -> None:
        self._arrived.set()

    def _grant(self) -> None:
        waiting, self._room = self._room, []
        for room in waiting:
            self._side.to_loop(partial(_set, room))


class _Call(Generic[T]):
    """One call on the library's loop: a task there, an outcome here."""

    def __init__(
        self,
        function: Callable[[], Coroutine[Any, Any, T]],
        to_host: Callable[[Callable[[], object]], None],
    ) -> None:
        self._function = function
        self._to_host = to_host
        self.ended = anyio.Event()
        self.task: asyncio.Task[T] | None = None

    def start(self) -> None:
        self.task = asyncio.get_running_loop().create_task(self._run())
        self.task.add_done_callback(lambda _: self._to_host(self.ended.set))

    def cancel(self) -> None:
        if self.task is not None:
            self.task.cancel()

    def result(self) -> T:
        if self.task is None or not self.task.done() or self.task.cancelled():
            # asyncio's own exception means something else to the backend, or nothing.
            raise anyio.ClosedResourceError("the call was cancelled on the side of the library")
        return self.task.result()

    async def _run(self) -> T:
        return await self._function()


class _Here:
    """The library's side on asyncio: the loop that runs anyway."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop

    async def start(self, tasks: TaskGroup, on_death: Callable[[], None]) -> None:
        """Nothing is to be started."""

    def to_loop(self, function: Callable[[], object]) -> None:
        function()

    def to_host(self, function: Callable[[], object]) -> None:
        function()

    async def stop(self, calls: tuple[_Call[Any], ...]) -> None:
        tasks = [call.task for call in calls if call.task is not None]
        for task in tasks:
            task.cancel()
        if tasks:
            _, pending = await asyncio.wait(tasks, timeout=STOP_TIMEOUT)
            _complain(len(pending))


class _Thread:
    """The library's side on another backend: a thread that runs an asyncio loop.

    Functions for the backend are queued, and a byte on a socket pair wakes the task that runs
    them: all that a thread can do to a loop without knowing its kind.
    """

    def __init__(self) -> None:
        self._functions: deque[Callable[[], object]] = deque()
        self._ours, self._theirs = socket.socketpair()
        for end in (self._ours, self._theirs):
            end.settimeout(0)
        self._thread = threading.Thread(target=self._main, name="isthmus-portal", daemon=True)
        self._loop = asyncio.new_event_loop()
        self._stopping = asyncio.Event()
        self._started = anyio.Event()
        self._ended = anyio.Event()
        self._on_death: Callable[[], None] = self._ended.set
        # What ends the calls goes through the pump, so it has to outlive a cancellation.
        self._pumping = anyio.CancelScope(shield=True)
        self._pumped = anyio.Event()

    async def start(self, tasks: TaskGroup, on_death: Callable[[], None]) -> None:
        self._on_death = on_death
        tasks.start_soon(self._pump)
        self._thread.start()
        with anyio.fail_after(START_TIMEOUT):
            await self._started.wait()

    def to_loop(self, function: Callable[[], object]) -> None:
        try:
            self._loop.call_soon_threadsafe(function)
        except RuntimeError:
            logger.debug("a call came after the loop of an asyncio library was closed")

    def to_host(self, function: Callable[[], object]) -> None:
        self._functions.append(function)
        try:
            self._theirs.send(b"\0")
        except BlockingIOError:
            return  # full of bytes that will wake the backend as well
        except OSError:
            logger.debug("a callback came after the portal had stopped")

    async def stop(self, calls: tuple[_Call[Any], ...]) -> None:
        if self._thread.ident is not None:
            self.to_loop(self._stopping.set)
            with anyio.move_on_after(2 * STOP_TIMEOUT):
                await self._ended.wait()
            if self._ended.is_set():
                # It has said so with its last breath.
                self._thread.join(STOP_TIMEOUT)
            else:
                logger.error("the thread of an asyncio library is blocked, and stays behind")
        else:
            self._loop.close()
        self._pumping.cancel()
        await self._pumped.wait()
        self._ours.close()
        self._theirs.close()

    async def _pump(self) -> None:
        with self._pumping:
            while True:
                await anyio.wait_readable(self._ours)
                self._ours.recv(4096)
                while self._functions:
                    self._functions.popleft()()
        self._pumped.set()

    def _main(self) -> None:
        loop = self._loop
        asyncio.set_event_loop(loop)
        try:
            try:
                loop.run_until_complete(self._serve())
            except RuntimeError as error:
                logger.warning("the loop of an asyncio library was stopped: %s", error)
            loop.run_until_complete(_end_tasks())
            loop.run_until_complete(loop.shutdown_asyncgens())
            loop.run_until_complete(loop.shutdown_default_executor())
        finally:
            loop.close()
            self.to_host(self._ended.set)
            self.to_host(self._on_death)

    async def _serve(self) -> None:
        self.to_host(self._started.set)
        await self._stopping.wait()


async def _end_tasks() -> None:
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    if tasks:
        ended, pending = await asyncio.wait(tasks, timeout=STOP_TIMEOUT)
        for task in ended:
            if not task.cancelled() and (error := task.exception()) is not None:
                logger.debug("a task of an asyncio library ended with %r", error)
        _complain(len(pending))


def _set(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _complain(pending: int) -> None:
    if pending:
        logger.error(
            "%d tasks of an asyncio library did not end within %g s", pending, STOP_TIMEOUT
        )


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
