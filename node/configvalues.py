"""How a setting of each type is read from TOML and written as TOML; pure."""

from __future__ import annotations

import enum
import json
import math
import types
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Union, get_args, get_origin

from ..transports.core.errors import AddressError, ConfigError
from ..transports.core.multiaddr import Multiaddr
from ..transports.core.peer_id import PeerId
from .printable import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

MAX_SHOWN = 60
"""Characters of a value that a complaint repeats: enough to find it by."""

MAX_INTEGER = 2**63 - 1
"""What TOML promises to carry."""

NOTHING = "none"
"""Stands for None where leaving a key out means something else."""

EXAMPLES: dict[type, str] = {
    Multiaddr: "an address is needed, such as /ip4/0.0.0.0/tcp/4001",
    PeerId: "a peer id is needed, such as 12D3KooW...",
}


@dataclass(frozen=True, slots=True)
class ValueKind:
    """Values of one type: `read` takes what tomllib returns, and raises ConfigError, saying why.

    `read` is given the directory that relative paths are meant from, `write` a value of the type.
    `name` is what documents call such a value.
    """

    name: str
    read: Callable[[object, Path], Any]
    write: Callable[[Any], str]
    is_path: bool = False


def kind_of(hint: object, default: object) -> ValueKind:
    """Return the kind of a field's type; raises TypeError for a type that no file can carry."""
    if isinstance(hint, type) and hint in _SCALARS:
        return _SCALARS[hint]
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return _choice({str(each.value): each for each in hint})
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Literal:
        return _choice({str(each): each for each in arguments})
    if origin in (Union, types.UnionType):
        return _union(hint, arguments, default)
    if origin in (tuple, list) and (origin is list or arguments[1:] == (...,)):
        return _many(kind_of(arguments[0], default=...), origin)
    raise TypeError(f"a setting cannot be of the type {hint}")


def shown(value: object) -> str:
    """Return a value as a complaint repeats it."""
    if isinstance(value, dict):
        return "a table"
    if isinstance(value, list):
        return "a list"
    if isinstance(value, str):
        return printable(json.dumps(value, ensure_ascii=False), limit=MAX_SHOWN)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int) and abs(value) > MAX_INTEGER:
        return "one of that many digits"
    return printable(str(value), limit=MAX_SHOWN)


def quoted(text: str) -> str:
    """Return a TOML string on one line; raises ConfigError for what is no Unicode text."""
    return f'"{"".join(map(_escaped, text))}"'


def nearest(name: str, known: Sequence[str]) -> str | None:
    """Return the known name that was probably meant."""
    # What is longer than any name is not looked at: comparing takes time by its length.
    close = get_close_matches(name[: 2 * MAX_SHOWN].lower(), known, n=1)
    return close[0] if close else None


def _escaped(character: str) -> str:
    if character in '"\\':
        return "\\" + character
    if character.isprintable():
        return character
    code = ord(character)
    if 0xD800 <= code < 0xE000:
        raise ConfigError("a path or text that is not UTF-8 cannot be written to a file")
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _read_bool(value: object, base: Path) -> bool:
    del base
    if not isinstance(value, bool):
        raise ConfigError(f"true or false is needed, not {shown(value)}")
    return value


def _read_int(value: object, base: Path) -> int:
    del base
    if not isinstance(value, int) or isinstance(value, bool):
        raise ConfigError(f"a whole number is needed, not {shown(value)}")
    if abs(value) > MAX_INTEGER:
        raise ConfigError(f"a whole number up to {MAX_INTEGER} is needed, not {shown(value)}")
    return value


def _read_float(value: object, base: Path) -> float:
    del base
    number = math.nan
    if isinstance(value, float):
        number = value
    elif isinstance(value, int) and not isinstance(value, bool) and abs(value) <= MAX_INTEGER:
        number = float(value)
    if math.isnan(number):
        raise ConfigError(f"a number is needed, not {shown(value)}")
    return number


def _read_str(value: object, base: Path) -> str:
    del base
    if not isinstance(value, str):
        raise ConfigError(f"a text is needed, not {shown(value)}")
    return value


def _read_path(value: object, base: Path) -> Path:
    if not isinstance(value, str) or not value or "\0" in value:
        raise ConfigError(f"a path is needed, not {shown(value)}")
    if value.startswith("~"):
        raise ConfigError(f"a path is needed in full, since ~ stands for nothing: {shown(value)}")
    return base / value


def _parsed(name: str, kind: type[Multiaddr | PeerId]) -> ValueKind:
    def read(value: object, base: Path) -> object:
        del base
        if not isinstance(value, str):
            raise ConfigError(f"{EXAMPLES[kind]}, not {shown(value)}")
        try:
            return kind.parse(value)
        except AddressError as error:
            why = printable(str(error))
            raise ConfigError(f"{EXAMPLES[kind]}, not {shown(value)}: {why}") from error

    return ValueKind(name, read, lambda value: quoted(str(value)))


_SCALARS: dict[type, ValueKind] = {
    bool: ValueKind("true or false", _read_bool, lambda value: "true" if value else "false"),
    int: ValueKind("whole number", _read_int, str),
    float: ValueKind("number", _read_float, lambda value: repr(float(value))),
    str: ValueKind("text", _read_str, quoted),
    Path: ValueKind("path", _read_path, lambda path: quoted(str(path)), is_path=True),
    Multiaddr: _parsed("address", Multiaddr),
    PeerId: _parsed("peer id", PeerId),
}


def _choice(values: dict[str, Any]) -> ValueKind:
    *most, last = values
    needed = f"{', '.join(most)} or {last} is needed" if most else f"{last} is needed"

    def read(value: object, base: Path) -> object:
        del base
        if isinstance(value, str) and value in values:
            return values[value]
        meant = nearest(value, list(values)) if isinstance(value, str) else None
        hint = f"; did you mean {meant}?" if meant else ""
        raise ConfigError(f"{needed}, not {shown(value)}{hint}")

    texts = {each: text for text, each in values.items()}
    return ValueKind(" or ".join(map(quoted, values)), read, lambda value: quoted(texts[value]))


def _union(hint: object, arguments: tuple[object, ...], default: object) -> ValueKind:
    members = [each for each in arguments if each is not type(None)]
    if set(members) == {Path, str}:
        # Where a program may give either, a file gives a path.
        members = [Path]
    if len(members) != 1:
        raise TypeError(f"a setting cannot be of the type {hint}")
    kind = kind_of(members[0], default=...)
    if default is None or len(arguments) == len(members):
        return kind

    def read(value: object, base: Path) -> object:
        return None if value == NOTHING else kind.read(value, base)

    def write(value: object) -> str:
        return quoted(NOTHING) if value is None else kind.write(value)

    return ValueKind(f"{kind.name}, or {quoted(NOTHING)}", read, write, is_path=kind.is_path)


def _many(item: ValueKind, container: Callable[[list[object]], object]) -> ValueKind:
    def read(value: object, base: Path) -> object:
        if not isinstance(value, list):
            hint = f": [{shown(value)}]" if isinstance(value, str) else f", not {shown(value)}"
            raise ConfigError(f"a list is needed{hint}")
        return container([item.read(each, base) for each in value])

    def write(value: Sequence[object]) -> str:
        return f"[{', '.join(map(item.write, value))}]"

    return ValueKind(f"list, each a {item.name}", read, write, is_path=item.is_path)
