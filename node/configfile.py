"""Configuration as TOML: from a text to frozen dataclasses, by the types of their fields; pure.

A `Schema` knows the settings below one dataclass and where each stands in a file. `read_toml`
makes a `Layer` of a text, other layers are made of options; `compose` lays them over each other and
makes the value, or raises ConfigRefused with everything that is wrong.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar, get_type_hints

from ..transports.core.errors import ConfigError, ConfigProblem, ConfigRefused
from ..transports.core.multiaddr import Multiaddr
from ..transports.core.peer_id import PeerId
from .configvalues import ValueKind, kind_of, nearest, quoted
from .printable import printable

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from _typeshed import DataclassInstance

MAX_PROBLEMS = 20
"""Problems that are told of one file; who has more has written something else."""

MAX_KEY = 100
"""Characters of a key that a complaint repeats."""

MAX_STATEMENT = 100
"""Lines of one setting whose first line is looked for; the time for it grows with the square."""

MAX_DEPTH = 8
"""Tables inside each other whose lines are looked for; no setting lies as deep."""

FILE = "file"

_BARE = re.compile(r"[A-Za-z0-9_-]+")
"""A key that TOML writes without quotes."""

_NAMES = {"Multiaddr": Multiaddr, "Path": Path, "PeerId": PeerId}
"""What the fields' types may name without importing it when they run."""

Root = TypeVar("Root", bound="DataclassInstance")
Place = tuple[str, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Key:
    """One setting: its place in a file, the attributes that lead to it, its type and default."""

    place: Place
    attributes: Place
    owner: type
    kind: ValueKind
    default: Any

    @property
    def text(self) -> str:
        """The place, as errors and documents name it."""
        return ".".join(self.place)

    def value_in(self, root: object) -> object:
        """Return the setting's value in a whole configuration."""
        for name in self.attributes:
            root = getattr(root, name)
        return root


class Schema(Generic[Root]):
    """The settings below a dataclass that can be made without arguments.

    A field that is a dataclass becomes a section of its own at the top, the others stand in the
    section `home` if their dataclass is the root; `places` has the exceptions, by the attributes
    that lead there. Raises TypeError for a field whose type no file can carry.
    """

    def __init__(
        self, root: type[Root], *, home: str, places: Mapping[str, str] | None = None
    ) -> None:
        self.default = root()
        self._places = {key: tuple(text.split(".")) for key, text in (places or {}).items()}
        self.keys: dict[Place, Key] = {}
        for key in self._walk(self.default, (), (home,)):
            if key.place in self.keys:
                raise TypeError(f"two settings are called {key.text}")
            self.keys[key.place] = key
        self.sections = {key.place[:count] for key in self.keys.values() for count in _inner(key)}
        if clash := self.sections & set(self.keys):
            raise TypeError(f"both settings and sections: {clash}")

    def key(self, text: str) -> Key:
        """Return the setting of a dotted name; raises KeyError."""
        return self.keys[tuple(text.split("."))]

    def _walk(
        self, instance: DataclassInstance, attributes: Place, section: Place
    ) -> Iterator[Key]:
        owner = type(instance)
        hints = get_type_hints(owner, localns=_NAMES)
        for each in fields(instance):
            if not each.init:
                continue
            path, hint = (*attributes, each.name), hints[each.name]
            value = getattr(instance, each.name)
            place = self._places.get(".".join(path))
            if is_section(hint):
                yield from self._walk(value, path, place or (each.name,))
            else:
                kind = kind_of(hint, value)
                yield Key(place or (*section, each.name), path, owner, kind, value)


class Layer:
    """What one source says: a value for some keys, and what of it cannot be used."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.values: dict[Key, Any] = {}
        self.problems: list[ConfigProblem] = []

    def where(self, place: Place) -> str:
        """Return where in this source a setting was made."""
        return f"{self.source}: {'.'.join(place)}"

    def line(self, place: Place) -> int | None:
        """Return the line that a setting stands in, if that can be told."""
        del place
        return None

    def complain(self, place: Place, why: str) -> None:
        """Take note of a setting that cannot be used."""
        self.problems.append(self.problem(place, why))

    def problem(self, place: Place, why: str) -> ConfigProblem:
        """Return why a setting cannot be used, and where it was made."""
        return ConfigProblem(
            _shown_place(place), why, where=self.where(place), line=self.line(place)
        )


class OptionLayer(Layer):
    """Values that options or variables have given; `names` are theirs."""

    def __init__(self, source: str) -> None:
        super().__init__(source)
        self._names: dict[Place, str] = {}

    def set(self, key: Key, value: object, *, name: str) -> None:
        """Add a value, which has the type of the setting."""
        self.values[key] = value
        self._names[key.place] = name

    def where(self, place: Place) -> str:
        """Return the option; of a section all that were given for it."""
        given = [name for key, name in self._names.items() if key[: len(place)] == place]
        return f"{self.source}: {', '.join(given)}"


class FileLayer(Layer):
    """What a file says."""

    def __init__(self, text: str, *, name: str) -> None:
        super().__init__(FILE)
        self._text = text
        self.name = name

    def where(self, place: Place) -> str:
        """Return the file's name, and the line if it can be told."""
        line = self.line(place)
        return self.name if line is None else f"{self.name}, line {line}"

    def line(self, place: Place) -> int | None:
        """Return the line that a setting or section begins in."""
        return self._lines.get(place)

    @cached_property
    def _lines(self) -> dict[Place, int]:
        return find_lines(self._text)


def is_section(hint: object) -> bool:
    """Say whether a field's type is a dataclass of settings, not a value."""
    return isinstance(hint, type) and is_dataclass(hint) and hint not in _NAMES.values()


def read_toml(schema: Schema[Any], text: str, *, name: str, base: Path) -> FileLayer:
    """Read a file's text; what is wrong with it becomes the layer's problems.

    `name` is what errors call the file; its relative paths are meant from the directory `base`.
    """
    import tomllib  # only here, since most programs read no file

    layer = FileLayer(text, name=name)
    try:
        document = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        why = "nested too deeply" if isinstance(error, RecursionError) else printable(str(error))
        layer.problems.append(ConfigProblem("", f"this is not TOML: {why}", where=name))
        return layer
    _read_table(schema, document, (), layer, base)
    return layer


def compose(schema: Schema[Root], *layers: Layer) -> Root:
    """Return the configuration that layers make, each over the ones before it.

    Raises ConfigRefused with the problems of all layers, and with those of values that are right
    by themselves but not in their dataclass, at most MAX_PROBLEMS.
    """
    builder = _Builder(layers)
    value = builder.build(schema.default, (), [*schema.keys.values()])
    problems = [each for layer in layers for each in layer.problems] + builder.problems
    problems.sort(key=lambda each: math.inf if each.line is None else each.line)
    if problems:
        more = len(problems) - MAX_PROBLEMS
        kept = problems[:MAX_PROBLEMS]
        if more > 0:
            kept.append(ConfigProblem("", f"and {more} more"))
        raise ConfigRefused(kept)
    return value


def source_of(key: Key, layers: Sequence[Layer]) -> Layer | None:
    """Return the layer that a setting comes from; None for a default."""
    return next((layer for layer in reversed(layers) if key in layer.values), None)


def find_lines(text: str) -> dict[Place, int]:
    """Return the line in which each key of a valid TOML text begins, as far as it can be told.

    Statement by statement: lines are added until they are one, which tomllib decides.
    """
    import tomllib

    found: dict[Place, int] = {}
    section: Place = ()
    statement: list[str] = []
    # Only what TOML calls the end of a line: there are others, which its comments may hold.
    for number, line in enumerate(text.split("\n"), 1):
        if not statement and (not line.strip() or line.lstrip().startswith("#")):
            continue
        statement.append(line)
        if len(statement) > MAX_STATEMENT:
            break
        try:
            table = tomllib.loads("\n".join(statement) + "\n")
        except (ValueError, RecursionError):
            continue
        begin = number - len(statement) + 1
        if statement[0].lstrip().startswith("["):
            section = _last_place(table)
            found.setdefault(section, begin)
        else:
            for place in _places_in(table):
                found.setdefault((*section, *place), begin)
        statement.clear()
    return found


class _Builder:
    """Makes a value of what the layers say, and notes what its dataclasses refuse."""

    def __init__(self, layers: Sequence[Layer]) -> None:
        self._layers = layers
        self.problems: list[ConfigProblem] = []

    def build(self, default: Root, attributes: Place, keys: Sequence[Key]) -> Root:
        """Return `default` with what is said below `attributes`."""
        depth = len(attributes)
        given: dict[str, tuple[Key, Layer]] = {}
        sections: dict[str, list[Key]] = {}
        for key in keys:
            name = key.attributes[depth]
            if len(key.attributes) > depth + 1:
                sections.setdefault(name, []).append(key)
            elif layer := source_of(key, self._layers):
                given[name] = key, layer
        changes = {
            name: self.build(getattr(default, name), (*attributes, name), below)
            for name, below in sections.items()
        }
        while True:
            values = {name: layer.values[key] for name, (key, layer) in given.items()}
            made, error = _made(default, changes | values)
            if error is None:
                return made
            if not given:
                # Sections that are right by themselves and do not go together.
                self.problems.append(ConfigProblem(".".join(attributes), str(error)))
                return default
            self._blame(default, changes, given, error)

    def _blame(
        self,
        default: DataclassInstance,
        changes: dict[str, Any],
        given: dict[str, tuple[Key, Layer]],
        error: ConfigError,
    ) -> None:
        """Find the setting that is refused by itself, or else the section; drop what is."""
        for name, (key, layer) in given.items():
            _, alone = _made(default, changes | {name: layer.values[key]})
            if alone is not None and alone.args == error.args:
                self.problems.append(layer.problem(key.place, str(error)))
                del given[name]
                return
        key, layer = next(iter(given.values()))
        self.problems.append(layer.problem(key.place[:-1], str(error)))
        given.clear()


def _made(default: Root, changes: dict[str, Any]) -> tuple[Root, ConfigError | None]:
    try:
        return replace(default, **changes), None
    except ConfigError as error:
        return default, error


def _read_table(
    schema: Schema[Any], table: Mapping[str, object], path: Place, layer: Layer, base: Path
) -> None:
    for name, value in table.items():
        place = (*path, name)
        key = schema.keys.get(place)
        if key is not None:
            try:
                layer.values[key] = key.kind.read(value, base)
            except ConfigError as error:
                layer.complain(place, f"{key.text}: {error}")
        elif place not in schema.sections:
            layer.complain(place, _unknown(schema, place, is_section=isinstance(value, dict)))
        elif isinstance(value, dict):
            _read_table(schema, value, place, layer, base)
        else:
            layer.complain(place, f"{_shown_place(place)}: a section is needed: [{name}]")


def _unknown(schema: Schema[Any], place: Place, *, is_section: bool) -> str:
    """Say that nothing is called so, and what may have been meant."""
    depth = len(place)
    beside = {
        each[depth - 1]
        for each in schema.keys
        if len(each) >= depth and each[: depth - 1] == place[:-1]
    }
    names = {each[-1]: ".".join(each) for each in schema.keys}
    meant = names.get(place[-1])
    if meant is None and (close := nearest(place[-1], sorted(beside))):
        meant = ".".join((*place[:-1], close))
    elif meant is None and (close := nearest(place[-1], list(names))):
        meant = names[close]
    what = "section" if is_section else "setting"
    hint = f"; did you mean {meant}?" if meant else ""
    return f"{_shown_place(place)}: there is no such {what}{hint}"


def _shown_place(place: Place) -> str:
    parts = [each if _BARE.fullmatch(each) else quoted(each) for each in place]
    return printable(".".join(parts), limit=MAX_KEY)


def _inner(key: Key) -> range:
    return range(1, len(key.place))


def _last_place(table: Mapping[str, object]) -> Place:
    """Return the one place of a table that a header alone has made."""
    places = _places_in(table)
    return places[-1] if places else ()


def _places_in(table: Mapping[str, object], depth: int = MAX_DEPTH) -> list[Place]:
    found: list[Place] = []
    for name, value in table.items():
        found.append((name,))
        inner = value[-1] if isinstance(value, list) and value else value
        if isinstance(inner, dict) and depth > 1:
            found += [(name, *place) for place in _places_in(inner, depth - 1)]
    return found
