"""Findings on the relays that a node is reached through, and on its LAN; pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...relay.autonat.reachability import Reachability
from .findings import Check, State
from .reaching import ADD_RELAY, is_open
from .words import amount, count, listed, span

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .facts import Facts, RelayFacts

MAX_SHOWN = 8
"""Relays that have a check of their own: those in use, which are four at most, come first."""

_TRYING = ("connecting", "reserving")


def relays(facts: Facts) -> Iterator[Check]:
    """Say by how many relays it is reached, then of each why it is in use, or is not."""
    found = facts.relays
    if not found.named and not found.discovers:
        yield _no_relay(facts)
        return
    yield _reservations(facts)
    shown = sorted(
        found.known, key=lambda each: (each.state != "reserved", each.state == "resting")
    )
    for each in shown[:MAX_SHOWN]:
        yield _relay(facts, each)


def is_trying(facts: Facts) -> bool:
    """Say whether a relay is being asked for the first time."""
    return any(each.state in _TRYING and not each.reason for each in facts.relays.known)


def clock(facts: Facts) -> Check:
    """Say whether this machine's clock fits those of the relays."""
    for each in facts.relays.known:
        told = each.told_ttl
        if told is not None and not 0 < told <= MAX_SANE_TTL:
            way = "ahead of" if told <= 0 else "behind"
            by = span(-told if told <= 0 else told - MAX_SANE_TTL)
            finding = (
                f"this machine's clock is {way} that of the relay {each.relay}, by {by} or more"
            )
            advice = "set the clock, best by NTP: timedatectl set-ntp true"
            return Check("clock", State.NOTE, finding, advice)
    if facts.machine.now < RELEASED:
        finding = "this machine's clock is years behind: certificates will be refused"
        return Check("clock", State.PROBLEM, finding, "set the clock: timedatectl set-ntp true")
    return Check("clock", State.OK, "as far as relays tell, it fits")


MAX_SANE_TTL = 86_400.0
"""Seconds; a longer reservation is a clock that is wrong, since relays give an hour."""

RELEASED = 1_735_689_600.0
"""The beginning of 2025; this program is younger."""


def lan(facts: Facts) -> Check:
    """Say where peers are looked for by mDNS, and whether that works."""
    found = facts.lan
    if not found.is_on:
        return Check("lan", State.OK, "not used (setting lan.enabled)")
    names = [name for name, _ in found.networks]
    if not names and not found.missing:
        finding = "no interface with a private address is up, and others are not used unasked"
        advice = "name the interface in lan.trusted, if its network is yours"
        return Check("lan", State.NOTE, finding, advice)
    working = [
        f"{network} ({name})" for name, network in found.networks if name not in found.missing
    ]
    details = tuple(f"{network}  {name}" for name, network in found.networks)
    if found.missing:
        finding = f"no multicast on {listed(found.missing)}: nobody is found or finds it there"
        advice = (
            "let UDP port 5353 in and out in this machine's firewall; Wi-Fi with client isolation,"
            " containers and VPNs carry none; --no-lan turns it off (setting lan.enabled)"
        )
        state = State.NOTE if working else State.PROBLEM
        return Check("lan", state, finding, advice, details)
    finding = f"by multicast on {listed(working)}, {count(found.peers, 'peer')} found"
    if found.announce == "never":
        finding += "; it does not show itself (lan.announce)"
    return Check("lan", State.OK, finding, details=details)


def _no_relay(facts: Facts) -> Check:
    if facts.reach.verdict is Reachability.PUBLIC:
        return Check("relays", State.OK, "none is named, and none is needed")
    if not is_open(facts):
        return Check("relays", State.OK, "none is named (setting relays.via)")
    finding = "none is named: where nobody can dial this node, nobody reaches it"
    return Check("relays", State.NOTE, finding, ADD_RELAY)


def _reservations(facts: Facts) -> Check:
    found = facts.relays
    held = [each for each in found.known if each.state == "reserved"]
    possible = found.wanted if found.discovers else min(found.wanted, found.named)
    if not held:
        if not found.known:
            finding = "none was met yet, and none is named"
            return Check("relays", State.UNKNOWN, finding, ADD_RELAY)
        if is_trying(facts):
            return Check("relays", State.UNKNOWN, "none yet: being asked", "ask again in a moment")
        state = State.NOTE if facts.reach.verdict is Reachability.PUBLIC else State.PROBLEM
        finding = f"reached through none of {count(len(found.known), 'relay')}"
        return Check("relays", state, finding, "see each relay below, or name another one")
    finding = f"reached through {count(len(held), 'relay')}"
    if len(held) < possible:
        return Check("relays", State.NOTE, f"{finding} of {possible}", "see each relay below")
    if found.wanted > 1 and len(held) == 1:
        advice = "name a second one (relays.via), or take what is met (relays.discover = true)"
        return Check("relays", State.NOTE, f"{finding}: one that is lost leaves a gap", advice)
    return Check(
        "relays", State.OK, f"{finding}, one of which may be lost" if held[1:] else finding
    )


def _relay(facts: Facts, relay: RelayFacts) -> Check:
    name, whose = f"relay {str(relay.relay)[-8:]}", _whose(facts, relay)
    details = (str(relay.relay),)
    match relay.state:
        case "reserved":
            parts = [f"in use: {whose}", *_measured(relay), _limits(relay)]
            if relay.left is not None:
                parts.append(f"reserved for {span(relay.left)} more")
            if not relay.reason:
                return Check(name, State.OK, "; ".join(parts), details=details)
            parts.append(f"the last renewal failed: {relay.reason}")
            return Check(name, State.NOTE, "; ".join(parts), details=details)
        case "refused":
            finding = f"refuses: {_reason(relay)}; {whose}; it is asked again"
            return Check(name, State.NOTE, finding, _refusal_advice(facts, relay), details)
        case "waiting":
            advice = f"isthmus why {relay.relay} --dial shows how far it gets"
            finding = f"not reached: {_reason(relay)}; {whose}; it is tried again"
            return Check(name, State.NOTE, finding, advice, details)
        case "resting":
            finding = f"in reserve: {whose}, and others serve"
            return Check(name, State.OK, finding, details=details)
        case _:
            why = f", after {relay.reason}" if relay.reason else ""
            finding = f"being asked{why}; {whose}"
            return Check(name, State.UNKNOWN, finding, details=details)


def _whose(facts: Facts, relay: RelayFacts) -> str:
    if relay.is_configured:
        return "you have named it"
    others = count(sum(not each.is_configured for each in facts.relays.known), "relay")
    return f"met by chance, the cheaper of two drawn from {others} met"


def _measured(relay: RelayFacts) -> Iterator[str]:
    if relay.round_trip is not None:
        yield f"{relay.round_trip * 1e3:.3g} ms away"


def _limits(relay: RelayFacts) -> str:
    parts = []
    if relay.bytes:
        parts.append(f"{amount(relay.bytes)} each way")
    if relay.seconds:
        parts.append(span(relay.seconds))
    return f"a circuit carries {listed(parts)}" if parts else "a circuit has no limit"


def _reason(relay: RelayFacts) -> str:
    return relay.reason or "it did not say why"


def _refusal_advice(facts: Facts, relay: RelayFacts) -> str:
    if "does not serve this peer" in relay.reason:
        return f"have its owner allow {facts.peer_id}: isthmus keep there, or relay.allow"
    return "name another relay, or wait until this one has room"
