"""identify (`/ipfs/id/1.0.0`) and its push: the messages, and what to believe of them. Sans-IO.

https://github.com/libp2p/specs/blob/master/identify/README.md
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING

from ...transports.core.envelope import PeerRecord
from ...transports.core.errors import P2PError, PeerIdMismatch, RemoteProtocolError
from ...transports.core.keys import PublicKey
from ...transports.core.multiaddr import Multiaddr
from ...transports.core.peer_id import PeerId
from ...transports.core.protobuf import Field, Kind, Schema
from ...transports.core.varint import length_prefixed

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ...transports.core.keys import PrivateKey

ID_PROTOCOL = "/ipfs/id/1.0.0"
PUSH_PROTOCOL = "/ipfs/id/push/1.0.0"
PROTOCOL_VERSION = "ipfs/0.1.0"

MAX_SENT_BYTES = 4096
"""What rust reads of the one message that it reads."""

MAX_PARTS = 10
"""Messages that one identify may be split into, as in go and js; go splits off the record."""

MAX_PART_BYTES = 8 * 1024
"""The longest message read, as in go and js."""

PREFIX_BYTES = 2
"""A length of at most MAX_PART_BYTES takes two bytes as a varint."""

MAX_SENT_ADDRESSES = 30
"""Addresses told; more are not worth anyone's dials."""

MAX_READ_ADDRESSES = 500
"""Addresses read, as in go."""

MAX_READ_PROTOCOLS = 1024
"""Protocols read, as in go."""

MAX_TEXT = 256
"""Characters kept of an agent's name and version."""

OBSERVED_BYTES = 160
"""Left in a message for the observed address; a longer one is left out."""

PROTOCOLS_BYTES = 2048
"""What protocols may take of a message, so that addresses fit in beside them."""

RECORD_BYTES = 200
"""What a signed record takes beside its addresses: key, peer id, signature, framing."""

FIELD_BYTES = 3
"""What a field's number and length take at most; nothing here is longer than 16 KiB."""

SENT_ADDRESS_PROTOCOLS = frozenset(
    {"ip4", "ip6", "dns", "dns4", "dns6", "dnsaddr", "tcp", "udp", "ws", "wss", "tls", "sni"}
    | {"p2p", "p2p-circuit", "webrtc", "webrtc-direct", "certhash", "quic-v1"}
)
"""What every implementation can parse; some drop a whole message for one they cannot."""

# Texts are read as bytes, so that one which is not UTF-8 does not cost the whole message.
_SCHEMA = Schema(
    Field(1, "publicKey", Kind.BYTES),
    Field(2, "listenAddrs", Kind.BYTES, repeated=True),
    Field(3, "protocols", Kind.BYTES, repeated=True),
    Field(4, "observedAddr", Kind.BYTES),
    Field(5, "protocolVersion", Kind.BYTES),
    Field(6, "agentVersion", Kind.BYTES),
    Field(8, "signedPeerRecord", Kind.BYTES),
)


@dataclass(frozen=True, slots=True)
class IdentifyMessage:
    """What a peer says of itself; None and empty stand for what it left out."""

    public_key: bytes | None = None
    listen_addrs: tuple[Multiaddr, ...] = ()
    protocols: tuple[str, ...] = ()
    observed_addr: Multiaddr | None = None
    protocol_version: str = ""
    agent_version: str = ""
    signed_peer_record: bytes | None = None


@dataclass(frozen=True, slots=True)
class Verified:
    """A message whose key is the peer's, and the addresses in it that may be believed.

    `record_seq` is the number of the signed record that they come from, or None.
    """

    message: IdentifyMessage
    addresses: tuple[Multiaddr, ...]
    record_seq: int | None


class IdentifyReader:
    """Takes the bytes of a stream apart into messages and merges them.

    Call `receive_data` and `receive_eof` until `is_done`; `message` is what has come so far.
    """

    def __init__(self) -> None:
        self.message: IdentifyMessage | None = None
        self.is_done = False
        self._buffer = bytearray()
        self._parts = 0

    def receive_data(self, data: bytes) -> None:
        """Take bytes of the peer; raises RemoteProtocolError for what cannot be a message."""
        self._buffer += data
        while not self.is_done and (part := self._next_part()) is not None:
            message = decode(part)
            self.message = message if self.message is None else merge(self.message, message)
            self._parts += 1
            self.is_done = self._parts == MAX_PARTS

    def receive_eof(self) -> None:
        """Note the stream's end; raises RemoteProtocolError in the middle of a message."""
        if not self.is_done and (self._buffer or self.message is None):
            raise RemoteProtocolError("the stream ended within an identify message")
        self.is_done = True

    def _next_part(self) -> bytes | None:
        size = 0
        for index, byte in enumerate(self._buffer[:PREFIX_BYTES]):
            size |= (byte & 0x7F) << (7 * index)
            if byte < 0x80:
                start, stop = index + 1, index + 1 + size
                break
        else:
            if len(self._buffer) < PREFIX_BYTES:
                return None
            size = MAX_PART_BYTES + 1
        if size > MAX_PART_BYTES:
            raise RemoteProtocolError(f"an identify message of over {MAX_PART_BYTES} bytes")
        if len(self._buffer) < stop:
            return None
        part = bytes(self._buffer[start:stop])
        del self._buffer[:stop]
        return part


def decode(data: bytes) -> IdentifyMessage:
    """Read one message; an address in it that cannot be read is left out, as an empty protocol.

    Raises RemoteProtocolError if it is not a protobuf message.
    """
    values = _SCHEMA.decode(data)
    texts = [_text(each) for each in values["protocols"][:MAX_READ_PROTOCOLS]]
    observed = Multiaddr.parse_many([values["observedAddr"]] if "observedAddr" in values else [])
    return IdentifyMessage(
        public_key=values.get("publicKey"),
        listen_addrs=tuple(Multiaddr.parse_many(values["listenAddrs"][:MAX_READ_ADDRESSES])),
        protocols=tuple(text for text in texts if text),
        observed_addr=observed[0] if observed else None,
        protocol_version=_text(values.get("protocolVersion", b""))[:MAX_TEXT],
        agent_version=_text(values.get("agentVersion", b""))[:MAX_TEXT],
        signed_peer_record=values.get("signedPeerRecord"),
    )


def encode(message: IdentifyMessage) -> bytes:
    """Write a message, without its length; what is None or empty is left out."""
    observed = message.observed_addr
    return _SCHEMA.encode(
        {
            "publicKey": message.public_key,
            "listenAddrs": [bytes(address) for address in message.listen_addrs],
            "protocols": [protocol.encode() for protocol in message.protocols],
            "observedAddr": None if observed is None else bytes(observed),
            "protocolVersion": message.protocol_version.encode() or None,
            "agentVersion": message.agent_version.encode() or None,
            "signedPeerRecord": message.signed_peer_record,
        }
    )


def merge(first: IdentifyMessage, then: IdentifyMessage) -> IdentifyMessage:
    """Return both as one, as protobuf merges: lists are joined, of single values the last wins."""
    return IdentifyMessage(
        public_key=_either(then.public_key, first.public_key),
        listen_addrs=(first.listen_addrs + then.listen_addrs)[:MAX_READ_ADDRESSES],
        protocols=(first.protocols + then.protocols)[:MAX_READ_PROTOCOLS],
        observed_addr=then.observed_addr or first.observed_addr,
        protocol_version=then.protocol_version or first.protocol_version,
        agent_version=then.agent_version or first.agent_version,
        signed_peer_record=_either(then.signed_peer_record, first.signed_peer_record),
    )


def compose(
    key: PrivateKey,
    *,
    addresses: Iterable[Multiaddr],
    protocols: Iterable[str],
    seq: int,
) -> bytes:
    """Write what a node says of itself, with a signed record of its addresses numbered `seq`.

    What does not fit into one message that rust reads is left out: protocols past their share,
    then addresses, which are in it twice.
    """
    told_protocols: list[str] = []
    room = PROTOCOLS_BYTES
    for protocol in protocols:
        room -= len(protocol.encode()) + FIELD_BYTES
        if room < 0:
            break
        told_protocols.append(protocol)
    message = IdentifyMessage(
        public_key=key.public_key.to_protobuf(),
        protocols=tuple(told_protocols),
        protocol_version=PROTOCOL_VERSION,
        agent_version=agent_version(),
    )
    room = MAX_SENT_BYTES - OBSERVED_BYTES - RECORD_BYTES - len(encode(message))
    told: dict[Multiaddr, None] = {}
    for address in addresses:
        sent = sendable(address)
        if sent is None or sent in told or len(told) == MAX_SENT_ADDRESSES:
            continue
        room -= 2 * (len(bytes(sent)) + 2 * FIELD_BYTES)
        if room < 0:
            break
        told[sent] = None
    record = PeerRecord(PeerId.from_public_key(key.public_key), seq, tuple(told))
    return encode(replace(message, listen_addrs=tuple(told), signed_peer_record=record.seal(key)))


def frame(message: bytes, *, observed: Multiaddr | None = None) -> bytes:
    """Put the length before a message, and the observed address into it if it fits."""
    if observed is not None and len(bytes(observed)) <= OBSERVED_BYTES - 2 * FIELD_BYTES:
        # A field may come last: protobuf's fields have no order.
        message += encode(IdentifyMessage(observed_addr=observed))
    return length_prefixed(message)


def sendable(address: Multiaddr) -> Multiaddr | None:
    """Return an address as it may be told to anyone, without /p2p; None if it means nothing there.

    Addresses within this process or machine mean nothing to a peer, and an unknown protocol in an
    address makes some peers drop the whole message.
    """
    if address.last_transport == "p2p" or not SENT_ADDRESS_PROTOCOLS.issuperset(address.names):
        return None
    return address.without_peer()


def verified(message: IdentifyMessage, peer: PeerId) -> Verified:
    """Return what to believe of a message that came from `peer`.

    A signed record that does not verify is ignored, since rust signs another kind of record.
    Raises PeerIdMismatch if the key is another peer's, RemoteProtocolError if it is no key.
    """
    if message.public_key is not None:
        try:
            actual = PeerId.from_public_key(PublicKey.from_protobuf(message.public_key))
        except P2PError as error:
            raise RemoteProtocolError(f"the key in identify cannot be read: {error}") from error
        if actual != peer:
            raise PeerIdMismatch(peer, actual)
    if message.signed_peer_record is not None:
        try:
            record = PeerRecord.from_envelope(message.signed_peer_record)
        except P2PError:
            record = None
        if record is not None and record.peer_id == peer:
            return Verified(message, _own(record.addresses, peer), record.sequence)
    return Verified(message, _own(message.listen_addrs, peer), None)


@cache
def agent_version() -> str:
    """Return how this program names itself to peers."""
    from importlib.metadata import version

    return f"isthmus/{version('isthmus')}"


def _own(addresses: Iterable[Multiaddr], peer: PeerId) -> tuple[Multiaddr, ...]:
    """Return a peer's addresses without /p2p, each once, and none that names another peer."""
    own = (each for each in addresses if each.peer_id in (None, peer))
    return tuple(dict.fromkeys(each.without_peer() for each in own if each.last_transport != "p2p"))


def _text(value: bytes) -> str:
    return value.decode("utf-8", "replace")


def _either(value: bytes | None, other: bytes | None) -> bytes | None:
    return other if value is None else value
