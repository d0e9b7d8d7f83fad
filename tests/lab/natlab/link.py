"""Ethernet segments and the cables that lead to them; rates, delays, loss and cuts are here."""

from __future__ import annotations

import ipaddress
import itertools
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from . import kernel

if TYPE_CHECKING:
    from .host import Host
    from .lab import Lab

Congestion = Literal["cubic", "bbr", "reno"]
Rate = str | float
T = TypeVar("T")
Amount = float | tuple[float, float]
"""One value for both directions, or (up, down); up is away from the host."""
Rates = Rate | None | tuple[Rate | None, Rate | None]
"""The same for a rate; None is unlimited."""

_SHAPER = Path(__file__).with_name("shaper.py")
_FIRST_FREE = 9
"""Addresses .1 to .9 are left to gateways and to tests that choose their own."""
_TBF_BURST_DIVISOR = 800
"""Bits per second to bytes of burst: 10 ms worth, which is a scheduler tick's worst case."""
_TBF_LEAST_BURST = 5000
"""Bytes; three full frames, without which slow rates pass nothing."""


@dataclass(frozen=True, slots=True)
class LinkStatistics:
    """What became of the frames of one direction of a shaped link."""

    sent: int
    lost: int
    """Frames lost by chance, or because the interface was down."""
    overflow: int
    """Frames dropped because the queue was full."""
    waited: float
    """Seconds that all frames together have waited for the line, behind others."""


class Network:
    """An Ethernet segment: a bridge in the switch namespace, with a gateway on it."""

    def __init__(self, lab: Lab, name: str, cidr: str, gateway: Host, interface: str) -> None:
        self.lab = lab
        self.name = name
        self.cidr = ipaddress.IPv4Network(cidr)
        self.bridge = f"br{len(lab.networks)}"
        self.gateway: str | None = None
        self._free = map(str, itertools.islice(self.cidr.hosts(), _FIRST_FREE, None))
        # Without these settings a port would wait, or pass multicast only to those it heard of.
        kernel.ip(
            f"link add {self.bridge} type bridge stp_state 0 forward_delay 0 mcast_snooping 0",
            f"link set {self.bridge} up",
            namespace=lab.switch,
        )
        lab.networks[name] = self
        self.gateway = gateway.connect(self, interface, str(self.cidr[1])).ip

    def free_address(self) -> str:
        """Return the next address that was never given out; raise LabError when none is left."""
        address = next(self._free, None)
        if address is None:
            raise kernel.LabError(f"network {self.name} has no free address")
        return address


class Link:
    """A cable from an interface of a host to a port of the switch, on a network's bridge."""

    def __init__(self, host: Host, interface: str, network: Network, ip: str | None) -> None:
        self.host = host
        self.interface = interface
        self.port = host.lab.new_port()
        self.network = network
        self.ip = ""
        self._on_bridge = self.port  # the port itself or, when shaped, the shaper's outer end
        self._shaper: subprocess.Popen[bytes] | None = None
        self._has_tbf = False
        self._congestion: Congestion | None = None
        kernel.ip(
            f"link add {self.port} type veth peer name {interface} netns {host.namespace}",
            namespace=self._switch,
        )
        self.move(network, ip)

    @property
    def is_shaped(self) -> bool:
        """Whether a shaper process is in the cable."""
        return self._shaper is not None

    def move(self, network: Network, ip: str | None = None) -> None:
        """Plug into a network, the same or another, with a new address and default route."""
        self.network = network
        self.ip = ip or network.free_address()
        self.restore()
        kernel.ip(
            f"addr flush dev {self.interface}",
            f"addr add {self.ip}/{network.cidr.prefixlen} brd + dev {self.interface}",
            f"link set {self.interface} up",
            *self._routes(),
            namespace=self.host.namespace,
        )

    def congestion(self, algorithm: Congestion | None) -> None:
        """Choose what new TCP connections over this link use; None is the kernel's default.

        A sysctl would do, but in a namespace it takes the unrestricted algorithms only; a route's
        attribute takes every algorithm that the kernel has, and holds for any program.
        """
        self._congestion = algorithm
        kernel.ip(*self._routes(), namespace=self.host.namespace)

    def cut(self, *, silent: bool = False) -> None:
        """Take the carrier away; or, silent, let frames vanish while the interface stays up."""
        how = f"link set {self._on_bridge} nomaster" if silent else f"link set {self.port} down"
        kernel.ip(how, namespace=self._switch)

    def restore(self) -> None:
        """Undo cut(); after a loss of carrier, traffic returns up to a second later."""
        kernel.ip(
            f"link set {self._on_bridge} master {self.network.bridge} up",
            f"link set {self.port} up",
            namespace=self._switch,
        )

    def tbf(self, rate: Rate | None = None, *, latency: str = "50ms") -> None:
        """Limit the rate of both directions in the kernel alone; without a rate, lift the limit."""
        ends = ((self.host.namespace, self.interface), (self._switch, self.port))
        bits = kernel.bits_per_second(rate)
        for namespace, device in ends:
            where = ["dev", device, "root"]
            if bits is not None:
                burst = max(int(bits) // _TBF_BURST_DIVISOR, _TBF_LEAST_BURST)
                limits = ["rate", f"{int(bits)}bit", "latency", latency, "burst", str(burst)]
                kernel.run(["tc", "-n", namespace, "qdisc", "replace", *where, "tbf", *limits])
            elif self._has_tbf:
                kernel.run(["tc", "-n", namespace, "qdisc", "del", *where])
        self._has_tbf = bits is not None

    def shape(
        self,
        *,
        delay: Amount = 0.0,
        jitter: Amount = 0.0,
        loss: Amount = 0.0,
        rate: Rates = None,
        queue: Amount = 100.0,
        reorder: bool = False,
        seed: int = 1,
    ) -> None:
        """Put a forwarder into the cable, or change the one there, in mid-run.

        delay and jitter: milliseconds one way, so the round trip grows by 2 * delay. loss: per cent
        of frames. rate: bits per second. queue: milliseconds of backlog at that rate before the
        newest frame is dropped. Frames keep their order unless reorder, so that jitter delays
        dense flows by up to delay + jitter. seed repeats the pattern of losses; it counts only
        when shaping starts.
        """
        self._start_shaper(seed)
        amounts = [_pair(amount) for amount in (delay, jitter, loss, queue)]
        ways = zip(*amounts, _pair(rate), strict=True)
        self._order(
            [
                {
                    "delay": one_way / 1e3,
                    "jitter": around / 1e3,
                    "loss": lost / 100,
                    "rate": kernel.bits_per_second(bits),
                    "queue": backlog / 1e3,
                    "reorder": reorder,
                }
                for one_way, around, lost, backlog, bits in ways
            ]
        )

    def statistics(self) -> tuple[LinkStatistics, LinkStatistics]:
        """Return the counters of a shaped link: up, down."""
        up, down = self._order(None)
        return LinkStatistics(**up), LinkStatistics(**down)

    def unshape(self) -> None:
        """Take the forwarder out of the cable; segmentation offload stays off."""
        if self._shaper is None:
            return
        self._shaper.communicate()  # the end of its stdin is its end
        self.host.lab.forget(self._shaper)
        kernel.ip(f"link del {self._on_bridge}", namespace=self._switch)
        self._shaper, self._on_bridge = None, self.port
        self.restore()

    @property
    def _switch(self) -> str:
        return self.host.lab.switch

    def _routes(self) -> list[str]:
        how = f" congctl {self._congestion}" if self._congestion else ""
        lines = [
            f"route replace {self.network.cidr} dev {self.interface} proto kernel scope link"
            f" src {self.ip}{how}"
        ]
        if self.network.gateway:
            lines.append(f"route replace default via {self.network.gateway}{how}")
        return lines

    def _start_shaper(self, seed: int) -> None:
        if self._shaper is not None:
            return
        # port = shaper = inner - outer - bridge, where - is a veth pair
        inner, outer = f"i{self.port}", f"o{self.port}"
        kernel.ip(
            f"link add {inner} type veth peer name {outer}",
            f"link set {inner} up",
            f"link set {self.port} nomaster",
            namespace=self._switch,
        )
        with kernel.entered(self.host.namespace):
            kernel.disable_transmit_checksums(self.interface)
        with kernel.entered(self._switch):
            kernel.disable_transmit_checksums(outer)
            shaper = subprocess.Popen(
                [sys.executable, "-I", "-S", str(_SHAPER), self.port, inner, str(seed)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                start_new_session=True,
            )
        self.host.lab.adopt(shaper)
        self._shaper, self._on_bridge = shaper, outer
        if not _read_line(shaper):
            raise kernel.LabError("the shaper of a link did not start")
        self.restore()

    def _order(self, order: list[dict[str, float | None]] | None) -> list[dict[str, Any]]:
        shaper = self._shaper
        if shaper is None or shaper.stdin is None:
            raise kernel.LabError("this link is not shaped")
        shaper.stdin.write(json.dumps(order).encode() + b"\n")
        shaper.stdin.flush()
        answer: list[dict[str, Any]] = json.loads(_read_line(shaper))
        return answer


def _pair(value: T | tuple[T, T]) -> tuple[T, T]:
    return value if isinstance(value, tuple) else (value, value)


def _read_line(process: subprocess.Popen[bytes]) -> bytes:
    return process.stdout.readline() if process.stdout else b""
