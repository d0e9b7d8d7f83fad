"""Times, amounts and lists in words, for findings."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

_SPANS = ((86_400, "d"), (3600, "h"), (60, "min"))
_SIZES = ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB"))


def span(seconds: float) -> str:
    """Return a time in the largest unit of which there is at least one, as `12 min`."""
    for unit, name in _SPANS:
        if seconds >= unit:
            return f"{seconds // unit:.0f} {name}"
    return f"{max(seconds, 0):.0f} s"


def amount(size: int) -> str:
    """Return bytes in the largest binary unit of which there is at least one, as `128 KiB`."""
    for unit, name in _SIZES:
        if size >= unit:
            return f"{size / unit:.4g} {name}"
    return f"{size} B"


def count(number: int, what: str) -> str:
    """Return a number of things, as `1 peer` or `2 peers`."""
    ending = "" if number == 1 else "es" if what.endswith("s") else "s"
    return f"{number} {what}{ending}"


def listed(words: Sequence[str]) -> str:
    """Return words as a sentence has them: `a, b and c`."""
    return " and ".join([*([", ".join(words[:-1])] if words[1:] else []), *words[-1:]])
