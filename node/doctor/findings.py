"""What a diagnosis is made of: checks, paths, and how they are told as JSON."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ...transports.core.peer_id import PeerId
    from ..events import Json


class State(Enum):
    """How a check came out, from the best to the worst."""

    OK = "ok"
    UNKNOWN = "unknown"
    """Nobody has said, or nothing was tried yet; the finding says why."""
    NOTE = "note"
    """It works, and is not as it could be."""
    PROBLEM = "problem"
    """It hinders the node now."""


_ORDER = tuple(State)


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at: what was found, and what to change, where one can.

    `details` are lines for whoever wants to know more.
    """

    name: str
    state: State
    finding: str
    advice: str = ""
    details: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Json]:
        """Return plain values by name."""
        return {
            "check": self.name,
            "state": self.state.value,
            "finding": self.finding,
            "advice": self.advice or None,
            "details": [*self.details],
        }


@dataclass(frozen=True, slots=True)
class PathView:
    """A kind of path between this node and others; `works` is None where it is not known."""

    name: str
    why: str
    works: bool | None = field(kw_only=True)

    def to_json(self) -> dict[str, Json]:
        """Return plain values by name."""
        return {"path": self.name, "works": self.works, "why": self.why}


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What `isthmus doctor` says. `is_settled`: nothing of it is being found out right now."""

    peer_id: PeerId
    checks: tuple[Check, ...]
    paths: tuple[PathView, ...]
    is_settled: bool

    @property
    def state(self) -> State:
        """The worst of the checks."""
        return max((each.state for each in self.checks), key=_ORDER.index, default=State.OK)

    def check(self, name: str) -> Check:
        """Return a check by its name; raises KeyError."""
        for each in self.checks:
            if each.name == name:
                return each
        raise KeyError(name)

    def with_check(self, check: Check) -> Diagnosis:
        """Return the same with another check in place of the one of its name."""
        checks = (check if each.name == check.name else each for each in self.checks)
        return replace(self, checks=tuple(checks))

    def to_json(self) -> dict[str, Json]:
        """Return plain values by name."""
        return {
            "peer_id": str(self.peer_id),
            "state": self.state.value,
            "settled": self.is_settled,
            "checks": [each.to_json() for each in self.checks],
            "paths": [each.to_json() for each in self.paths],
        }
