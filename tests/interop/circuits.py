"""Starts peers for the tests of relays, and asks them for what several tests need."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from anyio.abc import SocketAttribute
from isthmus.benchmarks.peers.control import launch
from isthmus.benchmarks.peers.errors import PeerFailed, PeerUnavailable
from isthmus.benchmarks.peers.install import argv_of

if TYPE_CHECKING:
    from collections.abc import Iterable
    from contextlib import AbstractAsyncContextManager

    from isthmus.benchmarks.peers.control import Peer

UNLIMITED = '{"seconds": 0, "bytes": 0}'
MIB = 1 << 20


@dataclass(frozen=True)
class Cell:
    """One cell of a table, see conftest.py."""

    table: str
    program: str
    direction: str
    case: str

    def __str__(self) -> str:
        return f"{self.program} {self.direction} {self.case}"


def need(programs: Iterable[str]) -> None:
    """Install the peers before the tests' time begins to run, or skip the test."""
    try:
        for program in programs:
            argv_of(program)
    except PeerUnavailable as missing:
        if os.environ.get("CI") == "true":
            pytest.fail(f"{missing} (CI=true forbids to skip it)")
        pytest.skip(str(missing))


def start(program: str, *arguments: str) -> AbstractAsyncContextManager[Peer]:
    """Launch it so that loopback addresses count as real ones, which js-libp2p cannot be told."""
    extra: tuple[str, ...] = ()
    if program == "go":
        extra = ("--private",)
    elif program.startswith("isthmus"):
        extra = ("--private", "--circuits")
    return launch(program, arguments=(*arguments, *extra))


async def circuit(target: Peer, relay: Peer) -> str:
    """Have the target reserve; return its address through the relay."""
    held = await target.call("reserve", address=relay.address, timeout=10)
    (address,) = held["addresses"]
    assert address == f"{relay.address}/p2p-circuit/p2p/{target.peer_id}"
    return str(address)


async def check_upgrade(relay: Peer, target: Peer, dialer: Peer) -> list[dict[str, Any]]:
    """See that a circuit becomes direct; return what both sides, the dialer first, tell of it."""
    address = await circuit(target, relay)
    await dialer.call("connect", address=relay.address)
    for peer in (target, dialer):
        await peer.call("can_punch", timeout=10)
    await dialer.call("connect", address=address)
    both = [
        await dialer.call("upgraded", address=address, timeout=10),
        await target.call("upgraded", address=dialer.address, timeout=10),
    ]
    for told in both:
        assert told["relayed"] is False
        assert told["address"].startswith("/ip4/127.0.0.1/tcp/")
    assert (await dialer.call("echo", address=address, bytes=MIB))["bytes"] == MIB
    return both


async def check_circuit(relay: Peer, target: Peer, dialer: Peer, *, size: int = MIB) -> None:
    """Have the target reserve and the dialer dial it, and see that all three agree on it."""
    address = await circuit(target, relay)
    connected = await dialer.call("connect", address=address, timeout=10)
    assert connected["peer_id"] == target.peer_id
    echoed = await dialer.call("echo", address=address, bytes=size, timeout=20)
    assert echoed["bytes"] == size
    (there,) = (await dialer.call("connections", address=address))["connections"]
    assert (there["relayed"], there["dialled"]) == (True, True)
    (here,) = (await target.call("connections", address=dialer.address))["connections"]
    assert (here["relayed"], here["dialled"]) == (True, False)
    told = await relay.call("reservations")
    assert (told["reservations"], told["circuits"]) == (1, 1)
    assert told["peers"] == (None if relay.name == "go" else [target.peer_id])
    assert len((await dialer.call("ping", address=address, count=2))["rtt_ms"]) == 2
    if target.name in {"rust", "py"} and dialer.name == "js":
        # They say to have observed an address that begins with /p2p, as it came by a relay;
        # js-libp2p takes only those that begin with an IP address or a name.
        with pytest.raises(PeerFailed, match="InvalidParametersError"):
            await dialer.call("identify", address=address)
    else:
        told = await dialer.call("identify", address=address)
        assert told["peer_id"] == target.peer_id


async def unlinked(peer: Peer, address: str) -> None:
    """Wait until a peer has no connection to the peer of the address."""
    while (await peer.call("connections", address=address))["connections"]:
        continue


async def unused_address() -> str:
    """Return a loopback address where nobody listens."""
    async with await anyio.create_tcp_listener(local_host="127.0.0.1") as listener:
        port = listener.extra(SocketAttribute.local_port)
    return f"/ip4/127.0.0.1/tcp/{port}"
