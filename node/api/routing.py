"""From a request to the endpoint that serves it, and to the arguments that this one takes.

Sans-IO. The table itself is in `endpoints.py`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NoReturn, TypeAlias
from urllib.parse import parse_qsl

from ...transports.core.errors import ControlError
from ..dialplan import MAX_ADDRESSES

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, Awaitable, Callable, Mapping, Sequence

    from ..events import Json, NodeEvent
    from ..node import Node

MAX_QUERY_FIELDS = 16
"""Fields of a query; no endpoint takes as many."""


@dataclass(frozen=True, slots=True)
class Request:
    """A request that has arrived whole and that no browser has made."""

    method: str
    path: str
    query: str = ""
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class Control:
    """What the endpoints work on; `started_at` is of `time.monotonic`."""

    node: Node
    started_at: float


@dataclass(frozen=True, slots=True)
class Lines:
    """An answer without an end: one event a line, until the client goes or the node stops."""

    first: NodeEvent
    events: AsyncIterable[NodeEvent]


Answer: TypeAlias = "dict[str, Json] | Lines"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One thing that can be asked for.

    `takes` names what the query of a GET or the body of a POST may hold. A GET changes nothing.
    What `handle` raises becomes the answer: see `failures.py`.
    """

    method: Literal["GET", "POST"]
    path: str
    handle: Callable[[Control, Arguments], Awaitable[Answer]]
    takes: tuple[str, ...] = ()


class MethodNotAllowed(ControlError):
    """The path takes other methods than this one."""

    def __init__(self, path: str, allowed: Sequence[str]) -> None:
        self.allowed = tuple(allowed)
        super().__init__(f"{path} takes {' and '.join(self.allowed)}", status=405)


class Arguments:
    """What a request names, read with a type and a bound; raises ControlError (400) otherwise."""

    def __init__(self, values: Mapping[str, Json]) -> None:
        self._values = values

    def text(self, name: str) -> str:
        """Return a text that must be there."""
        value = self._values.get(name)
        if not isinstance(value, str) or not value:
            _refuse(f"{name!r} must be a text")
        return _encodable(name, value)

    def optional_text(self, name: str) -> str | None:
        """Return a text if it is there."""
        return self.text(name) if name in self._values else None

    def text_or_texts(self, name: str) -> str | list[str]:
        """Return a text, or a list of at most `MAX_ADDRESSES`, that must be there."""
        value = self._values.get(name)
        if not isinstance(value, list):
            return self.text(name)
        if not value or len(value) > MAX_ADDRESSES:
            _refuse(f"{name!r} must have between one and {MAX_ADDRESSES} texts")
        return [Arguments({name: each}).text(name) for each in value]

    def number(self, name: str, *, default: int, low: int, high: int) -> int:
        """Return a whole number between two bounds, both included."""
        value = self._values.get(name, default)
        if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 20:
            value = int(value)  # out of a query, where all are texts
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            _refuse(f"{name!r} must be a whole number between {low} and {high}")
        return value

    def seconds(self, name: str, *, high: float) -> float | None:
        """Return a time in seconds, above 0 and at most `high`; None if it is not there."""
        value = self._values.get(name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= high:
            _refuse(f"{name!r} must be seconds, above 0 and at most {high:g}")
        return float(value)


class Table:
    """The endpoints by path and method."""

    def __init__(self, endpoints: Sequence[Endpoint]) -> None:
        self._by_path: dict[str, dict[str, Endpoint]] = {}
        for endpoint in endpoints:
            self._by_path.setdefault(endpoint.path, {})[endpoint.method] = endpoint

    def find(self, request: Request) -> tuple[Endpoint, Arguments]:
        """Return what serves a request, and with what; raises ControlError (400, 404, 405)."""
        methods = self._by_path.get(request.path)
        if methods is None:
            paths = ", ".join(self._by_path)
            raise ControlError(f"there is no {request.path[:80]!r}; there are {paths}", status=404)
        endpoint = methods.get(request.method)
        if endpoint is None:
            raise MethodNotAllowed(request.path, tuple(methods))
        if endpoint.method == "GET":
            values = _from_query(request.query)
        elif request.query:
            _refuse("what a POST is about goes into its body, not into a query")
        else:
            values = _from_body(request.body)
        if unknown := sorted(values.keys() - set(endpoint.takes)):
            takes = ", ".join(map(repr, endpoint.takes)) or "nothing"
            _refuse(f"{request.path} takes {takes}, and no {unknown[0][:80]!r}")
        return endpoint, Arguments(values)


def _from_query(query: str) -> dict[str, Json]:
    if not query:
        return {}
    try:
        pairs = parse_qsl(
            query,
            keep_blank_values=True,
            strict_parsing=True,
            errors="strict",
            max_num_fields=MAX_QUERY_FIELDS,
        )
    except ValueError as error:
        raise ControlError("the query does not parse", status=400) from error
    if len(dict(pairs)) < len(pairs):
        _refuse("the query names something twice")
    return {**dict(pairs)}


def _from_body(body: bytes) -> dict[str, Json]:
    try:
        value = json.loads(body or b"{}", parse_constant=_no_number, object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        raise ControlError("the body is not JSON, or names something twice", status=400) from error
    if not isinstance(value, dict):
        _refuse("the body must be a JSON object")
    return value


def _no_number(text: str) -> NoReturn:
    raise ValueError(text)


def _once(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
    if len(found := dict(pairs)) < len(pairs):
        raise ValueError("something is named twice")
    return found


def _encodable(name: str, value: str) -> str:
    try:
        value.encode()
    except UnicodeEncodeError as error:  # half of a surrogate pair, which JSON can write
        raise ControlError(f"{name!r} is no Unicode text", status=400) from error
    return value


def _refuse(why: str) -> NoReturn:
    raise ControlError(why, status=400)
