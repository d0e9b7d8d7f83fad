"""What the lab asks of Linux: its commands, the namespace of a thread, a few raw requests.

Nothing here knows of hosts or links. Importable on Linux only.
"""

from __future__ import annotations

import ctypes
import fcntl
import functools
import os
import re
import shutil
import socket
import struct
import subprocess
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

NAMESPACES = Path("/run/netns")
"""Where `ip netns` keeps one file per named namespace."""
NAMESPACE_FILES = Path("/etc/netns")
"""Where `ip netns exec` finds the files that it binds over those of /etc."""

CLONE_NEWNS = 0x00020000
CLONE_NEWUSER = 0x10000000
CLONE_NEWNET = 0x40000000
COMMAND_TIMEOUT = 20.0
"""Seconds for one `ip`, `tc` or `nft`; they take milliseconds, so this means a hung machine."""
SYSTEM_FOLDERS = "/usr/sbin:/sbin:/usr/bin:/bin"
"""Searched after PATH: unprivileged users often lack the sbin folders that hold the tools."""

_SIOCSIFFLAGS = 0x8914
_IFF_UP = 1
_SIOCETHTOOL = 0x8946
_ETHTOOL_STXCSUM = 0x17
_NETLINK_NETFILTER = 12
_IPCTNL_MSG_CT_DELETE = 0x102
_NLM_F_REQUEST_ACK = 5

_libc = ctypes.CDLL(None, use_errno=True)


class LabError(RuntimeError):
    """The lab could not be built or changed; the text names the command and its complaint."""


@functools.cache
def tool(name: str) -> str | None:
    """Find a command, also outside the PATH of unprivileged users; None if it is missing."""
    return shutil.which(name) or shutil.which(name, path=SYSTEM_FOLDERS)


def run(argv: Sequence[str], text: str = "") -> str:
    """Run one command with text on its stdin and return its stdout; raise LabError if it fails."""
    program = tool(argv[0])
    if program is None:
        raise LabError(f"{argv[0]} is not installed")
    done = subprocess.run(
        [program, *argv[1:]],
        input=text,
        text=True,
        capture_output=True,
        check=False,
        timeout=COMMAND_TIMEOUT,
    )
    if done.returncode:
        raise LabError(f"{' '.join(argv)}: {done.stderr.strip()}\n{text}".strip())
    return done.stdout


def ip(*lines: str, namespace: str | None = None) -> str:
    """Run lines of `ip` as one batch, in a namespace; raise LabError at the first that fails."""
    where = ["-n", namespace] if namespace else []
    return run(["ip", *where, "-batch", "-"], "\n".join(lines) + "\n")


@contextmanager
def entered(namespace: str) -> Iterator[None]:
    """Make the calling thread's new sockets and children belong to a namespace.

    Only this thread moves, so nothing may be awaited inside: another task would run in there.
    """
    with (
        open("/proc/thread-self/ns/net", "rb") as home,
        open(NAMESPACES / namespace, "rb") as there,
    ):
        _set_network_namespace(there.fileno())
        try:
            yield
        finally:
            _set_network_namespace(home.fileno())


def unshare(flags: int) -> None:
    """Give the calling process new namespaces; raise OSError where the kernel forbids it."""
    if _libc.unshare(flags):
        code = ctypes.get_errno()
        raise OSError(code, f"unshare: {os.strerror(code)}")


def write(path: str | Path, text: object) -> None:
    """Replace a file's content in place: hard links and bind mounts of it see the change."""
    with open(path, "w", encoding="ascii") as file:
        file.write(str(text))


def set_sysctl(key: str, value: object) -> None:
    """Set a sysctl of the calling thread's network namespace."""
    # /proc/sys/net follows the thread, unlike /proc/net, which follows the process.
    write("/proc/sys/" + key.replace(".", "/"), value)


def bits_per_second(rate: str | float | None) -> float | None:
    """Parse "20mbit", "512k" or a number; None, meaning unlimited, stays None."""
    if rate is None:
        return None
    match = re.fullmatch(r"([\d.]+)([kmg]?)(?:bit)?", str(rate).lower())
    if match is None:
        raise ValueError(f"{rate!r} is not a rate such as '20mbit'")
    return float(match[1]) * {"": 1.0, "k": 1e3, "m": 1e6, "g": 1e9}[match[2]]


def raise_loopback() -> None:
    """Bring up `lo` in the calling thread's namespace."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, _SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", _IFF_UP))


def disable_transmit_checksums(interface: str) -> None:
    """Turn off checksum offload, and with it segmentation offload: frames then fit the MTU."""
    data = ctypes.create_string_buffer(struct.pack("II", _ETHTOOL_STXCSUM, 0))
    request = struct.pack("16sQ16x", interface.encode(), ctypes.addressof(data))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, _SIOCETHTOOL, request)


def forget_flows() -> None:
    """Empty the IPv4 conntrack table of the calling thread's namespace; raise OSError."""
    request = struct.pack(
        "=IHHIIBBH", 20, _IPCTNL_MSG_CT_DELETE, _NLM_F_REQUEST_ACK, 1, 0, socket.AF_INET, 0, 0
    )
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER) as netlink:
        netlink.send(request)
        (code,) = struct.unpack_from("=i", netlink.recv(4096), 16)
    if code:
        raise OSError(-code, os.strerror(-code))


def is_alive(pid: int) -> bool:
    """Tell whether a process runs; a zombie does not, though its parent has yet to notice."""
    with suppress(OSError), open(f"/proc/{pid}/stat", encoding="utf-8") as file:
        return file.read().rpartition(")")[2].split()[0] not in "ZX"
    return False


def _set_network_namespace(descriptor: int) -> None:
    if _libc.setns(descriptor, CLONE_NEWNET):
        code = ctypes.get_errno()
        raise OSError(code, f"setns: {os.strerror(code)}")
