"""A Python that is too old is told so in one sentence, however the package was put in its way."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import isthmus
import pytest

ROOT = Path(__file__).resolve().parents[2]
READ_FIRST = ("node/top/__init__.py", "node/top/__main__.py")
OLD = ("3.10", "3.9", "3.8", "3.7")


@pytest.mark.parametrize("path", READ_FIRST)
@pytest.mark.parametrize("minor", [7, 8, 9, 10])
def test_what_is_read_first_parses_on_an_old_one(path, minor):
    ast.parse((ROOT / path).read_text("utf-8"), path, feature_version=(3, minor))


@pytest.mark.parametrize(
    ("version", "found"),
    [((3, 10, 13), "3.10.13"), ((3, 7, 0), "3.7.0"), ((2, 7, 18), "2.7.18")],
)
def test_an_old_one_is_told_what_is_needed(version, found):
    sentence = f"isthmus needs Python 3.11 or newer, and this is Python {found}"
    assert isthmus._python_refusal(version) == sentence
    with pytest.raises(ImportError) as refused:
        isthmus._require_python(version, "/usr/bin/some-program")
    assert str(refused.value) == sentence
    # What `python -m isthmus` is called while Python looks for it: nobody is to see a traceback.
    with pytest.raises(SystemExit) as ended:
        isthmus._require_python(version, "-m")
    assert ended.value.code == f"error: {sentence}"


@pytest.mark.parametrize("version", [(3, 11), (3, 11, 0), (3, 12, 1), (4, 0)])
def test_a_new_one_will_do(version):
    assert isthmus._python_refusal(version) is None
    isthmus._require_python(version, "-m")


def test_pip_is_told_the_same():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    needed = ".".join(map(str, isthmus._OLDEST_PYTHON))
    assert project["requires-python"] == f">={needed}"
    assert f"Programming Language :: Python :: {needed}" in project["classifiers"]


def interpreters():
    """Return the old Pythons of this machine, by version."""
    found = {}
    for version in OLD:
        places = sorted(Path.home().glob(f".pyenv/versions/{version}.*/bin/python"))
        named = [shutil.which(f"python{version}"), *map(str, places)]
        found[version] = next((each for each in named if each and works(each)), None)
    return found


def works(python):
    return subprocess.run([python, "-c", "pass"], capture_output=True, check=False).returncode == 0


@pytest.mark.parametrize("version", OLD)
def test_a_real_old_one(version):
    python = interpreters()[version]
    if python is None:
        pytest.skip(f"no Python {version} on this machine")
    environment = {name: text for name, text in os.environ.items() if "COV" not in name}
    environment |= {"PYTHONPATH": str(ROOT / ".typecheck"), "PYTHONDONTWRITEBYTECODE": "1"}

    def run(*arguments):
        return subprocess.run(
            [python, *arguments], env=environment, capture_output=True, text=True, check=False
        )

    sentence = f"isthmus needs Python 3.11 or newer, and this is Python {version}."
    called = run("-m", "isthmus", "ping", "/ip4/127.0.0.1/tcp/1")
    assert (called.returncode, called.stdout) == (1, "")
    assert called.stderr.startswith(f"error: {sentence}")
    assert called.stderr.count("\n") == 1
    imported = run("-c", "from isthmus import Node")
    assert imported.returncode == 1
    assert imported.stderr.splitlines()[-1].startswith(f"ImportError: {sentence}")
    assert "SyntaxError" not in imported.stderr


def test_this_one_is_new_enough():
    assert isthmus._python_refusal(sys.version_info[:3]) is None
