"""Peer programs on the lab's hosts: those that others wrote, and isthmus."""

from __future__ import annotations

import sys
from pathlib import Path

from isthmus.benchmarks.peers.control import launch, running

PROGRAM = Path(__file__).parent / "reached.py"
OURS = "isthmus"


def start(program, host, *arguments):
    """Run a program on a host, where it listens by TCP, for the time of the block."""
    prefix = ("ip", "netns", "exec", host.namespace)
    listen = f"/ip4/{host.ip}/tcp/0"
    if program == OURS:
        command = [*prefix, sys.executable, str(PROGRAM), "--listen", listen, *arguments]
        return running(program, command)
    return launch(program, listen=listen, netns_prefix=prefix, arguments=arguments)


def verdicts(told):
    """Return what AutoNAT has found out: pairs of an address and whether it can be reached."""
    return [(each["address"], each["reachable"]) for each in told["verdicts"]]
