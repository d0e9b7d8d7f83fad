"""When a socket can be read or written: by callback and by waiting, on every backend.

uvloop needs help. libuv stops to watch a descriptor on which an error is pending and reports it
without saying what could be done, and uvloop then calls nobody: a peer's reset, or a refused
connection, would go unnoticed for good. So there all sockets are in one epoll set of ours, and
uvloop watches that set, on which no error can be pending.
"""

from __future__ import annotations

import asyncio
import select
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import anyio

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

# Errors and hang-ups are reported unasked: this asks for nothing else.
_ERRORS = 0
# Descriptors served in one turn of the loop; what is left over is served in the next.
EVENTS_A_TURN = 64


async def wait_readable(sock: socket.socket) -> None:
    """Wait until there is something to read, or an error to learn by reading."""
    poller = _poller()
    if poller is None:
        await anyio.wait_readable(sock)
    else:
        await poller.wait(sock.fileno(), select.EPOLLIN)


async def wait_writable(sock: socket.socket) -> None:
    """Wait until there is room to write, or an error to learn by writing."""
    poller = _poller()
    if poller is None:
        await anyio.wait_writable(sock)
    else:
        await poller.wait(sock.fileno(), select.EPOLLOUT)


def notify_closing(sock: socket.socket) -> None:
    """Wake who waits on the socket, with ClosedResourceError; call it before closing."""
    poller = _poller()
    if poller is None:
        anyio.notify_closing(sock)
    else:
        poller.forget(sock.fileno())


def watch_readable(sock: socket.socket, callback: Callable[[], None]) -> Callable[[], None]:
    """Call `callback` in every turn of asyncio's loop in which the socket can be read.

    Return what ends that. Raises NotImplementedError where the loop cannot do it.
    """
    loop = asyncio.get_running_loop()
    loop.add_reader(sock, callback)
    poller = _poller()
    if poller is None:
        return lambda: _remove_reader(loop, sock)
    # uvloop tells of bytes, which is faster; of errors, which an empty set reports too, we do.
    descriptor = sock.fileno()
    poller.watch(descriptor, _ERRORS, callback)

    def stop() -> None:
        poller.unwatch(descriptor, _ERRORS)
        _remove_reader(loop, sock)

    return stop


class _Poller:
    """An epoll set of sockets, watched by uvloop as a whole."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._epoll = select.epoll()
        self._callbacks: dict[int, dict[int, Callable[[], None]]] = {}
        self._waiting: dict[int, set[asyncio.Future[None]]] = {}
        loop.add_reader(self._epoll.fileno(), self._serve)

    def watch(self, descriptor: int, event: int, callback: Callable[[], None]) -> None:
        callbacks = self._callbacks.get(descriptor)
        if callbacks is None:
            self._callbacks[descriptor] = {event: callback}
            self._epoll.register(descriptor, event)
        else:
            callbacks[event] = callback
            self._epoll.modify(descriptor, _mask(callbacks))

    def unwatch(self, descriptor: int, event: int) -> None:
        callbacks = self._callbacks.get(descriptor)
        if callbacks is None or callbacks.pop(event, None) is None:
            return
        if callbacks:
            self._epoll.modify(descriptor, _mask(callbacks))
        else:
            del self._callbacks[descriptor]
            self._epoll.unregister(descriptor)

    async def wait(self, descriptor: int, event: int) -> None:
        if descriptor < 0:
            raise anyio.ClosedResourceError
        ready = asyncio.get_running_loop().create_future()
        waiting = self._waiting.setdefault(descriptor, set())
        waiting.add(ready)

        def wake() -> None:
            self.unwatch(descriptor, event)
            if not ready.done():
                ready.set_result(None)

        self.watch(descriptor, event, wake)
        try:
            await ready
        finally:
            waiting.discard(ready)
            if self._waiting.get(descriptor) is waiting:
                # The descriptor is still the one it was when the wait began.
                self.unwatch(descriptor, event)
                if not waiting:
                    del self._waiting[descriptor]

    def forget(self, descriptor: int) -> None:
        if self._callbacks.pop(descriptor, None) is not None:
            self._epoll.unregister(descriptor)
        for ready in self._waiting.pop(descriptor, ()):
            if not ready.done():
                ready.set_exception(anyio.ClosedResourceError())

    def _serve(self) -> None:
        for descriptor, events in self._epoll.poll(0, EVENTS_A_TURN):
            for event, callback in tuple(self._callbacks.get(descriptor, {}).items()):
                # An error or a hang-up is for readers and writers alike.
                if events & (event | select.EPOLLERR | select.EPOLLHUP):
                    callback()


def _mask(events: dict[int, Callable[[], None]]) -> int:
    mask = 0
    for event in events:
        mask |= event
    return mask


_pollers: WeakKeyDictionary[asyncio.AbstractEventLoop, _Poller] = WeakKeyDictionary()


def _poller() -> _Poller | None:
    """Return the running loop's poller; None where it needs none (asyncio's own, trio)."""
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        return None
    poller = _pollers.get(loop)
    if poller is None and type(loop).__module__.partition(".")[0] == "uvloop":
        if not hasattr(select, "epoll"):
            return None
        poller = _pollers[loop] = _Poller(loop)
    return poller


def _remove_reader(loop: asyncio.AbstractEventLoop, sock: socket.socket) -> None:
    if sock.fileno() >= 0:
        loop.remove_reader(sock)
