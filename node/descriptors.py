"""How many files the system lets this process have open; a connection is one of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .limits import LEAVING_PART

if TYPE_CHECKING:
    from .config import LimitsConfig

SPARE = 128
"""Files beside connections: listeners, stores, the control API and who asks it, the loop's own."""


def make_room(limits: LimitsConfig) -> str | None:
    """Raise this process's limit of open files to what `limits` may need.

    Never lowers it, and never asks for more than the system allows this user. Returns what a person
    should know where that is too little; None if it is enough, or if the system has no such limit.
    """
    try:
        import resource
    except ImportError:
        # Windows.
        return None
    needed = _needed(limits)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if _holds(soft, needed, unlimited=resource.RLIM_INFINITY):
        return None
    raised = needed if _holds(hard, needed, unlimited=resource.RLIM_INFINITY) else hard
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (raised, hard))
    except (OSError, ValueError):
        # macOS has a bound of its own below the one that it tells.
        raised = soft
    if raised >= needed:
        return None
    return (
        f"the system allows this process {raised} open files, and limits.connections"
        f" {limits.connections} may need {needed}: allow more (ulimit -n {needed}, or"
        f" LimitNOFILE={needed} for systemd), or lower limits.connections"
    )


def _needed(limits: LimitsConfig) -> int:
    leaving = limits.connections // LEAVING_PART
    return limits.connections + leaving + limits.pending_inbound + SPARE


def _holds(limit: int, needed: int, *, unlimited: int) -> bool:
    return limit == unlimited or limit >= needed
