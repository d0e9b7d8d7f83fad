"""Starts peer programs and gives them commands, from asyncio or trio.

The contract, one JSON object a line: the program first says {"event": "listening", "peer_id",
"addresses", "version"}; then it answers {"id", "do", ...} with {"id", "ok": true, "result": {...}}
or {"id", "ok": false, "error", "kind"}, several at a time; it ends when its stdin ends. What each
command does is in js/commands.mjs and py/commands.py; all programs have the same.

They also help, and are helped, to be reached; their part of it is in *reach.*. They dial through
relays always, and these options add the rest:

--circuits      isthmus only: be able to reserve, which the others always are
--relay LIMITS  be a relay; {"reservations", "circuits" (of one peer), "ttl" (seconds), "seconds",
                "bytes", "allow" (isthmus only: the peers served)}, each of them optional; seconds
                or bytes of 0 are no limit
--autonat       serve AutoNAT v2 and ask it; py has not
--dcutr         punch holes; py does not
--private       go and isthmus: believe in addresses that are not public. rust always does, js never
                does, so js has AutoNAT and DCUtR only where addresses look public, as in tests/lab

reserve {address of a relay} -> {"addresses", "expires": Unix seconds (rust: null), "limit":
    {"seconds", "bytes"}, or null where there is none or the library does not keep it (js, py)}
renewed {address, expires} -> as above, once the reservation at a relay, or of a peer here, ends
    later; isthmus only
reservations {} -> {"reservations", "circuits", "peers": ids (go: null)}, as a relay
connections {address} -> {"connections": [{"address", "dialled", "relayed", "limited": null where
    the library does not know (rust, py)}]}
can_punch {} returns when an address is known to be punched at; circuits of before are not upgraded
upgraded {address} -> a direct connection, as above and "how": "punch", "reversal" or null, once
    there is one; rust fails when it has given up, the others wait on
autonat {address of a server, addresses, seconds} -> {"verdicts": [{"address", "reachable": null
    for no verdict, "why"}]}; go asks of all at once and hears of one, js chooses what it asks of
census {} -> {"rss": bytes}
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections import deque
from contextlib import aclosing, asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

import anyio
import anyio.to_thread

from ...transports.core.errors import unwrap_group
from .errors import PeerDied, PeerFailed, PeerUnavailable
from .install import argv_of

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Sequence

    from anyio.abc import ByteReceiveStream, Process

DEFAULT_LISTEN = "/ip4/127.0.0.1/tcp/0"
START_TIMEOUT = 60.0
"""Seconds until "listening": py-libp2p imports for seconds on a busy machine."""
STOP_GRACE = 2.0
"""Seconds between the end of stdin and the kill."""
MAX_LINE = 4 << 20
"""Bytes of one answer: the longest, a list of samples, has some 100 KiB."""
STDERR_KEPT = 200
"""Chunks of stderr kept, the newest ones; one chunk has up to 64 KiB, most have a line."""
STDERR_SHOWN = 4000
"""Characters of stderr in an error."""


class Peer:
    """A running peer program: who it is, and `call()`."""

    def __init__(self, name: str, process: Process) -> None:
        self.name = name
        self.peer_id = ""
        self.addresses: tuple[str, ...] = ()
        """Where it listens, each with /p2p and its id at the end."""
        self.version = ""
        """Implementation and version, such as "js-libp2p 3.3.11"."""
        self._process = process
        self._sending = anyio.Lock()
        self._next_id = 0
        self._waiting: dict[int, _Answer] = {}
        self._listening = anyio.Event()
        self._dead: str | None = None
        self._stderr: deque[bytes] = deque(maxlen=STDERR_KEPT)
        self._stderr_ended = anyio.Event()

    @property
    def pid(self) -> int:
        """The process, and the process group, to look at or to signal."""
        return self._process.pid

    @property
    def address(self) -> str:
        """The first address that it listens on."""
        return self.addresses[0]

    @property
    def stderr(self) -> str:
        """The end of what the program wrote to stderr."""
        return b"".join(self._stderr).decode(errors="replace")[-STDERR_SHOWN:].strip()

    async def call(
        self,
        command: str,
        *,
        timeout: float = 60,  # noqa: ASYNC109 - every command has its own bound
        **arguments: object,
    ) -> dict[str, Any]:
        """Run one command and return its result; several may run at a time.

        `timeout` in seconds; `arguments` go into the JSON as they are. Raises PeerFailed if the
        command fails, PeerDied if the program does, TimeoutError when the time is over (the
        command may go on in the program).
        """
        self._next_id += 1
        number = self._next_id
        message = json.dumps({"id": number, "do": command, **arguments}).encode() + b"\n"
        answer = self._waiting[number] = _Answer()
        try:
            with anyio.fail_after(timeout):
                await self._send(message)
                await answer.arrived.wait()
        finally:
            del self._waiting[number]
        if answer.message is None:
            raise self._died()
        if answer.message.get("ok") is True:
            result: dict[str, Any] = answer.message.get("result", {})
            return result
        kind, text = answer.message.get("kind"), answer.message.get("error")
        raise PeerFailed(command, str(kind), str(text))

    async def _send(self, message: bytes) -> None:
        stdin = self._process.stdin
        if self._dead is not None or stdin is None:
            raise self._died()
        try:
            async with self._sending:
                await stdin.send(message)
        except (anyio.BrokenResourceError, anyio.ClosedResourceError):
            # The reader of stdout knows more about the end, and is about to learn it.
            return

    def _died(self) -> PeerDied:
        return PeerDied(self.name, self._dead or "ended", self.stderr)

    async def _started(self) -> None:
        """Wait for "listening"."""
        await self._listening.wait()
        if self._dead is not None:
            raise self._died()

    async def _read(self) -> None:
        """Deliver answers until stdout ends; then nobody waits any longer."""
        why = "was stopped"
        try:
            async with aclosing(_lines(self._process.stdout)) as lines:
                async for line in lines:
                    self._receive(json.loads(line))
            with anyio.move_on_after(STOP_GRACE):
                await self._stderr_ended.wait()
            why = f"ended with code {await self._process.wait()}"
        except (ValueError, KeyError, TypeError) as error:
            why = f"broke the contract: {error!r}"
        finally:
            self._dead = why
            self._listening.set()
            for answer in self._waiting.values():
                answer.arrived.set()

    def _receive(self, message: object) -> None:
        if not isinstance(message, dict):
            raise TypeError("a line that is not an object")
        if message.get("event") == "listening":
            self.peer_id = message["peer_id"]
            self.addresses = tuple(message["addresses"])
            self.version = message["version"]
            self._listening.set()
        elif (answer := self._waiting.get(message["id"])) is not None:
            answer.message = message
            answer.arrived.set()

    async def _keep_stderr(self) -> None:
        if self._process.stderr is not None:
            async for chunk in self._process.stderr:
                self._stderr.append(chunk)
        self._stderr_ended.set()


class _Answer:
    """The place of one answer; empty when the program died first."""

    def __init__(self) -> None:
        self.arrived = anyio.Event()
        self.message: dict[str, Any] | None = None


@asynccontextmanager
async def launch(
    name: str,
    *,
    listen: str = DEFAULT_LISTEN,
    netns_prefix: Sequence[str] = (),
    arguments: Sequence[str] = (),
    start_timeout: float = START_TIMEOUT,
) -> AsyncIterator[Peer]:
    """Run the peer `name` (see install.PROGRAMS) for the time of the block.

    `listen` is a multiaddr; `netns_prefix` comes before the command line, such as
    ("ip", "netns", "exec", "left"); `arguments` come after it; `start_timeout` in seconds, without
    the installation. At the end stdin is closed, and what is left of the process group is killed.
    Raises PeerUnavailable if it cannot be installed, PeerDied if it does not start, TimeoutError.
    """
    argv = await anyio.to_thread.run_sync(argv_of, name)
    command = [*netns_prefix, *argv, "--listen", listen, *arguments]
    async with running(name, command, start_timeout=start_timeout) as peer:
        yield peer


@asynccontextmanager
async def running(
    name: str, command: Sequence[str], *, start_timeout: float = START_TIMEOUT
) -> AsyncIterator[Peer]:
    """Run any command line that keeps the contract, for the time of the block; see launch()."""
    try:
        process = await anyio.open_process(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
    except OSError as error:
        raise PeerUnavailable(name, f"{command[0]} does not start: {error}") from error
    peer = Peer(name, process)
    try:
        with unwrap_group():
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(peer._keep_stderr)  # noqa: SLF001 - two halves of one module
                tasks.start_soon(peer._read)  # noqa: SLF001
                with anyio.fail_after(start_timeout):
                    await peer._started()  # noqa: SLF001
                yield peer
                tasks.cancel_scope.cancel()
    finally:
        with anyio.CancelScope(shield=True):
            await _stop(process)


async def _stop(process: Process) -> None:
    """End the program through its stdin, then kill the group; close the pipes."""
    if process.stdin is not None:
        await process.stdin.aclose()
    with anyio.move_on_after(STOP_GRACE):
        await process.wait()
    # Nobody may be left in the group; macOS says "not permitted" when only zombies are.
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    await process.aclose()


async def _lines(stream: ByteReceiveStream | None) -> AsyncGenerator[bytes, None]:
    """Yield the lines of a stream; raise ValueError at one longer than MAX_LINE."""
    if stream is None:
        return
    pending = bytearray()
    async for chunk in stream:
        pending += chunk
        *complete, rest = pending.split(b"\n")
        for line in complete:
            yield bytes(line)
        pending = bytearray(rest)
        if len(pending) > MAX_LINE:
            raise ValueError(f"a line of more than {MAX_LINE} bytes")
