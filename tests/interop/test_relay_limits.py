"""What relays limit and refuse, isthmus's towards others and others' towards isthmus."""

from __future__ import annotations

import json
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import anyio
import pytest
from isthmus import Node, NodeConfig
from isthmus.benchmarks.peers.errors import PeerFailed
from isthmus.node.events import CircuitEnded, ConnectionEnded, ConnectionOpened, RelayReserved
from isthmus.relay.circuit.limits import RelayServerConfig
from isthmus.relay.circuit.wire import Status
from isthmus.transports.core.errors import (
    CircuitRefused,
    DialError,
    NegotiationError,
    StreamReset,
    unwrap_group,
)
from isthmus.transports.core.keys import PrivateKey
from isthmus.transports.core.peer_id import PeerId

from .circuits import MIB, Cell, circuit, need, start, unlinked

if TYPE_CHECKING:
    from isthmus.benchmarks.peers.control import Peer
    from isthmus.node.events import EventReader
    from isthmus.transports.core.interfaces import Connection

PROGRAMS = ("js", "go", "rust")
OTHER = {"js": "go", "go": "rust", "rust": "js"}
"""Whom a foreign relay joins with us."""
BACKENDS = ("asyncio", "trio")
TABLE = "limits and refusals of relays"
OURS, THEIRS = "on our relay", "is our relay"
ECHO = "/echo/1.0.0"
PERF = "/perf/1.0.0"
SECONDS, BYTES = 120, 65_536
OPENING = 3000
"""Bytes of the handshake and of both Identify exchanges, up to 2 303, which may have passed when
the connection is seen first."""
NOBODY = PeerId.from_public_key(PrivateKey.from_seed(b"n" * 32).public_key)

pytestmark = pytest.mark.timeout(60, func_only=True)


@pytest.fixture(autouse=True, scope="module")
def installed() -> None:
    """Install the peers before the tests' time begins to run."""
    need((*PROGRAMS, "py"))


def cells(case: str, quick: dict[tuple[str, str], str], *, roles: tuple[bool, ...] = (True,)):
    """Return the cells of a case, on both backends, slow but for those of `quick`.

    Of two roles, in which this side dials or not, those of `quick` take turns.
    """
    found = []
    for direction in (OURS, THEIRS):
        for number, program in enumerate(PROGRAMS):
            for dials in roles:
                for backend in BACKENDS:
                    turn = dials == roles[number % len(roles)]
                    is_quick = turn and quick.get((program, direction)) == backend
                    how = f", we {'dial' if dials else 'are dialled'}" if len(roles) > 1 else ""
                    cell = Cell(TABLE, program, direction, case + how)
                    marks = () if is_quick else (pytest.mark.slow,)
                    found.append(pytest.param(cell, dials, backend, marks=marks))
    return found


def each_cell(case: str, quick=None, **options):
    return pytest.mark.parametrize(
        ("cell", "dials", "anyio_backend"),
        cells(case, quick or {}, **options),
        indirect=["anyio_backend"],
    )


@dataclass
class Meeting:
    """Two peers that a relay has joined: this node and a foreign program."""

    node: Node
    events: EventReader
    connection: Connection
    peer: Peer
    own: str
    """An address for the peer's commands that names this node, to which it is connected."""
    ends: EventReader | None
    """Of the relay, if that is ours."""


async def echo(stream) -> None:
    async for data in stream:
        await stream.send(data)


async def until(events: EventReader, kind: type, **wanted: object):
    with anyio.fail_after(20):
        async for event in events:
            if isinstance(event, kind) and all(getattr(event, k) == v for k, v in wanted.items()):
                return event
    raise AssertionError(f"no {kind.__name__}")


def our_relay(**limits: float) -> Node:
    config = RelayServerConfig(preset="public", **limits)
    return Node(listen="/ip4/127.0.0.1/tcp/0", config=NodeConfig(relay_server=config))


@asynccontextmanager
async def meeting(cell: Cell, *, dials: bool, seconds: int = SECONDS, size: int = BYTES):
    """Have a relay with limits join this node and the program of the cell, or its companion."""
    async with AsyncExitStack() as stack:
        ends = None
        if cell.direction == OURS:
            relay = our_relay(circuit_duration=seconds, circuit_bytes=size)
            await stack.enter_async_context(relay)
            place, ends, other = str(relay.addresses[0]), relay.events(), cell.program
        else:
            limits = json.dumps({"seconds": seconds, "bytes": size})
            theirs = await stack.enter_async_context(start(cell.program, "--relay", limits))
            place, other = theirs.address, OTHER[cell.program]
        peer = await stack.enter_async_context(start(other))
        node = Node(relays=() if dials else place, config=NodeConfig(serve_perf=True))
        node.handle(ECHO, echo, allow_limited=True)
        await stack.enter_async_context(node)
        events = node.events()
        own = f"{place}/p2p-circuit/p2p/{node.peer_id}"
        if dials:
            (address,) = (await peer.call("reserve", address=place, timeout=10))["addresses"]
            connection = await node.connect(address)
        else:
            reserved = await until(events, RelayReserved)
            assert [str(each.with_peer(node.peer_id)) for each in reserved.addresses] == [own]
            await peer.call("connect", address=own, timeout=10)
            await until(events, ConnectionOpened, peer=PeerId.parse(peer.peer_id))
            (connection,) = (
                each for each in node.connections if str(each.remote_peer) == peer.peer_id
            )
        yield Meeting(node, events, connection, peer, own, ends)


async def exchange(meeting: Meeting, size: int) -> int:
    """Have the peer echo bytes; return how many came back."""
    peer = meeting.connection.remote_peer
    count = 0
    async with await meeting.node.open_stream(peer, ECHO, allow_limited=True) as stream:

        async def send() -> None:
            # What breaks it shows at the receiving end.
            with suppress(StreamReset):
                await stream.send(bytes(size))
                await stream.send_eof()

        with unwrap_group():
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(send)
                async for data in stream:
                    count += len(data)
    return count


@each_cell(
    "limits are told and kept",
    {
        ("js", OURS): "asyncio",
        ("go", OURS): "trio",
        ("rust", OURS): "asyncio",
        ("js", THEIRS): "trio",
        ("go", THEIRS): "asyncio",
        ("rust", THEIRS): "trio",
    },
    roles=(True, False),
)
async def test_limits(cell: Cell, dials: bool) -> None:
    async with meeting(cell, dials=dials) as met:
        node, connection, peer = met.node, met.connection, met.peer
        limit = connection.limit
        assert SECONDS - 10 < limit.seconds_left <= SECONDS
        assert BYTES - OPENING < limit.bytes_left < BYTES
        assert await exchange(met, 10_000) == 10_000
        assert 20_000 < BYTES - limit.bytes_left < 20_000 + OPENING + 2000
        # It has the connection now at the latest.
        (there,) = (await peer.call("connections", address=met.own))["connections"]
        assert there["limited"] is (None if peer.name == "rust" else True)
        # What does not allow limits is opened by neither side.
        with pytest.raises(DialError, match="relay that sets limits"):
            await node.open_stream(connection.remote_peer, PERF)
        with pytest.raises(PeerFailed):
            await peer.call("perf", address=met.own, upload=1, download=1, timeout=10)
        (still,) = (await peer.call("connections", address=met.own))["connections"]
        assert still == there
        # And then the bytes are used up.
        with pytest.raises(StreamReset):
            await exchange(met, MIB)
        ended = await until(met.events, ConnectionEnded, peer=connection.remote_peer)
        assert "bytes of a circuit" in ended.reason
        with anyio.fail_after(10):
            await unlinked(peer, met.own)
        if met.ends is not None:
            told = await until(met.ends, CircuitEnded)
            assert told.reason == "it had carried its bytes"
            assert BYTES <= told.bytes <= 2 * BYTES


@each_cell("time ends a circuit", {("go", OURS): "asyncio", ("rust", THEIRS): "trio"})
async def test_the_end_of_the_time(cell: Cell, dials: bool) -> None:
    async with meeting(cell, dials=dials, seconds=2) as met:
        ended = await until(met.events, ConnectionEnded, peer=met.connection.remote_peer)
        if cell.program == "js" and cell.direction == THEIRS:
            # It tells milliseconds: 2000 of them pass for seconds.
            assert met.connection.limit.seconds_left > 1990
            assert "seconds of a circuit" not in ended.reason
        else:
            assert "seconds of a circuit" in ended.reason
        with anyio.fail_after(10):
            await unlinked(met.peer, met.own)
        if met.ends is not None:
            assert (await until(met.ends, CircuitEnded)).reason == "its time was over"


@pytest.mark.slow
@pytest.mark.parametrize(
    "cell", [Cell(TABLE, "js", OURS, "it takes no stream without leave")], ids=str
)
async def test_js_takes_no_stream_that_does_not_allow_limits(cell: Cell) -> None:
    """go and rust take all; js refuses what was not registered for it, such as AutoNAT."""
    async with our_relay() as relay, start(cell.program, "--autonat") as peer, Node() as node:
        held = await peer.call("reserve", address=str(relay.addresses[0]), timeout=10)
        (address,) = held["addresses"]
        # Before or after its protocol has been agreed on.
        with pytest.raises((StreamReset, NegotiationError)):
            await ask_on(node, address, "/libp2p/autonat/2/dial-request")
        own = f"{relay.addresses[0]}/p2p-circuit/p2p/{node.peer_id}"
        assert len((await peer.call("connections", address=own))["connections"]) == 1


async def ask_on(node: Node, address: str, protocol: str) -> bytes:
    async with await node.open_stream(address, protocol, allow_limited=True) as stream:
        await stream.send(b"\x00")
        return await stream.receive()


REFUSED = {
    "js": "status {}",
    "go": "status: {}",
    "rust": {
        "RESERVATION_REFUSED": r"Reservation\(Refused\)",
        "PERMISSION_DENIED": r"UnexpectedStatus\(\"{}\"\)",
    },
}
"""How each says by which status it was refused a reservation."""
NOT_JOINED = {
    "js": "status {}",
    "go": "relay circuit: {}",
    "rust": {
        "NO_RESERVATION": "Relay has no reservation",
        "PERMISSION_DENIED": "Remote denied permission",
    },
}
"""And a circuit."""


def said(texts: dict[str, object], program: str, status: str) -> str:
    found = texts[program]
    text = found[status] if isinstance(found, dict) else found
    return text.format(status)


@pytest.mark.parametrize("anyio_backend", BACKENDS[:1], indirect=True)
@pytest.mark.parametrize(
    "cell", [Cell(TABLE, each, OURS, "is refused, and says why") for each in PROGRAMS], ids=str
)
async def test_our_refusals(cell: Cell) -> None:
    program = cell.program
    allowed = RelayServerConfig(preset="default", allow=(NOBODY,))
    closed = Node(listen="/ip4/127.0.0.1/tcp/0", config=NodeConfig(relay_server=allowed))
    async with (
        our_relay(reservations=1) as full,
        closed,
        start(program) as peer,
        Node(relays=full.addresses) as first,
    ):
        await until(first.events(), RelayReserved)
        for relay, status in ((full, "RESERVATION_REFUSED"), (closed, "PERMISSION_DENIED")):
            with pytest.raises(PeerFailed, match=said(REFUSED, program, status)):
                await peer.call("reserve", address=str(relay.addresses[0]), timeout=10)
        for relay, status in ((full, "NO_RESERVATION"), (closed, "PERMISSION_DENIED")):
            address = f"{relay.addresses[0]}/p2p-circuit/p2p/{NOBODY}"
            with pytest.raises(PeerFailed, match=said(NOT_JOINED, program, status)):
                await peer.call("connect", address=address, timeout=10)
        refused = [relay.relaying.status()["refused"] for relay in (full, closed)]
        assert refused == [
            {"RESERVATION_REFUSED": 1, "NO_RESERVATION": 1},
            {"PERMISSION_DENIED": 2},
        ]
        assert full.relaying.status()["reservations"]["used"] == 1


FULL = {
    "js": "it takes no reservation from this peer now",
    "go": "it takes no reservation from this peer now",
    "rust": "a limit of it is reached",
    "py": "a limit of it is reached",
}
"""What the status of each means that has no reservation left."""


@pytest.mark.parametrize(
    ("cell", "anyio_backend"),
    [
        pytest.param(
            Cell(TABLE, program, THEIRS, "refuses, and we say why"),
            backend,
            marks=() if backend == quick else pytest.mark.slow,
        )
        for program, quick in (("js", "trio"), ("go", "asyncio"), ("rust", "trio"), ("py", ""))
        for backend in BACKENDS
    ],
    indirect=["anyio_backend"],
)
async def test_their_refusals(cell: Cell) -> None:
    async with (
        start(cell.program, "--relay", '{"reservations": 1}') as relay,
        start("go") as first,
    ):
        await circuit(first, relay)
        async with Node(relays=relay.address) as node:
            events = node.events()
            (status,) = node.relays
            while status.state != "refused":
                await anext(events)
                (status,) = node.relays
            assert FULL[cell.program] in status.reason
            with pytest.raises(DialError) as failed:
                await node.connect(f"{relay.address}/p2p-circuit/p2p/{NOBODY}")
            (attempt,) = failed.value.attempts
            assert isinstance(attempt.cause, CircuitRefused)
            assert attempt.cause.status == Status.NO_RESERVATION


@pytest.mark.parametrize("anyio_backend", BACKENDS[1:], indirect=True)
@pytest.mark.parametrize(
    "cell", [Cell(TABLE, each, OURS, "leaves, and its slot is free") for each in PROGRAMS], ids=str
)
async def test_who_leaves_keeps_no_slot(cell: Cell) -> None:
    async with our_relay(reservations=1) as relay:
        place = str(relay.addresses[0])
        for _ in range(2):
            events = relay.events()
            async with start(cell.program) as peer:
                await peer.call("reserve", address=place, timeout=10)
            await until(events, ConnectionEnded)
            assert relay.relaying.status()["reservations"]["used"] == 0
