"""For the reference: in a docstring, /p2p/<id> is text and no tag of HTML."""

from __future__ import annotations

import re

import griffe

TAG = re.compile(r"<(?=\w)")


class AngleBrackets(griffe.Extension):
    """Escapes what Markdown would take for a tag, except within backticks."""

    def on_object(self, *, obj: griffe.Object, **_: object) -> None:
        """Change the docstring of each class, function and attribute as it is read."""
        if obj.docstring is not None:
            parts = obj.docstring.value.split("`")
            parts[::2] = [TAG.sub("&lt;", part) for part in parts[::2]]
            obj.docstring.value = "`".join(parts)
