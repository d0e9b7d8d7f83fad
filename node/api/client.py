"""A client of the control API, on asyncio and on trio: one connection a request."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, NoReturn

import anyio
import h11

from ...transports.core.errors import ControlError, RemoteProtocolError
from ...transports.sockets import SocketStream
from .machine import HOST, JSON_TYPE, encoded
from .place import connected

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from pathlib import Path

    from ..events import Json

ANSWER_TIME = 10.0
"""Seconds for an answer that the node need not ask anyone for."""

MAX_ANSWER = 32 * 1024 * 1024
"""Bytes of an answer or of a line: a thousand peers with all the addresses that one may have."""

_READ_SIZE = 65_536

_FORBIDDEN = "the isthmus behind this socket is another user's"


class ControlClient:
    """Asks the node behind a control socket.

    Every method raises NotRunning if there is none, ControlError for what it refuses, StoreError
    for a socket that this user may not use, RemoteProtocolError if it is no control socket, and
    BrokenResourceError if the node ends meanwhile.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    async def get(self, target: str) -> dict[str, Json]:
        """Return what the node says of itself; raises TimeoutError if it does not within 10 s."""
        with anyio.move_on_after(ANSWER_TIME):
            return await self._ask("GET", target)
        raise TimeoutError(f"the isthmus behind {self._path} does not answer")

    async def post(self, target: str, values: Mapping[str, Json]) -> dict[str, Json]:
        """Have the node do something, and return what came of it; cancelling gives it up."""
        return await self._ask("POST", target, {**values})

    @asynccontextmanager
    async def lines(self, target: str) -> AsyncIterator[_LineReader]:
        """Give an iterator over an answer without an end, which has begun.

        It ends when the node has stopped, and raises BrokenResourceError if the node was killed.
        """
        async with SocketStream(connected(self._path)) as stream:
            answer = _AnswerReader(stream)
            with anyio.fail_after(ANSWER_TIME):
                await answer.request("GET", target)
            yield _LineReader(answer)

    async def _ask(
        self, method: str, target: str, values: dict[str, Json] | None = None
    ) -> dict[str, Json]:
        async with SocketStream(connected(self._path)) as stream:
            answer = _AnswerReader(stream)
            await answer.request(method, target, values)
            return _parse(await answer.body())


class _AnswerReader:
    """One exchange, on the client's side."""

    def __init__(self, stream: SocketStream) -> None:
        self._stream = stream
        self._http = h11.Connection(h11.CLIENT)

    async def request(
        self, method: str, target: str, values: dict[str, Json] | None = None
    ) -> None:
        """Send a request and read the head of its answer; raises ControlError if it is refused."""
        headers = [("Host", HOST), ("Accept", JSON_TYPE)]
        body = b"" if values is None else encoded(values)
        if body:
            headers += [("Content-Type", JSON_TYPE), ("Content-Length", str(len(body)))]
        head = h11.Request(method=method, target=target, headers=headers)
        data = self._http.send(head) or b""
        if body:
            data += self._http.send(h11.Data(data=body)) or b""
        # Whoever is turned away at once finds that it cannot send, and yet is told why.
        with suppress(anyio.BrokenResourceError):
            await self._stream.send(data + (self._http.send(h11.EndOfMessage()) or b""))
        event = await self._next()
        if not isinstance(event, h11.Response):
            raise RemoteProtocolError("what answers is no control socket")
        if event.status_code != 200:
            _fail(event.status_code, await self.body())

    async def body(self) -> bytes:
        """Read the rest of the answer."""
        body = bytearray()
        while (data := await self.piece()) is not None:
            body += data
            _check_size(len(body))
        return bytes(body)

    async def piece(self) -> bytes | None:
        """Read more of the answer; None at its end."""
        event = await self._next()
        return bytes(event.data) if isinstance(event, h11.Data) else None

    async def _next(self) -> h11.Event:
        try:
            while (event := self._http.next_event()) is h11.NEED_DATA:
                self._http.receive_data(await self._receive())
        except h11.RemoteProtocolError as error:
            raise RemoteProtocolError(f"what answers is no control socket: {error}") from error
        assert not isinstance(event, type)
        return event

    async def _receive(self) -> bytes:
        try:
            return await self._stream.receive(_READ_SIZE)
        except anyio.EndOfStream:
            raise anyio.BrokenResourceError("the node has ended") from None


class _LineReader:
    """The objects of an answer in lines."""

    def __init__(self, answer: _AnswerReader) -> None:
        self._answer = answer
        self._buffer = bytearray()

    def __aiter__(self) -> _LineReader:
        return self

    async def __anext__(self) -> dict[str, Json]:
        while (end := self._buffer.find(b"\n")) < 0:
            data = await self._answer.piece()
            if data is None and self._buffer:
                raise RemoteProtocolError("what answers ends within a line")
            if data is None:
                raise StopAsyncIteration
            self._buffer += data
            _check_size(len(self._buffer))
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 1]
        return _parse(line)


def _fail(status: int, body: bytes) -> NoReturn:
    error = _parse(body or b"{}").get("error")
    if not isinstance(error, dict):
        why = _FORBIDDEN if status == 403 else f"refused with HTTP status {status}"
        raise ControlError(why, status=status)
    raise ControlError(
        str(error.get("message")),
        status=status,
        kind=str(error.get("type")),
        attempts=_attempts(error.get("attempts")),
    )


def _attempts(told: Json) -> list[dict[str, str | float]]:
    return [
        {name: value for name, value in each.items() if isinstance(value, (str, float, int))}
        for each in (told if isinstance(told, list) else ())
        if isinstance(each, dict)
    ]


def _parse(body: bytes) -> dict[str, Json]:
    try:
        value = json.loads(body)
    except ValueError as error:
        raise RemoteProtocolError("what answers is no control socket") from error
    if not isinstance(value, dict):
        raise RemoteProtocolError("what answers is no control socket")
    return value


def _check_size(size: int) -> None:
    if size > MAX_ANSWER:
        raise RemoteProtocolError(f"an answer of more than {MAX_ANSWER} bytes")
