"""Nodes of the demonstration that are processes of their own, started and ended by the first one.

Such a process serves one role, says in its first line where it listens, and lives until its
standard input closes. That input is a pipe from the process which started it, so it closes however
that ends, and no node is left behind.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import anyio
from anyio.streams.buffered import BufferedByteReceiveStream

from ..relay.circuit.limits import RelayServerConfig
from ..relay.dcutr.config import DcutrConfig
from ..transports.core.errors import P2PError, unwrap_group
from ..transports.core.interfaces import Priority
from ..transports.core.multiaddr import Multiaddr
from ..transports.core.peer_id import PeerId
from .config import NodeConfig
from .daemon import ECHO_PROTOCOL, echo
from .events import RelayRefused, RelayReserved
from .node import Node

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from anyio.abc import ByteReceiveStream, Process, TaskGroup

    from .events import EventReader, Json

LOOPBACK = "/ip4/127.0.0.1/tcp/0"

START_TIME = 30.0
"""Seconds until a process says where it listens; it takes half a second where nothing else runs."""

STOP_TIME = 3.0
"""Seconds between the end of its input and its being killed; a node stops within two."""

EXPLAIN_TIME = 0.5
"""Seconds for a process to be seen to have ended, after a connection to it broke."""

MAX_FIRST_LINE = 64 * 1024
"""Bytes of the line that says where a node listens; two addresses take some 200."""

MAX_COMPLAINT = 4000
"""Bytes kept of what a process wrote to its standard error, the last ones; an error is one line."""

CHUNK = 4096


class NodeProcessFailed(P2PError):
    """A node's process that did not start, or ended before it was told to."""


class ReservationMissing(P2PError):
    """The relay of the demonstration does not lead others to a node."""


NEAR = DcutrConfig(allow_private=True)
"""Of this machine's own nodes, whose loopback addresses are as good as public ones to them."""


def caller() -> Node:
    """Make the node of the process that shows the demonstration."""
    return Node(listen=LOOPBACK, config=NodeConfig(dcutr=NEAR))


def peer(relays: Sequence[str]) -> Node:
    """Make a node that answers echoes and takes bulk, as the demonstration's other side."""
    config = NodeConfig(serve_perf=True, dcutr=NEAR)
    node = Node(listen=LOOPBACK, relays=relays, config=config)
    node.handle(ECHO_PROTOCOL, echo, priority=Priority.HIGH, allow_limited=True)
    return node


def relay(relays: Sequence[str]) -> Node:
    """Make a node that relays for anyone, with the limits that strangers' relays have."""
    config = NodeConfig(relay_server=RelayServerConfig(preset="public"))
    return Node(listen=LOOPBACK, relays=relays, config=config)


ROLES: Mapping[str, Callable[[Sequence[str]], Node]] = {"peer": peer, "relay": relay}
"""What a process can be asked to be."""


async def serve(
    role: str, relays: Sequence[str], announce: Callable[[dict[str, Json]], None]
) -> None:
    """Run a node of a role until the standard input closes; first announce where it is.

    With relays that is where these lead to it, and nowhere else.
    """
    node = ROLES[role](relays)
    events = node.events()

    async def introduce() -> None:
        reached = await _reserved(events, node.peer_id) if relays else node.addresses
        addresses: list[Json] = [str(address) for address in reached]
        announce({"event": "listening", "peer_id": str(node.peer_id), "addresses": addresses})

    with unwrap_group():
        async with node, anyio.create_task_group() as tasks:
            # Also while it waits for its relay, which may have ended with the process that began.
            tasks.start_soon(introduce)
            await _until_input_closes()
            tasks.cancel_scope.cancel()


async def _reserved(events: EventReader, peer: PeerId) -> Sequence[Multiaddr]:
    """Wait until a relay leads others here; return by which addresses."""
    async for event in events:
        if isinstance(event, RelayReserved):
            return [each.with_peer(peer) for each in event.addresses]
        if isinstance(event, RelayRefused):
            raise ReservationMissing(event.reason)
    raise ReservationMissing("the node has stopped")


async def _until_input_closes() -> None:
    file = sys.stdin.fileno()
    while True:
        await anyio.wait_readable(file)
        if not os.read(file, CHUNK):
            return


@dataclass(frozen=True, slots=True)
class Introduced:
    """Who a process is and where it listens."""

    peer_id: PeerId
    addresses: tuple[Multiaddr, ...]


class NodeProcess:
    """A node in another process; `start` makes one, `aclose` ends it."""

    def __init__(self, name: str, process: Process, introduced: Introduced) -> None:
        self.name = name
        self.pid = process.pid
        self.peer_id = introduced.peer_id
        self.addresses = introduced.addresses
        self._process = process

    @classmethod
    async def start(
        cls,
        name: str,
        role: str,
        *,
        tasks: TaskGroup,
        arguments: Sequence[str] = (),
        relays: Sequence[str] = (),
        is_quiet: bool = True,
    ) -> NodeProcess:
        """Start a process of this program in a role, and wait until it listens.

        With `relays` it is to be reached behind these, and its `addresses` lead through them.
        `name` is what it is called in errors. A task in `tasks` keeps the end of what it writes
        to the standard error, unless that goes to this process's own (not `is_quiet`). Raises
        NodeProcessFailed.
        """
        # With -P, or a folder called isthmus in the current one would be taken for the package.
        command = [sys.executable, "-P", "-m", "isthmus", "demo-node", role, *arguments]
        command += [f"--relay-via={each}" for each in relays]
        try:
            # Shielded, so that there is none that nobody knows; it takes milliseconds.
            with anyio.CancelScope(shield=True):
                process = await anyio.open_process(
                    command,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE if is_quiet else None,
                    # Not ended by the terminal's Ctrl-C, but in order, by its input.
                    start_new_session=True,
                )
        except OSError as error:
            raise NodeProcessFailed(f"{name} cannot be started: {error}") from error
        complaint = _Complaint()
        if process.stderr is not None:
            tasks.start_soon(complaint.collect, process.stderr)
        try:
            return cls(name, process, await _introduced(name, process, complaint))
        except BaseException:
            await _end(process)
            raise

    async def why_ended(self) -> NodeProcessFailed | None:
        """Return what became of the process if it has ended, else None."""
        with anyio.move_on_after(EXPLAIN_TIME):
            code = await self._process.wait()
            return NodeProcessFailed(f"{self.name} (PID {self.pid}) {_ending(code)}")
        return None

    async def aclose(self) -> None:
        """Close its input and wait for its end; kill it if that takes too long."""
        await _end(self._process)


class _Complaint:
    """The end of what a process wrote to its standard error."""

    def __init__(self) -> None:
        self._kept = b""
        self._ended = anyio.Event()

    async def collect(self, stream: ByteReceiveStream) -> None:
        with suppress(anyio.BrokenResourceError, anyio.ClosedResourceError):
            async for data in stream:
                self._kept = (self._kept + data)[-MAX_COMPLAINT:]
        self._ended.set()

    async def last_line(self) -> str:
        with anyio.move_on_after(EXPLAIN_TIME):
            await self._ended.wait()
        lines = self._kept.decode(errors="replace").strip().splitlines()
        return lines[-1].removeprefix("error: ") if lines else ""


async def _introduced(name: str, process: Process, complaint: _Complaint) -> Introduced:
    assert process.stdout is not None
    reader = BufferedByteReceiveStream(process.stdout)
    try:
        with anyio.fail_after(START_TIME):
            line = await reader.receive_until(b"\n", MAX_FIRST_LINE)
    except TimeoutError:
        raise NodeProcessFailed(f"{name} did not start within {START_TIME:g} s") from None
    except (anyio.IncompleteRead, anyio.DelimiterNotFound) as error:
        why = await complaint.last_line() or _ending(await process.wait())
        raise NodeProcessFailed(f"{name} did not start: {why}") from error
    said = json.loads(line)
    addresses = tuple(map(Multiaddr.parse, said["addresses"]))
    return Introduced(PeerId.parse(said["peer_id"]), addresses)


async def _end(process: Process) -> None:
    with anyio.CancelScope(shield=True):
        if process.stdin is not None:
            with suppress(anyio.BrokenResourceError):
                await process.stdin.aclose()
        with anyio.move_on_after(STOP_TIME):
            await process.wait()
        if process.returncode is None:
            process.kill()
        await process.aclose()


def _ending(code: int) -> str:
    if code >= 0:
        return f"ended with code {code}"
    try:
        return f"was ended by the signal {signal.Signals(-code).name}"
    except ValueError:
        return f"was ended by the signal {-code}"
