"""Strangers at a node's WebSocket, at every layer below Noise: they harm nobody."""

from __future__ import annotations

import random
from contextlib import asynccontextmanager

import anyio
import pytest
from isthmus import Node
from isthmus.transports.core.errors import HandshakeError
from isthmus.transports.core.multiaddr import Multiaddr
from isthmus.transports.websocket.config import WebSocketConfig
from isthmus.transports.websocket.transport import WebSocketTransport

from ..transports.websocket.wire import BINARY, CLOSE, CONT, PING, REQUEST, TEXT, frame
from .attacker import NOISE, connected
from .victim import ECHO, LOOPBACK, attacked

REASONS = (HandshakeError, TimeoutError, anyio.EndOfStream, anyio.BrokenResourceError)
LOGGER = "isthmus.transports.websocket.transport"
HANDSHAKE_TIMEOUT = 0.4
"""Seconds that a stranger has for the HTTP upgrade."""
PENDING = 16
"""Handshakes under way at once."""
SLACK = 1.0
"""Seconds that a busy machine may add to a timeout."""


@asynccontextmanager
async def attacked_websocket(**settings):
    """Lend a node on /ws, its listener below the upgrade, and where TCP leads to it."""
    raw = WebSocketTransport(WebSocketConfig(**settings))
    async with attacked(raw=raw, listen=f"{LOOPBACK}/ws") as victim:
        place = Multiaddr(victim.address.components[:2])
        yield victim, victim.listener._raw, place
        await victim.until(lambda: not victim.listener._raw.pending)


@asynccontextmanager
async def stranger(place):
    """Lend a TCP connection that is past the HTTP upgrade."""
    async with connected(place) as attacker:
        await attacker.send(REQUEST)
        while not attacker._buffer.endswith(b"\r\n\r\n"):
            attacker._buffer += await attacker.raw.receive()
        attacker._buffer = b""
        yield attacker


GREETINGS = {
    "end": b"",
    "zeros": bytes(64),
    "noise": NOISE,
    "tls": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(508),
    "half a request": REQUEST[:-2],
    "a browser": b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "a post": b"POST / HTTP/1.1\r\nContent-Length: 9\r\n\r\n" + bytes(9),
    "a mebibyte": b"GET / HTTP/1.1\r\nX: " + b"x" * 2**20,
    "lines": b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 10_000,
    "smuggled": REQUEST.replace(b"Upgrade: websocket\r\n", b"") + REQUEST,
}


@pytest.mark.parametrize("name", GREETINGS)
async def test_a_stranger_that_does_not_upgrade(name):
    async with attacked_websocket(handshake_timeout=HANDSHAKE_TIMEOUT) as (victim, below, place):
        async with connected(place) as attacker:
            await attacker.attempt(GREETINGS[name])
            answer = await attacker.read_to_end()
        assert len(answer) < 700
        await victim.until(lambda: below.failed == 1)
        (error,) = victim._log.errors(LOGGER)
        assert isinstance(
            error, (HandshakeError, TimeoutError, anyio.EndOfStream, anyio.BrokenResourceError)
        )


MESSAGES = {
    "text": frame(TEXT, b"hello"),
    "unmasked": frame(BINARY, NOISE, mask=None),
    "huge": b"\x82\xff" + b"\x7f" * 8,
    "a reserved bit": frame(BINARY, NOISE, bits=0x40),
    "garbage": frame(BINARY, b"\xff" * 64),
    "a close": frame(CLOSE, b"\x03\xe8"),
    "noise and a close": frame(BINARY, NOISE) + frame(CLOSE),
    "noise and text": frame(BINARY, NOISE) + frame(TEXT, b"x"),
    "pings alone": frame(PING, bytes(125)) * 500 + frame(CLOSE),
    "empty parts": frame(BINARY, fin=False) + frame(CONT, fin=False) * 50_000,
}


@pytest.mark.parametrize("name", MESSAGES)
async def test_a_stranger_that_upgrades_and_then_breaks_the_rules(name):
    async with attacked_websocket() as (victim, below, place):
        async with stranger(place) as attacker:
            await attacker.attempt(MESSAGES[name])
            await attacker.read_to_end()
        await victim.settled()
        assert victim.listener.failed == 1
        assert not below.failed


async def test_strangers_that_take_their_time():
    async with attacked_websocket(
        handshake_timeout=HANDSHAKE_TIMEOUT, max_pending_handshakes=PENDING
    ) as (victim, below, place):
        started = anyio.current_time()
        async with anyio.create_task_group() as tasks:

            async def wait(said: bytes) -> None:
                async with connected(place) as attacker:
                    await attacker.send(said)
                    assert await attacker.read_to_end() == b""

            for number in range(PENDING + 5):
                tasks.start_soon(wait, REQUEST[: number * 7])
            await victim.until(lambda: below.refused >= 5)
            assert below.pending <= PENDING
            await victim.echo()
        assert anyio.current_time() - started < HANDSHAKE_TIMEOUT + 1 + SLACK
        await victim.until(lambda: not below.pending)
        async with Node() as other:
            assert await other.request(victim.node.addresses, ECHO, b"in") == b"in"


BEGINNINGS = [b"", b"GET / HTTP/1.1\r\n", REQUEST, REQUEST + frame(BINARY, NOISE)]


async def test_random_bytes_of_strangers(seed, scaled):
    chance = random.Random(seed)
    async with attacked_websocket(handshake_timeout=HANDSHAKE_TIMEOUT) as (victim, _, place):
        for _ in range(scaled(200)):
            async with connected(place) as attacker:
                said = chance.choice(
                    [b"", b"GET / HTTP/1.1\r\n", REQUEST, REQUEST + frame(BINARY, NOISE)]
                )
                await attacker.attempt(said + chance.randbytes(chance.choice([1, 9, 99, 9999])))
                await attacker.read_to_end()
        await victim.settled()
