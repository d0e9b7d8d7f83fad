"""Events read back from the JSON that a control socket tells them in."""

from __future__ import annotations

from dataclasses import fields
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from ...relay.autonat.reachability import Reachability
from ...transports.core.errors import P2PError
from ...transports.core.interfaces import Side
from ...transports.core.multiaddr import Multiaddr
from ...transports.core.peer_id import PeerId
from .. import events
from ..events import NodeEvent, event_name
from ..link import LinkState

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..events import Json

Item = TypeVar("Item")


class ToldError(Exception):
    """An error of the node, of which only the text has come."""


def read_event(plain: dict[str, Json]) -> NodeEvent | None:
    """Return an event as the node has it; None if this version knows none such.

    A node that runs may be newer than the program that asks it.
    """
    kind = _kinds().get(str(plain.get("event")))
    if kind is None:
        return None
    read: Callable[..., NodeEvent] = kind
    try:
        return read(**{item.name: _read(str(item.type), plain[item.name]) for item in fields(kind)})
    except (KeyError, ValueError, TypeError, P2PError):
        return None


@cache
def _kinds() -> dict[str, type[NodeEvent]]:
    return {
        event_name(name): each
        for name, each in vars(events).items()
        if isinstance(each, type) and issubclass(each, NodeEvent)
    }


def _read(annotation: str, value: Json) -> object:
    """Return a value by what the event's class says of it; raises KeyError for other types."""
    name, _, optional = annotation.partition(" | ")
    if value is None and optional == "None":
        return None
    if name.startswith("tuple["):
        if not isinstance(value, list):
            raise TypeError(annotation)
        return tuple(_read(name[len("tuple[") :].partition(",")[0], each) for each in value)
    return _READ[name](value)


def _text(value: Json) -> str:
    if not isinstance(value, str):
        raise TypeError("not a text")
    return value


def _plain(kind: type[Item]) -> Callable[[Json], Item]:
    def read(value: Json) -> Item:
        if not isinstance(value, kind):
            raise TypeError(f"not a value of {kind.__name__}")
        return value

    return read


def _error(value: Json) -> ToldError:
    name, _, text = _text(value).partition(": ")
    return ToldError(text or name)


_READ: dict[str, Callable[[Json], object]] = {
    "PeerId": lambda value: PeerId.parse(_text(value)),
    "Multiaddr": lambda value: Multiaddr.parse(_text(value)),
    "Path": lambda value: Path(_text(value)),
    "LinkState": lambda value: LinkState[_text(value).upper()],
    "Reachability": lambda value: Reachability[_text(value).upper()],
    "Side": lambda value: Side[_text(value).upper()],
    "BaseException": _error,
    "str": _text,
    "bool": _plain(bool),
    "int": _plain(int),
    "float": _plain(float),
}
