"""The lab for tests: a fixture, the marker, and what happens where namespaces cannot be had."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

_HERE = Path(__file__).parent

if sys.platform == "linux":
    sys.path.insert(0, str(_HERE))
    import natlab
else:
    collect_ignore_glob = ["test_*.py"]


@pytest.hookimpl(tryfirst=True)  # before -m selects by markers
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if _HERE in item.path.parents:
            item.add_marker(pytest.mark.lab)


def pytest_collection_finish(session: pytest.Session) -> None:
    """Without root, move the whole run into namespaces where it is root, if lab tests will run."""
    wanted = any(_HERE in item.path.parents for item in session.items)
    wanted = wanted and not session.config.option.collectonly
    if wanted and os.geteuid() and natlab.can_become_root():
        try:
            natlab.become_root()
        except OSError as error:  # more than one thread; the tests say what is missing
            sys.stderr.write(f"not root: {error}; try python {_HERE} rootless pytest ...\n")


@pytest.fixture(scope="session")
def _namespaces() -> None:
    reason = natlab.missing()
    if reason is None:
        return
    message = f"the lab needs {reason}"
    if os.environ.get("CI") == "true":
        pytest.fail(message)
    pytest.skip(message)


@pytest.fixture
def lab(_namespaces: None) -> Iterator[natlab.Lab]:
    """An empty lab: the network `public` and its gateway; nothing of it outlives the test."""
    with natlab.Lab() as lab:
        yield lab
