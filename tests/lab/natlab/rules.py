"""The nft scripts of routers and firewalls: text only, no side effects.

Each script replaces its own tables in one transaction, so it can be loaded at any time. nft wants
a newline after `{` and before `}`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

if TYPE_CHECKING:
    from collections.abc import Collection

NatKind = Literal["full-cone", "address-restricted", "port-restricted", "symmetric", "routed"]
KINDS: tuple[NatKind, ...] = get_args(NatKind)
CONES: frozenset[NatKind] = frozenset({"full-cone", "address-restricted"})

Unsolicited = Literal["drop", "reject", "accept"]

Firewall = Literal["block-udp", "reject-udp", "block-tcp", "block-all-inbound", "web-only"]
_OUTSIDE = '{ "eth0", "wan" }'  # a host's link, a router's upstream one
FIREWALLS: dict[Firewall, tuple[str, ...]] = {
    "block-udp": ("meta l4proto udp drop",),
    "reject-udp": ("meta l4proto udp reject",),
    "block-tcp": ("meta l4proto tcp drop",),
    "block-all-inbound": (f"iifname {_OUTSIDE} ct state new drop",),
    "web-only": (
        f"oifname {_OUTSIDE} ct state new tcp dport != {{ 80, 443 }} drop",
        f"oifname {_OUTSIDE} ct state new meta l4proto != tcp drop",
    ),
}
"""The rules of each firewall. The first three also stop live flows; the others are stateful."""

_MARK = "0x6c6162"
"""On packets that shall vanish outside the host; any value that nobody else uses."""
_CONE_SECONDS = 120
"""A cone's memory of an unused mapping; RFC 4787 REQ-5 asks for two minutes at least."""
_CONE_ENTRIES = 65536
"""One per outside port."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Nat:
    """How a router translates and filters."""

    kind: NatKind = "port-restricted"
    """Mapping and filtering in the words of RFC 3489; "routed" translates nothing."""
    unsolicited: Unsolicited = "drop"
    """What a packet that nobody asked for meets on the outside; home routers drop it."""
    keep_port: bool | None = None
    """Whether the outside port equals the inside one; by default all but cones try to."""

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"NAT kind {self.kind!r} is not one of {', '.join(KINDS)}")
        if self.unsolicited not in get_args(Unsolicited):
            raise ValueError(f"unsolicited={self.unsolicited!r} is not drop, reject or accept")

    @property
    def masquerade(self) -> str:
        """The nft options that choose the outside port; `{0}` stands for the protocol."""
        if self.kind == "symmetric":
            return "random,fully-random"
        if self.keep_port or (self.keep_port is None and self.kind not in CONES):
            return "persistent"
        return "to :jhash ip saddr . {0} sport mod 20000 seed 7 offset 40000"


def firewall(names: Collection[Firewall], device: str | None = None) -> str:
    """Compose tables `inet fw` and `netdev fw`: the named rules, ahead of everything else.

    A packet that netfilter drops on its way out of a host makes sendto() fail with EPERM, which no
    firewall in the network does. With a device, such packets are only marked, and dropped as they
    leave by it. Raises ValueError for an unknown name.
    """
    unknown = sorted(set(names) - set(FIREWALLS))
    if unknown:
        raise ValueError(f"no firewall is called {', '.join(unknown)}")
    rules = [rule for name in names for rule in FIREWALLS[name]]
    if not rules:
        return _table("inet fw") + _table("netdev fw")
    chains = dict.fromkeys(("input", "forward", "output"), rules)
    exits = []
    if device:
        chains["output"] = [re.sub(r"drop$", f"meta mark set {_MARK}", rule) for rule in rules]
        hook = f'filter hook egress device "{device}" priority 0'
        exits = [_chain("egress", hook, f"meta mark {_MARK} drop")]
    loopback = ("iifname lo accept", "oifname lo accept")
    body = [
        _chain(hook, f"filter hook {hook} priority -5", *loopback, *chain)
        for hook, chain in chains.items()
    ]
    return _table("inet fw", *body) + _table("netdev fw", *exits)


def nat(policy: Nat) -> str:
    """Compose table `ip nat` of a router whose upstream interface is `wan`.

    Endpoint-independent mapping is a fixed function of the inside address and port: the same port,
    or a hash of both. Cones record, after translation, which inside end holds which outside port
    (and, address-restricted, towards whom), and let the world in by that map.
    """
    if policy.kind == "routed":
        return _table("ip nat")
    translate = [
        f'oifname "wan" meta l4proto {protocol} masquerade {policy.masquerade.format(protocol)}'
        for protocol in ("udp", "tcp")
    ]
    guard = (
        'iifname != "wan" accept',
        "ct state established,related accept",
        "ct status dnat accept",
        policy.unsolicited,
    )
    return _table(
        "ip nat",
        *(_cone(policy.kind) if policy.kind in CONES else ()),
        _chain("post", "nat hook postrouting priority 100", *translate, 'oifname "wan" masquerade'),
        _chain("guard", None, *guard),
        _chain("input", "filter hook input priority 0", "jump guard"),
        _chain("forward", "filter hook forward priority 0", "jump guard"),
    )


def _cone(kind: NatKind) -> tuple[str, str, str]:
    restricted = kind == "address-restricted"
    ours, theirs, key = ("ip daddr .", "ip saddr .", "ipv4_addr .") if restricted else ("", "", "")
    mappings = (
        f"map cone {{\ntype inet_proto . {key} inet_service : ipv4_addr . inet_service\n"
        f"flags dynamic,timeout\ntimeout {_CONE_SECONDS}s\nsize {_CONE_ENTRIES}\n}}"
    )
    learn = (
        'oifname "wan" ct direction original meta l4proto { tcp, udp } '
        f"update @cone {{ meta l4proto . {ours} th sport : "
        "ct original ip saddr . ct original proto-src }"
    )
    admit = f'iifname "wan" dnat ip to meta l4proto . {theirs} th dport map @cone'
    return (
        mappings,
        # After the translation, which is at 100: the outside port is known by then.
        _chain("learn", "filter hook postrouting priority 150", learn),
        _chain("pre", "nat hook prerouting priority -100", admit),
    )


def _table(name: str, *body: str) -> str:
    lines = "\n".join(body)
    return f"table {name}\ndelete table {name}\ntable {name} {{\n{lines}\n}}\n"


def _chain(name: str, hook: str | None, *rules: str) -> str:
    head = [f"type {hook};"] if hook else []
    return "\n".join([f"chain {name} {{", *head, *rules, "}"])
