"""docs/configuration.md has every section and setting, as the dataclasses have them."""

from __future__ import annotations

import runpy
import tomllib
from pathlib import Path

from isthmus.node.configfile import compose, read_toml
from isthmus.node.settings import settings_schema

from .test_docs import FENCE, PAGES

ROOT = Path(__file__).resolve().parents[1]
PAGE = PAGES["configuration.md"]


def test_its_tables_are_those_of_the_code():
    script = runpy.run_path(str(ROOT / ".ci" / "configuration_page.py"))
    assert script["written_anew"](PAGE) == PAGE, "run: python .ci/configuration_page.py"
    for section in script["tables"]():
        assert PAGE.count(f"## `[{section}]`\n") == 1
        assert PAGE.count(f"\n<!-- {section} -->\n") == 1


def test_its_example_is_a_configuration():
    (text,) = [each["text"] for each in FENCE.finditer(PAGE) if each["language"] == "toml"]
    assert tomllib.loads(text)
    layer = read_toml(settings_schema(), text, name="isthmus.toml", base=ROOT)
    assert compose(settings_schema(), layer).options.config.limits.connections == 200


def test_its_complaints_are_those_that_are_had():
    (shown,) = [each["text"] for each in FENCE.finditer(PAGE) if each["language"] == "text"]
    text = 10 * "\n" + '[limits]\nconections = 1\nconnections = "many"\n'
    layer = read_toml(settings_schema(), text, name="isthmus.toml", base=ROOT)
    assert "".join(f"{each}\n" for each in layer.problems) == shown
