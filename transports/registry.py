"""Which transports a node has: from objects and names to transports, and from addresses to one.

A plugin is a package with an entry point in the group `isthmus.transports`: its name is what the
settings say, its value anything that, called without arguments, returns a `Transport` or a
`RawTransport`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from .core.errors import ConfigError, NoTransport
from .core.interfaces import RawTransport, Transport

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from .core.interfaces import Host
    from .core.multiaddr import Multiaddr
    from .upgrade_config import UpgradeConfig
    from .websocket.config import WebSocketConfig
    from .yamux.flow import NodeBudget

ReusePort = Literal["never", "public", "always"]
"""To which addresses TCP dials from the port that it listens on."""

GROUP = "isthmus.transports"
"""The group of entry points that names of transports are looked up in."""


def transports_for(
    specs: Sequence[Transport | RawTransport | str] | None,
    *,
    upgrade: UpgradeConfig | None = None,
    websocket: WebSocketConfig | None = None,
    reuse_port: ReusePort = "never",
    more: Sequence[Transport | RawTransport] = (),
) -> list[Transport]:
    """Return the transports that objects and names stand for; None for TCP and WebSocket.

    `more` are added where none of those claims their protocols. Raw ones get Noise and Yamux with
    the settings `upgrade`; WebSocket gets `websocket`, TCP `reuse_port`, unless it is an object.
    Raises ConfigError for a name that no package has registered, one that does not load, and for
    what is no transport.
    """
    if specs is None:
        from .websocket.transport import WebSocketTransport

        specs = (_tcp(reuse_port=reuse_port), WebSocketTransport(websocket))
    found = [_transport(spec, websocket, reuse_port=reuse_port) for spec in specs]
    claimed = {name for each in found for name in each.protocols}
    found += [each for each in more if not claimed & {*each.protocols}]
    budget: NodeBudget | None = None
    transports: list[Transport] = []
    for each in found:
        if isinstance(each, Transport):
            transports.append(each)
            continue
        # Loaded only here: it brings the ciphers and the muxer.
        from .upgrade import Upgraded

        upgraded = Upgraded(each, config=upgrade, budget=budget)
        # One for the whole node, however many ways lead to it.
        budget = upgraded.budget
        transports.append(upgraded)
    return transports


class Registry:
    """The transports of one owner, chosen by address."""

    def __init__(self, transports: Iterable[Transport]) -> None:
        self.transports = tuple(transports)

    def attach(self, host: Host) -> None:
        """Tell every transport its owner."""
        for transport in self.transports:
            transport.attach(host)

    def for_dial(self, addr: Multiaddr) -> Transport:
        """Return the transport to dial an address with; raises NoTransport."""
        for transport in self._claiming(addr):
            if transport.can_dial(addr):
                return transport
        raise NoTransport(addr)

    def for_listen(self, addr: Multiaddr) -> Transport:
        """Return the transport to listen at an address with; raises NoTransport.

        Whether it can is for `listen` to say: what can be listened on cannot always be dialled.
        """
        for transport in self._claiming(addr):
            return transport
        raise NoTransport(addr)

    def _claiming(self, addr: Multiaddr) -> Iterable[Transport]:
        last = addr.last_transport
        return (transport for transport in self.transports if last in transport.protocols)


def _tcp(*, reuse_port: ReusePort) -> RawTransport:
    from .tcp import TcpTransport

    return TcpTransport(reuse_port=reuse_port != "never", only_public=reuse_port == "public")


def _transport(
    spec: object, websocket: WebSocketConfig | None, *, reuse_port: ReusePort
) -> Transport | RawTransport:
    found = _load(spec, websocket, reuse_port=reuse_port) if isinstance(spec, str) else spec
    if isinstance(found, (Transport, RawTransport)):
        return found
    which = f"the transport {spec!r}" if isinstance(spec, str) else repr(spec)
    raise ConfigError(f"{which} is no transport: it has neither `dial` nor `dial_raw`")


def _load(name: str, websocket: WebSocketConfig | None, *, reuse_port: ReusePort) -> object:
    from importlib.metadata import entry_points

    installed = {each.name: each for each in entry_points(group=GROUP)}
    if name not in installed:
        names = ", ".join(sorted(installed)) or "none"
        raise ConfigError(f"no transport is called {name!r}; installed are: {names}")
    entry = installed[name]
    try:
        factory = entry.load()
    except (ImportError, AttributeError) as error:
        names = ", ".join(sorted(installed))
        raise ConfigError(
            f"the transport {name!r} ({entry.value}) does not load: {error}; installed are: {names}"
        ) from error
    if not callable(factory):
        raise ConfigError(f"the transport {name!r} ({entry.value}) cannot be called")
    from .tcp import TcpTransport
    from .websocket.transport import WebSocketTransport

    if factory is TcpTransport:
        return _tcp(reuse_port=reuse_port)
    return factory(websocket) if factory is WebSocketTransport else factory()
