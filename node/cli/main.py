"""The door to the program `isthmus`: quick to open, so that Ctrl-C is met from the start."""

from __future__ import annotations

import sys
from typing import NoReturn

from .interrupts import end_at_once


def main() -> NoReturn:
    """Run the program on `sys.argv` and exit: 0 on success, 1 on failure, 2 on wrong usage."""
    end_at_once()
    from .program import run

    code = run()
    end_at_once()
    sys.exit(code)
