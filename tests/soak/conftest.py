"""What the soak tests share: their own event loop, and figures that are told."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture
def anyio_backend() -> str:
    """The controller's; isthmus runs in processes of its own, on each event loop."""
    return "asyncio"


@pytest.fixture(autouse=True)
def _untraced(untraced: None) -> None:
    """Let no tool that measures the tests take memory in the processes that are measured."""


@pytest.fixture
def tell(capsys: pytest.CaptureFixture[str]) -> Callable[[str], None]:
    """Print a figure where whoever runs the tests sees it."""

    def tell(text: str) -> None:
        with capsys.disabled():
            sys.stdout.write(f"\n{text}\n")

    return tell
