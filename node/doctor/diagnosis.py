"""From what is known of a node to what hinders it; pure.

`diagnose` is all: each check is a function of the facts, in `reaching`, `helpers` and here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...relay.autonat.observed import NatKind
from ...relay.autonat.reachability import Reachability
from . import helpers, reaching
from .findings import Check, Diagnosis, PathView, State
from .words import amount, count

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .facts import Facts, MachineFacts

SPARE_FILES = 128
"""Open files beside the connections: listeners, the store, the control socket, libraries, and the
handshakes that are under way."""

LOW_SPACE = 64 * 2**20
"""Bytes free below which a disk is soon full: an hour of a busy log."""

NEARLY_FULL = 0.9
"""The part of a limit from which on it is worth a word."""


def diagnose(facts: Facts) -> Diagnosis:
    """Return the checks, most telling first, and which paths can work."""
    checks = (
        reaching.listening(facts),
        reaching.reachable(facts),
        reaching.nat(facts),
        reaching.ports(facts),
        reaching.punching(facts),
        *helpers.relays(facts),
        helpers.lan(facts),
        _peers(facts),
        _limits(facts),
        _files(facts),
        data(facts.machine),
        helpers.clock(facts),
        _versions(facts),
    )
    is_busy = facts.reach.is_asking or facts.lan.is_proving or helpers.is_trying(facts)
    return Diagnosis(facts.peer_id, checks, tuple(_paths(facts)), not is_busy)


def data(machine: MachineFacts) -> Check:
    """Say whether what is learnt is kept on disk."""
    if machine.data == "memory":
        return Check("data", State.OK, "in memory: nothing is kept on disk")
    where = machine.data_path
    if machine.data == "not written":
        finding = f"{where} is not written: {machine.data_trouble}"
        advice = "make room, or chown or chmod it; or another place, with --data-dir"
        return Check("data", State.PROBLEM, finding, advice)
    if machine.free_bytes is not None and machine.free_bytes < LOW_SPACE:
        finding = f"{where} is written, but only {amount(machine.free_bytes)} are free there"
        return Check("data", State.NOTE, finding, "make room on that disk")
    return Check("data", State.OK, f"{where} is written")


def _paths(facts: Facts) -> Iterator[PathView]:
    yield _lan_path(facts)
    yield PathView("out", "it dials whoever can be dialled", works=True)
    match facts.reach.verdict:
        case Reachability.PUBLIC:
            yield PathView("in", "others dial it", works=True)
        case Reachability.PRIVATE:
            yield PathView("in", "others have tried in vain", works=False)
        case _ if not reaching.is_open(facts):
            yield PathView("in", "it does not listen for others", works=False)
        case _:
            yield PathView("in", "nobody has tried, or said so", works=None)
    yield _punched_path(facts)
    held = sum(each.state == "reserved" for each in facts.relays.known)
    if held:
        yield PathView("relay", f"others reach it through {count(held, 'relay')}", works=True)
    elif helpers.is_trying(facts):
        yield PathView("relay", "relays are being asked", works=None)
    else:
        yield PathView("relay", "no relay leads others here", works=False)


def _lan_path(facts: Facts) -> PathView:
    found = facts.lan
    working = [name for name, _ in found.networks if name not in found.missing]
    if not found.is_on:
        return PathView("lan", "the LAN is not used", works=False)
    if not working:
        return PathView("lan", "no network on which multicast works", works=False)
    return PathView("lan", f"peers of {count(len(working), 'network')} find each other", works=True)


def _punched_path(facts: Facts) -> PathView:
    reach = facts.reach
    if reach.reuse == "never":
        return PathView("punched", "it does not dial from the port it listens on", works=False)
    if reach.verdict is Reachability.PUBLIC:
        return PathView("punched", "not needed: others dial it", works=True)
    match reach.nat:
        case NatKind.NONE | NatKind.ENDPOINT_INDEPENDENT:
            return PathView("punched", "with peers whose NAT keeps one address, too", works=True)
        case NatKind.SYMMETRIC:
            return PathView("punched", "its NAT shows each peer another address", works=False)
        case _:
            return PathView("punched", "the kind of NAT is not known", works=None)


def _peers(facts: Facts) -> Check:
    if not facts.connections:
        finding = "nobody is connected"
        return Check("peers", State.OK, finding)
    peers = count(facts.peers, "peer")
    return Check("peers", State.OK, f"{count(facts.connections, 'connection')} to {peers}")


def _limits(facts: Facts) -> Check:
    full = [
        each
        for each in facts.fullness
        if each.bound > 0 and each.used >= NEARLY_FULL * each.bound and each.used > 1
    ]
    if not full:
        return Check("limits", State.OK, "none is nearly reached")
    finding = "; ".join(f"{each.name}: {each.used} of {each.bound}" for each in full)
    advice = f"raise {', '.join(dict.fromkeys(each.setting for each in full))}"
    return Check("limits", State.NOTE, finding, advice)


def _files(facts: Facts) -> Check:
    limit, used = facts.machine.file_limit, facts.machine.open_files
    if limit is None:
        return Check("open files", State.UNKNOWN, "not known on this system")
    finding = f"{limit} allowed" if used is None else f"{used} of {limit} allowed"
    needed = facts.max_connections + SPARE_FILES
    if limit >= needed:
        return Check("open files", State.OK, finding)
    finding += f": too few for {facts.max_connections} connections"
    advice = f"ulimit -n {needed} (LimitNOFILE= for systemd), or lower limits.connections"
    return Check("open files", State.NOTE, finding, advice)


def _versions(facts: Facts) -> Check:
    text = ", ".join(f"{name} {version}" for name, version in facts.machine.versions)
    return Check("version", State.OK, text)
