"""Identity keys: verifying those of every libp2p peer, signing with an Ed25519 one of our own.

The serialised form is the protobuf of libp2p's peer-ids specification. It is hashed into peer ids
and signed, so exactly one encoding of a key is accepted.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from hmac import compare_digest
from typing import TYPE_CHECKING, assert_never

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from .errors import ConfigError, LocalProtocolError, RemoteProtocolError
from .varint import decode_varint, length_prefixed

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

__all__ = ["KeyType", "PrivateKey", "PublicKey"]

MAX_KEY_DATA = 2048
"""Bytes: an RSA key of 8192 bits takes 1,062."""

MIN_RSA_BITS, MAX_RSA_BITS = 2048, 8192
"""What go-libp2p accepts: below it is breakable, above it costs the verifier too much time."""

_SEED_SIZE = 32
_ECDSA_CURVES = ("secp256r1", "secp384r1", "secp521r1")


class KeyType(IntEnum):
    """The key types of libp2p's peer-ids specification."""

    RSA = 0
    ED25519 = 1
    SECP256K1 = 2
    ECDSA = 3


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A peer's public key: its type and the type's own encoding of it, which is checked.

    Raises RemoteProtocolError when made of data that is not such a key in canonical form.
    """

    type: KeyType
    data: bytes

    def __post_init__(self) -> None:
        if len(self.data) > MAX_KEY_DATA:
            raise RemoteProtocolError(f"a public key of {len(self.data)} bytes is too long")
        try:
            self._check()
        except (ValueError, UnsupportedAlgorithm):
            raise RemoteProtocolError(f"not a public key of type {self.type.name}") from None

    @classmethod
    def from_protobuf(cls, data: bytes) -> PublicKey:
        """Parse the serialised form; raises RemoteProtocolError unless it is the canonical one."""
        return cls(*_split(data))

    def to_protobuf(self) -> bytes:
        """Return the serialised form, as received: what is hashed into the peer id."""
        return _join(self.type, self.data)

    def verify(self, message: bytes, signature: bytes) -> bool:
        """Say whether `signature` over `message` is this key's; S of an ECDSA one may be high."""
        try:
            self._verify(message, signature)
        except InvalidSignature:
            return False
        return True

    def _check(self) -> None:
        match self.type:
            case KeyType.ED25519:
                Ed25519PublicKey.from_public_bytes(self.data)
            case KeyType.SECP256K1:
                _load_secp256k1(self.data)
            case KeyType.ECDSA:
                _load_ecdsa(self.data)
            case KeyType.RSA:
                _load_rsa(self.data)
            case _:
                assert_never(self.type)

    def _verify(self, message: bytes, signature: bytes) -> None:
        if self.type is KeyType.ED25519:
            Ed25519PublicKey.from_public_bytes(self.data).verify(signature, message)
            return
        # Loaded only here: few peers have such keys, and every start would pay for the import.
        from cryptography.hazmat.primitives.asymmetric import ec, padding
        from cryptography.hazmat.primitives.hashes import SHA256

        if self.type is KeyType.RSA:
            _load_rsa(self.data).verify(signature, message, padding.PKCS1v15(), SHA256())
            return
        load = _load_secp256k1 if self.type is KeyType.SECP256K1 else _load_ecdsa
        load(self.data).verify(signature, message, ec.ECDSA(SHA256()))


class PrivateKey:
    """An Ed25519 identity; it never shows its secret in a text."""

    __slots__ = ("_key", "_seed", "public_key")

    def __init__(self, seed: bytes) -> None:
        if len(seed) != _SEED_SIZE:
            raise ConfigError(f"an Ed25519 seed has {_SEED_SIZE} bytes, not {len(seed)}")
        self._seed = bytes(seed)
        self._key = Ed25519PrivateKey.from_private_bytes(self._seed)
        self.public_key = PublicKey(KeyType.ED25519, self._key.public_key().public_bytes_raw())

    @classmethod
    def from_seed(cls, seed: bytes) -> PrivateKey:
        """Make the key of a seed of 32 bytes; raises ConfigError for another length."""
        return cls(seed)

    @classmethod
    def generate(cls) -> PrivateKey:
        """Make a new key from the system's randomness."""
        return cls(Ed25519PrivateKey.generate().private_bytes_raw())

    @classmethod
    def from_protobuf(cls, data: bytes) -> PrivateKey:
        """Parse the serialised form: seed and public key, the latter once or, as of old, twice.

        Raises ConfigError if it is not that, of another type, or its parts do not belong together.
        """
        try:
            key_type, body = _split(data)
        except RemoteProtocolError:
            raise ConfigError("this is not a serialised private key") from None
        if key_type is not KeyType.ED25519:
            raise ConfigError(f"an identity must be of type ED25519, not {key_type.name}")
        if len(body) not in (64, 96):
            raise ConfigError(f"a private key has 64 or 96 bytes, not {len(body)}")
        key = cls(body[:_SEED_SIZE])
        copies = body[_SEED_SIZE:]
        if not compare_digest(key.public_key.data * (len(copies) // _SEED_SIZE), copies):
            raise ConfigError("the private key does not belong to the public key stored with it")
        return key

    def to_protobuf(self) -> bytes:
        """Return the serialised form, seed and public key: a secret."""
        return _join(KeyType.ED25519, self._seed + self.public_key.data)

    def sign(self, message: bytes) -> bytes:
        """Return the 64-byte signature over `message`, the same one every time."""
        return self._key.sign(message)

    def __repr__(self) -> str:
        return f"<PrivateKey of {self.public_key.data.hex()}>"

    def __reduce__(self) -> str:
        raise LocalProtocolError("a private key is not pickled or copied by accident")


def _join(key_type: KeyType, data: bytes) -> bytes:
    return bytes((0x08, key_type, 0x12)) + length_prefixed(data)


def _split(data: bytes) -> tuple[KeyType, bytes]:
    # Fields 1 and 2, both there, in this order, minimal, and nothing behind: peer-ids, "Keys".
    if len(data) < 4 or data[0] != 0x08 or data[1] not in tuple(KeyType) or data[2] != 0x12:
        raise RemoteProtocolError("not a serialised key")
    length = decode_varint(data, 3)
    if length is None or length[0] != len(data) - length[1]:
        raise RemoteProtocolError("a serialised key has another length than it says")
    return KeyType(data[1]), bytes(data[length[1] :])


def _load_secp256k1(data: bytes) -> EllipticCurvePublicKey:
    from cryptography.hazmat.primitives.asymmetric import ec

    if len(data) != 33:
        raise ValueError("not a compressed point")
    return ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256K1(), data)


def _load_ecdsa(data: bytes) -> EllipticCurvePublicKey:
    from cryptography.hazmat.primitives.asymmetric import ec

    key = _load_der(data)
    if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name not in _ECDSA_CURVES:
        raise ValueError("not an ECDSA key on a NIST curve")
    return key


def _load_rsa(data: bytes) -> RSAPublicKey:
    from cryptography.hazmat.primitives.asymmetric import rsa

    key = _load_der(data)
    if not isinstance(key, rsa.RSAPublicKey) or not MIN_RSA_BITS <= key.key_size <= MAX_RSA_BITS:
        raise ValueError("not an RSA key of an accepted size")
    return key


def _load_der(data: bytes) -> object:
    from cryptography.hazmat.primitives import serialization as form

    key = form.load_der_public_key(data)
    # Another encoding of the same key would be another peer id to us than to those who re-encode.
    if key.public_bytes(form.Encoding.DER, form.PublicFormat.SubjectPublicKeyInfo) != data:
        raise ValueError("not the canonical encoding")
    return key
