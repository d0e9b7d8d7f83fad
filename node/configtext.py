"""A configuration as the text of a file that makes it again, each setting explained; pure."""

from __future__ import annotations

import ast
import inspect
import math
import textwrap
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .printable import printable

if TYPE_CHECKING:
    from collections.abc import Callable

    from .configfile import Key, Place, Schema

WIDTH = 98
"""Characters of a line of comment."""


def write_toml(
    schema: Schema[Any], root: object, *, base: Path, origin: Callable[[Key], str] = lambda key: ""
) -> str:
    """Return a configuration as TOML, every setting with what it is and where it comes from.

    Relative paths are meant from `base`, and are written in full. A setting that is None stands in
    a comment, since TOML has no word for it. Raises ConfigError for what is not UTF-8.
    """
    parts = []
    for place, keys in by_section(schema).items():
        parts.append(f"[{'.'.join(place)}]\n")
        parts += [_setting(key, value_text(key, root, base), origin(key)) for key in keys]
    return "\n".join(parts).rstrip()


def by_section(schema: Schema[Any]) -> dict[Place, list[Key]]:
    """Return the settings of each section, in the order of their dataclasses."""
    found: dict[Place, list[Key]] = {}
    for key in schema.keys.values():
        found.setdefault(key.place[:-1], []).append(key)
    return found


def value_text(key: Key, root: object, base: Path) -> str | None:
    """Return a setting as TOML writes it; None for one that is told by leaving the key out."""
    value = key.value_in(root)
    if value is None and key.default is None:
        return None
    return key.kind.write(_rooted(value, base) if key.kind.is_path else value)


def plain_value(key: Key, root: object, base: Path) -> object:
    """Return a setting as JSON writes it; a number that JSON has no word for becomes its text."""
    import tomllib

    text = value_text(key, root, base)
    if text is None:
        return None
    value = tomllib.loads(f"value = {text}")["value"]
    return text if value in (math.inf, -math.inf) else value


def explanation(key: Key) -> str:
    """Return what a setting is, in the words of its dataclass; empty if there are none."""
    return _field_docs(key.owner).get(key.attributes[-1], "")


@cache
def _field_docs(owner: type) -> dict[str, str]:
    """Return the text below each field of a dataclass, read from its source."""
    try:
        source = textwrap.dedent(inspect.getsource(owner))
    except (OSError, TypeError):
        # Installed without its source: then there is nothing to be read.
        return {}
    (definition,) = ast.parse(source).body
    assert isinstance(definition, ast.ClassDef)
    docs = {}
    body = definition.body
    for field, text in pairwise(body):
        if (
            isinstance(field, ast.AnnAssign)
            and isinstance(field.target, ast.Name)
            and isinstance(text, ast.Expr)
            and isinstance(text.value, ast.Constant)
        ):
            docs[field.target.id] = " ".join(str(text.value.value).split())
    return docs


def _rooted(value: object, base: Path) -> object:
    """Return paths in full."""
    if isinstance(value, (tuple, list)):
        return [base / each for each in value]
    return base / value if isinstance(value, (str, Path)) else value


def _setting(key: Key, text: str | None, origin: str) -> str:
    lines = textwrap.wrap(explanation(key), WIDTH, break_long_words=False, break_on_hyphens=False)
    name = key.place[-1]
    line = f"# {name} is not set" if text is None else f"{name} = {text}"
    # The names of files and variables are anybody's: a comment ends with its line.
    where = f"  # {printable(origin)}" if origin else ""
    return "".join([*(f"# {each}\n" for each in lines), line, where, "\n"])
