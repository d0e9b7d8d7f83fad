"""Being root without being root: user, mount and network namespaces of one's own."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from . import kernel
from .lab import Lab

_TOOLS = {"ip": "iproute2", "tc": "iproute2", "nft": "nftables"}
_LAB = Path(__file__).parent.parent
_TRIAL_TIMEOUT = 20.0
"""Seconds; the trial copies /etc and takes well below one."""


def missing() -> str | None:
    """Return what this process lacks to build a lab, by name, or None; builds a small one."""
    for name, package in _TOOLS.items():
        if kernel.tool(name) is None:
            return f"the command {name} (package {package})"
    if os.geteuid():
        return "root, or user namespaces for unprivileged users"
    try:
        with Lab() as lab:
            lab.add_nat("trial", "full-cone")
    except (kernel.LabError, OSError) as error:
        return f"a right, or a kernel option: {str(error).splitlines()[0]}"
    return None


def can_become_root() -> bool:
    """Tell, by a trial in a child, whether become_root() works on this machine."""
    with suppress(OSError, subprocess.TimeoutExpired):
        trial = subprocess.run(
            [sys.executable, str(_LAB), "rootless", "true"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            timeout=_TRIAL_TIMEOUT,
        )
        return trial.returncode == 0
    return False


def become_root() -> None:
    """Make this process, and its children, root of namespaces of its own; there is no way back.

    Its network is then a loopback interface alone, /run is empty, and /etc is a copy, for
    `ip netns` writes to both. All of it vanishes with the last process. Only for a process with
    one thread. Raises OSError or LabError, where user namespaces are forbidden or halfway so.
    """
    uid, gid = os.geteuid(), os.getegid()
    kernel.unshare(kernel.CLONE_NEWUSER | kernel.CLONE_NEWNS | kernel.CLONE_NEWNET)
    kernel.write("/proc/self/setgroups", "deny")
    kernel.write("/proc/self/uid_map", f"0 {uid} 1")
    kernel.write("/proc/self/gid_map", f"0 {gid} 1")
    kernel.run(["mount", "--make-rprivate", "/"])
    kernel.run(["mount", "-t", "tmpfs", "tmpfs", "/run"])
    copy = Path("/run/etc")
    copy.mkdir()
    kernel.NAMESPACES.mkdir()
    with suppress(kernel.LabError):  # what is not readable is not needed
        kernel.run(["cp", "-a", "/etc/.", str(copy)])
    (copy / "netns").mkdir(exist_ok=True)
    kernel.run(["mount", "--bind", str(copy), "/etc"])
    kernel.raise_loopback()
