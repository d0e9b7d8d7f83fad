# mypy: ignore-errors
"""What the controller can ask for: each command dials, or uses the connection, and checks."""

from __future__ import annotations

import hashlib
import random
import time
from typing import TYPE_CHECKING, Any

import trio
from libp2p.crypto.serialization import deserialize_public_key
from libp2p.host.ping import PingService
from libp2p.identity.identify.identify import ID as IDENTIFY
from libp2p.identity.identify.identify import parse_identify_response
from libp2p.network.stream.exceptions import StreamReset
from libp2p.peer.id import ID
from libp2p.peer.peerinfo import info_from_p2p_addr
from multiaddr import Multiaddr
from protocols import ECHO, PERF, RESET, SINK, SLOW
from streams import PeerError, count_to_end, everything, exactly, receive, write_zeros

if TYPE_CHECKING:
    from collections.abc import Iterator

    from libp2p.abc import IHost, INetStream
    from libp2p.custom_types import TProtocol

STREAM_PAYLOAD = 1024
MAX_CHUNK = 96 << 10
MAX_IDENTIFY = 64 << 10
OPEN_STREAMS = 4096
"""py-libp2p lets a connection have 256 outbound streams open; the tests open 500."""
OPENING_AT_ONCE = 100
"""Streams that negotiate at a time: more would only wait for each other."""


async def connection_to(host: IHost, address: str) -> ID:
    """Dial, unless there is a connection; return the peer's id."""
    target = Multiaddr(address)
    info = info_from_p2p_addr(target)
    if "/p2p-circuit" in address:
        await host.reach.dial(target)
    else:
        await host.connect(info)
    return info.peer_id


async def opened(host: IHost, address: str, protocol: TProtocol) -> INetStream:
    """Open a stream of the protocol to the peer at the address."""
    return await host.new_stream(await connection_to(host, address), [protocol])


def chunks(total: int, seed: int) -> Iterator[bytes]:
    """Yield deterministic bytes in chunks of random size; half of them small."""
    source = random.Random(seed)
    while total > 0:
        size = min(total, source.randint(1, source.choice((1500, MAX_CHUNK))))
        yield source.randbytes(size)
        total -= size


async def connect(host: IHost, *, address: str) -> dict[str, Any]:
    """Dial and say who answered."""
    start = time.perf_counter()
    peer = await connection_to(host, address)
    return {"peer_id": str(peer), "ms": round((time.perf_counter() - start) * 1e3, 3)}


async def disconnect(host: IHost, *, address: str) -> dict[str, Any]:
    """Close every connection to the peer."""
    peer = info_from_p2p_addr(Multiaddr(address)).peer_id
    count = len(host.get_network().get_connections(peer))
    await host.disconnect(peer)
    return {"closed": count}


async def identify(host: IHost, *, address: str) -> dict[str, Any]:
    """Ask the peer to identify itself."""
    stream = await opened(host, address, IDENTIFY)
    message = parse_identify_response(await everything(stream, MAX_IDENTIFY))
    await stream.close()
    observed = message.observed_addr
    return {
        "agent": message.agent_version or None,
        "protocol_version": message.protocol_version or None,
        "protocols": list(message.protocols),
        "listen_addresses": [str(Multiaddr(addr)) for addr in message.listen_addrs],
        "observed_address": str(Multiaddr(observed)) if observed else None,
        "peer_id": str(ID.from_pubkey(deserialize_public_key(message.public_key))),
    }


async def ping(host: IHost, *, address: str, count: int = 1) -> dict[str, Any]:
    """Ping with py-libp2p's own client: one stream, whole milliseconds."""
    peer = await connection_to(host, address)
    return {"rtt_ms": await PingService(host).ping(peer, count)}


async def echo(
    host: IHost,
    *,
    address: str,
    bytes: int = 1 << 20,  # noqa: A002 - the contract's word
    seed: int = 1,
) -> dict[str, Any]:
    """Send while receiving, half-close, compare."""
    stream = await opened(host, address, ECHO)
    sent, received = hashlib.sha256(), hashlib.sha256()
    count = 0

    async def send() -> None:
        for chunk in chunks(bytes, seed):
            sent.update(chunk)
            await stream.write(chunk)
        await stream.close_write()

    async with resetting(stream), trio.open_nursery() as nursery:
        nursery.start_soon(send)
        while chunk := await receive(stream):
            received.update(chunk)
            count += len(chunk)
    await stream.close()
    if count != bytes or sent.digest() != received.digest():
        raise PeerError("Mismatch", f"sent {bytes} bytes, received {count}")
    return {"bytes": count, "sha256": received.hexdigest()}


class resetting:
    """Reset the stream if the body fails."""

    def __init__(self, stream: INetStream) -> None:
        self._stream = stream

    async def __aenter__(self) -> None:
        """Do nothing."""

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Reset after an error."""
        if kind is not None:
            with trio.CancelScope(shield=True):
                await self._stream.reset()


async def upload(
    host: IHost,
    protocol: TProtocol,
    *,
    address: str,
    bytes: int = 1 << 20,  # noqa: A002 - the contract's word
    seed: int = 1,
) -> dict[str, Any]:
    """Send, half-close, and compare the count and the digest that the peer answers."""
    stream = await opened(host, address, protocol)
    seen = hashlib.sha256()
    async with resetting(stream):
        for chunk in chunks(bytes, seed):
            seen.update(chunk)
            await stream.write(chunk)
        await stream.close_write()
        reply = await everything(stream, 40)
    await stream.close()
    if reply != bytes.to_bytes(8, "big") + seen.digest():
        raise PeerError("Mismatch", f"sent {bytes} bytes, the peer answered {reply.hex()}")
    return {"bytes": bytes, "sha256": seen.hexdigest(), "matches": True}


async def half_close(host: IHost, **options: object) -> dict[str, Any]:
    """Upload to the sink."""
    return await upload(host, SINK, **options)


async def slow(host: IHost, **options: object) -> dict[str, Any]:
    """Upload to the slow reader."""
    return await upload(host, SLOW, **options)


async def reset_remote(host: IHost, *, address: str) -> dict[str, Any]:
    """See the peer's reset."""
    stream = await opened(host, address, RESET)
    await stream.write(b"\0")
    try:
        await everything(stream, 1 << 16)
    except StreamReset as error:
        return {"reset": True, "kind": type(error).__name__}
    finally:
        await stream.reset()
    raise PeerError("NoReset", "the stream ended, but was not reset")


async def reset_local(host: IHost, *, address: str) -> dict[str, Any]:
    """Reset a stream in use; the connection has to survive it."""
    peer = await connection_to(host, address)
    before = host.get_network().get_connections(peer)
    stream = await host.new_stream(peer, [ECHO])
    await stream.write(bytes(STREAM_PAYLOAD))
    await stream.reset()
    after = await echo(host, address=address, bytes=STREAM_PAYLOAD, seed=2)
    if host.get_network().get_connections(peer) != before:
        raise PeerError("Reconnected", "the connection did not survive the reset of a stream")
    return {"ok": True, "bytes": after["bytes"]}


async def streams(host: IHost, *, address: str, count: int = 500) -> dict[str, Any]:
    """Have `count` echo streams open at once, then use each."""
    peer = await connection_to(host, address)
    for connection in host.get_network().get_connections(peer):
        connection.muxed_conn.stream_backlog_semaphore = trio.Semaphore(OPEN_STREAMS)
    limiter = trio.CapacityLimiter(OPENING_AT_ONCE)
    ready: list[INetStream] = []
    echoed = 0

    async def open_one() -> None:
        async with limiter:
            ready.append(await host.new_stream(peer, [ECHO]))

    async def use(stream: INetStream, payload: bytes) -> None:
        nonlocal echoed
        await stream.write(payload)
        back = await exactly(stream, len(payload))
        await stream.close()
        echoed += back == payload

    async with trio.open_nursery() as nursery:
        for _ in range(count):
            nursery.start_soon(open_one)
    open_now = sum([await stream.is_operational() for stream in ready])
    async with trio.open_nursery() as nursery:
        for index, stream in enumerate(ready):
            nursery.start_soon(use, stream, bytes([index & 0xFF]) * STREAM_PAYLOAD)
    return {"opened": open_now, "echoed": echoed}


async def perf(
    host: IHost, *, address: str, upload: int = 1 << 20, download: int = 1 << 20
) -> dict[str, Any]:
    """Measure one upload and one download on a stream of the perf protocol."""
    stream = await opened(host, address, PERF)
    start = time.perf_counter()
    async with resetting(stream):
        await stream.write(download.to_bytes(8, "big"))
        await write_zeros(stream, upload)
        await stream.close_write()
        # The server answers once it has all of the upload, so the first bytes back end it.
        received = len(await receive(stream))
        uploaded = time.perf_counter() - start
        received += await count_to_end(stream) if received else 0
    seconds = time.perf_counter() - start
    await stream.close()
    if received != download:
        raise PeerError("Mismatch", f"asked for {download} bytes, received {received}")
    return {
        "upload_mb_s": round(upload / 1e6 / uploaded, 3),
        "download_mb_s": round(download / 1e6 / (seconds - uploaded), 3) if download else 0,
        "upload_seconds": round(uploaded, 3),
        "download_seconds": round(seconds - uploaded, 3),
        "seconds": round(seconds, 3),
    }


COMMANDS = {
    "connect": connect,
    "disconnect": disconnect,
    "identify": identify,
    "ping": ping,
    "echo": echo,
    "half_close": half_close,
    "slow": slow,
    "reset_remote": reset_remote,
    "reset_local": reset_local,
    "streams": streams,
    # A dial that has to fail: the address names a peer that does not live there.
    "wrong_peer": connect,
    "perf": perf,
}
