"""Peer ids: the multihash of a peer's public key (libp2p's peer-ids specification)."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from functools import total_ordering

from .errors import AddressError, RemoteProtocolError
from .keys import PublicKey
from .multibase import base58_decode, base58_encode, multibase_decode, multibase_encode

__all__ = ["PeerId"]

MAX_INLINE_KEY = 42
"""Bytes: a serialised key up to this length is carried in the id itself, a longer one hashed."""

_IDENTITY, _SHA256 = 0x00, 0x12
_CID_PREFIX = b"\x01\x72"  # CIDv1, codec libp2p-key


@total_ordering
@dataclass(frozen=True, slots=True, eq=False, repr=False)
class PeerId:
    """Who a peer is: a multihash of its public key, ordered by its bytes.

    Raises AddressError when made of bytes that are not such a multihash.
    """

    raw: bytes
    _text: str | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        raw = self.raw
        inline = len(raw) > 2 and raw[0] == _IDENTITY and len(raw) - 2 <= MAX_INLINE_KEY
        hashed = len(raw) == 34 and raw[0] == _SHA256
        if not (inline or hashed) or raw[1] != len(raw) - 2:
            raise AddressError("not a peer id: neither a short inline key nor a SHA-256 of one")

    @classmethod
    def parse(cls, text: str) -> PeerId:
        """Parse base58btc, or a CIDv1 in any of base16, 32, 36 and 58; raises AddressError."""
        if text.startswith(("1", "Qm")):
            return cls(base58_decode(text))
        data = multibase_decode(text)
        if not data.startswith(_CID_PREFIX):
            raise AddressError(f"{text!r} is not the CID of a peer id")
        return cls(data[len(_CID_PREFIX) :])

    @classmethod
    def from_bytes(cls, data: bytes) -> PeerId:
        """Take the binary form; raises AddressError."""
        return cls(bytes(data))

    @classmethod
    def from_public_key(cls, key: PublicKey) -> PeerId:
        """Derive the id of a key."""
        data = key.to_protobuf()
        if len(data) <= MAX_INLINE_KEY:
            return cls(bytes((_IDENTITY, len(data))) + data)
        return cls(b"\x12\x20" + hashlib.sha256(data).digest())

    @property
    def public_key(self) -> PublicKey | None:
        """The key itself if the id carries it, None if it is a hash of the key.

        Raises AddressError if what it carries is not a key.
        """
        if self.raw[0] == _SHA256:
            return None
        try:
            return PublicKey.from_protobuf(self.raw[2:])
        except RemoteProtocolError as error:
            raise AddressError(f"the peer id {self} carries no key: {error}") from None

    @property
    def cid(self) -> str:
        """The id as a CIDv1 in base32."""
        return multibase_encode(_CID_PREFIX + self.raw, "b")

    def matches(self, public_key: PublicKey) -> bool:
        """Say whether this is the id of `public_key`."""
        return PeerId.from_public_key(public_key).raw == self.raw

    def __bytes__(self) -> bytes:
        return self.raw

    def __str__(self) -> str:
        if self._text is None:
            object.__setattr__(self, "_text", base58_encode(self.raw))
        return str(self._text)

    def __repr__(self) -> str:
        return f"<PeerId {self}>"

    def __eq__(self, other: object) -> bool:
        return self.raw == other.raw if isinstance(other, PeerId) else NotImplemented

    def __lt__(self, other: PeerId) -> bool:
        return self.raw < other.raw if isinstance(other, PeerId) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.raw)
