"""A network laboratory out of Linux namespaces: hosts, NAT routers, slow links and faults.

    with Lab() as lab:
        relay = lab.add_host("relay")                     # on the network "public"
        home = lab.add_nat("home", "port-restricted")     # a router, and a LAN behind it
        a, b = lab.add_host("a", home), lab.add_host("b", home)
        a.link.shape(delay=25, loss=1, rate="20mbit")     # milliseconds one way, per cent
        server = relay.popen(["python3", "-m", "http.server", "80"])
        home.firewall("block-udp")                        # faults, in mid-run
        a.move("public")

Needs Linux, root or user namespaces, iproute2 and nftables; of Python, the standard library. The
caller's own network is not touched. Not for production code: it may import this, never be it.
"""

from __future__ import annotations

from .host import Host, Router
from .kernel import LabError, entered
from .lab import PUBLIC, Lab, clean
from .link import Congestion, Link, LinkStatistics, Network
from .measure import RoundTrips, echo_rtt, plain_tcp_copy, wan_link
from .probes import (
    Behaviour,
    TcpPunch,
    classify,
    echoes,
    mapped_address,
    multicast_reaches,
    reaches,
    tcp_punch,
    udp_punch,
)
from .rootless import become_root, can_become_root, missing
from .rules import FIREWALLS, KINDS, Firewall, Nat, NatKind, Unsolicited

__all__ = [
    "FIREWALLS",
    "KINDS",
    "PUBLIC",
    "Behaviour",
    "Congestion",
    "Firewall",
    "Host",
    "Lab",
    "LabError",
    "Link",
    "LinkStatistics",
    "Nat",
    "NatKind",
    "Network",
    "RoundTrips",
    "Router",
    "TcpPunch",
    "Unsolicited",
    "become_root",
    "can_become_root",
    "classify",
    "clean",
    "echo_rtt",
    "echoes",
    "entered",
    "mapped_address",
    "missing",
    "multicast_reaches",
    "plain_tcp_copy",
    "reaches",
    "tcp_punch",
    "udp_punch",
    "wan_link",
]
