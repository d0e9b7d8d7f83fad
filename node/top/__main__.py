"""`python -m isthmus`: the command line."""

from __future__ import annotations

from isthmus.node.cli.main import main

if __name__ == "__main__":
    main()
