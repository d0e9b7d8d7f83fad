"""Texts that peers chose, made fit for a terminal, a log or a page."""

from __future__ import annotations

MAX_PRINTABLE = 200
"""Characters of a peer's text that are shown: two lines of a terminal, more than any name needs."""

ELLIPSIS = "..."

# A character that is dropped costs a peer nothing, so the work is bounded by what is looked at.
_LOOK_AHEAD = 4


def printable(text: str, *, limit: int = MAX_PRINTABLE) -> str:
    """Return `text` as at most `limit` characters of one line that cannot steer a terminal.

    White space becomes a space. Control characters (escape sequences among them), invisible and
    bidirectional format characters, surrogates and unassigned code points are dropped.
    """
    considered = text[: _LOOK_AHEAD * limit]
    if not (considered.isascii() and considered.isprintable()):
        considered = "".join(map(_shown, considered))
    if len(considered) <= limit and len(text) <= _LOOK_AHEAD * limit:
        return considered
    return considered[: max(0, limit - len(ELLIPSIS))] + ELLIPSIS[:limit]


def _shown(character: str) -> str:
    if character.isprintable():
        return character
    return " " if character.isspace() else ""
