"""Hosts and routers: one network namespace each, with what a test does to and inside it."""

from __future__ import annotations

import dataclasses
import socket
import subprocess
from typing import TYPE_CHECKING, Any

from . import kernel, rules
from .link import Link, Network

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AbstractContextManager

    from .lab import Lab
    from .link import Congestion

RUN_TIMEOUT = 30.0
"""Seconds for run(); longer work belongs into popen()."""


class Host:
    """A namespace with one or more links; `link`, `ip` and `network` are those of the first."""

    def __init__(self, lab: Lab, name: str, *, forwards: bool = False) -> None:
        self.lab = lab
        self.name = name
        self.namespace = lab.new_namespace(name)
        self.links: dict[str, Link] = {}
        self.sysctl("net.ipv4.ip_forward", int(forwards))
        lab.hosts[name] = self

    @property
    def link(self) -> Link:
        """The first link: `eth0` of a host, `wan` of a router."""
        return next(iter(self.links.values()))

    @property
    def ip(self) -> str:
        """The IPv4 address on the first link."""
        return self.link.ip

    @property
    def network(self) -> Network:
        """The network of the first link."""
        return self.link.network

    def connect(self, network: Network, interface: str = "eth0", ip: str | None = None) -> Link:
        """Plug one more cable into a network."""
        link = Link(self, interface, network, ip)
        self.links[interface] = link
        self.lab.write_hosts()
        return link

    def move(self, network: Network | Router | str, ip: str | None = None) -> None:
        """Change to another network, or to another address of the same one."""
        self.link.move(self.lab.network(network), ip)
        self.lab.write_hosts()

    def congestion(self, algorithm: Congestion | None) -> None:
        """Choose what new TCP connections of any program here use; None: the kernel's default.

        It holds for both roles, survives move(), and leaves connections to the host's own
        address alone. A program may still choose otherwise for a socket.
        """
        for link in self.links.values():
            link.congestion(algorithm)

    def enter(self) -> AbstractContextManager[None]:
        """Make this thread's new sockets and children belong to the host; never await inside."""
        return kernel.entered(self.namespace)

    def socket(
        self, kind: int = socket.SOCK_DGRAM, port: int = 0, *, reuse: bool = False
    ) -> socket.socket:
        """Return a bound IPv4 socket that lives in the host, for use by the calling process.

        reuse allows several sockets on one port, as TCP hole punching needs.
        """
        with self.enter():
            bound = socket.socket(socket.AF_INET, kind)
        try:
            for option in (socket.SO_REUSEADDR, socket.SO_REUSEPORT) if reuse else ():
                bound.setsockopt(socket.SOL_SOCKET, option, 1)
            bound.bind((self.ip, port))
        except OSError:
            bound.close()
            raise
        return bound

    def popen(self, argv: Sequence[str], **options: Any) -> subprocess.Popen[Any]:
        """Start a program in the host, as subprocess.Popen does; it dies when the lab closes.

        It has a session of its own, the lab's /etc/hosts and /etc/resolv.conf, and its own /sys
        (where /sys/fs/cgroup is empty).
        """
        process = subprocess.Popen(self._inside(argv), **{"start_new_session": True, **options})
        self.lab.adopt(process)
        return process

    def run(self, argv: Sequence[str], **options: Any) -> subprocess.CompletedProcess[Any]:
        """Run a program in the host to its end, as subprocess.run does.

        Unless told otherwise it captures text, and raises for a failure or after RUN_TIMEOUT.
        """
        defaults: dict[str, Any] = {"capture_output": True, "text": True, "timeout": RUN_TIMEOUT}
        check = options.pop("check", True)
        return subprocess.run(self._inside(argv), check=check, **{**defaults, **options})

    def sysctl(self, key: str, value: object) -> None:
        """Set a sysctl of the host's namespace."""
        with self.enter():
            kernel.set_sysctl(key, value)

    def nft(self, script: str) -> str:
        """Load an nft script in the host; raise LabError if nft refuses it."""
        with self.enter():
            return kernel.run(["nft", "-f", "-"], script)

    def firewall(self, *names: rules.Firewall) -> None:
        """Replace the host's firewall by the named ones together; without names, open it.

        Live flows survive the stateful ones: call flush() too where they should not.
        """
        self.nft(rules.firewall(names, "eth0" if "eth0" in self.links else None))

    def flows(self) -> list[str]:
        """Return the lines of the host's conntrack table."""
        with self.enter(), open("/proc/thread-self/net/nf_conntrack", encoding="ascii") as file:
            return file.read().splitlines()

    def flush(self) -> None:
        """Forget every tracked flow, and with it every NAT mapping."""
        with self.enter():
            kernel.forget_flows()

    def _inside(self, argv: Sequence[str]) -> list[str]:
        return [kernel.tool("ip") or "ip", "netns", "exec", self.namespace, *argv]


class Router(Host):
    """A home router: `wan` on an upstream network, `lan` as the gateway of its own network."""

    def __init__(self, lab: Lab, name: str, nat: rules.Nat, upstream: Network, cidr: str) -> None:
        super().__init__(lab, name, forwards=True)
        self.nat = nat
        self.connect(upstream, "wan")
        self.lan = Network(lab, name, cidr, self, "lan")
        self._load()

    def set_nat(self, kind: rules.NatKind) -> None:
        """Change the kind of NAT; flows tracked already keep their mapping until flush()."""
        self.nat = dataclasses.replace(self.nat, kind=kind)
        self._load()

    def set_udp_timeout(self, seconds: int) -> None:
        """Choose how long an idle UDP mapping lives; the kernel's default is 30, replied 120."""
        for key in ("udp_timeout", "udp_timeout_stream"):
            self.sysctl(f"net.netfilter.nf_conntrack_{key}", seconds)

    def flush(self) -> None:
        """Forget every tracked flow and every mapping of a cone."""
        self._load()  # a new table has an empty cone map
        super().flush()

    def _load(self) -> None:
        self.nft(rules.nat(self.nat))
