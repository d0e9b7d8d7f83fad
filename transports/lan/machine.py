"""What a node says on its LAN, and what it makes of what it hears; sans-IO.

`set_network` tells it the interfaces and the node's addresses, at the start and whenever they may
have changed, and returns whether anything has. `receive_text` takes the data of every TXT record
and returns events. `handle_timeout` at `next_timeout` forgets peers and returns whether to ask
who is there. What is heard is anybody's claim: a hint where to dial, and no more.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ..core.addresses import AddressClass, classify_ip
from .wire import decode_text, encode_text, is_announceable

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from ..core.multiaddr import Multiaddr
    from ..core.peer_id import PeerId
    from .config import LanConfig
    from .interfaces import Interface

MAX_ANNOUNCED = 6
"""Addresses announced: with them and all other records a packet stays below 1400 bytes."""

MAX_ADDRESSES = 6
"""Addresses kept of one peer; each may cost a dial."""

MAX_CHANGES = 4
"""Changes of one peer's addresses that are told in a minute."""

MAX_TTL = 4500.0
"""Seconds that an address is believed at most: the longest that RFC 6762 recommends."""

MINUTE = 60.0

QUESTIONS = (0.0, 1.0, 3.0, 7.0)
"""Seconds after the start, or a change of the network, when it is asked who is there."""

QUESTION_INTERVAL = 60.0
"""Seconds between questions afterwards."""

QUESTION_PAUSE = 1.0
"""Seconds between two questions at least (RFC 6762, 5.2)."""

HEARD_INTERVAL = 2.0
"""Seconds in which a known peer that repeats itself is told of once."""

_USABLE = (AddressClass.PRIVATE, AddressClass.LINK_LOCAL)


@dataclass(frozen=True, slots=True)
class PeerHeard:
    """A peer announced itself; `is_new`: it was not known, or at other addresses."""

    peer: PeerId
    addresses: tuple[Multiaddr, ...]
    is_new: bool


@dataclass(frozen=True, slots=True)
class Announcement:
    """What to answer to who asks: the port and addresses of the records, and the TXT data."""

    port: int
    addresses: tuple[str, ...]
    text: bytes


@dataclass(slots=True)
class _Peer:
    addresses: dict[Multiaddr, float] = field(default_factory=dict)
    """Each with the time when it is forgotten."""
    told: float = 0.0
    changes: int = 0
    minute: float = 0.0


class LanMachine:
    """The state of one node on its LAN."""

    def __init__(self, own: PeerId, config: LanConfig) -> None:
        self._own = own
        self._config = config
        self._interfaces: tuple[Interface, ...] = ()
        self._announcement: Announcement | None = None
        self._peers: OrderedDict[PeerId, _Peer] = OrderedDict()
        self._expected: dict[PeerId, int] = {}
        self._minute = 0.0
        self._new = 0
        self._started = 0.0
        self._asked = 0
        self._last_question = -QUESTION_PAUSE
        self.ignored = 0
        """Peers that were one too many for their minute."""

    def __len__(self) -> int:
        return len(self._peers)

    @property
    def interfaces(self) -> tuple[Interface, ...]:
        """The interfaces to be used."""
        return self._interfaces

    @property
    def announcement(self) -> Announcement | None:
        """What to announce; None if nothing is to be."""
        return self._announcement

    def set_network(
        self, interfaces: Iterable[Interface], addresses: Iterable[Multiaddr], now: float
    ) -> bool:
        """Learn the interfaces and the node's addresses; say whether that changes anything."""
        usable = tuple(each for each in interfaces if self._is_usable(each))
        announcement = self._announce(usable, addresses)
        if usable == self._interfaces and announcement == self._announcement:
            return False
        if usable != self._interfaces:
            self.ask(now)
        self._interfaces, self._announcement = usable, announcement
        return True

    def receive_text(self, data: bytes, ttl: float, now: float) -> list[PeerHeard]:
        """Take the data of a TXT record that holds for `ttl` seconds; 0 takes it back."""
        claimed: dict[PeerId, list[Multiaddr]] = {}
        for address in decode_text(data):
            peer = address.peer_id
            if peer not in (None, self._own) and self._is_credible(address):
                claimed.setdefault(peer, []).append(address.without_peer())
        events = []
        for peer, addresses in claimed.items():
            event = self._hear(peer, addresses, ttl, now) if ttl > 0 else None
            if ttl <= 0:
                self._forget(peer, addresses)
            elif event is not None:
                events.append(event)
        return events

    def addresses(self, peer: PeerId) -> tuple[Multiaddr, ...]:
        """Return where a peer said it is."""
        known = self._peers.get(peer)
        return () if known is None else tuple(known.addresses)

    def expect(self, peer: PeerId, now: float) -> None:
        """Ask for a peer, which is taken note of however many others there are."""
        self._expected[peer] = self._expected.get(peer, 0) + 1
        self.ask(now)

    def expect_no_more(self, peer: PeerId) -> None:
        """Take back one `expect`."""
        self._expected[peer] -= 1
        if not self._expected[peer]:
            del self._expected[peer]

    def ask(self, now: float) -> None:
        """Begin the schedule of questions again."""
        self._started, self._asked = now, 0

    def next_timeout(self) -> float:
        """Return when `handle_timeout` is to be called."""
        expiries = [each for peer in self._peers.values() for each in peer.addresses.values()]
        return min([self._next_question(), *expiries])

    def handle_timeout(self, now: float) -> bool:
        """Forget what is too old; return whether to ask now."""
        for peer in tuple(self._peers):
            late = [address for address, end in self._peers[peer].addresses.items() if end <= now]
            self._forget(peer, late)
        if now < self._next_question() or not self._interfaces:
            if not self._interfaces:
                self._last_question = now
            return False
        self._last_question = now
        self._asked += 1
        return True

    def _next_question(self) -> float:
        if self._asked < len(QUESTIONS):
            planned = self._started + QUESTIONS[self._asked]
        else:
            planned = self._last_question + QUESTION_INTERVAL
        return max(planned, self._last_question + QUESTION_PAUSE)

    def _is_usable(self, interface: Interface) -> bool:
        if interface.name in self._config.trusted:
            return True
        is_private = any(classify_ip(each.ip) in _USABLE for each in interface.addresses)
        return is_private and self._config.announce != "trusted"

    def _is_credible(self, address: Multiaddr) -> bool:
        """Say whether an address is one that could be on this LAN, and that we can dial."""
        if not is_announceable(address):
            return False
        networks = (each.network for one in self._interfaces for each in one.addresses)
        return any(address.ip in network for network in networks)

    def _announce(
        self, interfaces: Sequence[Interface], addresses: Iterable[Multiaddr]
    ) -> Announcement | None:
        if self._config.announce == "never":
            return None
        here = {each.ip for interface in interfaces for each in interface.addresses}
        found = [
            address
            for address in (each.with_peer(self._own) for each in addresses)
            if is_announceable(address) and address.ip in here and not _is_link_local(address)
        ]
        found = sorted(dict.fromkeys(found), key=lambda each: each.names[0])[:MAX_ANNOUNCED]
        if not found:
            return None
        ips = tuple(dict.fromkeys(str(each.ip) for each in found))
        return Announcement(found[0].port or 0, ips, encode_text(found))

    def _hear(
        self, peer: PeerId, addresses: list[Multiaddr], ttl: float, now: float
    ) -> PeerHeard | None:
        known = self._peers.get(peer)
        if known is None:
            known = self._admit(peer, now)
            if known is None:
                return None
        end = now + min(ttl, MAX_TTL)
        is_new = False
        for address in addresses:
            if address in known.addresses:
                known.addresses[address] = end
            elif len(known.addresses) < MAX_ADDRESSES and self._may_change(known, now):
                known.addresses[address] = end
                is_new = True
        if is_new:
            known.changes += 1
        if not is_new and now < known.told + HEARD_INTERVAL:
            return None
        known.told = now
        return PeerHeard(peer, tuple(known.addresses), is_new)

    def _may_change(self, known: _Peer, now: float) -> bool:
        if now >= known.minute + MINUTE:
            known.minute, known.changes = now, 0
        return known.changes < MAX_CHANGES

    def _admit(self, peer: PeerId, now: float) -> _Peer | None:
        if now >= self._minute + MINUTE:
            self._minute, self._new = now, 0
        if peer not in self._expected:
            if self._new >= self._config.peers_per_minute:
                self.ignored += 1
                return None
            self._new += 1
        if len(self._peers) >= self._config.max_peers:
            self._peers.popitem(last=False)
        known = self._peers[peer] = _Peer(minute=now)
        return known

    def _forget(self, peer: PeerId, addresses: list[Multiaddr]) -> None:
        known = self._peers.get(peer)
        if known is None:
            return
        for address in addresses:
            known.addresses.pop(address, None)
        if not known.addresses:
            del self._peers[peer]


def _is_link_local(address: Multiaddr) -> bool:
    return address.ip is not None and address.ip.version == 6 and address.ip.is_link_local
