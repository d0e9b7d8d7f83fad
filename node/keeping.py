"""The peers that are kept connected, in this run and the next ones."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from ..transports.core.errors import AddressError, ConfigError

if TYPE_CHECKING:
    from ..transports.core.peer_id import PeerId
    from .dialing import Target
    from .link import Link
    from .links import Links
    from .store.stores import Stores


class Keeping:
    """Brings together who is to be kept, where they are, and the links to them."""

    def __init__(self, own: PeerId, stores: Stores, links: Links) -> None:
        self._own = own
        self._stores = stores
        self._links = links

    def keep(self, target: Target) -> Link:
        """Keep a peer from now on; raises AddressError if it is not said which, ConfigError."""
        if target.peer is None:
            raise AddressError("to keep a peer its id is needed: .../p2p/12D3KooW...")
        if target.peer == self._own:
            raise ConfigError(f"{target.peer} is this very node, which needs no keeping")
        bare = [address.without_peer() for address in target.addresses]
        self._stores.kept.keep(target.peer, now=time.time(), addresses=bare)
        if bare:
            self._stores.peers.add_addresses(target.peer, bare)
        return self._links.keep(target.peer)

    def forget(self, peer: PeerId) -> None:
        """Keep a peer no more, and forget its link and its addresses."""
        self._stores.kept.forget(peer)
        self._links.forget(peer)
        self._stores.peers.forget(peer)

    def resume(self) -> bool:
        """Keep whom an earlier run was told to keep; say whether there is anybody."""
        for kept in self._stores.kept:
            if kept.peer == self._own:
                continue  # the directory has got another key since
            self._stores.peers.add_addresses(kept.peer, kept.addresses)
            self._links.keep(kept.peer)
        return len(self._links) > 0
