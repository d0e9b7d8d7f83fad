"""Write the tables of docs/configuration.md anew, from the dataclasses."""

from __future__ import annotations

import re
from pathlib import Path

from isthmus.node.configtext import by_section, explanation, value_text
from isthmus.node.settings import settings_schema

PAGE = Path(__file__).resolve().parents[1] / "docs" / "configuration.md"
TABLE = re.compile(r"<!-- (\w+) -->\n.*?<!-- end -->\n", re.DOTALL)


def tables() -> dict[str, str]:
    """Return the table of each section, by its name."""
    schema = settings_schema()
    found = {}
    for place, keys in by_section(schema).items():
        rows = ["| key | value | default | |", "|---|---|---|---|"]
        for key in keys:
            text = value_text(key, schema.default, Path("/"))
            default = "" if text is None else f"`{text}`"
            cells = (f"`{key.place[-1]}`", _values(key.kind.name), default, explanation(key))
            rows.append(f"| {' | '.join(each.replace('|', '&#124;') for each in cells)} |")
        found[".".join(place)] = "\n".join(rows)
    return found


def written_anew(text: str) -> str:
    """Return the page with the tables that it should have."""
    now = tables()
    return TABLE.sub(lambda old: f"<!-- {old[1]} -->\n{now[old[1]]}\n<!-- end -->\n", text)


def _values(name: str) -> str:
    return re.sub(r'("[^"]*")', r"`\1`", name)


if __name__ == "__main__":
    PAGE.write_text(written_anew(PAGE.read_text("utf-8")), "utf-8")
