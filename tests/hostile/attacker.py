"""A client that speaks as much of each protocol as it takes to break the rest of it."""

from __future__ import annotations

import secrets
import socket
import struct
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

import anyio
from isthmus.transports.core.interfaces import Side
from isthmus.transports.core.keys import PrivateKey
from isthmus.transports.core.peer_id import PeerId
from isthmus.transports.core.varint import length_prefixed
from isthmus.transports.multistream import HEADER
from isthmus.transports.noise.machine import DEFAULT_MUXERS, NoiseHandshake, StaticKey
from isthmus.transports.noise.wire import LENGTH, MAX_PLAINTEXT
from isthmus.transports.tcp import TcpTransport

from ..transports.yamux.frames import DATA, FIN, PING, RST, SYN, WINDOW_UPDATE, Frame, data

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from isthmus.transports.core.multiaddr import Multiaddr
    from isthmus.transports.noise.machine import NoiseSession
    from isthmus.transports.sockets import SocketStream
    from isthmus.transports.yamux.flow import StreamState

    from .victim import Victim

PATIENCE = 8.0
"""Seconds for anything that a node has to do about an attack, its own timeouts included."""

CHUNK = 50_000
"""Bytes that fill a window in a few steps."""

FRAME_HEADER = struct.Struct(">BBHII")


def line(text: str) -> bytes:
    """A frame of multistream-select."""
    return length_prefixed(text.encode() + b"\n")


def proposal(protocol: str) -> bytes:
    """All that a dialer says to agree on a protocol."""
    return line(HEADER) + line(protocol)


def framed(message: bytes) -> bytes:
    """A Noise message behind its length."""
    return LENGTH.pack(len(message)) + message


NOISE = proposal("/noise")


def noise_handshake(
    key: PrivateKey,
    *,
    static: StaticKey | None = None,
    kind: type[NoiseHandshake] = NoiseHandshake,
    muxers: tuple[str, ...] = DEFAULT_MUXERS,
) -> NoiseHandshake:
    """The dialer's side of a handshake."""
    ephemeral = secrets.token_bytes(32)
    static = static or StaticKey.generate(key)
    return kind(Side.DIALER, static, ephemeral=ephemeral, muxers=muxers)


class Attacker:
    """One TCP connection to the victim, and how far the upgrade of it has come."""

    def __init__(self, raw: SocketStream, key: PrivateKey) -> None:
        self.raw = raw
        self.key = key
        self.peer_id = PeerId.from_public_key(key.public_key)
        self.session: NoiseSession | None = None
        self._buffer = b""
        self._frames = b""

    # Plain bytes

    async def send(self, wire: bytes) -> None:
        """Send bytes as they are."""
        with anyio.fail_after(PATIENCE):
            await self.raw.send(wire)

    async def read(self, count: int) -> bytes:
        """Receive exactly so many bytes."""
        with anyio.fail_after(PATIENCE):
            while len(self._buffer) < count:
                self._buffer += await self.raw.receive()
        taken, self._buffer = self._buffer[:count], self._buffer[count:]
        return taken

    async def attempt(self, wire: bytes) -> None:
        """Send bytes as far as the victim listens, and end the sending side."""
        with suppress(anyio.BrokenResourceError):
            await self.send(wire)
            await self.raw.send_eof()

    async def read_to_end(self) -> bytes:
        """Receive until the victim closes or resets the connection."""
        with anyio.fail_after(PATIENCE):
            while chunk := await self._chunk():
                self._buffer += chunk
        taken, self._buffer = self._buffer, b""
        return taken

    def break_off(self) -> None:
        """Close by a TCP reset."""
        self.raw.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.raw.close()

    # The upgrade

    async def propose(self) -> None:
        """Agree on Noise."""
        await self.send(NOISE)
        assert await self.read(len(NOISE)) == NOISE

    async def shake(self, handshake: NoiseHandshake) -> bytes:
        """Exchange the first two messages; return the third one, unsent."""
        await self.send(handshake.data_to_send())
        length = await self.read(LENGTH.size)
        handshake.receive_data(length + await self.read(*LENGTH.unpack(length)))
        return handshake.data_to_send()

    async def secure(self, **options) -> bytes:
        """Agree on Noise and a session; return the third message, unsent."""
        await self.propose()
        handshake = noise_handshake(self.key, **options)
        third = await self.shake(handshake)
        self.session = handshake.result.session
        return third

    # Noise

    def sealed(self, plaintext: bytes) -> bytes:
        """Records that hold the plaintext."""
        starts = range(0, len(plaintext), MAX_PLAINTEXT)
        return b"".join(
            self.session.seal(plaintext[start : start + MAX_PLAINTEXT]) for start in starts
        )

    async def say(self, *plaintexts: bytes) -> None:
        """Send plaintext, of yamux or what comes before it, inside records."""
        await self.send(self.sealed(b"".join(plaintexts)))

    async def plaintext(self) -> bytes:
        """Receive until there is plaintext; empty at the connection's end."""
        while True:
            chunk, self._buffer = self._buffer, b""
            with anyio.fail_after(PATIENCE):
                chunk = chunk or await self._chunk()
            if not chunk:
                return b""
            if records := self.session.receive_data(chunk):
                return b"".join(records)

    # Yamux

    async def frame(self) -> Frame | None:
        """Receive the next frame; None once the connection has ended."""
        while (frame := self._next_frame()) is None:
            if not (received := await self.plaintext()):
                return None
            self._frames += received
        return frame

    async def until(self, condition: Callable[[Frame], object]) -> Frame:
        """Receive up to the first frame that fulfils the condition."""
        while (frame := await self.frame()) is not None:
            if condition(frame):
                return frame
        raise AssertionError("the connection ended before such a frame")

    async def outcome(self, stream_id: int) -> tuple[bytes, Frame]:
        """Receive a stream to its end; return its bytes and the frame that ended it."""
        body = b""
        while (frame := await self.frame()) is not None:
            if frame.stream_id == stream_id and frame.kind <= WINDOW_UPDATE:
                body += frame.body
                if frame.flags & (FIN | RST):
                    return body, frame
        raise AssertionError("the connection ended before the stream")

    async def last_frame(self) -> Frame | None:
        """Receive until the connection ends and return the last frame."""
        last = None
        while (frame := await self.frame()) is not None:
            last = frame
        return last

    async def agree(self, stream_id: int, protocol: str, first: bytes = b"") -> None:
        """Open a stream and wait until its protocol is agreed."""
        asked = proposal(protocol)
        await self.say(data(stream_id, asked + first, SYN))
        answer = b""
        while len(answer) < len(asked):
            frame = await self.until(lambda frame: frame.stream_id == stream_id)
            assert not frame.flags & RST
            answer += frame.body
        assert answer.startswith(asked)

    async def _chunk(self) -> bytes:
        try:
            return await self.raw.receive()
        except (anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError):
            return b""

    def _next_frame(self) -> Frame | None:
        if len(self._frames) < FRAME_HEADER.size:
            return None
        _, kind, flags, stream_id, length = FRAME_HEADER.unpack_from(self._frames)
        end = FRAME_HEADER.size + (length if kind == DATA else 0)
        if len(self._frames) < end:
            return None
        body = self._frames[FRAME_HEADER.size : end]
        self._frames = self._frames[end:]
        return Frame(kind, flags, stream_id, length, body)


@asynccontextmanager
async def connected(address: Multiaddr, key: PrivateKey | None = None) -> AsyncIterator[Attacker]:
    """Lend a TCP connection."""
    raw = await TcpTransport().dial_raw(address.without_peer())
    try:
        yield Attacker(raw, key or PrivateKey.generate())
    finally:
        raw.close()


@asynccontextmanager
async def upgraded(address: Multiaddr, key: PrivateKey | None = None) -> AsyncIterator[Attacker]:
    """Lend a connection that is upgraded as it should be."""
    async with connected(address, key) as attacker:
        await attacker.send(await attacker.secure())
        # The victim measures the round trip as soon as the connection stands.
        await attacker.until(lambda frame: frame.kind == PING)
        yield attacker


async def fill(victim: Victim, attacker: Attacker, state: StreamState) -> None:
    """Send on a stream until nobody takes it there, and its window is as good as used up."""
    while state.granted >= CHUNK:
        received = state.bytes_received + CHUNK
        await attacker.say(data(state.id, bytes(CHUNK)))
        await victim.until(lambda: state.bytes_received == received)  # noqa: B023
        # Meanwhile the handler has had its turns.
        await victim.echo()
