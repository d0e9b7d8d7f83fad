"""Count what a plain `pip install .` brought into this fresh virtual environment."""

from __future__ import annotations

import sys
from importlib.metadata import distributions

MAX_DISTRIBUTIONS = 20
NOT_OURS = {"pip", "setuptools", "wheel"}
"""What a new virtual environment holds already."""


def main() -> int:
    """Print the distributions; return 1 if they are too many."""
    names = {distribution.metadata["Name"].lower() for distribution in distributions()} - NOT_OURS
    sys.stdout.write(f"{len(names)} distributions: {', '.join(sorted(names))}\n")
    return 1 if len(names) > MAX_DISTRIBUTIONS else 0


if __name__ == "__main__":
    sys.exit(main())
