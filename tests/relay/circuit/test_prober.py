"""Two relays that are killed, start again and refuse in turn, as a prober sees it that dials."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from contextlib import AsyncExitStack
from math import inf
from typing import TYPE_CHECKING

import anyio
import pytest
from isthmus import Node
from isthmus.node.events import RelayRefused
from isthmus.transports.core.errors import P2PError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

ECHO = "/echo/1.0.0"
INTERVAL = 0.2
"""Seconds from one dial to the next."""

ALLOWED = 1.0
"""Seconds from the dial to its echo."""

BACK = 2.0
"""Seconds from a relay's return to the reservation there."""


class Relay:
    """`isthmus run --relay` in a process of its own, on one port with one key."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._listen = "/ip4/127.0.0.1/tcp/0"
        self._process: anyio.abc.Process | None = None
        self.address = ""

    async def start(self, preset: str = "public") -> None:
        """Start it; returns when it listens."""
        arguments = ("--ephemeral", "--json", "--identity", str(self._folder / "key"))
        command = (sys.executable, "-m", "isthmus", "run", f"--relay={preset}", *arguments)
        self._process = await anyio.open_process(
            (*command, "--listen", self._listen), stderr=subprocess.DEVNULL
        )
        line = b""
        while b"\n" not in line:
            line += await self._process.stdout.receive()
        (self.address,) = json.loads(line.split(b"\n")[0])["addresses"]
        self._listen = self.address.split("/p2p/")[0]

    async def stop(self, number: int = signal.SIGKILL) -> None:
        """End it; returns when it has."""
        self._process.send_signal(number)
        # Its output is not read any further, and must not be left open.
        await self._process.aclose()


class Prober:
    """Dials a node at given addresses again and again, each time anew, and has it echo.

    A relay that is killed takes the circuit along that was just made through it: then the same
    dial is made again, and all must not take longer than one may.
    """

    def __init__(self, node: Node, to: list[str]) -> None:
        self._node = node
        self._to = to
        self.times: list[float] = []
        self.failures: list[str] = []
        self.stopped = anyio.Event()

    async def run(self) -> None:
        async with anyio.create_task_group() as tasks:
            while not self.stopped.is_set():
                tasks.start_soon(self._dial)
                with anyio.move_on_after(INTERVAL):
                    await self.stopped.wait()

    async def _dial(self) -> None:
        began, failures = anyio.current_time(), []
        while anyio.current_time() < began + ALLOWED:
            try:
                await self._echo()
            except (P2PError, anyio.BrokenResourceError, anyio.EndOfStream) as error:
                failures.append(f"{anyio.current_time():.2f}: {error!r}")
            else:
                self.times.append(anyio.current_time() - began)
                return
        self.failures += failures

    async def _echo(self) -> None:
        connection = await self._node.connect(self._to, fresh=True)
        stream = await connection.open_stream()
        await stream.send(b"\x13/multistream/1.0.0\n\x0c/echo/1.0.0\n" + b"are you there?")
        said = b""
        while not said.endswith(b"are you there?"):
            said += await stream.receive()
        await connection.aclose()


async def echo(stream) -> None:
    async for data in stream:
        await stream.send(data)


async def through_both(
    folder: Path, disturb: Callable[[list[Relay], Node, Prober], Awaitable[None]]
) -> Prober:
    """Run a prober against a node behind two relays while something disturbs these."""
    async with AsyncExitStack() as stack:
        relays = [Relay(folder / name) for name in "ab"]
        for relay in relays:
            relay._folder.mkdir()
            await relay.start()
            stack.push_async_callback(relay.stop)
        bob = await stack.enter_async_context(Node(relays=[each.address for each in relays]))
        bob.handle(ECHO, echo, allow_limited=True)
        alice = await stack.enter_async_context(Node())
        events = bob.events()
        await both(bob, events)
        to = [f"{relay.address}/p2p-circuit/p2p/{bob.peer_id}" for relay in relays]
        prober = Prober(alice, to)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(prober.run)
            await disturb(relays, bob, prober)
            prober.stopped.set()
        return prober


async def both(bob: Node, events) -> None:
    """Wait until both relays lead to the node."""
    while sum(relay.until is not None for relay in bob.relays) < 2:
        await anext(events)


async def killed_in_turn(relays: list[Relay], bob: Node, prober: Prober, rounds: int = 2) -> None:
    events, slowest = bob.events(), -inf
    for _ in range(rounds):
        for relay in relays:
            await relay.stop()
            await relay.start()
            began = anyio.current_time()
            await both(bob, events)
            slowest = max(slowest, anyio.current_time() - began)
    assert slowest < BACK, f"a relay was {slowest:.2f} s without a reservation after its return"


async def refusing_in_turn(relays: list[Relay], bob: Node, prober: Prober, rounds: int = 1) -> None:
    events = bob.events()
    for _ in range(rounds):
        for relay in relays:
            await relay.stop()
            # It serves those whom its owner knows, and this is nobody.
            await relay.start("default")
            while not isinstance(await anext(events), RelayRefused):
                pass
            await relay.stop(signal.SIGTERM)
            await relay.start()
            await both(bob, events)


@pytest.mark.slow
@pytest.mark.timeout(60)
@pytest.mark.parametrize("disturb", [killed_in_turn, refusing_in_turn])
async def test_every_dial_ends_in_an_echo(tmp_path, disturb):
    prober = await through_both(tmp_path, disturb)
    assert prober.failures == []
    assert len(prober.times) > 5
    assert max(prober.times) < ALLOWED


@pytest.mark.slow
@pytest.mark.timeout(400)
async def test_two_minutes_of_it(tmp_path):
    async def disturb(relays: list[Relay], bob: Node, prober: Prober) -> None:
        began = anyio.current_time()
        while anyio.current_time() < began + 120:
            await killed_in_turn(relays, bob, prober, 1)
            await refusing_in_turn(relays, bob, prober, 1)

    prober = await through_both(tmp_path, disturb)
    assert prober.failures == []
    assert len(prober.times) > 500
    assert max(prober.times) < ALLOWED
