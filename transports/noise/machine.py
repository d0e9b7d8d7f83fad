"""Noise_XX_25519_ChaChaPoly_SHA256 as libp2p uses it: the handshake, then the session. Sans-IO.

https://github.com/libp2p/specs/blob/master/noise/README.md, https://noiseprotocol.org/noise.html
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
from hashlib import sha256
from struct import Struct
from typing import TYPE_CHECKING, NoReturn

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from ..core.errors import (
    LocalProtocolError,
    NoiseError,
    P2PError,
    PeerIdMismatch,
    RemoteProtocolError,
)
from ..core.interfaces import ChannelBinding, Side
from ..core.keys import PublicKey
from ..core.peer_id import PeerId
from .wire import (
    KEY_SIZE,
    LENGTH,
    MAX_EXTENSION_ENTRIES,
    MAX_MESSAGE,
    MAX_PLAINTEXT,
    OVERHEAD,
    SIGNATURE_PREFIX,
    TAG_SIZE,
    NoiseExtensions,
    NoiseHandshakePayload,
)

if TYPE_CHECKING:
    from ..core.keys import PrivateKey

PROTOCOL_NAME = b"Noise_XX_25519_ChaChaPoly_SHA256"
DEFAULT_MUXERS = ("/yamux/1.0.0",)
# Peers whose vouched static keys are remembered, some 300 bytes each (an RSA key: 2 KiB).
VOUCHED = 1024


class StaticKey:
    """A Noise static key with its identity's signature over it; made once, used for every peer."""

    __slots__ = ("identity_key", "identity_sig", "private", "public")

    def __init__(self, private: X25519PrivateKey, identity: PrivateKey) -> None:
        self.private = private
        self.public = private.public_key().public_bytes_raw()
        self.identity_key = identity.public_key.to_protobuf()
        self.identity_sig = identity.sign(SIGNATURE_PREFIX + self.public)

    @classmethod
    def generate(cls, identity: PrivateKey) -> StaticKey:
        """Make a fresh key for this process."""
        return cls(X25519PrivateKey.generate(), identity)

    @classmethod
    def from_bytes(cls, secret: bytes, identity: PrivateKey) -> StaticKey:
        """Make the key of a secret of 32 bytes; raises ValueError for another length."""
        return cls(X25519PrivateKey.from_private_bytes(secret), identity)


@dataclass(frozen=True, slots=True)
class HandshakeResult:
    """What a handshake has led to.

    `channel_binding` is the handshake hash after message 3. `muxer` is what both sides agreed on
    within the handshake, None if they did not and must negotiate. `trailing` are bytes that came
    behind the handshake: the first of the session.
    """

    remote_peer: PeerId
    remote_key: PublicKey
    channel_binding: ChannelBinding
    muxer: str | None
    session: NoiseSession
    trailing: bytes


class NoiseHandshake:
    """One side of a handshake, in either role.

    Call order: `data_to_send`, then `receive_data` and `data_to_send` in turn until `is_complete`;
    send what is left, then take `result`. `receive_eof` if the peer ends first. After an error the
    machine is dead. It holds at most one message (64 KiB) besides the chunk given to it.

    `ephemeral` is a key, or a secret of 32 random bytes, that is never used twice. `muxers` are
    told to the peer, the preferred first; empty means that muxers are not spoken of (WebRTC).
    `prologue` must be the same on both sides.
    """

    def __init__(
        self,
        side: Side,
        static: StaticKey,
        *,
        ephemeral: bytes | X25519PrivateKey,
        muxers: tuple[str, ...] = DEFAULT_MUXERS,
        prologue: bytes = b"",
        expected_peer: PeerId | None = None,
    ) -> None:
        if isinstance(ephemeral, bytes):
            if len(ephemeral) != KEY_SIZE:
                why = f"an ephemeral key has {KEY_SIZE} bytes, not {len(ephemeral)}"
                raise LocalProtocolError(why)
            ephemeral = X25519PrivateKey.from_private_bytes(ephemeral)
        if len(muxers) > MAX_EXTENSION_ENTRIES:
            raise LocalProtocolError(f"{len(muxers)} muxers; at most {MAX_EXTENSION_ENTRIES}")
        self.side = side
        self._static = static
        self._ephemeral = ephemeral
        self._muxers = muxers
        self._expected_peer = expected_peer
        self._symmetric = _SymmetricState(prologue)
        self._remote_ephemeral: X25519PublicKey | None = None
        self._received = bytearray()
        self._to_send = bytearray()
        self._result: HandshakeResult | None = None
        self._failure: P2PError | None = None
        self._state = _State.AWAITS_EPHEMERAL
        if side is Side.DIALER:
            self._send(self._write_ephemeral() + self._symmetric.encrypt(b""))
            self._state = _State.AWAITS_REPLY

    @property
    def is_complete(self) -> bool:
        """Whether `result` is there; the dialer's last message may still wait to be sent."""
        return self._result is not None

    @property
    def result(self) -> HandshakeResult:
        """What the handshake has led to; raises LocalProtocolError before that."""
        if self._result is None:
            raise LocalProtocolError("the Noise handshake is not complete")
        return self._result

    def data_to_send(self) -> bytes:
        """Take the bytes that the peer must get now."""
        data = bytes(self._to_send)
        self._to_send.clear()
        return data

    def receive_data(self, data: bytes | bytearray | memoryview) -> None:
        """Take bytes of the peer, however they are cut.

        Raises NoiseError for what is malformed or does not authenticate, PeerIdMismatch for
        another peer than the expected one, LocalProtocolError once complete or dead.
        """
        self._check_running()
        self._received += data
        try:
            while self._result is None and (message := self._next_message()) is not None:
                self._read(message)
        except P2PError as error:
            self._die(error)

    def receive_eof(self) -> NoReturn:
        """Learn that the peer sends no more; raises NoiseError, as nothing can come of it."""
        self._check_running()
        self._die(NoiseError("the peer closed the stream during the Noise handshake"))

    def _check_running(self) -> None:
        if self._failure is not None:
            raise LocalProtocolError(f"the Noise handshake has failed: {self._failure}")
        if self._result is not None:
            raise LocalProtocolError("the Noise handshake is complete")

    def _die(self, error: P2PError) -> NoReturn:
        self._failure = error
        self._received.clear()
        self._to_send.clear()
        raise error

    def _next_message(self) -> bytes | None:
        received = self._received
        if len(received) < LENGTH.size:
            return None
        (length,) = LENGTH.unpack_from(received)
        least, most = self._state.value
        if not least <= length <= most:
            raise NoiseError(f"a handshake message of {length} bytes where it has {least}..{most}")
        end = LENGTH.size + length
        if len(received) < end:
            return None
        message = bytes(received[LENGTH.size : end])
        del received[:end]
        return message

    def _read(self, message: bytes) -> None:
        match self._state:
            case _State.AWAITS_EPHEMERAL:
                self._read_ephemeral(message)
                self._symmetric.decrypt(b"")
                reply = self._write_ephemeral()
                self._mix(self._ephemeral, self._remote_ephemeral)
                self._send(reply + self._write_identity())
                self._state = _State.AWAITS_IDENTITY
            case _State.AWAITS_REPLY:
                self._read_ephemeral(message[:KEY_SIZE])
                self._mix(self._ephemeral, self._remote_ephemeral)
                key, muxers = self._read_identity(message[KEY_SIZE:])
                self._send(self._write_identity())
                self._complete(key, _agree(self._muxers, muxers))
            case _:
                key, muxers = self._read_identity(message)
                self._complete(key, _agree(muxers, self._muxers))

    def _write_ephemeral(self) -> bytes:
        public = self._ephemeral.public_key().public_bytes_raw()
        self._symmetric.mix_hash(public)
        return public

    def _read_ephemeral(self, public: bytes) -> None:
        self._symmetric.mix_hash(public)
        self._remote_ephemeral = X25519PublicKey.from_public_bytes(public)

    def _write_identity(self) -> bytes:
        """Tokens s and es, or s and se, and the identity that vouches for the static key."""
        static = self._symmetric.encrypt(self._static.public)
        self._mix(self._static.private, self._remote_ephemeral)
        payload = NoiseHandshakePayload(
            identity_key=self._static.identity_key,
            identity_sig=self._static.identity_sig,
            extensions=NoiseExtensions(stream_muxers=self._muxers) if self._muxers else None,
        )
        return static + self._symmetric.encrypt(payload.encode())

    def _read_identity(self, message: bytes) -> tuple[PublicKey, tuple[str, ...]]:
        split = KEY_SIZE + TAG_SIZE
        static = self._symmetric.decrypt(message[:split])
        self._mix(self._ephemeral, X25519PublicKey.from_public_bytes(static))
        payload = NoiseHandshakePayload.decode(self._symmetric.decrypt(message[split:]))
        key = _vouched(payload.identity_key, static, payload.identity_sig)
        actual = PeerId.from_public_key(key)
        if self._expected_peer is not None and actual != self._expected_peer:
            raise PeerIdMismatch(self._expected_peer, actual)
        return key, payload.extensions.stream_muxers if payload.extensions else ()

    def _mix(self, private: X25519PrivateKey, public: X25519PublicKey | None) -> None:
        assert public is not None
        try:
            shared = private.exchange(public)
        except ValueError as error:
            raise NoiseError("a key of the peer's is of low order") from error
        self._symmetric.mix_key(shared)

    def _send(self, message: bytes) -> None:
        if len(message) > MAX_MESSAGE:
            raise LocalProtocolError("the muxers do not fit into a handshake message")
        self._to_send += LENGTH.pack(len(message)) + message

    def _complete(self, key: PublicKey, muxer: str | None) -> None:
        dialer_key, listener_key = self._symmetric.split()
        if self.side is Side.DIALER:
            session = NoiseSession(dialer_key, listener_key)
        else:
            session = NoiseSession(listener_key, dialer_key)
        self._result = HandshakeResult(
            remote_peer=PeerId.from_public_key(key),
            remote_key=key,
            channel_binding=ChannelBinding("noise", self._symmetric.hash),
            muxer=muxer,
            session=session,
            trailing=bytes(self._received),
        )
        self._received.clear()


class NoiseSession:
    """The records of a connection, both ways.

    Call `seal` or `seal_into` for each record to send, `receive_data` for each chunk received,
    `receive_eof` at the end of the stream. After a NoiseError nothing more is received; sending
    goes on, as the directions share nothing, so that a farewell can still be said. The counters
    count records, and are arguments for tests alone.
    """

    __slots__ = (
        "_decrypt",
        "_encrypt_into",
        "_failure",
        "_partial",
        "_receive_nonce",
        "_send_nonce",
    )

    def __init__(
        self,
        send_key: bytes,
        receive_key: bytes,
        *,
        send_nonce: int = 0,
        receive_nonce: int = 0,
    ) -> None:
        self._encrypt_into = ChaCha20Poly1305(send_key).encrypt_into
        self._decrypt = ChaCha20Poly1305(receive_key).decrypt
        self._send_nonce = send_nonce
        self._receive_nonce = receive_nonce
        self._partial = bytearray()
        self._failure: NoiseError | None = None

    def seal(self, plaintext: bytes | bytearray | memoryview) -> bytes:
        """Return the record of 1 to 65 519 bytes.

        Raises LocalProtocolError for another size, NoiseError once all 2^64 - 1 nonces are used.
        """
        record = bytearray(len(plaintext) + OVERHEAD)
        self.seal_into(plaintext, record)
        return bytes(record)

    def seal_into(
        self, plaintext: bytes | bytearray | memoryview, buffer: bytearray | memoryview
    ) -> int:
        """Write the record to the start of the caller's buffer and return its size.

        The two must not overlap, and 18 bytes more than the plaintext must fit. Raises as `seal`,
        and LocalProtocolError for a buffer that is too small.
        """
        size = len(plaintext)
        end = size + OVERHEAD
        if end > len(buffer):
            raise LocalProtocolError(f"a record of {end} bytes, a buffer of {len(buffer)}")
        if not 0 < size <= MAX_PLAINTEXT:
            raise LocalProtocolError(f"a record holds 1..{MAX_PLAINTEXT} bytes, not {size}")
        nonce = self._send_nonce
        if nonce >= _NONCES:
            raise NoiseError("every nonce of the session is used")
        self._send_nonce = nonce + 1
        LENGTH.pack_into(buffer, 0, size + TAG_SIZE)
        self._encrypt_into(_pack_nonce(nonce), plaintext, None, memoryview(buffer)[2:end])
        return end

    def receive_data(self, data: bytes | bytearray | memoryview) -> list[bytes]:
        """Return the plaintext of every record that is complete now.

        Nothing refers to `data` afterwards: what belongs to the next record is copied, at most
        65 536 bytes. Empty records, which nobody needs, are skipped. Raises NoiseError, dropping
        the records before it in the chunk, for one that does not authenticate;
        LocalProtocolError after that.
        """
        if self._failure is not None:
            raise LocalProtocolError(f"the Noise session has failed: {self._failure}")
        records: list[bytes] = []
        view = memoryview(data)
        if self._partial:
            view = view[self._fill(view) :]
        try:
            if self._partial and self._open(memoryview(self._partial), records):
                self._partial = bytearray()
            # What a partial record still lacks is more than the chunk had, so the view is empty.
            if (end := self._open(view, records)) < len(view):
                self._partial += view[end:]
        except InvalidTag:
            text = f"record {self._receive_nonce} of the peer does not authenticate"
            self._fail(text)
        return records

    def receive_eof(self) -> None:
        """Learn that the peer sends no more; raises NoiseError if that cuts a record."""
        if self._partial and self._failure is None:
            self._fail("the peer closed the stream within a record")

    def _fill(self, view: memoryview) -> int:
        """Move into the partial record what it lacks, and say how many bytes that were."""
        partial = self._partial
        taken = 0
        if len(partial) < LENGTH.size:
            taken = LENGTH.size - len(partial)
            partial += view[:taken]
            if len(partial) < LENGTH.size:
                return len(view)
        length: int
        (length,) = LENGTH.unpack_from(partial)
        end = taken + LENGTH.size + length - len(partial)
        partial += view[taken:end]
        return end

    def _open(self, view: memoryview, records: list[bytes]) -> int:
        """Append the plaintext of every complete record and return where they end."""
        decrypt, nonce = self._decrypt, self._receive_nonce
        size, position = len(view), 0
        while size - position > 1:
            start = position + 2
            end = start + (view[position] << 8 | view[position + 1])
            if end > size:
                break
            self._receive_nonce = nonce
            if nonce >= _NONCES:
                self._fail("the peer has used every nonce of the session")
            if plaintext := decrypt(_pack_nonce(nonce), view[start:end], None):
                records.append(plaintext)
            nonce += 1
            position = end
        self._receive_nonce = nonce
        return position

    def _fail(self, why: str) -> NoReturn:
        self._failure = NoiseError(why)
        self._partial = bytearray()
        raise self._failure


# Noise keeps the last nonce, 2^64 - 1, for rekeying.
_NONCES = 2**64 - 1
_pack_nonce = Struct("<4xQ").pack


class _State(Enum):
    """What a handshake waits for, and how many bytes such a message may have.

    Message 1 has no payload: rust refuses one, the specification lets us, and a stranger can make
    us hold nothing that way.
    """

    AWAITS_EPHEMERAL = (KEY_SIZE, KEY_SIZE)
    AWAITS_REPLY = (2 * KEY_SIZE + 2 * TAG_SIZE, MAX_MESSAGE)
    AWAITS_IDENTITY = (KEY_SIZE + 2 * TAG_SIZE, MAX_MESSAGE)


@lru_cache(maxsize=VOUCHED)
def _vouched(identity_key: bytes, static: bytes, signature: bytes) -> PublicKey:
    """Return the identity key that signed a Noise static key; raises NoiseError if none did.

    A pure function, and a third of a handshake's time: for a peer that comes again with the same
    static key, the answer is remembered. Failures are not.
    """
    try:
        key = PublicKey.from_protobuf(identity_key)
    except RemoteProtocolError as error:
        raise NoiseError(f"the peer's identity cannot be used: {error}") from error
    if not key.verify(SIGNATURE_PREFIX + static, signature):
        raise NoiseError("the peer's identity did not sign its static key")
    return key


class _SymmetricState:
    """Chaining key, hash and cipher of a handshake (section 5.2 of the Noise specification)."""

    def __init__(self, prologue: bytes) -> None:
        # The name is as long as a hash, so it is one.
        self.hash = PROTOCOL_NAME
        self._chaining_key = PROTOCOL_NAME
        self._cipher: ChaCha20Poly1305 | None = None
        self._nonce = 0
        self.mix_hash(prologue)

    def mix_hash(self, data: bytes) -> None:
        self.hash = sha256(self.hash + data).digest()

    def mix_key(self, secret: bytes) -> None:
        self._chaining_key, key = _hkdf(self._chaining_key, secret)
        self._cipher = ChaCha20Poly1305(key)
        self._nonce = 0

    def encrypt(self, plaintext: bytes) -> bytes:
        """Encrypt and hash; without a key yet, only hash."""
        data = plaintext
        if self._cipher is not None:
            data = self._cipher.encrypt(_pack_nonce(self._nonce), plaintext, self.hash)
            self._nonce += 1
        self.mix_hash(data)
        return data

    def decrypt(self, data: bytes) -> bytes:
        """Decrypt and hash; without a key yet, only hash."""
        plaintext = data
        if self._cipher is not None:
            try:
                plaintext = self._cipher.decrypt(_pack_nonce(self._nonce), data, self.hash)
            except InvalidTag as error:
                raise NoiseError("a handshake message that does not authenticate") from error
            self._nonce += 1
        self.mix_hash(data)
        return plaintext

    def split(self) -> tuple[bytes, bytes]:
        """Return the keys that the dialer and the listener send with."""
        return _hkdf(self._chaining_key, b"")


def _hkdf(chaining_key: bytes, secret: bytes) -> tuple[bytes, bytes]:
    pseudorandom = hmac.digest(chaining_key, secret, "sha256")
    first = hmac.digest(pseudorandom, b"\x01", "sha256")
    return first, hmac.digest(pseudorandom, first + b"\x02", "sha256")


def _agree(dialer: tuple[str, ...], listener: tuple[str, ...]) -> str | None:
    """Return the dialer's first muxer that the listener has too."""
    return next((muxer for muxer in dialer if muxer in listener), None)
