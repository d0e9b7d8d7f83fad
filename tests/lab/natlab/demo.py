"""The demonstration: one LAN of each kind twice, what each NAT is, which pairs can be punched."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

from .lab import Lab
from .probes import classify, tcp_punch, udp_punch
from .rules import KINDS

if TYPE_CHECKING:
    from collections.abc import Callable

    from .host import Host

_PAIR = ("1", "2")


def demonstrate() -> None:
    """Print tables of NAT behaviour and of hole punching; takes about 20 s."""
    begin = time.monotonic()
    with Lab() as lab:
        first, second = lab.add_host("s1"), lab.add_host("s2")
        ends = _build(lab)
        _say(f"{len(lab.hosts)} hosts and routers built in {time.monotonic() - begin:.2f} s\n")
        for kind, (host, _) in ends.items():
            seen = classify(host, first, second)
            _say(
                f"{kind:20} mapping {seen.mapping:22} filtering {seen.filtering:22}"
                f" keeps port: {seen.keeps_port}"
            )
        _table("UDP", ends, lambda a, b: udp_punch(a, b, first, rounds=10))
        _table("TCP", ends, lambda a, b: tcp_punch(a, b, first, timeout=2).seconds)
        begin = time.monotonic()
    _say(f"\nremoved in {time.monotonic() - begin:.2f} s")


def _build(lab: Lab) -> dict[str, tuple[Host, Host]]:
    ends = {"public": (lab.add_host("pub1"), lab.add_host("pub2"))}
    for kind in KINDS:
        if kind != "routed":
            routers = [lab.add_nat(f"{kind}{i}", kind) for i in _PAIR]
            one, two = (lab.add_host(f"h-{router.name}", router) for router in routers)
            ends[kind] = (one, two)
    walls = [lab.add_nat(f"shut{i}", firewall=["block-udp"]) for i in _PAIR]
    ends["block-udp"] = (lab.add_host("h-shut1", walls[0]), lab.add_host("h-shut2", walls[1]))
    return ends


def _table(
    title: str, ends: dict[str, tuple[Host, Host]], punch: Callable[[Host, Host], float | None]
) -> None:
    names = list(ends)
    _say(f"\n{title} hole punching".ljust(23) + "".join(f"{name[:14]:>16}" for name in names))
    for row, name in enumerate(names):
        cells = [""] * row
        for other in names[row:]:
            seconds = punch(ends[name][0], ends[other][1])
            cells.append("-" if seconds is None else f"{seconds * 1e3:.0f} ms")
        _say(f"{name:22}" + "".join(f"{cell:>16}" for cell in cells))


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
