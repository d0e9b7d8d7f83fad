"""Parties of a handshake with fixed keys, and the ways to feed a machine."""

from __future__ import annotations

from isthmus.transports.core.interfaces import Side
from isthmus.transports.core.keys import PrivateKey
from isthmus.transports.core.peer_id import PeerId
from isthmus.transports.noise.machine import NoiseHandshake, NoiseSession, StaticKey
from isthmus.transports.noise.wire import LENGTH

IDENTITIES = {side: PrivateKey.from_seed(bytes([side + 1] * 32)) for side in Side}
STATICS = {
    side: StaticKey.from_bytes(bytes([side + 0x11] * 32), identity)
    for side, identity in IDENTITIES.items()
}
IDS = {side: PeerId.from_public_key(key.public_key) for side, key in IDENTITIES.items()}

KEY_A, KEY_B = b"a" * 32, b"b" * 32


def handshake(side: Side, **options) -> NoiseHandshake:
    """A handshake with the side's keys, unless `options` say otherwise."""
    static = options.pop("static", STATICS[side])
    ephemeral = options.pop("ephemeral", bytes([side + 0x21] * 32))
    return NoiseHandshake(side, static, ephemeral=ephemeral, **options)


def shake(dialer: NoiseHandshake, listener: NoiseHandshake) -> list[bytes]:
    """Carry the three messages over, and return them."""
    messages = [dialer.data_to_send()]
    listener.receive_data(messages[0])
    messages.append(listener.data_to_send())
    dialer.receive_data(messages[1])
    messages.append(dialer.data_to_send())
    listener.receive_data(messages[2])
    return messages


def waiting_for(number: int) -> tuple[NoiseHandshake, bytes]:
    """A machine that waits for message 1, 2 or 3, and that message."""
    dialer, listener = handshake(Side.DIALER), handshake(Side.LISTENER)
    first = dialer.data_to_send()
    if number == 1:
        return listener, first
    listener.receive_data(first)
    second = listener.data_to_send()
    if number == 2:
        return dialer, second
    dialer.receive_data(second)
    return listener, dialer.data_to_send()


def sessions() -> tuple[NoiseSession, NoiseSession]:
    """Both ends of a session."""
    return NoiseSession(KEY_A, KEY_B), NoiseSession(KEY_B, KEY_A)


def framed(message: bytes) -> bytes:
    """A message behind its length."""
    return LENGTH.pack(len(message)) + message
