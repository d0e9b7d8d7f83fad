"""Compare a coverage report (coverage.json) with what each part of the tree has to reach.

Cores, which need nothing but arguments to be tested, reach every line and branch; the rest of each
folder reaches 90 % together.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from fnmatch import fnmatch
from pathlib import Path

COMPLETE = (
    "*/machine.py",
    "*/wire.py",
    "transports/core/*.py",
    "transports/inflight.py",
    "transports/multistream.py",
    "transports/scheduler.py",
)
ELSEWHERE = 90.0
"""Percent of lines and branches."""


def main(report: str) -> int:
    """Print what falls short; return 1 if anything does."""
    files = json.loads(Path(report).read_text("utf-8"))["files"]
    short = 0
    covered: Counter[str] = Counter()
    wanted: Counter[str] = Counter()
    for name, file in sorted(files.items()):
        total = file["summary"]
        all_of_it = total["num_statements"] + total.get("num_branches", 0)
        reached = total["covered_lines"] + total.get("covered_branches", 0)
        if any(fnmatch(name, pattern) for pattern in COMPLETE):
            if reached < all_of_it:
                short += 1
                missing = [*file["missing_lines"], *file.get("missing_branches", [])]
                sys.stdout.write(f"{name}: {reached} of {all_of_it}; missing {missing}\n")
            continue
        folder = name.partition("/")[0]
        covered[folder] += reached
        wanted[folder] += all_of_it
    for folder, all_of_it in wanted.items():
        percent = 100 * covered[folder] / all_of_it if all_of_it else 100.0
        sys.stdout.write(f"{folder}/, besides the cores: {percent:.1f} %\n")
        short += percent < ELSEWHERE
    if not files:
        sys.stdout.write("the report is empty\n")
    return 1 if short or not files else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
