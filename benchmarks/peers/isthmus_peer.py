"""isthmus as a peer program, with the contract of the foreign ones (see `control`).

`python -m isthmus.benchmarks.peers.isthmus_peer --backend asyncio|uvloop|trio`
"""

from __future__ import annotations

import argparse
import gc
import hashlib
import json
import math
import random
import struct
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import anyio.lowlevel
import anyio.to_thread

from ...node.config import LimitsConfig, NodeConfig
from ...node.node import Node
from ...node.protocols.ping import ping
from ...transports.core.errors import P2PError, unwrap_group
from ...transports.core.multiaddr import Multiaddr
from ...transports.websocket.config import WebSocketConfig
from .isthmus_bench import BENCHES, BLOCK, open_stream, perf_client, receive_exactly
from .isthmus_reach import COMMANDS as REACH
from .isthmus_reach import Punches, Reach, add_options

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from ...transports.core.interfaces import Connection, Stream

    Command = Callable[..., Awaitable[dict[str, Any]]]

ECHO = "/echo/1.0.0"
SINK = "/isthmus-test/sink/1.0.0"
SLOW = "/isthmus-test/slow/1.0.0"
RESET = "/isthmus-test/reset/1.0.0"
ONE = "/isthmus-test/one/1.0.0"
PAUSING = "/isthmus-test/pausing/1.0.0"
# The slow reader: seconds before it reads at all, then bytes a tick.
SLOW_START = 0.3
SLOW_BYTES = 65_536
SLOW_TICK = 0.005
# The pausing reader.
PAUSE_BYTES = 32 << 20
PAUSE = 0.1
# Deadlines that a census leaves in time, so that the event loop clears them away; seconds ahead.
LEFT_DEADLINES = 2000
LATER = 3600
PAYLOAD = 1024
MANY = 16_384
LARGEST_CHUNK = 98_304


# The protocols served, besides identify, ping and perf.


async def echo(stream: Stream) -> None:
    """Send back what comes, to the end."""
    async for data in stream:
        await stream.send(data)


async def sink(stream: Stream) -> None:
    """Count and hash what comes, then answer both."""
    digest, count = hashlib.sha256(), 0
    async for data in stream:
        digest.update(data)
        count += len(data)
    await stream.send(struct.pack(">Q", count) + digest.digest())


async def slow(stream: Stream) -> None:
    """As `sink`, but as a reader that cannot keep up."""
    await anyio.sleep(SLOW_START)
    digest, count = hashlib.sha256(), 0
    try:
        while True:
            data = await stream.receive(SLOW_BYTES)
            digest.update(data)
            count += len(data)
            await anyio.sleep(SLOW_TICK)
    except anyio.EndOfStream:
        await stream.send(struct.pack(">Q", count) + digest.digest())


async def pausing(stream: Stream) -> None:
    """Count what comes, as a fast reader that stops now and then; answer the count."""
    count, pause_at = 0, PAUSE_BYTES
    async for data in stream:
        count += len(data)
        if count >= pause_at:
            pause_at += PAUSE_BYTES
            await anyio.sleep(PAUSE)
    await stream.send(struct.pack(">Q", count))


async def reset(stream: Stream) -> None:
    """Reset the stream after its first byte."""
    await stream.receive(1)
    stream.reset()


async def one(stream: Stream) -> None:
    """Answer one byte with one byte."""
    await stream.send(await stream.receive(1))


HANDLERS = {
    ECHO: echo,
    SINK: sink,
    SLOW: slow,
    PAUSING: pausing,
    RESET: reset,
    ONE: one,
}


# The commands.


async def connect(node: Node, *, address: str) -> dict[str, Any]:
    """Dial, or use the connection there is."""
    start = time.perf_counter()
    connection = await node.connect(address)
    elapsed = time.perf_counter() - start
    return {"peer_id": str(connection.remote_peer), "ms": elapsed * 1e3}


async def disconnect(node: Node, *, address: str) -> dict[str, Any]:
    """Close the connection to the peer of the address."""
    connection = await node.connect(address)
    await connection.aclose()
    return {"closed": 1}


async def hold(node: Node, *, address: str, count: int = 1000) -> dict[str, Any]:
    """Open connections of their own to an address, and leave them alone while the program runs."""
    for _ in range(count):
        await node.connect(address, fresh=True)
    return {"held": count}


async def pausing_command(node: Node, *, address: str, **options: int) -> dict[str, Any]:
    """Send bytes as fast as they are taken, to a reader that pauses."""
    left = _size(options)
    connection = await node.connect(address)
    async with await open_stream(node, connection, PAUSING) as stream:
        while left:
            size = min(left, len(BLOCK))
            await stream.send(BLOCK[:size])
            left -= size
        await stream.send_eof()
        (count,) = struct.unpack(">Q", await receive_exactly(stream, 8))
    return {"bytes": count}


async def census(node: Node) -> dict[str, Any]:
    """Count what a leak would make more of in this process."""
    held = _held()
    await _forget_deadlines()
    gc.collect()
    return {"objects": len(gc.get_objects()), **held}


async def _forget_deadlines() -> None:
    """Have the event loop let go of the deadlines that were left in time.

    asyncio keeps them until most of its timers are such, trio until they are 1000 more than twice
    those that count: up to 2000 objects, a number that rises and falls as connections come and go.
    """
    for _ in range(LEFT_DEADLINES):
        with anyio.move_on_after(LATER):
            await anyio.lowlevel.checkpoint_if_cancelled()
    await anyio.lowlevel.checkpoint()


def _held() -> dict[str, int]:
    pages = int(Path("/proc/self/statm").read_text("ascii").split()[1])
    return {"descriptors": len(list(Path("/proc/self/fd").iterdir())), "rss": pages * 4096}


async def identify(node: Node, *, address: str) -> dict[str, Any]:
    """Tell what the peer said of itself."""
    connection = await node.connect(address)
    info = await node.identify(connection)
    return {
        "agent": info.agent,
        "protocols": list(info.protocols),
        "listen_addresses": [str(addr) for addr in info.addresses],
        "observed_address": str(info.observed) if info.observed else None,
        "peer_id": str(connection.remote_peer),
    }


async def ping_command(node: Node, *, address: str, count: int = 1) -> dict[str, Any]:
    """Measure round trips over /ipfs/ping/1.0.0."""
    connection = await node.connect(address)
    return {"rtt_ms": [rtt * 1e3 for rtt in await ping(connection, count)]}


async def echo_command(
    node: Node, *, address: str, seed: int = 1, **options: int
) -> dict[str, Any]:
    """Send random chunks, read them back, compare."""
    return await _echo_on(await node.connect(address), node, _size(options), seed)


async def _echo_on(connection: Connection, node: Node, size: int, seed: int) -> dict[str, Any]:
    sent, received = hashlib.sha256(), hashlib.sha256()
    count = 0
    async with await open_stream(node, connection, ECHO) as stream:

        async def send() -> None:
            for chunk in chunks(size, seed):
                sent.update(chunk)
                await stream.send(chunk)
            await stream.send_eof()

        with unwrap_group():
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(send)
                async for data in stream:
                    received.update(data)
                    count += len(data)
    if count != size or received.digest() != sent.digest():
        raise ValueError(f"sent {size} bytes, received {count} with another digest")
    return {"bytes": count, "sha256": received.hexdigest()}


async def half_close(node: Node, *, address: str, seed: int = 1, **options: int) -> dict[str, Any]:
    """Upload, half-close, and read the answer that comes after it."""
    return await _upload(node, address, SINK, _size(options), seed)


async def slow_command(
    node: Node, *, address: str, seed: int = 1, **options: int
) -> dict[str, Any]:
    """Upload to a reader that cannot keep up."""
    return await _upload(node, address, SLOW, _size(options), seed)


def _size(options: dict[str, int]) -> int:
    return options.get("bytes", 1 << 20)


async def _upload(node: Node, address: str, protocol: str, size: int, seed: int) -> dict[str, Any]:
    digest = hashlib.sha256()
    async with await open_stream(node, await node.connect(address), protocol) as stream:
        for chunk in chunks(size, seed):
            digest.update(chunk)
            await stream.send(chunk)
        await stream.send_eof()
        reply = await receive_exactly(stream, 40)
    if reply != struct.pack(">Q", size) + digest.digest():
        raise ValueError(f"sent {size} bytes, the peer answered {reply.hex()}")
    return {"bytes": size, "sha256": digest.hexdigest(), "matches": True}


async def reset_remote(node: Node, *, address: str) -> dict[str, Any]:
    """See the peer reset a stream."""
    async with await open_stream(node, await node.connect(address), RESET) as stream:
        await stream.send(bytes(1))
        try:
            await stream.receive()
        except anyio.BrokenResourceError:
            return {"reset": True}
        except anyio.EndOfStream:
            raise ValueError("the stream ended, but was not reset") from None
    raise ValueError("the stream went on")


async def reset_local(node: Node, *, address: str) -> dict[str, Any]:
    """Reset a stream; the connection goes on."""
    connection = await node.connect(address)
    stream = await open_stream(node, connection, ECHO)
    await stream.send(bytes(PAYLOAD))
    stream.reset()
    await stream.aclose()
    after = await _echo_on(connection, node, PAYLOAD, 2)
    return {"ok": True, "bytes": after["bytes"]}


async def streams(node: Node, *, address: str, count: int = 500) -> dict[str, Any]:
    """Have many streams open at once, and use each."""
    connection = await node.connect(address)
    opened: list[Stream] = []
    echoed = 0

    async def open_one() -> None:
        opened.append(await open_stream(node, connection, ECHO))

    async def use(stream: Stream, payload: bytes) -> None:
        nonlocal echoed
        async with stream:
            await stream.send(payload)
            same = await receive_exactly(stream, len(payload)) == payload
        echoed += same

    with unwrap_group():
        async with anyio.create_task_group() as tasks:
            for _ in range(count):
                tasks.start_soon(open_one)
        async with anyio.create_task_group() as tasks:
            for index, stream in enumerate(opened):
                tasks.start_soon(use, stream, bytes([index & 0xFF]) * PAYLOAD)
    return {"opened": len(opened), "echoed": echoed}


async def perf(
    node: Node, *, address: str, upload: int = 1 << 20, download: int = 1 << 20
) -> dict[str, Any]:
    """Measure with /perf/1.0.0: first the upload, then the download."""
    stream = await open_stream(node, await node.connect(address), "/perf/1.0.0")
    uploaded, downloaded = await perf_client(stream, upload, download)
    return {
        "upload_mb_s": upload / 1e6 / uploaded,
        "download_mb_s": download / 1e6 / downloaded if download else 0,
        "upload_seconds": uploaded,
        "download_seconds": downloaded,
        "seconds": uploaded + downloaded,
    }


COMMANDS: dict[str, Command] = {
    "connect": connect,
    "disconnect": disconnect,
    "hold": hold,
    "pausing": pausing_command,
    "census": census,
    "identify": identify,
    "ping": ping_command,
    "echo": echo_command,
    "half_close": half_close,
    "slow": slow_command,
    "reset_remote": reset_remote,
    "reset_local": reset_local,
    "streams": streams,
    "wrong_peer": connect,
    "perf": perf,
    **BENCHES,
    **REACH,
}


def chunks(total: int, seed: int) -> Iterator[bytes]:
    """Yield `total` bytes in chunks of random sizes, the same for the same seed."""
    source = random.Random(seed)
    while total:
        most = 1500 if source.random() < 0.5 else LARGEST_CHUNK
        size = min(total, source.randint(1, most))
        total -= size
        yield source.randbytes(size)


# A group: several of the streams of one command failed, each in its own way.
ANSWERED = (
    P2PError,
    anyio.BrokenResourceError,
    OSError,
    ValueError,
    KeyError,
    TypeError,
    ExceptionGroup,
)


async def answer(commands: dict[str, Command], node: Node, lock: anyio.Lock, line: str) -> None:
    """Run one command and print its answer."""
    request = json.loads(line)
    number, name = request.pop("id"), request.pop("do")
    try:
        reply = {"id": number, "ok": True, "result": await commands[name](node, **request)}
    except ANSWERED as error:
        reply = {"id": number, "ok": False, "error": str(error), "kind": type(error).__name__}
    async with lock:
        say(reply)


def say(message: dict[str, Any]) -> None:
    """Print one line of JSON."""
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


async def main(listen: str, websocket: WebSocketConfig, reach: Reach) -> None:
    """Serve until stdin ends."""
    # All connections of a test come from one host, and often from one peer.
    limits = LimitsConfig(
        connections=MANY,
        connections_per_peer=MANY,
        connections_per_prefix=MANY,
        connection_burst=MANY,
        connection_rate=MANY,
        inbound_streams_unknown=LimitsConfig().inbound_streams,
        idle_timeout=math.inf,
    )
    config = NodeConfig(
        limits=limits,
        websocket=websocket,
        serve_perf=True,
        relay_server=reach.relay,
        autonat=reach.autonat,
        dcutr=reach.dcutr,
    )
    places = (Multiaddr.parse(listen), *reach.listen)
    punches = Punches()
    commands = COMMANDS | {"upgraded": punches.upgraded}
    async with Node(listen=places, config=config) as node:
        for protocol, handler in HANDLERS.items():
            node.handle(protocol, handler, allow_limited=True)
        say(
            {
                "event": "listening",
                "peer_id": str(node.peer_id),
                "addresses": [str(addr) for addr in node.addresses],
                "version": f"isthmus {version('isthmus')}",
            }
        )
        lock = anyio.Lock()
        with unwrap_group():
            async with anyio.create_task_group() as tasks:
                if config.dcutr.enabled:
                    tasks.start_soon(punches.run, node)
                while line := await anyio.to_thread.run_sync(sys.stdin.readline):
                    tasks.start_soon(answer, commands, node, lock, line)
                tasks.cancel_scope.cancel()


def run() -> None:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--listen", default="/ip4/127.0.0.1/tcp/0")
    parser.add_argument("--backend", default="asyncio", choices=["asyncio", "uvloop", "trio"])
    parser.add_argument("--tls-cert", help="the certificate shown at /tls/ws")
    parser.add_argument("--tls-key", help="its key")
    parser.add_argument("--tls-ca", help="an authority to trust when dialling /tls/ws")
    add_options(parser)
    options = parser.parse_args()
    websocket = WebSocketConfig(
        cert_file=options.tls_cert, key_file=options.tls_key, ca_file=options.tls_ca
    )
    backend = "trio" if options.backend == "trio" else "asyncio"
    extra = {"use_uvloop": options.backend == "uvloop"} if backend == "asyncio" else {}
    arguments = (options.listen, websocket, Reach.of(options))
    anyio.run(main, *arguments, backend=backend, backend_options=extra)


if __name__ == "__main__":
    run()
