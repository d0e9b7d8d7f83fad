"""The lab: networks, hosts, routers and processes, and the removal of every trace of them."""

from __future__ import annotations

import itertools
import os
import re
import shutil
import signal
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

from . import kernel, rules
from .host import Host, Router
from .link import Network

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Sequence
    from types import TracebackType
    from typing import Self

PUBLIC = "11.0.1.0/24"
"""Every stack takes it for global; the documentation prefixes are private to most."""

_serial = itertools.count(1)
_NAME = re.compile(r"[a-z0-9][a-z0-9-]*")
_OWNED = re.compile(r"natlab(\d+)-\d+-")
_POLL = 0.01
"""Seconds between two looks of until(); below what any test tells apart."""

T = TypeVar("T")


class Lab:
    """Networks and hosts; close(), or leaving the with block, removes every trace of them.

    Build and change one lab from one thread at a time. All bridges are in one `switch` namespace
    that has no addresses; `core` is the first address of every public network, routes between
    them, and refuses the rest of the world by ICMP. No interface leads out of the lab.
    """

    def __init__(self, public: str = PUBLIC) -> None:
        clean()
        self.id = f"natlab{os.getpid()}-{next(_serial)}"
        self.hosts: dict[str, Host] = {}
        self.networks: dict[str, Network] = {}
        self.switch = f"{self.id}-switch"
        self._processes: list[subprocess.Popen[Any]] = []
        self._namespaces: list[str] = []
        self._ports = itertools.count()
        try:
            self.new_namespace("switch")
            with kernel.entered(self.switch), suppress(FileNotFoundError):
                # Else the bridge would show LAN frames to the routers' packet filter.
                kernel.set_sysctl("net.bridge.bridge-nf-call-iptables", 0)
            self.core = Host(self, "core", forwards=True)
            kernel.ip("route add prohibit default", namespace=self.core.namespace)
            self.add_network("public", public)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def add_network(self, name: str, cidr: str) -> Network:
        """Add another public network, such as a second provider; `core` routes between them."""
        return Network(self, name, cidr, self.core, f"isp{len(self.networks)}")

    def add_nat(
        self,
        name: str,
        kind: rules.NatKind = "port-restricted",
        *,
        upstream: Network | Router | str = "public",
        cidr: str | None = None,
        firewall: Sequence[rules.Firewall] = (),
        unsolicited: rules.Unsolicited = "drop",
        keep_port: bool | None = None,
        udp_timeout: int | None = None,
    ) -> Router:
        """Add a router and its LAN, both of this name.

        upstream: a network, or another router's LAN for NAT behind NAT. unsolicited: what packets
        that nobody asked for meet on the outside. keep_port: whether the outside port equals the
        inside one (by default not for cones). udp_timeout: seconds an idle mapping lives.
        """
        policy = rules.Nat(kind=kind, unsolicited=unsolicited, keep_port=keep_port)
        cidr = cidr or f"10.0.{len(self.networks)}.0/24"
        router = Router(self, name, policy, self.network(upstream), cidr)
        if udp_timeout is not None:
            router.set_udp_timeout(udp_timeout)
        if kind == "routed":
            route = f"route add {router.lan.cidr} via {router.ip}"
            kernel.ip(route, namespace=self.core.namespace)
        if firewall:
            router.firewall(*firewall)
        return router

    def add_host(
        self,
        name: str,
        network: Network | Router | str = "public",
        *,
        ip: str | None = None,
        firewall: Sequence[rules.Firewall] = (),
    ) -> Host:
        """Add a host to a network, by default with the next free address."""
        host = Host(self, name)
        host.connect(self.network(network), ip=ip)
        if firewall:
            host.firewall(*firewall)
        return host

    def host(self, name: str) -> Host:
        """Return the host, or router, of this name; raise KeyError."""
        return self.hosts[name]

    def router(self, name: str) -> Router:
        """Return the router of this name; raise KeyError if there is none."""
        router = self.hosts[name]
        if not isinstance(router, Router):
            raise KeyError(name)
        return router

    def network(self, network: Network | Router | str) -> Network:
        """Return a network by its name, by its router, or as it is; raise KeyError."""
        if isinstance(network, str):
            return self.networks[network]
        return network.lan if isinstance(network, Router) else network

    def wait(self, seconds: float) -> None:
        """Let real time pass: for what must *not* happen, or for a timer of the kernel.

        This and until() are the only waits that tests may use.
        """
        time.sleep(seconds)

    def until(
        self,
        condition: Callable[[], T],
        *,
        timeout: float = 5.0,
        what: str = "",
    ) -> T:
        """Ask again and again until the answer is true, and return it; raise TimeoutError.

        It blocks its thread: in asynchronous tests call it through anyio.to_thread.run_sync.
        """
        deadline = time.monotonic() + timeout
        while not (answer := condition()):
            if time.monotonic() >= deadline:
                raise TimeoutError(f"not within {timeout} s: {what or condition!r}")
            self.wait(_POLL)
        return answer

    def close(self) -> None:
        """Kill every process of the lab and remove its namespaces and files."""
        for process in self._processes:
            if process.poll() is None:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
        _remove(self._namespaces)
        for process in self._processes:
            process.wait()
            for pipe in (process.stdin, process.stdout, process.stderr):
                if pipe is not None:
                    with suppress(BrokenPipeError):  # what a dead program did not read
                        pipe.close()
        self._processes.clear()
        self._namespaces.clear()
        self.hosts.clear()
        self.networks.clear()

    # For Host and Link, not for tests.

    def adopt(self, process: subprocess.Popen[Any]) -> None:
        """Kill and reap a process when the lab closes."""
        self._processes.append(process)

    def forget(self, process: subprocess.Popen[Any]) -> None:
        """Leave a process that has ended to its garbage collection."""
        self._processes.remove(process)

    def new_port(self) -> str:
        """Return an unused name for a port of the switch."""
        return f"p{next(self._ports)}"

    def new_namespace(self, name: str) -> str:
        """Make a namespace with loopback up and IPv6 off; raise ValueError for a bad name."""
        namespace = f"{self.id}-{name}"
        if not _NAME.fullmatch(name) or namespace in self._namespaces:
            raise ValueError(f"bad or repeated name {name!r}")
        kernel.ip(f"netns add {namespace}")
        self._namespaces.append(namespace)
        files = kernel.NAMESPACE_FILES / namespace
        files.mkdir(parents=True)
        if namespace == self.switch:
            kernel.write(files / "hosts", "")
        else:  # one file for all, rewritten in place, so running programs see every change
            os.link(kernel.NAMESPACE_FILES / self.switch / "hosts", files / "hosts")
        # Nobody listens there, so that a look-up fails at once instead of timing out.
        kernel.write(files / "resolv.conf", "nameserver 127.0.0.1\n")
        with kernel.entered(namespace):
            for scope in ("all", "default"):
                with suppress(FileNotFoundError):  # a kernel without IPv6
                    kernel.set_sysctl(f"net.ipv6.conf.{scope}.disable_ipv6", 1)
                kernel.set_sysctl(f"net.ipv4.conf.{scope}.rp_filter", 0)
            kernel.raise_loopback()
        return namespace

    def write_hosts(self) -> None:
        """Tell every host the present addresses of all, by /etc/hosts."""
        lines = [f"{host.ip} {host.name}" for host in self.hosts.values() if host.links]
        text = "\n".join(["127.0.0.1 localhost", *lines, ""])
        kernel.write(kernel.NAMESPACE_FILES / self.switch / "hosts", text)


def clean() -> list[str]:
    """Remove what processes left that died without closing their labs; return the namespaces."""
    names = os.listdir(kernel.NAMESPACES) if kernel.NAMESPACES.is_dir() else []
    stale = [
        name
        for name in names
        if (owner := _OWNED.match(name)) and not kernel.is_alive(int(owner[1]))
    ]
    with suppress(kernel.LabError):  # another process cleans at the same time
        _remove(stale)
    return stale


def _remove(namespaces: Sequence[str]) -> None:
    for namespace in namespaces:
        # Also daemons that left their session: the namespace knows them.
        pids = {int(pid) for pid in kernel.run(["ip", "netns", "pids", namespace]).split()}
        for pid in pids - {os.getpid()}:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        shutil.rmtree(kernel.NAMESPACE_FILES / namespace, ignore_errors=True)
    if namespaces:
        kernel.ip(*(f"netns del {namespace}" for namespace in namespaces))
