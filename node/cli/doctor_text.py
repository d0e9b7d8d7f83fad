"""What `isthmus doctor` has found, in words; every line passes `printable`."""

from __future__ import annotations

import shutil
import sys
import textwrap
from collections import Counter
from typing import TYPE_CHECKING, Any

from ..printable import printable
from .output import style

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import TypeAlias

    # The edge where JSON is decoded: the node that runs says what it likes.
    Told: TypeAlias = Mapping[str, Any]

MAX_LINE = 1000
"""Characters of a finding; a relay's reason may name several addresses."""

MIN_WIDTH = 60
"""Columns below which lines are left to the terminal to break."""

_COLORS = {"ok": "green", "unknown": "cyan", "note": "yellow", "problem": "red"}
_WORKS = {True: ("yes", "green"), False: ("no", "red"), None: ("?", "cyan")}
_NAMES = {
    "lan": "found on the LAN",
    "out": "dialled by this node",
    "in": "dialled by others",
    "punched": "by hole punching",
    "relay": "through a relay",
}


def lines(found: Told, *, is_running: bool) -> Iterator[str]:
    """Return the table of checks, the one of paths, and how many of each state there are."""
    whom = "the running node" if is_running else "a short-lived node"
    yield f"{_shown(found['peer_id'])}, {whom}"
    yield ""
    width = _width()
    for check in found["checks"]:
        yield from _check_lines(check, width)
    yield ""
    yield "Which paths can work"
    for path in found["paths"]:
        mark, color = _WORKS.get(path["works"], _WORKS[None])
        name = _NAMES.get(path["path"], _shown(path["path"]))
        yield f"{style(f'{mark:<8}', fg=color)} {name:<21} {_shown(path['why'])}"
    yield ""
    yield _summary(found)


def _check_lines(check: Told, width: int | None) -> Iterator[str]:
    state = _shown(check["state"])
    head = f"{state:<8} {_shown(check['check']):<15} "
    first, *more = _wrapped(_shown(check["finding"]), width, len(head))
    yield style(head[:8], fg=_COLORS.get(state)) + head[8:] + first
    indent = " " * len(head)
    for line in more:
        yield indent + line
    if check["advice"]:
        for number, line in enumerate(_wrapped(_shown(check["advice"]), width, len(head) + 3)):
            yield f"{indent}{'   ' if number else '-> '}{line}"
    for detail in check["details"]:
        yield style(f"{indent}{_shown(detail)}", dim=True)


def _summary(found: Told) -> str:
    counts = Counter(check["state"] for check in found["checks"])
    parts = [
        f"{counts[state]} {name if counts[state] == 1 else plural}"
        for state, name, plural in (
            ("problem", "problem", "problems"),
            ("note", "note", "notes"),
            ("unknown", "thing not known", "things not known"),
        )
        if counts[state]
    ]
    text = ", ".join(parts) or "all is well"
    return text if found["settled"] else f"{text}; some is still being found out"


def _width() -> int | None:
    """Return how wide a terminal is; None where lines stay whole, for programs to search."""
    columns = shutil.get_terminal_size().columns if sys.stdout.isatty() else 0
    return columns if columns >= MIN_WIDTH else None


def _wrapped(text: str, width: int | None, indent: int) -> list[str]:
    if width is None:
        return [text]
    # An address is broken nowhere: it is there to be copied.
    return textwrap.wrap(text, width - indent, break_long_words=False, break_on_hyphens=False) or [
        ""
    ]


def _shown(text: object) -> str:
    return printable(str(text), limit=MAX_LINE)
