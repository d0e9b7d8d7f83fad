"""Signed envelopes and peer records (libp2p RFC 0002, RFC 0003, with the constants in real use)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from .errors import AddressError, LocalProtocolError, RemoteProtocolError
from .keys import PublicKey
from .multiaddr import Multiaddr
from .peer_id import PeerId
from .protobuf import Field, Kind, Schema
from .varint import length_prefixed

if TYPE_CHECKING:
    from .keys import PrivateKey

__all__ = ["PeerRecord", "next_sequence", "open_envelope", "seal_envelope"]

PEER_RECORD_DOMAIN = "libp2p-peer-record"
PEER_RECORD_TYPE = bytes((0x03, 0x01))
"""Two bytes, not a number; go and js use these, the RFC's text shows others."""

MAX_ENVELOPE = 8192
"""Bytes: a record of a few dozen addresses has some 2 KiB; identify messages end at 8 KiB."""

_ENVELOPE = Schema(
    Field(1, "public_key", Kind.BYTES),
    Field(2, "payload_type", Kind.BYTES),
    Field(3, "payload", Kind.BYTES),
    Field(5, "signature", Kind.BYTES),
)
_ADDRESS = Schema(Field(1, "multiaddr", Kind.BYTES))
_RECORD = Schema(
    Field(1, "peer_id", Kind.BYTES),
    Field(2, "seq", Kind.UINT),
    Field(3, "addresses", Kind.MESSAGE, repeated=True, schema=_ADDRESS),
)


def seal_envelope(key: PrivateKey, domain: str, payload_type: bytes, payload: bytes) -> bytes:
    """Return an envelope: the payload, its type and domain signed by the key.

    Raises LocalProtocolError if it would be longer than MAX_ENVELOPE.
    """
    signature = key.sign(_signed_bytes(domain, payload_type, payload))
    data = _ENVELOPE.encode(
        {
            "public_key": key.public_key.to_protobuf(),
            "payload_type": payload_type,
            "payload": payload,
            "signature": signature,
        }
    )
    if len(data) > MAX_ENVELOPE:
        raise LocalProtocolError(f"a signed envelope of {len(data)} bytes would be refused")
    return data


def open_envelope(data: bytes, domain: str, payload_type: bytes) -> tuple[PublicKey, bytes]:
    """Return the signer and the payload.

    Raises RemoteProtocolError if the envelope is malformed, too long, of another type, or if its
    signature does not hold for this domain.
    """
    if len(data) > MAX_ENVELOPE:
        raise RemoteProtocolError(f"a signed envelope of {len(data)} bytes")
    fields = _ENVELOPE.decode(data)
    key = PublicKey.from_protobuf(fields.get("public_key", b""))
    if fields.get("payload_type", b"") != payload_type:
        raise RemoteProtocolError("a signed envelope of another type")
    payload = fields.get("payload", b"")
    signed = _signed_bytes(domain, payload_type, payload)
    if not key.verify(signed, fields.get("signature", b"")):
        raise RemoteProtocolError("a signed envelope whose signature does not hold")
    return key, payload


@dataclass(frozen=True, slots=True)
class PeerRecord:
    """A peer's own word about its addresses; a higher sequence number replaces a lower one."""

    peer_id: PeerId
    sequence: int
    addresses: tuple[Multiaddr, ...]

    def seal(self, key: PrivateKey) -> bytes:
        """Return the record in an envelope; process-local addresses stay out of it.

        Raises LocalProtocolError if the key is not the peer's, or if there are too many addresses.
        """
        if not self.peer_id.matches(key.public_key):
            raise LocalProtocolError("a peer record can be signed by its own peer only")
        payload = _RECORD.encode(
            {
                "peer_id": bytes(self.peer_id),
                "seq": self.sequence,
                "addresses": [
                    {"multiaddr": bytes(addr)}
                    for addr in self.addresses
                    if not addr.is_process_local
                ],
            }
        )
        return seal_envelope(key, PEER_RECORD_DOMAIN, PEER_RECORD_TYPE, payload)

    @classmethod
    def from_envelope(cls, data: bytes) -> PeerRecord:
        """Open and check a record; addresses that do not parse are left out.

        Raises RemoteProtocolError if it is forged, malformed, or about another peer than its
        signer.
        """
        key, payload = open_envelope(data, PEER_RECORD_DOMAIN, PEER_RECORD_TYPE)
        fields = _RECORD.decode(payload)
        try:
            peer_id = PeerId.from_bytes(fields.get("peer_id", b""))
        except AddressError as error:
            raise RemoteProtocolError(f"a peer record with {error}") from None
        if not peer_id.matches(key):
            raise RemoteProtocolError("a peer record that another peer has signed")
        encoded = [item.get("multiaddr", b"") for item in fields["addresses"]]
        return cls(peer_id, fields.get("seq", 0), tuple(Multiaddr.parse_many(encoded)))


def next_sequence(now_ns: int, last: int) -> int:
    """Return a record's sequence number: the time in nanoseconds, as go's, but always higher."""
    return max(now_ns, last + 1)


def _signed_bytes(domain: str, payload_type: bytes, payload: bytes) -> bytes:
    parts = (domain.encode(), payload_type, payload)
    return b"".join(map(length_prefixed, parts))
