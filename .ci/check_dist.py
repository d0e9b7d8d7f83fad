"""Look into a built wheel and sdist: every package and data file is in, and nothing beside it."""

from __future__ import annotations

import sys
import tarfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("benchmarks", "node", "relay", "transports")
SKIPPED = {"__pycache__", "node_modules", ".venv"}
IN_SDIST = {"LICENSE", "README.md", "pyproject.toml"}


def main(folder: str) -> int:
    """Print what is missing or too much; return 1 if anything is."""
    (wheel,) = Path(folder).glob("*.whl")
    (sdist,) = Path(folder).glob("*.tar.gz")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    installed = {name for name in names if ".dist-info/" not in name}
    with tarfile.open(sdist) as source:
        source_names = {name.partition("/")[2] for name in source.getnames()}
    modules = {f"isthmus/{path}" for path in _modules()}
    faults = [f"the wheel lacks {name}" for name in sorted(modules - installed)]
    faults += [f"the wheel lacks {name}" for name in {"isthmus/py.typed"} - installed]
    faults += [
        f"the wheel would install {name}"
        for name in sorted(installed)
        if not name.startswith("isthmus/") or (name.endswith(".py") and name not in modules)
        if not name.startswith("isthmus/benchmarks/peers/py/")  # programs, shipped as data
    ]
    faults += [f"the sdist lacks {name}" for name in sorted(IN_SDIST - source_names)]
    for fault in faults:
        sys.stdout.write(f"{fault}\n")
    sys.stdout.write(f"{wheel.name}: {len(installed)} files, {len(modules)} modules\n")
    return 1 if faults else 0


def _modules() -> set[str]:
    """Return the modules of every folder with an __init__.py, by their place in the package."""
    found = set()
    for folder in FOLDERS:
        for file in (ROOT / folder).rglob("*.py"):
            inside = file.relative_to(ROOT)
            if SKIPPED & set(inside.parts) or not (file.parent / "__init__.py").exists():
                continue
            found.add(inside.as_posix().removeprefix("node/top/"))
    return found


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
