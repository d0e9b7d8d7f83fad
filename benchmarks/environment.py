"""Where a benchmark ran: without this its figures mean nothing to anybody else."""

from __future__ import annotations

import datetime
import os
import platform
import subprocess
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGES = ("isthmus", "anyio", "cryptography", "trio", "uvloop")
GIT_TIMEOUT = 5.0
"""Seconds for asking which commit this is."""

Environment = dict[str, str | float]


def describe() -> Environment:
    """Return the machine, its kernel, its load, and the versions of what is measured."""
    found: Environment = {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "kernel": f"{platform.system()} {platform.release()}",
        "machine": platform.machine(),
        "cpu": _cpu(),
        "cores": _cores(),
        "libc": " ".join(platform.libc_ver()).strip() or "unknown",
        "congestion": _read("/proc/sys/net/ipv4/tcp_congestion_control") or "unknown",
        "openssl": _openssl(),
        "load": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else "unknown",
        "commit": _commit(),
    }
    for name in PACKAGES:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def _cpu() -> str:
    for line in _read("/proc/cpuinfo").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or "unknown"


def _cores() -> float:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _openssl() -> str:
    """Return the OpenSSL inside `cryptography`, which need not be the interpreter's."""
    from cryptography.hazmat.backends.openssl import backend

    return backend.openssl_version_text()


def _commit() -> str:
    """Return the commit of the checkout this runs from, with a mark if it was changed."""
    root = Path(__file__).resolve().parent.parent
    if not (root / ".git").exists():
        return "none"
    with suppress(OSError, subprocess.SubprocessError):
        done = subprocess.run(
            ["git", "-C", str(root), "describe", "--always", "--dirty", "--exclude=*"],
            capture_output=True,
            text=True,
            check=True,
            timeout=GIT_TIMEOUT,
        )
        return done.stdout.strip()
    return "unknown"


def _read(path: str) -> str:
    with suppress(OSError):
        return Path(path).read_text(encoding="utf-8", errors="replace").strip()
    return ""
