"""multistream-select 1.0: which protocol a byte stream speaks. Sans-IO machines, and two drivers.

https://github.com/multiformats/multistream-select
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, NoReturn, TypeAlias

import anyio

from .core.errors import LocalProtocolError, NegotiationError, P2PError, RemoteProtocolError
from .core.varint import decode_varint, length_prefixed

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from anyio.abc import ByteStream

HEADER = "/multistream/1.0.0"
REFUSAL = "na"

MAX_FRAME = 1024
"""Bytes of a frame, line break included, as in go and js."""

MAX_PREFIX = 2
"""Bytes of a frame's length: enough for the longest frame."""

MAX_PROPOSALS = 32
"""Proposals in one negotiation: more than any peer has reason to make."""


class DialerNegotiation:
    """The side that proposes.

    Call order: `data_to_send`, then `receive_data` and `data_to_send` in turn until `is_complete`;
    then `protocol` and `take_trailing`. `receive_eof` if the peer ends first. After an error the
    machine is dead.
    """

    def __init__(self, protocols: Sequence[str]) -> None:
        """Propose the protocols in this order; raises LocalProtocolError if one cannot be one."""
        if not 0 < len(protocols) <= MAX_PROPOSALS:
            raise LocalProtocolError(f"{len(protocols)} protocols offered, not 1..{MAX_PROPOSALS}")
        self._offered = tuple(protocols)
        self._proposals = [_proposal(protocol) for protocol in protocols]
        self._attempt = 0
        self._frames = _Frames()
        self._to_send = _HEADER_FRAME + self._proposals[0]

    @property
    def is_complete(self) -> bool:
        """Whether a protocol is agreed."""
        return self._frames.state is _State.COMPLETE

    @property
    def protocol(self) -> str:
        """The protocol agreed; raises LocalProtocolError before that."""
        self._frames.check_complete()
        return self._offered[self._attempt]

    def data_to_send(self) -> bytes:
        """Take the bytes that the peer must get now."""
        data, self._to_send = self._to_send, b""
        return data

    def receive_data(self, data: bytes) -> None:
        """Take bytes of the peer, however they are cut.

        Raises NegotiationError if it refuses every protocol, RemoteProtocolError for anything but
        the answers that the specification has, LocalProtocolError once complete or dead.
        """
        frames = self._frames
        frames.receive_data(data)
        try:
            while not self.is_complete and (answer := frames.next_frame()) is not None:
                self._read(answer)
        except P2PError as error:
            frames.die(error)

    def receive_eof(self) -> NoReturn:
        """Learn that the peer sends no more; raises NegotiationError, as nothing is agreed."""
        self._frames.check_running()
        self._frames.die(NegotiationError(self._offered, "end of stream"))

    def take_trailing(self) -> bytes:
        """Take the bytes behind the negotiation: the first of the protocol agreed."""
        return self._frames.take_trailing()

    def _read(self, answer: str) -> None:
        if self._frames.state is _State.AWAITS_HEADER:
            self._frames.read_header(answer)
        elif answer == self._offered[self._attempt]:
            self._frames.state = _State.COMPLETE
        elif answer != REFUSAL:
            raise RemoteProtocolError(f"an answer to no proposal: {_shorten(answer)}")
        elif self._attempt + 1 == len(self._offered):
            raise NegotiationError(self._offered, answer)
        else:
            self._attempt += 1
            self._to_send += self._proposals[self._attempt]


class ListenerNegotiation:
    """The side that chooses; call order as for `DialerNegotiation`.

    `supported` says of a text, anything that fits into a frame, whether it is a protocol served.
    """

    def __init__(self, supported: Callable[[str], bool]) -> None:
        self._supported = supported
        self._proposals = 0
        self._protocol = ""
        self._frames = _Frames()
        self._to_send = b""

    @property
    def is_complete(self) -> bool:
        """Whether a protocol is agreed; the echo that says so may still wait to be sent."""
        return self._frames.state is _State.COMPLETE

    @property
    def protocol(self) -> str:
        """The protocol agreed; raises LocalProtocolError before that."""
        self._frames.check_complete()
        return self._protocol

    def data_to_send(self) -> bytes:
        """Take the bytes that the peer must get now."""
        data, self._to_send = self._to_send, b""
        return data

    def receive_data(self, data: bytes) -> None:
        """Take bytes of the peer, however they are cut.

        Raises RemoteProtocolError for what is no negotiation, or makes more than 32 proposals,
        LocalProtocolError once complete or dead.
        """
        frames = self._frames
        frames.receive_data(data)
        try:
            while not self.is_complete and (message := frames.next_frame()) is not None:
                self._read(message)
        except P2PError as error:
            self._to_send = b""
            frames.die(error)

    def receive_eof(self) -> NoReturn:
        """Learn that the peer sends no more; raises RemoteProtocolError, as nothing is agreed."""
        self._frames.check_running()
        self._frames.die(RemoteProtocolError("the peer ended the stream before a protocol"))

    def take_trailing(self) -> bytes:
        """Take the bytes behind the negotiation: the first of the protocol agreed."""
        return self._frames.take_trailing()

    def _read(self, message: str) -> None:
        if self._frames.state is _State.AWAITS_HEADER:
            self._frames.read_header(message)
            self._to_send += _HEADER_FRAME
            return
        self._proposals += 1
        if self._proposals > MAX_PROPOSALS:
            raise RemoteProtocolError(f"more than {MAX_PROPOSALS} proposals")
        # "ls", which once listed the protocols, is refused as go refuses it.
        if message.startswith("/") and self._supported(message):
            self._protocol = message
            self._frames.state = _State.COMPLETE
            self._to_send += _frame(message)
        else:
            self._to_send += _REFUSAL_FRAME


class LazyDialer:
    """A single proposal that rides on the stream's first bytes: a `Preface`."""

    def __init__(self, protocol: str) -> None:
        self._negotiation = DialerNegotiation((protocol,))

    @property
    def is_complete(self) -> bool:
        """Whether the peer has agreed."""
        return self._negotiation.is_complete

    def data_to_send(self) -> bytes:
        """Bytes that must precede the first ones of the application; empty once taken."""
        return self._negotiation.data_to_send()

    def receive_data(self, data: bytes) -> bytes | None:
        """Take bytes of the peer; return the application's once done, None while more is needed.

        Raises NegotiationError if the peer refuses, RemoteProtocolError if it talks nonsense,
        LocalProtocolError once dead.
        """
        if self.is_complete:
            return data
        self._negotiation.receive_data(data)
        return self._negotiation.take_trailing() if self.is_complete else None

    def receive_eof(self) -> None:
        """Learn that the peer sends no more; raises NegotiationError if it has not agreed."""
        if not self.is_complete:
            self._negotiation.receive_eof()


async def negotiate_dialer(stream: ByteStream, protocols: Sequence[str]) -> tuple[str, bytes]:
    """Propose protocols; return the one agreed and the bytes received behind the negotiation.

    The caller bounds the time. Raises NegotiationError, RemoteProtocolError, and what the stream
    raises.
    """
    return await _negotiate(stream, DialerNegotiation(protocols))


async def negotiate_listener(
    stream: ByteStream, supported: Callable[[str], bool]
) -> tuple[str, bytes]:
    """Answer proposals; return the one agreed and the bytes received behind the negotiation.

    The caller bounds the time. Raises RemoteProtocolError, and what the stream raises.
    """
    return await _negotiate(stream, ListenerNegotiation(supported))


_Negotiation: TypeAlias = DialerNegotiation | ListenerNegotiation


async def _negotiate(stream: ByteStream, negotiation: _Negotiation) -> tuple[str, bytes]:
    while True:
        if data := negotiation.data_to_send():
            await stream.send(data)
        if negotiation.is_complete:
            return negotiation.protocol, negotiation.take_trailing()
        try:
            received = await stream.receive()
        except anyio.EndOfStream:
            negotiation.receive_eof()
        negotiation.receive_data(received)


class _State(Enum):
    AWAITS_HEADER = "header"
    AWAITS_PROTOCOL = "protocol"
    COMPLETE = "complete"
    DEAD = "dead"


class _Frames:
    """What both sides share: the state, and lines out of bytes."""

    def __init__(self) -> None:
        self.state = _State.AWAITS_HEADER
        self._failure: P2PError | None = None
        # At most one frame and the chunk given last, whose rest is held until taken as trailing.
        self._buffer = bytearray()

    def receive_data(self, data: bytes) -> None:
        self.check_running()
        self._buffer += data

    def next_frame(self) -> str | None:
        buffer = self._buffer
        if (prefix := decode_varint(buffer, max_bytes=MAX_PREFIX)) is None:
            return None
        length, start = prefix
        if length > MAX_FRAME:
            raise RemoteProtocolError(f"a frame of {length} bytes, where {MAX_FRAME} are allowed")
        end = start + length
        if len(buffer) < end:
            return None
        frame = bytes(buffer[start:end])
        del buffer[:end]
        if not frame.endswith(b"\n"):
            raise RemoteProtocolError("a frame that does not end in a line break")
        try:
            return frame[:-1].decode()
        except UnicodeDecodeError:
            raise RemoteProtocolError("a frame that is not UTF-8") from None

    def read_header(self, text: str) -> None:
        if text != HEADER:
            raise RemoteProtocolError(f"{_shorten(text)} where {HEADER} was expected")
        self.state = _State.AWAITS_PROTOCOL

    def take_trailing(self) -> bytes:
        self.check_complete()
        data, self._buffer = bytes(self._buffer), bytearray()
        return data

    def check_running(self) -> None:
        if self._failure is not None:
            raise LocalProtocolError(f"the negotiation has failed: {self._failure}")
        if self.state is _State.COMPLETE:
            raise LocalProtocolError("the negotiation is complete")

    def check_complete(self) -> None:
        if self.state is not _State.COMPLETE:
            raise LocalProtocolError("no protocol is agreed")

    def die(self, error: P2PError) -> NoReturn:
        self.state = _State.DEAD
        self._failure = error
        self._buffer.clear()
        raise error


def _frame(text: str) -> bytes:
    return length_prefixed(text.encode() + b"\n")


_HEADER_FRAME = _frame(HEADER)
_REFUSAL_FRAME = _frame(REFUSAL)


def _proposal(protocol: str) -> bytes:
    # Anything that does not start with a slash is read by rust as an answer to "ls".
    if not protocol.startswith("/") or "\n" in protocol:
        raise LocalProtocolError(f"a protocol starts with / and has no line break: {protocol!r}")
    frame = _frame(protocol)
    if len(frame) > MAX_FRAME + MAX_PREFIX:
        raise LocalProtocolError(f"a protocol of more than {MAX_FRAME - 1} bytes: {protocol!r}")
    return frame


def _shorten(text: str) -> str:
    """Quote what a peer sent, for an error's text."""
    return repr(text if len(text) <= 64 else text[:64] + "...")
