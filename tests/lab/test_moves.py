"""Hosts with two links: the better path is used, left as soon as it is silent, and taken again."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest

MOVER = Path(__file__).with_name("mover.py")

AWAY = 1.0
"""Seconds from a cut to the move to the other link."""

BACK = 2.0
"""Seconds from the end of a cut to the move back."""


@pytest.fixture
def both(lab, home):
    """Two hosts on one LAN that also have a provider each, twenty milliseconds apart."""
    lab.add_network("isp2", "11.0.2.0/24")
    hosts = lab.add_host("a", home), lab.add_host("b", home)
    for host, provider in zip(hosts, ("public", "isp2"), strict=True):
        host.connect(lab.network(provider), "eth1").shape(delay=5)
    return hosts


def of_peer(addresses, host):
    """The addresses of a host, those of its LAN first."""
    lan, wan = (
        [each for each in addresses if f"/ip4/{link.ip}/" in each] for link in host.links.values()
    )
    assert lan
    assert wan
    return lan, wan


def reached_at(event, host):
    return [name for name, link in host.links.items() if f"/{link.ip}/" in event["address"]]


def moves(program):
    return program.events("path_changed")


@pytest.mark.timeout(90)
@pytest.mark.parametrize(
    ("backend", "seconds"),
    [
        ("asyncio", 1),
        ("trio", 4),
        # Longer than a silent path is kept.
        *(pytest.param(each, 13, marks=pytest.mark.slow) for each in ("asyncio", "trio")),
    ],
)
def test_a_silent_cut_and_its_end_are_a_move_each(lab, both, start, backend, seconds):
    near, far = both
    there = start(far, "--echo", "--no-lan", "--listen", "/ip4/0.0.0.0/tcp/0")
    lan, wan = of_peer(there.event("listening")["addresses"], far)
    asks = start.program(near, [sys.executable, str(MOVER), backend, *wan, *lan])
    opened = asks.event("connection_opened")
    assert reached_at(opened, far) == ["eth0"]
    lab.until(lambda: len(asks.events("answered")) > 20, timeout=10, what="twenty answers")
    assert moves(asks) == []

    cut = time.time()
    near.link.cut(silent=True)
    lab.until(lambda: moves(asks), timeout=5, what="a move")
    away = moves(asks)[0]
    assert reached_at(away, far) == ["eth1"]
    lab.wait(max(0, cut + seconds - time.time()))
    assert len(moves(asks)) == 1
    answered = [each for each in asks.events("answered") if each["begun"] > away["time"]]
    assert len(answered) > 3

    restored = time.time()
    near.link.restore()
    lab.until(lambda: len(moves(asks)) > 1, timeout=5, what="the move back")
    back = moves(asks)[1]
    assert reached_at(back, far) == ["eth0"]
    lab.wait(2)
    assert len(moves(asks)) == 2
    # Of this peer's link: AutoNAT has strangers knock, too.
    states = asks.events("link_changed", peer=there.peer_id)
    assert states[-1]["state"] == "connected"
    assert "reconnecting" not in [each["state"] for each in states]
    took = away["time"] - cut, back["time"] - restored
    print(f"\n{backend}, {seconds} s: away after {took[0]:.3f} s, back after {took[1]:.3f} s")  # noqa: T201
    assert took[0] < AWAY
    assert took[1] < BACK
