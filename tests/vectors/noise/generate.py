"""Writes xx.json with another implementation of Noise; run it by hand.

    pip install noiseprotocol==0.3.1 cryptography
    python tests/vectors/noise/generate.py > tests/vectors/noise/xx.json

Nothing of isthmus is used: the payloads are put together here, byte by byte.
"""

from __future__ import annotations

import json
import sys
import warnings

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from noise.connection import Keypair, NoiseConnection

CASES = {
    "both name yamux": (b"", ["/yamux/1.0.0"], ["/yamux/1.0.0"], "/yamux/1.0.0"),
    "neither names a muxer": (b"", [], [], None),
    "the listener names none": (b"", ["/yamux/1.0.0"], [], None),
    "they have none in common": (b"", ["/yamux/1.0.0"], ["/mplex/6.7.0"], None),
    "the dialer's order counts": (b"", ["/a", "/b", "/c"], ["/c", "/b"], "/b"),
    "with a prologue": (b"libp2p-webrtc-noise:\x12\x20" + bytes(range(32)), [], [], None),
}
PLAINTEXTS = [b"a", b"isthmus", bytes(range(256))]


def field(number: int, body: bytes) -> bytes:
    length = len(body)
    prefix = bytes([length]) if length < 128 else bytes([length & 127 | 128, length >> 7])
    return bytes([number << 3 | 2]) + prefix + body


def payload(identity: bytes, static: bytes, muxers: list[str]) -> bytes:
    signer = Ed25519PrivateKey.from_private_bytes(identity)
    public = X25519PrivateKey.from_private_bytes(static).public_key().public_bytes_raw()
    key = b"\x08\x01\x12\x20" + signer.public_key().public_bytes_raw()
    encoded = field(1, key) + field(2, signer.sign(b"noise-libp2p-static-key:" + public))
    if muxers:
        encoded += field(4, b"".join(field(2, muxer.encode()) for muxer in muxers))
    return encoded


def framed(message: bytes) -> bytes:
    return len(message).to_bytes(2, "big") + message


def party(number: int, muxers: list[str]) -> dict[str, object]:
    return {
        "identity": bytes([number] * 32),
        "static": bytes([number + 0x10] * 32),
        "ephemeral": bytes([number + 0x20] * 32),
        "muxers": muxers,
    }


def start(side: dict, prologue: bytes, *, initiator: bool) -> NoiseConnection:
    noise = NoiseConnection.from_name(b"Noise_XX_25519_ChaChaPoly_SHA256")
    noise.set_as_initiator() if initiator else noise.set_as_responder()
    noise.set_prologue(prologue)
    noise.set_keypair_from_private_bytes(Keypair.STATIC, side["static"])
    noise.set_keypair_from_private_bytes(Keypair.EPHEMERAL, side["ephemeral"])
    noise.start_handshake()
    return noise


def case(name: str) -> dict[str, object]:
    prologue, dialer_muxers, listener_muxers, agreed = CASES[name]
    dialer, listener = party(1, dialer_muxers), party(2, listener_muxers)
    initiator = start(dialer, prologue, initiator=True)
    responder = start(listener, prologue, initiator=False)
    proofs = [payload(s["identity"], s["static"], s["muxers"]) for s in (dialer, listener)]
    messages = [bytes(initiator.write_message(b""))]
    responder.read_message(messages[0])
    messages.append(bytes(responder.write_message(proofs[1])))
    initiator.read_message(messages[1])
    messages.append(bytes(initiator.write_message(proofs[0])))
    responder.read_message(messages[2])
    assert initiator.get_handshake_hash() == responder.get_handshake_hash()
    return {
        "name": name,
        "prologue": prologue,
        "dialer": dialer,
        "listener": listener,
        "muxer": agreed,
        "messages": [framed(message) for message in messages],
        "handshake_hash": bytes(initiator.get_handshake_hash()),
        "plaintexts": PLAINTEXTS,
        "from_dialer": [framed(bytes(initiator.encrypt(text))) for text in PLAINTEXTS],
        "from_listener": [framed(bytes(responder.encrypt(text))) for text in PLAINTEXTS],
    }


def main() -> None:
    warnings.simplefilter("ignore")
    json.dump([case(name) for name in CASES], sys.stdout, indent=1, default=bytes.hex)
    sys.stdout.write("\n")


if __name__ == "__main__":
    main()
