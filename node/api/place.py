"""The place of the control socket: its file, its name for the system, and who may come in."""

from __future__ import annotations

import ctypes
import os
import secrets
import socket
import stat
import struct
import sys
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from ...transports.core.errors import ControlError, NotRunning, StoreError
from . import SOCKET_FILE

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MODE = 0o600

MAX_NAME_BYTES = 103
"""What sun_path holds on macOS and the BSDs, its last zero left out; Linux takes four more."""

BACKLOG = 16
"""Clients that wait to be accepted, which takes one turn of the loop."""

_ELSEWHERE = "name another place with --control, or do without: --control off"

_UCRED = struct.Struct("=iII")
"""Linux's struct ucred: pid, uid, gid."""

DESCRIPTORS = "/proc/self/fd"
"""Where Linux shows what this process has open."""


@contextmanager
def listening(path: Path) -> Iterator[socket.socket]:
    """Listen on a socket file of the user's alone (0600), which takes the place of a stale one.

    Raises StoreError if the place is in use or cannot be used.
    """
    with _explained(path):
        _check_free(path)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            own = _put(listener, path)
        except BaseException:
            listener.close()
            raise
    try:
        yield listener
    finally:
        # In this order: while it listens, no other file is given the same number.
        with suppress(OSError):
            if path.lstat().st_ino == own:
                path.unlink()
        listener.close()


def connected(path: Path) -> socket.socket:
    """Connect to a control socket; raises NotRunning, ControlError (503) or StoreError."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.settimeout(0)
        with short_name(path) as name:
            sock.connect(name)
    except BaseException as error:
        sock.close()
        if isinstance(error, (FileNotFoundError, ConnectionRefusedError, NotADirectoryError)):
            raise NotRunning(_missing(path)) from error
        if isinstance(error, BlockingIOError):
            raise ControlError(f"{path}: too many wait to be let in", status=503) from error
        if isinstance(error, OSError):
            raise StoreError(f"{path}: {error.strerror or error}") from error
        raise
    return sock


def peer_uid(sock: socket.socket) -> int | None:
    """Return the user at the other end, as of when it connected; None if nobody can tell."""
    if sys.platform == "linux":
        found = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
        return int(_UCRED.unpack(found)[1])
    libc = ctypes.CDLL(None, use_errno=True)
    uid, gid = ctypes.c_uint32(), ctypes.c_uint32()
    if not hasattr(libc, "getpeereid"):
        return None
    failed = libc.getpeereid(sock.fileno(), ctypes.byref(uid), ctypes.byref(gid))
    return None if failed else uid.value


@contextmanager
def short_name(path: Path, *, descriptors: str = DESCRIPTORS) -> Iterator[str]:
    """Give a name for the path of a socket that sun_path has room for, while the context lasts.

    A path that is too long is named through its directory: as what this process has open, where
    `descriptors` shows that; elsewhere as where this process is, for that time.
    """
    if len(os.fsencode(path)) <= MAX_NAME_BYTES:
        yield str(path)
        return
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if os.path.isdir(descriptors):
            yield f"{descriptors}/{directory}/{path.name}"
        else:
            with _inside(directory):
                yield path.name
    finally:
        os.close(directory)


@contextmanager
def _inside(directory: int) -> Iterator[None]:
    before = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fchdir(directory)
        yield
    finally:
        os.fchdir(before)
        os.close(before)


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        why = error.strerror or str(error)
        raise StoreError(f"{path}: no control socket there: {why}; {_ELSEWHERE}") from error


def _check_free(path: Path) -> None:
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise StoreError(f"{path}: something else than a socket is there; {_ELSEWHERE}")
    try:
        connected(path).close()
    except NotRunning:
        return
    except ControlError as error:
        raise StoreError(f"{path}: another program listens there; {_ELSEWHERE}") from error
    raise StoreError(f"{path}: another program listens there; {_ELSEWHERE}")


def _put(listener: socket.socket, path: Path) -> int:
    """Bind and listen; return the inode of the file.

    It is made under another name, on which nobody can connect before it listens, so that it
    appears at its own with its mode, and in one step in the place of a stale one.
    """
    part = path.with_name(f".{secrets.token_hex(4)}")
    try:
        with short_name(part) as name:
            listener.bind(name)
        part.chmod(MODE)
        listener.listen(BACKLOG)
        listener.settimeout(0)
        inode = part.lstat().st_ino
        part.rename(path)
    except BaseException:
        with suppress(OSError):
            part.unlink()
        raise
    return inode


def _missing(path: Path) -> str:
    if path.name == SOCKET_FILE:
        return f"no isthmus runs in {path.parent}: start one with `isthmus run`"
    return f"no isthmus runs with {path}: start one with `isthmus run --control {path}`"
