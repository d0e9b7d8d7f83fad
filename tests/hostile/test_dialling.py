"""A node that dials the wrong one: the dial fails for a typed reason, and nothing else does."""

from __future__ import annotations

import secrets
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import anyio
import pytest
from isthmus import PrivateKey
from isthmus.node.events import ConnectionEnded, DialFailed
from isthmus.transports.core.errors import (
    DialError,
    DialTimeout,
    NegotiationError,
    NoiseError,
    PeerIdMismatch,
    RemoteProtocolError,
)
from isthmus.transports.core.interfaces import Side
from isthmus.transports.core.multiaddr import Multiaddr
from isthmus.transports.core.peer_id import PeerId
from isthmus.transports.multistream import HEADER, negotiate_listener
from isthmus.transports.noise.driver import secure
from isthmus.transports.noise.machine import NoiseHandshake, StaticKey
from isthmus.transports.noise.wire import MAX_MESSAGE
from isthmus.transports.tcp import TcpTransport
from isthmus.transports.upgrade import UpgradeConfig

from ..transports.yamux.frames import SYN, data, update
from .attacker import NOISE, framed, line
from .victim import LOOPBACK, attacked

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from anyio.abc import ByteStream

    from .victim import Victim

KEY = PrivateKey.from_seed(b"\x07" * 32)
STATIC = StaticKey.generate(KEY)
DIAL_TIMEOUT = 0.3
"""Seconds for a dial where time has to run out."""

QUICK = UpgradeConfig(dial_timeout=DIAL_TIMEOUT)


def handshake(static: StaticKey = STATIC) -> NoiseHandshake:
    return NoiseHandshake(Side.LISTENER, static, ephemeral=secrets.token_bytes(32))


async def say(stream: ByteStream, said: bytes) -> None:
    """Say it, and read until the dialer has gone."""
    await stream.send(said)
    await drain(stream)


async def drain(stream: ByteStream) -> None:
    try:
        while True:
            await stream.receive()
    except (anyio.EndOfStream, anyio.BrokenResourceError):
        await stream.aclose()


async def hang_up(stream: ByteStream) -> None:
    await stream.aclose()


async def say_nothing(stream: ByteStream) -> None:
    await drain(stream)


async def say_zeros(stream: ByteStream) -> None:
    await say(stream, bytes(5000))


async def speak_http(stream: ByteStream) -> None:
    await say(stream, b"HTTP/1.1 400 Bad Request\r\n\r\n" * 10)


async def refuse(stream: ByteStream) -> None:
    await say(stream, line(HEADER) + line("na"))


async def choose_another(stream: ByteStream) -> None:
    await say(stream, line(HEADER) + line("/tls/1.0.0"))


async def say_half(stream: ByteStream) -> None:
    await say(stream, NOISE[:-1])


async def shake_with_zeros(stream: ByteStream) -> None:
    await say(stream, NOISE + framed(bytes(200)))


async def shake_with_too_much(stream: ByteStream) -> None:
    await say(stream, NOISE + framed(b"\x09" * MAX_MESSAGE))


async def shake_with_too_little(stream: ByteStream) -> None:
    await say(stream, NOISE + framed(bytes(95)))


async def forge(stream: ByteStream) -> None:
    """Sign another static key than the one in use."""
    _, trailing = await negotiate_listener(stream, "/noise".__eq__)
    forged = StaticKey.generate(KEY)
    forged.identity_sig = STATIC.identity_sig
    shaking = handshake(forged)
    shaking.receive_data(trailing)
    await say(stream, shaking.data_to_send())


async def be_another(stream: ByteStream) -> None:
    """Upgrade as one should, with an identity of one's own."""
    _, trailing = await negotiate_listener(stream, "/noise".__eq__)
    shaking = handshake()
    shaking.receive_data(trailing)
    await say(stream, shaking.data_to_send())


WRONG = {
    hang_up: (NegotiationError, DialError),
    say_nothing: (DialTimeout,),
    say_zeros: (RemoteProtocolError,),
    speak_http: (RemoteProtocolError,),
    refuse: (NegotiationError,),
    choose_another: (RemoteProtocolError,),
    say_half: (DialTimeout,),
    shake_with_zeros: (NoiseError,),
    shake_with_too_much: (NoiseError,),
    shake_with_too_little: (NoiseError,),
    forge: (NoiseError,),
    be_another: (PeerIdMismatch,),
}


@asynccontextmanager
async def listening(behave) -> AsyncIterator[Multiaddr]:
    """Lend the address of somebody who behaves like this to all who come."""
    listener = await TcpTransport().listen_raw(Multiaddr.parse(LOOPBACK))

    async def serve(stream: ByteStream, _: Multiaddr) -> None:
        try:
            await behave(stream)
        finally:
            stream.close()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, serve)
        yield listener.addresses[0]
        await listener.aclose()


@pytest.mark.parametrize("behave", WRONG)
async def test_a_dial_that_leads_to_the_wrong_one(behave):
    expected = PeerId.from_public_key(PrivateKey.generate().public_key)
    async with attacked(upgrade=QUICK) as victim:
        async with listening(behave) as address:
            with pytest.raises(DialError) as caught:
                await victim.node.connect(address.with_peer(expected))
            (attempt,) = caught.value.attempts
            assert isinstance(attempt.cause, WRONG[behave]), attempt.cause
            assert attempt.duration < DIAL_TIMEOUT + 1
        await victim.event(DialFailed, expected)
        assert len(victim.node.peers) == 1


async def test_listeners_that_break_the_protocol():
    async with attacked(upgrade=QUICK) as victim, anyio.create_task_group() as tasks:
        for said in (b"\xff" * 12, data(1, b"x", SYN), update(0, 1)):
            tasks.start_soon(dial_a_breach, victim, said)


async def dial_a_breach(victim: Victim, said: bytes) -> None:
    static = StaticKey.generate(PrivateKey.generate())

    async def break_it(stream: ByteStream) -> None:
        _, trailing = await negotiate_listener(stream, "/noise".__eq__)
        session = (await secure(stream, handshake(static), trailing=trailing)).session
        await say(stream, session.seal(said))

    async with listening(break_it) as address:
        connection = await victim.node.connect(address)
        ended = await victim.event(ConnectionEnded, connection.remote_peer)
        assert ended.remote is False
        await victim.until(lambda: connection not in victim.node.connections)
