"""Bytes of Noise as libp2p frames it, and the payload that proves an identity.

https://github.com/libp2p/specs/blob/master/noise/README.md
"""

from __future__ import annotations

from dataclasses import dataclass
from struct import Struct

from ..core.errors import NoiseError, RemoteProtocolError
from ..core.protobuf import Field, Kind, Schema

LENGTH = Struct(">H")
"""What precedes every message, of the handshake and after it."""

MAX_MESSAGE = 65_535
"""Bytes of a Noise message: the Noise specification's bound, and all that the length can say."""

TAG_SIZE = 16
"""Bytes that ChaCha20-Poly1305 adds to a plaintext."""

MAX_PLAINTEXT = MAX_MESSAGE - TAG_SIZE
"""Bytes of application data in one message."""

OVERHEAD = LENGTH.size + TAG_SIZE
"""Bytes that a record is longer than its plaintext."""

KEY_SIZE = 32
"""Bytes of an X25519 key."""

SIGNATURE_PREFIX = b"noise-libp2p-static-key:"
"""What an identity signs before its static key, so that the signature serves for nothing else."""

MAX_EXTENSION_ENTRIES = 100
"""Entries of each list in the extensions, as in go."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NoiseExtensions:
    """What peers tell each other early; empty stands for absent."""

    webtransport_certhashes: tuple[bytes, ...] = ()
    stream_muxers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class NoiseHandshakePayload:
    """The identity key (its key message), its signature over the static key, and the extensions."""

    identity_key: bytes
    identity_sig: bytes
    extensions: NoiseExtensions | None = None

    def encode(self) -> bytes:
        """Return the encoding; lists that are empty are left out."""
        extensions = self.extensions
        return _PAYLOAD.encode(
            {
                "identity_key": self.identity_key,
                "identity_sig": self.identity_sig,
                "extensions": extensions
                and {
                    "webtransport_certhashes": extensions.webtransport_certhashes,
                    "stream_muxers": extensions.stream_muxers,
                },
            }
        )

    @classmethod
    def decode(cls, data: bytes) -> NoiseHandshakePayload:
        """Parse a payload; raises NoiseError if it is none, or lists more than 100 entries."""
        try:
            values = _PAYLOAD.decode(data)
        except RemoteProtocolError as error:
            raise NoiseError(f"a handshake payload that does not parse: {error}") from error
        if (extensions := values.get("extensions")) is not None:
            if max(map(len, extensions.values())) > MAX_EXTENSION_ENTRIES:
                raise NoiseError(f"extensions of more than {MAX_EXTENSION_ENTRIES} entries")
            extensions = NoiseExtensions(
                **{name: tuple(entries) for name, entries in extensions.items()}
            )
        return cls(
            identity_key=values.get("identity_key", b""),
            identity_sig=values.get("identity_sig", b""),
            extensions=extensions,
        )


_EXTENSIONS = Schema(
    Field(1, "webtransport_certhashes", Kind.BYTES, repeated=True),
    Field(2, "stream_muxers", Kind.STRING, repeated=True),
)
# Number 3 was once early data; it stays unused.
_PAYLOAD = Schema(
    Field(1, "identity_key", Kind.BYTES),
    Field(2, "identity_sig", Kind.BYTES),
    Field(4, "extensions", Kind.MESSAGE, schema=_EXTENSIONS),
)
