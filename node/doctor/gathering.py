"""Gathers what is known of a running node; it asks the node and this machine, and nobody else."""

from __future__ import annotations

import os
import platform
import shutil
import sys
import time
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import anyio.to_thread

from ...transports.core.addresses import AddressClass, classify
from ...transports.core.interfaces import Side
from ...transports.lan.interfaces import lan_interfaces
from ..interfaces import interface_addresses
from .diagnosis import data, diagnose
from .facts import Facts, LanFacts, MachineFacts, OwnAddress, RelayFacts, RelaysFacts

if TYPE_CHECKING:
    from ...transports.core.multiaddr import Multiaddr
    from ..discovery import Discovery
    from ..node import Node
    from ..relayed import Relayed
    from .facts import DataState
    from .findings import Check, Diagnosis

OPEN_FILES = Path("/dev/fd")
"""Where Linux, macOS and the BSDs list the files that a process has open."""

MAX_OPEN_FILES = 100_000
"""Counted at most: it takes some ten milliseconds, in a thread."""


async def look_at(
    node: Node, bound: tuple[Multiaddr, ...], relayed: Relayed, discovery: Discovery | None
) -> Diagnosis:
    """Return what there is to say of a node; see `Node.diagnose`.

    `bound` are the addresses that it listens on, `discovery` what it uses the LAN by, if it does.
    """
    store, trouble = node.stores.path, node.stores.trouble
    directory = None if store is None else store.parent
    # A disk may be slow, or away.
    machine = await anyio.to_thread.run_sync(_machine, directory, trouble)
    return diagnose(_facts(node, bound, relayed, discovery, machine))


async def look_at_directory(directory: Path) -> Check:
    """Return what there is to say of a data directory that no node uses now."""
    return data(await anyio.to_thread.run_sync(_machine, directory, ""))


def _facts(
    node: Node,
    bound: tuple[Multiaddr, ...],
    relayed: Relayed,
    discovery: Discovery | None,
    machine: MachineFacts,
) -> Facts:
    config, connections = node.config, node.connections
    own = [each for each in bound if classify(each) is not AddressClass.RELAYED]
    dialled = [
        each
        for each in connections
        if each.side is Side.DIALER and classify(each.remote_addr) is AddressClass.PUBLIC
    ]
    return Facts(
        peer_id=node.peer_id,
        machine=machine,
        addresses=_addresses(node, own),
        privacy=config.privacy.addresses,
        reach=node.reach.facts(),
        relays=RelaysFacts(
            named=len(relayed.config.via),
            discovers=relayed.config.discover,
            wanted=relayed.config.wanted,
            known=_relays(relayed),
        ),
        lan=_lan(node, discovery),
        connections=len(connections),
        peers=len({each.remote_peer for each in connections}),
        dialled=len(dialled),
        max_connections=config.limits.connections,
        fullness=node.usage(),
    )


def _addresses(node: Node, own: list[Multiaddr]) -> tuple[OwnAddress, ...]:
    reach = node.reach
    candidates = reach.verdicts()
    outside = [*reach.external, *candidates]
    external = [each for each in dict.fromkeys(outside) if each not in own]
    return tuple(
        OwnAddress(
            address=each,
            kind=classify(each),
            is_external=each in external,
            is_candidate=each in candidates,
            verdict=reach.client.table.of(each),
            answers=reach.answers(each),
        )
        for each in (*own, *external)
    )


def _relays(relayed: Relayed) -> tuple[RelayFacts, ...]:
    now = time.time()
    held = {each.relay: each for each in relayed.client.held}
    found = []
    for status in relayed.status():
        reservation = held.get(status.relay)
        limit = None if reservation is None else reservation.limit
        found.append(
            RelayFacts(
                relay=status.relay,
                state=status.state,
                is_configured=status.is_configured,
                reason=status.reason,
                left=None if status.until is None else status.until - now,
                round_trip=status.round_trip,
                seconds=None if limit is None else limit.duration,
                bytes=None if limit is None else limit.data,
                told_ttl=None if reservation is None else reservation.told_ttl,
            )
        )
    return tuple(found)


def _lan(node: Node, discovery: Discovery | None) -> LanFacts:
    if discovery is None:
        return LanFacts()
    state = discovery.state()
    networks = tuple(
        (each.name, str(address.network))
        for each in state.interfaces
        for address in each.addresses
        if address.version == 4
    )
    announce = node.config.lan.announce
    return LanFacts(
        is_on=True,
        announce=announce,
        networks=networks,
        missing=state.missing,
        peers=state.peers,
        is_proving=state.is_proving,
    )


def _machine(directory: Path | None, trouble: str) -> MachineFacts:
    limit, used = _files()
    data_state, why, free = _data(directory, trouble)
    return MachineFacts(
        versions=(
            ("isthmus", version("isthmus")),
            ("Python", platform.python_version()),
            (platform.system(), platform.release()),
        ),
        now=time.time(),
        data=data_state,
        data_path="" if directory is None else str(directory),
        data_trouble=why,
        free_bytes=free,
        file_limit=limit,
        open_files=used,
        networks=len(lan_interfaces()) or _count_addresses(),
    )


def _count_addresses() -> int:
    """Return how many addresses there are that are not loopback's, as on a point-to-point link."""
    return sum(
        not each.startswith(("127.", "::1")) for ip in (4, 6) for each in interface_addresses(ip)
    )


def _files() -> tuple[int | None, int | None]:
    """Return how many files this process may open, and how many it has open."""
    try:
        # Not on every system.
        import resource
    except ImportError:
        return None, None
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = sys.maxsize if soft == resource.RLIM_INFINITY else soft
    try:
        with os.scandir(OPEN_FILES) as entries:
            return limit, sum(1 for _ in islice(entries, MAX_OPEN_FILES))
    except OSError:
        return limit, None


def _data(directory: Path | None, trouble: str) -> tuple[DataState, str, int | None]:
    """Return what becomes of what is learnt, why it is not written, and the bytes that are free."""
    if directory is None:
        return "memory", "", None
    if trouble:
        return "not written", trouble, None
    try:
        # One that is still to be made lies in one that is there.
        place = next(each for each in (directory, *directory.absolute().parents) if each.exists())
        # Nothing is written to find out.
        if not place.is_dir():
            return "not written", f"{place} is no directory", None
        if not os.access(place, os.W_OK | os.X_OK):
            return "not written", f"this account may not write in {place}", None
        return "kept", "", shutil.disk_usage(place).free
    except OSError as error:
        return "not written", error.strerror or type(error).__name__, None
