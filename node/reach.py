"""How this node can be reached: what AutoNAT and its peers say of its addresses, and DCUtR.

It puts the parts of `relay` together with the node's tables; the node tells it what happens.
"""

from __future__ import annotations

from ipaddress import ip_address
from typing import TYPE_CHECKING

import anyio
from anyio.abc import SocketAttribute

from ..relay.autonat.client import AutonatClient
from ..relay.autonat.observed import ObservedAddresses
from ..relay.autonat.reachability import Reachability, Server
from ..relay.autonat.server import AutonatServer
from ..relay.autonat.wire import DIAL_REQUEST_PROTOCOL
from ..relay.dcutr.service import Dcutr, Ways, is_relayed
from ..transports.core.addresses import AddressClass, classify, classify_ip, prefix_of
from ..transports.core.errors import LocalProtocolError, NoTransport
from ..transports.core.interfaces import Puncher, Side
from .dialing import Target
from .doctor.tally import PunchTally
from .events import HolePunched, HolePunchFailed, ReachabilityChanged
from .interfaces import interface_addresses
from .privacy import told
from .stranger import PROTOCOLS, dial_as_stranger
from .wallclock import wall_clock

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable

    from anyio.abc import TaskGroup

    from ..relay.autonat.observed import NatKind
    from ..transports.core.interfaces import Connection, Host, Stream
    from ..transports.core.multiaddr import Multiaddr
    from ..transports.core.peer_id import PeerId
    from ..transports.registry import ReusePort
    from .config import NodeConfig
    from .doctor.facts import Answer, ReachFacts
    from .events import Json, NodeEvent
    from .peerstore import PeerStore
    from .swarm import Swarm

MAX_MAPPINGS = 4
"""External addresses of one of ours that are told of: a symmetric NAT makes any number."""

_NOWHERE = {AddressClass.UNSPECIFIED, AddressClass.MULTICAST, AddressClass.UNKNOWN}


class Reach:
    """What a node does to be reached directly.

    `listening` are the addresses that it listens on, `on_change` is called when those that others
    see have changed.
    """

    def __init__(
        self,
        host: Host,
        swarm: Swarm,
        *,
        config: NodeConfig,
        peers: PeerStore,
        listening: Callable[[], tuple[Multiaddr, ...]],
        is_on_link: Callable[[Multiaddr], bool],
        publish: Callable[[NodeEvent], None],
        on_change: Callable[[], object],
    ) -> None:
        self._tally = PunchTally()
        publish = self._tally.counting(publish)
        self._host = host
        self._swarm = swarm
        self._config = config
        self._peers = peers
        self._listening = listening
        self._is_on_link = is_on_link
        self._publish = publish
        self._on_change = on_change
        self._tasks: TaskGroup | None = None
        self._waiting: dict[anyio.Event, PeerId] = {}
        self._circuits: dict[PeerId, dict[Connection, None]] = {}
        self._seen_at: tuple[Multiaddr, ...] = ()
        self._told: tuple[Reachability, tuple[Multiaddr, ...]] = (Reachability.UNKNOWN, ())
        self._external: tuple[Multiaddr, ...] = ()
        self._asks = self._upgrades = False
        self._reuse: ReusePort = "never"
        self._observed = ObservedAddresses()
        self.client = AutonatClient(
            host,
            candidates=self._candidates,
            servers=self._servers,
            on_change=self._judged,
            confidence=config.autonat.confidence,
        )
        self.server = AutonatServer(
            dial=self._dial_as_stranger, may_dial=self._may_dial_back, source_of=prefix_of
        )
        self.dcutr = Dcutr(
            Ways(
                addresses=self.punchable,
                nat=self.nat_kind,
                may_dial=self._may_punch,
                punch=self._punch,
                adopt=swarm.adopt,
                circuit=self._circuit,
                direct=self._direct,
                wait_direct=self._wait_direct,
                dial_direct=self._dial_direct,
                succeeded=self._punched,
                failed=self._not_punched,
            ),
            attempt_timeout=config.dcutr.attempt_timeout,
        )

    @property
    def reachability(self) -> Reachability:
        """Whether others can dial this node, as far as they have said so."""
        return self.client.reachability

    @property
    def external(self) -> tuple[Multiaddr, ...]:
        """The addresses that others see and that have been tested, or seen by enough of them."""
        return self._external

    def verdicts(self) -> dict[Multiaddr, Reachability]:
        """Return what is known of each address that was asked about."""
        return self.client.table.verdicts()

    def nat_kind(self) -> NatKind:
        """Return what others see of the NAT that this node is behind."""
        return self._observed.nat_kind(anyio.current_time())

    def punchable(self) -> tuple[Multiaddr, ...]:
        """Return the addresses at which a peer may meet us, external ones first."""
        now = anyio.current_time()
        own = (*self._external, *self._observed.candidates(now), *self._listening())
        usable = (each for each in own if each.last_transport == "tcp" and self._is_open(each))
        return self._may_be_told(dict.fromkeys(usable))

    def answers(self, address: Multiaddr) -> tuple[Answer, ...]:
        """Return who has tried an address, and how that went."""
        from .doctor.facts import Answer

        now = anyio.current_time()
        votes = self.client.table.votes(address)
        return tuple(Answer(each.peer, each.is_reached, now - each.time) for each in votes)

    def facts(self) -> ReachFacts:
        """Return what a diagnosis needs to know."""
        from .doctor.facts import Mapping, ReachFacts

        mappings = self._observed.mappings(anyio.current_time())
        tally = self._tally
        return ReachFacts(
            verdict=self.reachability,
            nat=self.nat_kind(),
            mappings=tuple(
                Mapping(local, external, count)
                for local, counts in mappings.items()
                for external, count in counts.most_common(MAX_MAPPINGS)
            ),
            is_enabled=self._config.autonat.enabled,
            is_asking=self._asks and self.client.is_asking,
            servers=len({each.source for each in self._servers()}),
            confidence=self._config.autonat.confidence,
            reuse=self._reuse,
            punches=self._config.dcutr.enabled,
            succeeded=tally.succeeded,
            failed=tally.failed,
            last_failure=tally.last_failure,
        )

    def hole_punching(self, peer: PeerId) -> dict[str, Json] | None:
        """Return what came of punching for a peer and when it goes on, in JSON's values.

        None if it was never an issue. Times are in seconds since 1970.
        """
        found = self.dcutr.attempt(peer)
        if found is None:
            return None
        return {
            "outcome": found.outcome.value,
            "reason": found.reason or None,
            "begun_by_peer": found.by_peer,
            "tries": found.tries,
            "time": None if found.ended_at is None else wall_clock(found.ended_at),
            "next": None if found.next_at is None else wall_clock(found.next_at),
        }

    def register(self, listen: Iterable[Multiaddr]) -> None:
        """Serve what is of use to a node that listens there: to one on loopback nothing is."""
        config = self._config
        if config.privacy.addresses == "relay-only":
            return
        places = [each for each in listen if each.last_transport in PROTOCOLS]
        is_open = any(classify(each) is not AddressClass.LOOPBACK for each in places)
        if places and config.autonat.enabled and (is_open or config.autonat.allow_private):
            self._asks = True
            self.client.register()
            if config.autonat.serve:
                self.server.register(self._host)
        self._reuse = reuse_of(config, places)
        if self._reuse != "never" and (is_open or config.dcutr.allow_private):
            self._upgrades = True
            self.dcutr.register(self._host)

    async def run(self) -> None:
        """Ask, and run what is dialled for others, until cancelled."""
        async with anyio.create_task_group() as tasks:
            self._tasks = tasks
            if self._asks:
                tasks.start_soon(self.client.run)
            if self._upgrades:
                tasks.start_soon(self.dcutr.run)
            await anyio.sleep_forever()

    # What happens

    def observed(self, stream: Stream, external: Multiaddr | None) -> None:
        """Take note of how a peer sees this node, as it has said on one of its streams."""
        self.client.poke()
        connection = stream.connection
        if external is None or is_relayed(connection) or not self._is_testable(external):
            return
        local = self._local_of(stream, connection)
        if local is None:
            return
        observer = self._source_of(connection.remote_addr, connection.remote_peer)
        external = external.without_peer()
        self._observed.add(id(connection), local=local, external=external, observer=observer)
        self._look()

    def came(self, connection: Connection) -> None:
        """Take note of a new connection."""
        if not is_relayed(connection):
            self._came(connection.remote_peer)
        elif self._upgrades and connection.side is Side.LISTENER:
            self._circuits.setdefault(connection.remote_peer, {})[connection] = None

    def met(self, connection: Connection) -> None:
        """Take note of a connection whose peer has said what it is; upgrade it if it is relayed."""
        if not is_relayed(connection):
            self._came(connection.remote_peer)
        if self._upgrades:
            self.dcutr.look(connection.remote_peer)

    def parted(self, connection: Connection) -> None:
        """Take note of a connection that has ended."""
        peer = connection.remote_peer
        if (circuits := self._circuits.get(peer)) is not None:
            circuits.pop(connection, None)
            if not circuits:
                del self._circuits[peer]
        if self._upgrades:
            self.dcutr.look(peer)
        if self._observed.remove(id(connection), anyio.current_time()):
            self._look()

    def network_changed(self) -> None:
        """Take note that this machine's networks have changed."""
        self._observed.keep_locals(self._listening())
        self.client.network_changed()
        self._look()
        self.dcutr.news()

    # AutoNAT

    def _candidates(self) -> tuple[Multiaddr, ...]:
        """Return the addresses to ask about."""
        now = anyio.current_time()
        own = (*self._listening(), *self._observed.candidates(now))
        return self._may_be_told(each for each in own if self._is_testable(each))

    def _servers(self) -> list[Server]:
        found = {}
        for entry in self._swarm.entries:
            connection = entry.connection
            peer, address = connection.remote_peer, connection.remote_addr
            spoken = self._peers.protocols(peer) or ()
            is_far = self._config.autonat.allow_private or classify(address) is AddressClass.PUBLIC
            # One of our own network sees another side of our router than the rest of the world.
            if is_far and not is_relayed(connection) and DIAL_REQUEST_PROTOCOL in spoken:
                found[peer] = Server(peer, self._source_of(address, peer))
        return list(found.values())

    def _is_testable(self, address: Multiaddr) -> bool:
        kind = classify(address)
        if self._config.autonat.allow_private:
            return kind not in _NOWHERE and address.ip is not None
        return kind is AddressClass.PUBLIC

    def _may_dial_back(self, address: Multiaddr) -> bool:
        if address.ip is None or address.last_transport not in PROTOCOLS:
            return False
        if self._config.autonat.allow_private:
            return classify(address) not in _NOWHERE
        if classify(address) is not AddressClass.PUBLIC or self._is_on_link(address):
            return False
        own = [each.ip for each in (*self._listening(), *self._external)]
        return address.ip not in own and _can_reach(address.ip.version)

    async def _dial_as_stranger(self, address: Multiaddr) -> Connection:
        if self._tasks is None:
            raise LocalProtocolError("the node is not running")
        return await dial_as_stranger(address, self._config, self._tasks)

    def _judged(self) -> None:
        """Have it told what has become known of the node, if it is news."""
        verdicts = self.client.table.verdicts()
        public = tuple(each for each, verdict in verdicts.items() if verdict is Reachability.PUBLIC)
        news = (self.reachability, public)
        if news != self._told:
            self._told = news
            self._publish(ReachabilityChanged(*news))
        self._look()

    def _look(self) -> None:
        """See which external addresses hold now."""
        now = anyio.current_time()
        verdict = self.client.table.of
        claimed = self._observed.claimed(now)
        found = [
            each
            for each in self._observed.candidates(now)
            if verdict(each) is Reachability.PUBLIC
            or (each in claimed and verdict(each) is not Reachability.PRIVATE)
        ]
        if (external := tuple(found)) != self._external:
            self._external = external
            self._on_change()
        # That which most see; others may be anyone's word.
        seen_at = (*external, *self._observed.candidates(now)[:1])
        if seen_at != self._seen_at:
            self._seen_at = seen_at
            self.dcutr.news()

    # DCUtR

    def _may_punch(self, address: Multiaddr) -> bool:
        transport = self._swarm.transport_for(address)
        if not isinstance(transport, Puncher) or not transport.can_punch(address):
            return False
        is_own = address.without_peer() in self._listening()
        return not is_own and (self._is_open(address) or self._is_on_link(address))

    def _is_open(self, address: Multiaddr) -> bool:
        kind = classify(address)
        if self._config.dcutr.allow_private:
            return kind not in _NOWHERE and kind is not AddressClass.RELAYED
        return kind is AddressClass.PUBLIC

    async def _punch(self, address: Multiaddr, peer: PeerId, side: Side) -> Connection:
        transport = self._swarm.transport_for(address)
        if not isinstance(transport, Puncher):
            raise NoTransport(address)
        return await transport.punch(address.without_peer(), peer=peer, side=side)

    async def _dial_direct(self, peer: PeerId) -> Connection | None:
        known = self._peers.addresses(peer)
        usable = tuple(each for each in known if self._is_open(each) or self._is_on_link(each))
        if not usable:
            return None
        target = Target(peer, usable)
        return await self._swarm.connect(target, allow_limited=False, is_quiet=True)

    def _circuit(self, peer: PeerId) -> Connection | None:
        """Return the circuit that a peer has dialled last."""
        return next(reversed(self._circuits.get(peer, {})), None)

    def _direct(self, peer: PeerId) -> Connection | None:
        found = self._swarm.best(peer, allow_limited=False)
        return None if found is None or is_relayed(found) else found

    async def _wait_direct(self, peer: PeerId) -> Connection:
        while (found := self._direct(peer)) is None:
            event = anyio.Event()
            self._waiting[event] = peer
            try:
                await event.wait()
            finally:
                del self._waiting[event]
        return found

    def _came(self, peer: PeerId) -> None:
        for event, awaited in self._waiting.items():
            if awaited == peer:
                event.set()  # whoever waits looks whether it is one that will do

    def _punched(self, connection: Connection, attempts: int) -> None:
        peer, address = connection.remote_peer, connection.remote_addr
        self._publish(HolePunched(peer, address, attempts))

    def _not_punched(self, peer: PeerId, reason: str, due: float | None) -> None:
        next_at = None if due is None else wall_clock(due)
        self._publish(HolePunchFailed(peer, reason, next_at))

    # Helpers

    def _may_be_told(self, addresses: Iterable[Multiaddr]) -> tuple[Multiaddr, ...]:
        return told(addresses, self._config.privacy.addresses)

    def _local_of(self, stream: Stream, connection: Connection) -> Multiaddr | None:
        """Return the address listened on from whose port a connection was made, if it was one."""
        place = stream.extra(SocketAttribute.local_address, None)
        if not isinstance(place, tuple):
            return None
        names = connection.remote_addr.names
        for address in self._listening():
            ip, port = address.ip, address.port
            if address.names == names and (str(ip), port) == (str(place[0]), place[1]):
                return address
        return None

    def _source_of(self, address: Multiaddr, peer: PeerId) -> Hashable:
        """Return the network that a peer speaks for; near ones speak for themselves."""
        return prefix_of(address) if classify(address) is AddressClass.PUBLIC else peer


def reuse_of(config: NodeConfig, listen: Iterable[Multiaddr]) -> ReusePort:
    """Return when TCP is to dial from its port: peers can then meet us at what others see."""
    by_tcp = any(each.last_transport == "tcp" for each in listen)
    if not by_tcp or not config.dcutr.enabled or config.privacy.addresses == "relay-only":
        return "never"
    return "always" if config.dcutr.allow_private else "public"


def _can_reach(version: int) -> bool:
    """Say whether this machine has an address from which public ones of this kind are reached."""
    kinds = {classify_ip(ip_address(each)) for each in interface_addresses(version)}
    if version == 6:
        return AddressClass.PUBLIC in kinds
    return bool(kinds - {AddressClass.LOOPBACK, AddressClass.LINK_LOCAL})
