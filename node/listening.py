"""The places where connections come in."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..transports.core.errors import NoTransport
from .interfaces import expand_wildcard

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from anyio.abc import TaskGroup

    from ..transports.core.interfaces import ConnectionListener
    from ..transports.core.multiaddr import Multiaddr
    from .swarm import Swarm


class Listeners(list["ConnectionListener"]):
    """The listeners of a node, over all of its transports."""

    @property
    def addresses(self) -> tuple[Multiaddr, ...]:
        """Where they are bound, each address of this machine in place of a wildcard."""
        bound = (address for listener in self for address in listener.addresses)
        return tuple(dict.fromkeys(each for address in bound for each in expand_wildcard(address)))

    async def bind(self, addresses: Iterable[Multiaddr], swarm: Swarm) -> None:
        """Bind every address; raises NoTransport, AddressError, OSError."""
        for address in addresses:
            transport = swarm.transport_for(address)
            if transport is None:
                raise NoTransport(address)
            self.append(await transport.listen(address.without_peer()))

    def serve(self, tasks: TaskGroup, swarm: Swarm, on_change: Callable[[], object]) -> None:
        """Take what comes in, and call `on_change` when addresses have changed, in `tasks`."""
        for listener in self:
            tasks.start_soon(listener.serve, swarm.accept)
            tasks.start_soon(_watch, listener, on_change)

    def close(self, tasks: TaskGroup) -> None:
        """Close every one, in `tasks`."""
        for listener in self:
            tasks.start_soon(listener.aclose)


async def _watch(listener: ConnectionListener, on_change: Callable[[], object]) -> None:
    async for _ in listener.changes():
        on_change()
