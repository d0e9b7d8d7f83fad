"""The identity key on disk, and the lock that keeps two nodes out of one data directory."""

from __future__ import annotations

import errno
import os
import secrets
import stat
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from ..transports.core.errors import P2PError, StoreError
from ..transports.core.keys import PrivateKey

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from types import TracebackType

KEY_FILE = "identity.key"
LOCK_FILE = "lock"

_ELSEWHERE = "see --data-dir, --identity and --ephemeral"

_ADVICE = {
    errno.EACCES: f"this account may not use it; {_ELSEWHERE}",
    errno.EPERM: f"this account may not use it; {_ELSEWHERE}",
    errno.EROFS: f"nothing can be kept there; {_ELSEWHERE}",
    errno.ENOSPC: f"make room, or {_ELSEWHERE}",
    errno.EDQUOT: f"make room, or {_ELSEWHERE}",
    errno.EFBIG: f"make room, or {_ELSEWHERE}",
    errno.ENOTDIR: f"a file stands where a directory should be; {_ELSEWHERE}",
    errno.EEXIST: f"a file stands where a directory should be; {_ELSEWHERE}",
    errno.ENOENT: f"no directory can be made there; {_ELSEWHERE}",
}
"""What to do about a file or directory that the system does not let this program use."""

MAX_KEY_BYTES = 16 * 1024
"""A private key of RSA-8192, the largest kind that libp2p knows, takes 5 KiB."""


def load_or_create(path: Path) -> PrivateKey:
    """Load the identity key at `path`, or make one there.

    The file holds libp2p's private key message and is readable by its owner alone (0600), in a
    directory of the owner's (0700). Raises StoreError, with what to do, if it is anything else.
    """
    with explained(path):
        try:
            return _load(path)
        except FileNotFoundError:
            make_directory(path.parent)
        key = PrivateKey.generate()
        return key if _create(path, key.to_protobuf()) else _load(path)


class DataDir:
    """A data directory of which this process is the only user; a context manager.

    Entering makes the directory (0700) and locks it until the context is left or the process
    ends. Raises StoreError if another process holds it or it cannot be made.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock: int | None = None

    @property
    def key_path(self) -> Path:
        """Where the identity key is."""
        return self.path / KEY_FILE

    def __enter__(self) -> DataDir:
        lock_path = self.path / LOCK_FILE
        with explained(lock_path):
            make_directory(self.path)
            lock = os.open(lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                self._take(lock)
            except BaseException:
                os.close(lock)
                raise
        self._lock = lock
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_val: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> None:
        # The file stays: removing it would let a third process lock a new one beside a waiter.
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _take(self, lock: int) -> None:
        import fcntl  # absent on Windows, where a node can still be embedded

        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.pread(lock, 32, 0).decode("ascii", "replace").strip() or "unknown"
            raise StoreError(
                f"{self.path}: already running as PID {owner}; use --data-dir or --ephemeral"
            ) from None
        os.ftruncate(lock, 0)
        os.pwrite(lock, f"{os.getpid()}\n".encode("ascii"), 0)


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn an OSError into a StoreError that names the file and says what to do."""
    try:
        yield
    except OSError as error:
        advice = _ADVICE.get(error.errno or 0)
        why = error.strerror or str(error)
        raise StoreError(f"{path}: {why}{f': {advice}' if advice else ''}") from error


def make_directory(path: Path) -> None:
    """Make a directory, of its owner's alone (0700), unless it is there; raises OSError."""
    if not path.is_dir():
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.chmod(0o700)  # also where the umask took a part of that away


def _load(path: Path) -> PrivateKey:
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        status = os.fstat(file)
        if not stat.S_ISREG(status.st_mode):
            what = "a directory" if stat.S_ISDIR(status.st_mode) else "none"
            raise StoreError(
                f"{path}: the identity key must be a regular file, and this is {what};"
                " move it away, or use --data-dir or --ephemeral"
            )
        if status.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise StoreError(
                f"{path}: others can read or change this private key; run: chmod 600 {path}"
            )
        data = os.read(file, MAX_KEY_BYTES + 1)
    finally:
        os.close(file)
    if len(data) > MAX_KEY_BYTES:
        raise StoreError(f"{path}: not a private key: longer than {MAX_KEY_BYTES} bytes")
    try:
        return PrivateKey.from_protobuf(data)
    except P2PError as error:
        raise StoreError(
            f"{path}: not a private key: {error}; if it was one, put a copy of it back,"
            " or remove the file to be someone new"
        ) from error


def _create(path: Path, data: bytes) -> bool:
    """Write a file that appears whole or not at all; False if someone else was first."""
    part = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    file = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(file, "wb") as out:
            out.write(data)
            out.flush()
            os.fsync(out.fileno())
        # Unlike a rename, a link never replaces the key that another process has just made.
        os.link(part, path)
    except FileExistsError:
        return False
    finally:
        with suppress(FileNotFoundError):
            part.unlink()
    return True
