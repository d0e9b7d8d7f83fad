"""What is known of a node and of the machine it runs on, as plain values; times are in seconds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from ...relay.autonat.observed import NatKind
from ...relay.autonat.reachability import Reachability

if TYPE_CHECKING:
    from ...transports.core.addresses import AddressClass
    from ...transports.core.multiaddr import Multiaddr
    from ...transports.core.peer_id import PeerId
    from ...transports.registry import ReusePort
    from ..limits import Fullness
    from ..privacy import Told


@dataclass(frozen=True, slots=True)
class Answer:
    """What a peer has said after it had tried an address, `age` seconds ago."""

    peer: PeerId
    is_reached: bool
    age: float


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnAddress:
    """An address of the node.

    `is_external`: only others see it; `is_candidate`: peers are asked to try it.
    """

    address: Multiaddr
    kind: AddressClass
    is_external: bool = False
    is_candidate: bool = False
    verdict: Reachability = Reachability.UNKNOWN
    answers: tuple[Answer, ...] = ()


@dataclass(frozen=True, slots=True)
class Mapping:
    """From how many networks an address of the node is seen at an external one."""

    local: Multiaddr
    external: Multiaddr
    observers: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ReachFacts:
    """What peers have found out about the node."""

    verdict: Reachability = Reachability.UNKNOWN
    nat: NatKind = NatKind.UNKNOWN
    mappings: tuple[Mapping, ...] = ()
    is_enabled: bool = True
    """Whether peers may be asked at all (autonat.enabled)."""
    is_asking: bool = False
    servers: int = 0
    """Connected peers outside this network that can be asked."""
    confidence: int = 2
    reuse: ReusePort = "public"
    punches: bool = True
    """Whether relayed connections are to become direct ones (dcutr.enabled)."""
    succeeded: int = 0
    failed: int = 0
    last_failure: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RelayFacts:
    """One relay: see `RelayStatus`.

    `seconds` and `bytes` are what each circuit may take, None where it has no limit or is not
    known; `told_ttl` is the reservation's time by the relay's clock and ours.
    """

    relay: PeerId
    state: str
    is_configured: bool = True
    reason: str = ""
    left: float | None = None
    round_trip: float | None = None
    seconds: int | None = None
    bytes: int | None = None
    told_ttl: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RelaysFacts:
    """The relays to be reached through."""

    named: int = 0
    discovers: bool = False
    wanted: int = 2
    known: tuple[RelayFacts, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class LanFacts:
    """How the LAN is used: `networks` with the names of their interfaces, and where it fails."""

    is_on: bool = False
    announce: str = "private"
    networks: tuple[tuple[str, str], ...] = ()
    missing: tuple[str, ...] = ()
    peers: int = 0
    is_proving: bool = False
    """Whether it is still being found out if multicast works."""


DataState = Literal["memory", "kept", "not written"]


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineFacts:
    """What the node has of this machine; None where that cannot be asked here."""

    versions: tuple[tuple[str, str], ...] = ()
    now: float = 0.0
    """Seconds since 1970, by this machine's clock."""
    data: DataState = "memory"
    data_path: str = ""
    data_trouble: str = ""
    free_bytes: int | None = None
    file_limit: int | None = None
    open_files: int | None = None
    networks: int = 1
    """Interfaces that are up, loopback left out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """All that findings are made of."""

    peer_id: PeerId
    machine: MachineFacts
    addresses: tuple[OwnAddress, ...] = ()
    """Where it listens, and where others see it; those behind relays left out."""
    privacy: Told = "all"
    reach: ReachFacts = ReachFacts()
    relays: RelaysFacts = RelaysFacts()
    lan: LanFacts = LanFacts()
    connections: int = 0
    peers: int = 0
    dialled: int = 0
    """Connections to public addresses that this node has dialled."""
    max_connections: int = 512
    fullness: tuple[Fullness, ...] = ()
