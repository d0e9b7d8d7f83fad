"""Where this node can be dialled, and what of it is told to whom."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .listening import Listeners
from .privacy import told

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..transports.core.multiaddr import Multiaddr
    from ..transports.core.peer_id import PeerId
    from .privacy import Told


class OwnAddresses:
    """The addresses that the listeners are bound to, and those under which others have seen it.

    `external` gives the latter; `policy` says which of them peers are told.
    """

    def __init__(
        self, own: PeerId, policy: Told, external: Callable[[], tuple[Multiaddr, ...]]
    ) -> None:
        self.listeners = Listeners()
        self.bound: tuple[Multiaddr, ...] = ()
        self._own = own
        self._policy = policy
        self._external = external
        self._all: tuple[Multiaddr, ...] = ()

    @property
    def named(self) -> tuple[Multiaddr, ...]:
        """All of them, each ending in /p2p/<id>."""
        return tuple(address.with_peer(self._own) for address in self._all)

    def told(self) -> tuple[Multiaddr, ...]:
        """Return those that peers are told."""
        return told(self._all, self._policy)

    def update(self) -> bool:
        """Look at the listeners and at what others have seen; say whether anything has changed."""
        self.bound = self.listeners.addresses
        before, self._all = self._all, tuple(dict.fromkeys((*self.bound, *self._external())))
        return before != self._all
