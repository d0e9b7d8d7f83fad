"""Both ends of a dial-request stream; sans-IO.

The client's: send what `data_to_send` has, feed `receive_data`, and after the peer's half-close
`receive_eof`, until there is an `answer`. The server's: feed `receive_data` until it returns the
address to dial, dial it, say `dialled`; what it refuses instead, `data_to_send` says.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto
from typing import TYPE_CHECKING

from ...transports.core.errors import LocalProtocolError, RemoteProtocolError
from ...transports.core.varint import LengthPrefixReader
from .wire import (
    MAX_CHUNK,
    MAX_DATA,
    MAX_MESSAGE_BYTES,
    DialData,
    DialDataRequest,
    DialRequest,
    DialResponse,
    DialStatus,
    ResponseStatus,
    decode_message,
    encode_message,
)

if TYPE_CHECKING:
    import ipaddress
    from collections.abc import Callable

    from ...transports.core.multiaddr import Multiaddr

MIN_CHUNK = 100
"""Bytes that each message of data but the last must have, as in go: smaller ones cost us more to
read than the peer to send."""

MAX_RESPONSES = 64
"""Messages that one request is answered with: js sends one for each address."""

_CHUNK = encode_message(DialData(bytes(MAX_CHUNK)))


class RequestClient:
    """The end that asks."""

    def __init__(self, addresses: tuple[Multiaddr, ...], nonce: int) -> None:
        self._addresses = addresses
        self._reader = LengthPrefixReader(MAX_MESSAGE_BYTES)
        self._waiting = encode_message(DialRequest(addresses, nonce))
        self._owed = 0
        self._has_paid = False
        self._left = MAX_RESPONSES
        self._refusal: DialResponse | None = None
        self.answer: DialResponse | None = None
        """The end of the request, once it has come."""

    def data_to_send(self) -> bytes:
        """Return what is to be sent next, some KiB at most; empty if nothing is."""
        if not self._waiting and self._owed > 0:
            self._waiting = _CHUNK
            self._owed -= MAX_CHUNK
        data, self._waiting = self._waiting, b""
        return data

    def receive_data(self, data: bytes) -> None:
        """Take bytes of the server; raises RemoteProtocolError."""
        for frame in self._reader.receive_data(data):
            if self.answer is None:
                self._receive(frame)

    def receive_eof(self) -> None:
        """Take note that nothing more comes; raises RemoteProtocolError without an answer."""
        self.answer = self.answer or self._refusal
        if self.answer is None:
            raise RemoteProtocolError("the server ended the stream without an answer")

    def _receive(self, frame: bytes) -> None:
        self._left -= 1
        if self._left < 0:
            raise RemoteProtocolError(f"more than {MAX_RESPONSES} answers to one request")
        match decode_message(frame):
            case DialDataRequest(index, count):
                self._check(index)
                if self._has_paid or count > MAX_DATA:
                    raise RemoteProtocolError(f"the server wants {count} bytes for one dial")
                self._has_paid = True
                self._owed = count
            case DialResponse(ResponseStatus.DIAL_REFUSED) as response:
                # js tells this of each address that it does not dial, before the one that it does.
                self._refusal = response
            case DialResponse(status, index) as response:
                if status is ResponseStatus.OK:
                    self._check(index)
                self.answer = response
            case _:
                raise RemoteProtocolError("a server of AutoNAT sends no requests")

    def _check(self, index: int) -> None:
        if index >= len(self._addresses):
            raise RemoteProtocolError(f"the server names address {index}, which it was not told")


@dataclass(frozen=True, slots=True)
class DialWanted:
    """Dial this address, and no other, and prove it with the nonce.

    `is_paid`: it has another IP address than the client, who has paid for it with data.
    """

    address: Multiaddr
    nonce: int
    is_paid: bool


class _State(Enum):
    REQUEST = auto()
    DATA = auto()
    DIALLING = auto()
    DONE = auto()


class RequestServer:
    """The end that dials.

    `observed` is the client's IP address as the server sees it; `may_dial` says which addresses
    are dialled at all, `price` is what the dial of another IP address costs, in bytes, and
    `may_charge` is asked before the client is told it.
    """

    def __init__(
        self,
        *,
        observed: ipaddress.IPv4Address | ipaddress.IPv6Address | None,
        may_dial: Callable[[Multiaddr], bool],
        price: int,
        may_charge: Callable[[], bool] = lambda: True,
    ) -> None:
        self._observed = observed
        self._may_dial = may_dial
        self._price = price
        self._may_charge = may_charge
        self._reader = LengthPrefixReader(MAX_MESSAGE_BYTES)
        self._state = _State.REQUEST
        self._wanted: DialWanted | None = None
        self._index = 0
        self._owed = 0
        self._waiting = b""

    @property
    def is_done(self) -> bool:
        """Say whether the answer has been made: send it, and end the stream."""
        return self._state is _State.DONE

    def data_to_send(self) -> bytes:
        """Return what is to be sent."""
        data, self._waiting = self._waiting, b""
        return data

    def receive_data(self, data: bytes) -> DialWanted | None:
        """Take bytes of the client; return the one dial once it is due.

        Raises RemoteProtocolError for what is no request, and for data in crumbs.
        """
        self._reader.feed(data)
        while self._is_reading and (frame := self._reader.next_frame()) is not None:
            if self._receive(frame):
                return self._wanted
        return None

    def reject(self) -> None:
        """Answer that there is no time for this request; before anything was received."""
        self._respond(DialResponse(ResponseStatus.REQUEST_REJECTED))

    def dialled(self, status: DialStatus) -> None:
        """Answer what became of the dial."""
        if self._state is not _State.DIALLING:
            raise LocalProtocolError("nothing was to be dialled")
        self._respond(DialResponse(ResponseStatus.OK, self._index, status))

    @property
    def _is_reading(self) -> bool:
        return self._state in (_State.REQUEST, _State.DATA)

    def _receive(self, frame: bytes) -> bool:
        """Take a message; return whether the dial is due."""
        message = decode_message(frame)
        if self._state is _State.REQUEST and isinstance(message, DialRequest):
            self._choose(message)
        elif self._state is _State.DATA and isinstance(message, DialData):
            self._take(message.data)
        else:
            raise RemoteProtocolError("this message has no place here")
        return not self._is_reading and not self.is_done

    def _choose(self, request: DialRequest) -> None:
        numbered = enumerate(request.addresses)
        possible = ((index, each) for index, each in numbered if each and self._may_dial(each))
        found = next(possible, None)
        if found is None:
            self._respond(DialResponse(ResponseStatus.DIAL_REFUSED))
            return
        self._index, address = found
        is_paid = self._observed is None or address.ip != self._observed
        self._wanted = DialWanted(address.without_peer(), request.nonce, is_paid)
        if not is_paid:
            self._state = _State.DIALLING
        elif self._may_charge():
            self._owed = self._price
            self._waiting = encode_message(DialDataRequest(self._index, self._price))
            self._state = _State.DATA
        else:
            self._respond(DialResponse(ResponseStatus.REQUEST_REJECTED))

    def _take(self, data: bytes) -> None:
        self._owed -= len(data)
        if self._owed <= 0:
            self._state = _State.DIALLING
        elif len(data) < MIN_CHUNK:
            raise RemoteProtocolError(f"data in parts of less than {MIN_CHUNK} bytes")

    def _respond(self, response: DialResponse) -> None:
        self._waiting = encode_message(response)
        self._state = _State.DONE
