"""`python tests/lab demo`, `clean`, or `rootless PROGRAM ARGUMENT...`."""

from __future__ import annotations

import os
import sys

from natlab import LabError, become_root, clean
from natlab.demo import demonstrate


def main(arguments: list[str]) -> None:
    """Do what the first argument says; exits with a message when it says nothing known."""
    match arguments:
        case ["demo"]:
            demonstrate()
        case ["clean"]:
            sys.stdout.write(" ".join(["removed:", *clean()]) + "\n")
        case ["rootless", program, *rest]:
            try:
                become_root()
                os.execvp(program, [program, *rest])
            except (LabError, OSError) as error:
                sys.exit(f"rootless {program}: {error}")
        case _:
            sys.exit("usage: python tests/lab demo | clean | rootless PROGRAM ARGUMENT...")


main(sys.argv[1:])
