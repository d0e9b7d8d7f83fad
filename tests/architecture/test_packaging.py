"""The list of packages is the list of folders: an editable install forgives, a wheel does not."""

from __future__ import annotations

import importlib
import tomllib

import pytest

FOLDERS = ("benchmarks", "node", "relay", "transports")


@pytest.fixture(scope="module")
def project(root):
    return tomllib.loads((root / "pyproject.toml").read_text("utf-8"))


def test_every_package_is_listed(root, project):
    listed = project["tool"]["setuptools"]["packages"]
    assert len(set(listed)) == len(listed)
    assert set(listed) == {"isthmus", *folders_with_code(root)}


def test_every_package_imports(project):
    for name in project["tool"]["setuptools"]["packages"]:
        importlib.import_module(name)


def test_folders_are_mapped(root, project):
    mapped = {f"isthmus.{name}": name for name in FOLDERS if (root / name).is_dir()}
    assert project["tool"]["setuptools"]["package-dir"] == {"isthmus": "node/top", **mapped}
    for name in mapped.values():
        link = root / ".typecheck" / "isthmus" / name
        assert link.resolve() == root / name, "the type checker finds folders by these links"


def test_data_files_exist(root, project):
    data = project["tool"]["setuptools"]["package-data"]
    places = project["tool"]["setuptools"]["package-dir"]
    for package, patterns in data.items():
        folder = next(
            root / places[parent] / package.removeprefix(parent).strip(".").replace(".", "/")
            for parent in sorted(places, key=len, reverse=True)
            if f"{package}.".startswith(f"{parent}.")
        )
        for pattern in patterns:
            assert list(folder.glob(pattern)), f"{package}: nothing matches {pattern}"


def folders_with_code(root):
    for name in FOLDERS:
        for init in (root / name).rglob("__init__.py"):
            parts = init.parent.relative_to(root).parts
            if parts[:2] != ("node", "top") and "node_modules" not in parts:
                yield ".".join(["isthmus", *parts])
