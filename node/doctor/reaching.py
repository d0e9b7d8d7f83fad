"""Findings on where a node is, and whether others can reach it there; pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...relay.autonat.observed import NatKind
from ...relay.autonat.reachability import Reachability
from ...transports.core.addresses import AddressClass
from .findings import Check, State
from .words import count, listed, span

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .facts import Facts, OwnAddress

ADD_RELAY = (
    "name a relay to be reached through: isthmus run --relay-via ADDRESS (setting relays.via)"
)

_TRANSPORTS = {"tcp": "TCP", "ws": "WebSocket", "tls": "WebSocket"}

_KINDS = {
    AddressClass.LOOPBACK: "this machine only",
    AddressClass.LINK_LOCAL: "this link only",
    AddressClass.PRIVATE: "private",
    AddressClass.SHARED: "behind the provider's NAT (CGNAT)",
    AddressClass.PUBLIC: "public",
    AddressClass.PROCESS_LOCAL: "this process only",
}

_HERE = {AddressClass.LOOPBACK, AddressClass.PROCESS_LOCAL, AddressClass.LINK_LOCAL}

_VERDICTS = {
    Reachability.UNKNOWN: "not known",
    Reachability.PUBLIC: "can be dialled",
    Reachability.PRIVATE: "cannot be dialled",
}


def is_anywhere(facts: Facts) -> bool:
    """Say whether a node listens at all."""
    return any(not each.is_external for each in facts.addresses)


def is_open(facts: Facts) -> bool:
    """Say whether it listens on more than this machine's loopback."""
    return any(each.kind not in _HERE for each in facts.addresses if not each.is_external)


def listening(facts: Facts) -> Check:
    """Say where it listens, by what, and what kinds of addresses these are."""
    bound = [each for each in facts.addresses if not each.is_external]
    if not bound:
        return _no_listener(facts)
    names = dict.fromkeys(
        _TRANSPORTS.get(name, name) for each in bound for name in [each.address.last_transport]
    )
    kinds = dict.fromkeys(_kind(each) for each in bound)
    finding = f"by {listed([*names])}, at {count(len(bound), 'address')}: {listed([*kinds])}"
    details = tuple(f"{each.address}  {_kind(each)}" for each in bound)
    if not is_open(facts):
        advice = "listen on all interfaces: isthmus run --listen /ip4/0.0.0.0/tcp/4001"
        finding = "on loopback only: nobody outside this machine can reach it there"
        return Check("listening", State.NOTE, finding, f"{advice} (setting node.listen)", details)
    return Check("listening", State.OK, finding, details=details)


def reachable(facts: Facts) -> Check:
    """Say whether others can dial it, who has said so, and what to do if they cannot."""
    details = tuple(_tried(each) for each in facts.addresses if _is_asked_about(each))
    if facts.reach.verdict is Reachability.PUBLIC:
        public = [each for each in facts.addresses if each.verdict is Reachability.PUBLIC]
        told = {answer.peer for each in public for answer in each.answers if answer.is_reached}
        places = listed([str(each.address) for each in public])
        finding = f"others can dial it at {places}, as {count(len(told), 'peer')} found"
        return Check("reachable", State.OK, finding, details=details)
    if facts.reach.verdict is Reachability.PRIVATE:
        return _unreachable(facts, details)
    state, why, advice = _why_unknown(facts)
    return Check("reachable", state, why, advice, details)


def nat(facts: Facts) -> Check:
    """Say how the way to others changes its address, and what comes back in."""
    reach = facts.reach
    if not is_open(facts):
        where = "on loopback only" if is_anywhere(facts) else "nowhere"
        return Check("nat", State.OK, f"not looked for, since it listens {where}")
    details = tuple(
        f"{each.local} is seen at {each.external} by {count(each.observers, 'network')}"
        for each in reach.mappings
    )
    match reach.nat:
        case NatKind.NONE:
            finding = "none: others see it where it is"
            return Check("nat", State.OK, finding, details=details)
        case NatKind.ENDPOINT_INDEPENDENT:
            finding = (
                "one outside address for all peers (endpoint-independent mapping), so holes can be"
                f" punched; {_filtering(facts)}"
            )
            return Check("nat", State.OK, finding, details=details)
        case NatKind.SYMMETRIC:
            finding = (
                "another outside address for each peer (symmetric): no hole can be punched to a"
                " peer that cannot be dialled, and the relay stays"
            )
            return Check("nat", State.NOTE, finding, _symmetric_advice(facts), details)
        case _:
            why, advice = _nat_unknown(facts)
            return Check("nat", State.UNKNOWN, f"not known, because {why}", advice, details)


def ports(facts: Facts) -> Check:
    """Say whether it dials from the port that it listens on."""
    reuse = facts.reach.reuse
    if reuse != "never":
        whom = "public addresses" if reuse == "public" else "all addresses"
        finding = f"it dials {whom} from the port it listens on, where peers can meet it"
        return Check("port reuse", State.OK, finding)
    if not any(each.address.last_transport == "tcp" for each in facts.addresses):
        finding = "not in effect: it does not listen on TCP, which is what holes are punched for"
        advice = "" if not is_open(facts) else "listen on TCP, too (setting node.listen)"
        return Check("port reuse", State.NOTE if advice else State.OK, finding, advice)
    if facts.privacy == "relay-only":
        finding = "not in effect: this node shows its address to nobody (privacy.addresses)"
        return Check("port reuse", State.OK, finding)
    finding = "not in effect: dcutr.enabled is false, so that relayed connections stay relayed"
    return Check("port reuse", State.NOTE, finding, "set dcutr.enabled = true")


def punching(facts: Facts) -> Check:
    """Say how often a direct connection has come of a relayed one."""
    reach = facts.reach
    if not reach.punches:
        return Check("hole punching", State.NOTE, "off", "set dcutr.enabled = true")
    if not reach.succeeded + reach.failed:
        finding = "not tried yet: nobody has come through a relay"
        return Check("hole punching", State.OK, finding)
    finding = (
        f"{reach.succeeded} of {reach.succeeded + reach.failed} relayed connections became direct"
    )
    if not reach.failed:
        return Check("hole punching", State.OK, finding)
    finding += f"; the last failure: {reach.last_failure}"
    state = State.OK if reach.succeeded >= reach.failed else State.NOTE
    advice = "forward a port on the router: then peers dial it" if state is State.NOTE else ""
    return Check("hole punching", state, finding, advice)


def filtering(facts: Facts) -> str:
    """Return what a NAT lets in, in a word: `open`, `asked` or `unknown`.

    `open`: at least other ports of an address that was dialled, since who tries is connected.
    """
    outside = {each.verdict for each in facts.addresses if each.is_external}
    if Reachability.PUBLIC in outside:
        return "open"
    return "asked" if Reachability.PRIVATE in outside else "unknown"


def _filtering(facts: Facts) -> str:
    return {
        "open": "it lets others in there: all, or at least other ports of whom it has dialled",
        "asked": "it lets in only what was asked for, from that address and port",
        "unknown": "what it lets in is not known, since nobody has tried",
    }[filtering(facts)]


def _no_listener(facts: Facts) -> Check:
    if not facts.machine.networks:
        finding = "nowhere: no network interface of this machine is up"
        return Check("listening", State.PROBLEM, finding, "connect this machine to a network")
    finding = "nowhere: it can dial, and be reached through relays only"
    advice = "listen: isthmus run --listen /ip4/0.0.0.0/tcp/4001 (setting node.listen)"
    has_relay = bool(facts.relays.named or facts.relays.discovers)
    return Check("listening", State.OK if has_relay else State.NOTE, finding, advice)


def _unreachable(facts: Facts, details: tuple[str, ...]) -> Check:
    tried = {answer.peer for each in facts.addresses for answer in each.answers}
    finding = f"others cannot dial it, as {count(len(tried), 'peer')} found: "
    ports = sorted({each.address.port for each in facts.addresses if each.address.port})
    which = f"TCP port {listed([str(each) for each in ports])}"
    if any(each.kind is AddressClass.PUBLIC and not each.is_external for each in facts.addresses):
        finding += "a firewall is before its public address"
        advice = f"let {which} in, in the firewall of this machine and of its provider"
    elif any(each.kind is AddressClass.SHARED for each in facts.addresses):
        finding += "it is behind the NAT of its provider (CGNAT)"
        advice = f"{ADD_RELAY}; no setting of a router of yours helps"
    else:
        finding += "it is behind a NAT or a firewall"
        advice = f"forward {which} on the router to this machine, or {ADD_RELAY}"
    if any(each.state == "reserved" for each in facts.relays.known):
        finding += "; they reach it through a relay"
        return Check("reachable", State.OK, finding, details=details)
    return Check("reachable", State.PROBLEM, finding, advice, details)


def _why_unknown(facts: Facts) -> tuple[State, str, str]:
    reach = facts.reach
    if not is_open(facts):
        where = "on loopback only" if is_anywhere(facts) else "nowhere"
        return State.OK, f"not asked, since it listens {where}", ""
    if facts.privacy == "relay-only":
        return State.OK, "not asked, since it is to be reached behind relays only", ""
    if not reach.is_enabled:
        finding = "not known, because this node may not ask: autonat.enabled is false"
        return State.UNKNOWN, finding, "set autonat.enabled = true"
    finding, advice = _why_no_verdict(facts)
    return State.UNKNOWN, finding, advice


def _why_no_verdict(facts: Facts) -> tuple[str, str]:
    reach = facts.reach
    if reach.is_asking:
        return "not known yet: a peer is trying", "ask again in half a minute"
    if not reach.servers:
        finding = "not known, because no connected peer outside this network serves AutoNAT v2"
        return finding, "connect to one that does, such as a relay (--relay-via) or a go node"
    tried = {answer.peer for each in facts.addresses for answer in each.answers}
    if tried:
        finding = (
            f"not known, because {reach.confidence} peers in different networks must agree, and"
            f" {len(tried)} said something"
        )
        return finding, "connect to more, or set autonat.confidence = 1 if you trust these"
    if any(each.is_candidate for each in facts.addresses):
        finding = f"not known, because the {count(reach.servers, 'peer')} asked would not try"
        return finding, "connect to peers elsewhere: in its own network no peer tries addresses"
    finding = "not known, because there is no public address to try: it has none, and none is seen"
    return finding, "see 'nat'"


def _nat_unknown(facts: Facts) -> tuple[str, str]:
    """Return why nothing is known of the NAT, and what would tell."""
    reach = facts.reach
    if reach.reuse == "never":
        return "it does not dial from the port it listens on (see 'port reuse')", ""
    observers = sum(each.observers for each in reach.mappings)
    if observers:
        advice = "connect to one more in another network, such as a second relay"
        return "one network alone has said where it sees it, and two must", advice
    if not facts.dialled:
        advice = "connect to two public peers in different networks, such as two relays"
        return "it is connected to no public peer that it has dialled", advice
    return "no peer that it has dialled has said where it sees it", "connect to other peers"


def _symmetric_advice(facts: Facts) -> str:
    if any(each.state == "reserved" for each in facts.relays.known):
        return "forward a TCP port on the router, or switch it to a cone or 'open' NAT"
    return ADD_RELAY


def _is_asked_about(own: OwnAddress) -> bool:
    return own.is_candidate or own.is_external


def _tried(own: OwnAddress) -> str:
    """Return an address with the verdict on it, and by whom."""
    by = ", ".join(_answers(own))
    return f"{own.address}  {_VERDICTS[own.verdict]}{f' ({by})' if by else ''}"


def _answers(own: OwnAddress) -> Iterator[str]:
    for each in own.answers:
        what = "reached" if each.is_reached else "not reached"
        yield f"{what} by {each.peer} {span(each.age)} ago"


def _kind(own: OwnAddress) -> str:
    version = own.address.names[0].replace("ip", "IPv") if own.address.ip is not None else ""
    kind = _KINDS.get(own.kind, own.kind.value)
    return f"{kind} {version}".strip() if own.kind is not AddressClass.SHARED else kind
