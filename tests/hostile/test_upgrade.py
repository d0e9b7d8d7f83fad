"""What a stranger may do before its connection stands: it is dropped, for a typed reason."""

from __future__ import annotations

import random
import re
from typing import TYPE_CHECKING

import anyio
import pytest
from isthmus import Node, PrivateKey
from isthmus.node.events import ConnectionEnded
from isthmus.transports.core.errors import NegotiationError, NoiseError, RemoteProtocolError
from isthmus.transports.multistream import HEADER, MAX_FRAME, MAX_PROPOSALS
from isthmus.transports.noise.machine import NoiseHandshake, StaticKey
from isthmus.transports.noise.wire import (
    MAX_MESSAGE,
    SIGNATURE_PREFIX,
    NoiseExtensions,
    NoiseHandshakePayload,
)

from ..transports.yamux.frames import SYN, update
from .attacker import NOISE, connected, framed, line, noise_handshake, proposal
from .victim import attacked

if TYPE_CHECKING:
    from .victim import Victim

YAMUX = "/yamux/1.0.0"
ENDED = "before a protocol|end of stream"
NO_AGREEMENT = (RemoteProtocolError, NegotiationError)


async def refused(
    victim: Victim, kind: type[Exception] | tuple[type[Exception], ...], why: str
) -> None:
    """See that the victim has dropped its one stranger for this reason."""
    await victim.settled()
    assert victim.listener.failed == 1
    (error,) = victim.failed_upgrades
    assert isinstance(error, kind)
    assert re.search(why, str(error)), error


# Below Noise

GREETINGS = {
    "end": (b"", ENDED),
    "zeros": (bytes(64), "line break"),
    "ones": (b"\xff" * 64, "varint"),
    "http": (b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", ENDED),
    "tls": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(508), "line break"),
    "ssh": (b"SSH-2.0-OpenSSH_9.6\r\n" * 8, "where /multistream"),
    "another version": (line("/multistream/2.0.0") + line("/noise"), "/multistream/2"),
    "the proposal first": (line("/noise") + line(HEADER), "'/noise' where"),
    "half a frame": (line(HEADER)[:-4], ENDED),
    "half a length": (b"\x80", ENDED),
    "the header alone": (line(HEADER), ENDED),
    "no line break": (line(HEADER) + b"\x06/noise", "line break"),
    "an empty frame": (line(HEADER) + b"\x00", "line break"),
    "not UTF-8": (line(HEADER) + b"\x04\xff\xfe\xfd\n", "UTF-8"),
    "an oversized frame": (line(HEADER) + line("/" + "x" * MAX_FRAME), "1026 bytes"),
    "an endless length": (line(HEADER) + b"\xff\xff\xff\xff\xff\xff\x01", "varint"),
    "a mebibyte": (line(HEADER) + b"\x7f" * 2**20, "line break"),
    "33 proposals": (line(HEADER) + line("/tls/1.0.0") * (MAX_PROPOSALS + 1), "32 proposals"),
    "ls for ever": (line(HEADER) + line("ls") * (MAX_PROPOSALS + 1), "32 proposals"),
}


@pytest.mark.parametrize("name", GREETINGS)
async def test_a_stranger_that_cannot_negotiate(name):
    said, why = GREETINGS[name]
    async with attacked() as victim:
        async with connected(victim.address) as attacker:
            await attacker.attempt(said)
            await attacker.read_to_end()
        await refused(victim, NO_AGREEMENT, why)


async def test_strangers_that_break_off():
    async with attacked() as victim:
        for said in (b"", NOISE[:5], NOISE):
            async with connected(victim.address) as attacker:
                await attacker.send(said)
                if said == NOISE:
                    await attacker.read(1)
                attacker.break_off()
            await victim.settled()
        await victim.until(lambda: victim.listener.failed == 3)
        assert all(isinstance(each, anyio.BrokenResourceError) for each in victim.failed_upgrades)


async def test_random_bytes_of_strangers(seed, scaled):
    chance = random.Random(seed)
    count = scaled(400)
    async with attacked() as victim:
        for _ in range(count):
            async with connected(victim.address) as attacker:
                prefix = chance.choice([b"", line(HEADER), NOISE, NOISE + b"\x00\x20"])
                await attacker.attempt(prefix + chance.randbytes(chance.choice([1, 9, 99, 9999])))
                await attacker.read_to_end()
        await victim.settled()
        assert victim.listener.failed == len(victim.failed_upgrades) == count


# The Noise handshake


FIRST_MESSAGES = {
    "end": (b"", "during the Noise handshake"),
    "half a length": (b"\x00", "during the Noise handshake"),
    "truncated": (framed(bytes(32))[:-1], "during the Noise handshake"),
    "empty": (framed(b""), "of 0 bytes"),
    "too short": (framed(bytes(31)), "of 31 bytes"),
    "too long": (framed(bytes(33)), "of 33 bytes"),
    "oversized": (framed(bytes(MAX_MESSAGE)), "of 65535 bytes"),
    "of low order": (framed(bytes(32)), "low order"),
    "twice": (framed(b"\x09" + bytes(31)) * 2, "of 32 bytes"),
    "then garbage": (framed(b"\x09" + bytes(31)) + framed(bytes(96)), "does not authenticate"),
    "then oversized garbage": (
        framed(b"\x09" + bytes(31)) + framed(bytes(MAX_MESSAGE)),
        "does not authenticate",
    ),
}


@pytest.mark.parametrize("name", FIRST_MESSAGES)
async def test_a_wrong_first_message(name):
    said, why = FIRST_MESSAGES[name]
    async with attacked() as victim:
        async with connected(victim.address) as attacker:
            await attacker.attempt(NOISE + said)
            await attacker.read_to_end()
        await refused(victim, NoiseError, why)


def flip(message: bytes, position: int) -> bytes:
    changed = bytearray(message)
    changed[position] ^= 1
    return bytes(changed)


THIRD_MESSAGES = {
    "nothing": (lambda _: b"", "during the Noise handshake"),
    "truncated": (lambda third: third[:-1], "during the Noise handshake"),
    "shortened": (lambda third: framed(third[2:-1]), "does not authenticate"),
    "lengthened": (lambda third: framed(third[2:] + b"\x00"), "does not authenticate"),
    "another static key": (lambda third: flip(third, 2), "does not authenticate"),
    "another tag": (lambda third: flip(third, 2 + 32), "does not authenticate"),
    "another payload": (lambda third: flip(third, 2 + 48), "does not authenticate"),
    "another last byte": (lambda third: flip(third, -1), "does not authenticate"),
    "in another order": (
        lambda third: framed(third[2 + 48 :] + third[2 : 2 + 48]),
        "does not authenticate",
    ),
    "the least": (lambda _: framed(bytes(64)), "does not authenticate"),
    "less": (lambda _: framed(bytes(63)), "of 63 bytes"),
}


@pytest.mark.parametrize("name", THIRD_MESSAGES)
async def test_a_wrong_third_message(name):
    change, why = THIRD_MESSAGES[name]
    async with attacked() as victim:
        async with connected(victim.address) as attacker:
            await attacker.attempt(change(await attacker.secure()))
            await attacker.read_to_end()
        await refused(victim, NoiseError, why)


class Liar(NoiseHandshake):
    """Vouches for its static key by another payload, or tells another key."""

    payload = b""
    told: bytes | None = None

    def _write_identity(self) -> bytes:
        static = self._symmetric.encrypt(self.told or self._static.public)
        self._mix(self._static.private, self._remote_ephemeral)
        return static + self._symmetric.encrypt(self.payload)


def payload(key: bytes, signature: bytes, *muxers: str) -> bytes:
    extensions = NoiseExtensions(stream_muxers=muxers)
    return NoiseHandshakePayload(
        identity_key=key, identity_sig=signature, extensions=extensions
    ).encode()


OWN, OTHER = PrivateKey.from_seed(b"\x01" * 32), PrivateKey.from_seed(b"\x02" * 32)
STATIC = StaticKey.generate(OWN)
OWN_KEY, OTHER_KEY = OWN.public_key.to_protobuf(), OTHER.public_key.to_protobuf()
SIGNATURE = STATIC.identity_sig
OVER_ANOTHER = OWN.sign(SIGNATURE_PREFIX + bytes(32))

IDENTITIES = {
    "nothing": (b"", "cannot be used"),
    "no protobuf": (b"\xff" * 64, "does not parse"),
    "oversized": (b"\x0a\xff\xff\x03" + bytes(65_400), "does not parse"),
    "no signature": (payload(OWN_KEY, b""), "did not sign"),
    "a signature of zeros": (payload(OWN_KEY, bytes(64)), "did not sign"),
    "a signature of another": (payload(OWN_KEY, OTHER.sign(STATIC.public)), "did not sign"),
    "without its domain": (payload(OWN_KEY, OWN.sign(STATIC.public)), "did not sign"),
    "over another static key": (payload(OWN_KEY, OVER_ANOTHER), "did not sign"),
    "another's identity": (payload(OTHER_KEY, SIGNATURE), "did not sign"),
    "no key": (payload(b"", SIGNATURE), "cannot be used"),
    "no type": (payload(b"\x08\x09\x12\x01x", SIGNATURE), "cannot be used"),
    "off the curve": (payload(b"\x08\x02\x12\x21\x02" + b"\xff" * 32, b""), "cannot be used"),
    "a huge RSA key": (payload(b"\x08\x00\x12\xe0\xd4\x03" + bytes(60_000), b""), "cannot be used"),
    "101 muxers": (payload(OWN_KEY, SIGNATURE, *["/x"] * 101), "more than 100"),
}


@pytest.mark.parametrize("name", IDENTITIES)
async def test_a_forged_identity(name):
    told, why = IDENTITIES[name]
    async with attacked() as victim:
        async with connected(victim.address) as attacker:
            await attacker.propose()
            handshake = noise_handshake(OWN, static=STATIC, kind=Liar)
            handshake.payload = told
            await attacker.send(await attacker.shake(handshake))
            await attacker.read_to_end()
        await refused(victim, NoiseError, why)


async def test_a_static_key_of_low_order():
    async with attacked() as victim:
        async with connected(victim.address) as attacker:
            await attacker.propose()
            handshake = noise_handshake(OWN, static=STATIC, kind=Liar)
            handshake.told = bytes(32)
            await attacker.send(await attacker.shake(handshake))
            await attacker.read_to_end()
        await refused(victim, NoiseError, "low order")


# Between Noise and Yamux

MUXERS = {
    "end": (b"", NO_AGREEMENT, ENDED),
    "garbage": (b"\xff" * 9, RemoteProtocolError, "varint"),
    "no muxer": (line(HEADER) + line("/mplex/6.7.0") * 33, RemoteProtocolError, "32 proposals"),
    "no negotiation": (update(1, 0, SYN), RemoteProtocolError, "line break"),
}


@pytest.mark.parametrize("name", MUXERS)
async def test_no_muxer_agreed(name):
    said, kind, why = MUXERS[name]
    async with attacked() as victim:
        async with connected(victim.address) as attacker:
            third = await attacker.secure(muxers=())
            await attacker.attempt(third + attacker.sealed(said))
            await attacker.read_to_end()
        await refused(victim, kind, why)


RECORDS = {
    "garbage": (lambda _: framed(bytes(40)), "does not authenticate"),
    "an empty one": (lambda _: framed(b""), "does not authenticate"),
    "changed": (lambda record: flip(record, -1), "does not authenticate"),
    "not the first": (lambda record: record[len(record) // 2 :], "does not authenticate"),
}


@pytest.mark.parametrize("muxers", [(), (YAMUX,)])
@pytest.mark.parametrize("name", RECORDS)
async def test_records_right_behind_the_handshake(name, muxers):
    """They come with the last message, before there is a connection to close."""
    change, why = RECORDS[name]
    async with attacked() as victim:
        async with connected(victim.address) as attacker:
            third = await attacker.secure(muxers=muxers)
            records = attacker.sealed(proposal(YAMUX)) + attacker.sealed(proposal(YAMUX))
            await attacker.attempt(third + change(records))
            await attacker.read_to_end()
        await refused(victim, NoiseError, why)


async def test_yamux_garbage_right_behind_the_handshake():
    async with attacked() as victim:
        async with connected(victim.address) as attacker:
            third = await attacker.secure()
            await attacker.attempt(third + attacker.sealed(b"\x01" * 12))
            assert (await attacker.last_frame()).length == 1
            ended = await victim.event(ConnectionEnded, attacker.peer_id)
        assert ended.remote is False
        assert "yamux version 1" in ended.reason
        assert victim.failed_upgrades == []


async def test_an_honest_peer_comes_in_beside_strangers():
    async with attacked() as victim:
        for name in ("zeros", "http", "33 proposals"):
            async with connected(victim.address) as attacker:
                await attacker.attempt(GREETINGS[name][0])
                async with Node() as other:
                    connection = await other.connect(victim.node.addresses)
                    assert await connection.probe() > 0
                await attacker.read_to_end()
