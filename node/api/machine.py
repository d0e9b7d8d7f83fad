"""One request and its answer as HTTP/1.1, on the node's side; sans-IO, around h11.

Give `receive_data` what comes until it returns the request. Then send what `answer` or `refuse`
returns, or `begin`, `line` for each line, and `end`. One connection carries one exchange.

Browsers have no business here. Whatever bears a sign of one, or is meant for another host than
the fixed name that no name server knows, is refused without a body, before its path is looked at.
"""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import TYPE_CHECKING

import h11

from ...transports.core.errors import ControlError
from .routing import MethodNotAllowed, Request

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..events import Json
    from .config import ControlConfig

HOST = "isthmus"
"""The name that each request must be for: a page that had it resolved to this machine (DNS
rebinding) would send its own."""

BROWSER_HEADERS = frozenset({b"origin", b"referer", b"cookie"})
"""What browsers add to what pages send; no page can leave it out."""

BROWSER_PREFIXES = (b"sec-", b"access-control-")
"""The same: Sec-Fetch-*, Sec-WebSocket-*, and what asks for CORS."""

JSON_TYPE = "application/json"
LINES_TYPE = "application/x-ndjson"

COMMON_HEADERS = [
    ("Cache-Control", "no-store"),
    ("X-Content-Type-Options", "nosniff"),
    ("Connection", "close"),
]
"""No header of CORS is among them, nor ever will be."""


class Exchange:
    """The node's side of one exchange."""

    def __init__(self, config: ControlConfig) -> None:
        self._max_body = config.max_body
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=config.max_head)
        self._head: h11.Request | None = None
        self._body = bytearray()

    def receive_data(self, data: bytes) -> Request | None:
        """Take bytes; return the request once it is whole, and None before.

        Raises ControlError, with an empty text where nothing may be told. A head may be longer
        than its bound by what is given here at a time.
        """
        try:
            if data:
                self._http.receive_data(data)
            while True:
                event = self._http.next_event()
                if isinstance(event, h11.Request):
                    self._head = event
                    self._check(event)
                elif isinstance(event, h11.Data):
                    self._body += event.data
                elif isinstance(event, h11.EndOfMessage):
                    return self._request()
                else:
                    return None
        except h11.RemoteProtocolError as error:
            raise ControlError("", status=error.error_status_hint) from error

    def answer(self, value: Json, *, status: int = 200, allow: Sequence[str] = ()) -> bytes:
        """Return a whole answer; `allow` names the methods that a path takes."""
        headers = [("Content-Type", JSON_TYPE)]
        if allow:
            headers.append(("Allow", ", ".join(allow)))
        return self._send(status, headers, encoded(value))

    def refuse(self, error: ControlError) -> bytes:
        """Return the answer to a request that is refused or has failed.

        Nothing, if an answer has begun: that it ends in the middle has to do.
        """
        if self._http.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            return b""
        why = str(error)
        if not why:
            return self._send(error.status, [])
        told: dict[str, Json] = {"type": error.kind, "message": why}
        if error.attempts:
            told["attempts"] = [{**each} for each in error.attempts]
        allow = error.allowed if isinstance(error, MethodNotAllowed) else ()
        return self.answer({"error": told}, status=error.status, allow=allow)

    def begin(self) -> bytes:
        """Return the head of an answer in lines."""
        return self._begin(200, [("Content-Type", LINES_TYPE)])

    def line(self, value: Json) -> bytes:
        """Return one line of such an answer."""
        return self._http.send(h11.Data(data=encoded(value))) or b""

    def end(self) -> bytes:
        """Return its end."""
        return self._http.send(h11.EndOfMessage()) or b""

    def _check(self, head: h11.Request) -> None:
        """Refuse what a browser may have sent, then what is no request for this API."""
        if head.http_version not in (b"1.0", b"1.1"):
            raise ControlError("", status=505)
        names = {name for name, _ in head.headers}
        if _values(head, b"host") != [HOST] or any(map(_is_of_browsers, names)):
            raise ControlError("", status=403)
        if head.method == b"POST" and _media_types(head) != [JSON_TYPE]:
            raise ControlError(f"send the body as Content-Type: {JSON_TYPE}", status=415)
        if b"transfer-encoding" in names:
            raise ControlError("send the body with its Content-Length", status=411)
        if b"expect" in names:
            raise ControlError("send the body at once, without Expect", status=417)
        length = int("".join(_values(head, b"content-length")) or 0)
        if length > self._max_body:
            raise ControlError(f"a body has at most {self._max_body} bytes", status=413)
        if length and head.method != b"POST":
            raise ControlError("only a POST has a body", status=400)

    def _request(self) -> Request:
        assert self._head is not None
        path, _, query = self._head.target.decode("ascii").partition("?")
        return Request(self._head.method.decode("ascii"), path, query, bytes(self._body))

    def _send(self, status: int, headers: list[tuple[str, str]], body: bytes = b"") -> bytes:
        head = self._begin(status, [*headers, ("Content-Length", str(len(body)))])
        if self._head is not None and self._head.method == b"HEAD":
            return head + self.end()
        return head + (self._http.send(h11.Data(data=body)) or b"") + self.end()

    def _begin(self, status: int, headers: list[tuple[str, str]]) -> bytes:
        response = h11.Response(
            status_code=status,
            headers=[*headers, *COMMON_HEADERS],
            reason=HTTPStatus(status).phrase.encode("ascii"),
        )
        return self._http.send(response) or b""


def encoded(value: Json) -> bytes:
    """Return a line of JSON; only ASCII, so no text in it steers a terminal."""
    return json.dumps(value).replace("\x7f", "\\u007f").encode("ascii") + b"\n"


def _values(head: h11.Request, name: bytes) -> list[str]:
    return [value.decode("latin-1") for each, value in head.headers if each == name]


def _media_types(head: h11.Request) -> list[str]:
    types = _values(head, b"content-type")
    return [each.partition(";")[0].strip().lower() for each in types]


def _is_of_browsers(name: bytes) -> bool:
    return name in BROWSER_HEADERS or name.startswith(BROWSER_PREFIXES)
