"""Names looked up in threads that nobody has to wait for.

The system's resolver blocks, for ten seconds and more where a name server is silent, and cannot be
interrupted. A pool of the event loop's would be joined at its end; these threads are left behind.
"""

from __future__ import annotations

import errno
import socket
import threading
from collections import deque
from typing import TYPE_CHECKING, TypeAlias

from .core.errors import LocalProtocolError
from .readiness import wait_readable

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_THREADS = 32
"""Look-ups at once, those included that nobody waits for any more: a thread each, which takes some
ten KiB. What is beyond waits for one of them to end, or for its own caller to give up."""

Found: TypeAlias = "list[tuple[socket.AddressFamily, tuple[str, int] | tuple[str, int, int, int]]]"


def system_look_up(host: str, port: int, family: socket.AddressFamily) -> Found:
    """Ask the system's resolver, and wait for it; raises OSError, and UnicodeError for no name."""
    found = socket.getaddrinfo(host, port, family=family, type=socket.SOCK_STREAM)
    # An address of IPv6 is numbers where Python was built without it.
    return [(kind, at) for kind, _, _, _, at in found if isinstance(at[0], str)]


class Resolver:
    """A pool of threads that look names up; one serves any number of event loops.

    `look_up` blocks, in a thread, and raises OSError or ValueError.
    """

    def __init__(
        self,
        look_up: Callable[[str, int, socket.AddressFamily], Found] = system_look_up,
        *,
        max_threads: int = MAX_THREADS,
    ) -> None:
        self._look_up = look_up
        self._max_threads = max_threads
        self._lock = threading.Lock()
        self._threads = 0
        # As long as there are callers that wait: each takes its own out when it is cancelled.
        self._waiting: deque[_Question] = deque()

    async def look_up(self, host: str, port: int, family: socket.AddressFamily) -> Found:
        """Return the addresses of a name; cancelling returns at once and leaves the thread alone.

        Raises what the blocking function does.
        """
        question = _Question(host, port, family)
        with self._lock:
            self._waiting.append(question)
            has_to_start = self._threads < self._max_threads
            self._threads += has_to_start
        try:
            if has_to_start:
                self._start()
            await wait_readable(question.ours)
        finally:
            with self._lock:
                if question in self._waiting:
                    self._waiting.remove(question)
                    question.theirs.close()
            question.ours.close()
        return question.result()

    def _start(self) -> None:
        try:
            threading.Thread(target=self._serve, name="isthmus-resolver", daemon=True).start()
        except RuntimeError as error:
            with self._lock:
                self._threads -= 1
            raise OSError(errno.EAGAIN, "no thread can be started for it") from error

    def _serve(self) -> None:
        while (question := self._next()) is not None:
            question.ask(self._look_up)

    def _next(self) -> _Question | None:
        with self._lock:
            if self._waiting:
                return self._waiting.popleft()
            self._threads -= 1
            return None


class _Question:
    """One name, and what was found; the thread closes `theirs`, which its caller sees."""

    def __init__(self, host: str, port: int, family: socket.AddressFamily) -> None:
        self._asked = (host, port, family)
        self._answer: Found | OSError | ValueError | None = None
        self.ours, self.theirs = socket.socketpair()
        self.ours.settimeout(0)

    def ask(self, look_up: Callable[[str, int, socket.AddressFamily], Found]) -> None:
        try:
            self._answer = look_up(*self._asked)
        except (OSError, ValueError) as error:
            self._answer = error
        finally:
            self.theirs.close()

    def result(self) -> Found:
        if isinstance(self._answer, Exception):
            raise self._answer
        if self._answer is None:
            raise LocalProtocolError("a thread that looked a name up has died")
        return self._answer
