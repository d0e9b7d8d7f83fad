"""The networks that this machine is on by itself: what is there needs no router."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

from ..transports.lan.interfaces import lan_interfaces

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from ..transports.core.multiaddr import Multiaddr
    from ..transports.lan.interfaces import Interface

MAX_AGE = 1.0
"""Seconds for which what the kernel said holds; asking takes a tenth of a millisecond."""

MAX_ANSWERS = 1024
"""Answers remembered for that time: each peer's address is asked for several times."""


class LocalNetworks:
    """Tells whether an address lies on a network of one of our broadcast interfaces.

    By the interfaces' own netmasks, never by looking private: 10.0.0.0/8 is somewhere else for
    everyone who does not have an address in it.
    """

    def __init__(
        self,
        clock: Callable[[], float],
        interfaces: Callable[[], Iterable[Interface]] = lan_interfaces,
    ) -> None:
        self._clock = clock
        self._read = interfaces
        self._read_at = -inf
        self._interfaces: tuple[Interface, ...] = ()
        self._answers: dict[object, bool] = {}

    def holds(self, address: Multiaddr) -> bool:
        """Say whether an address is on-link; one without an IP, or of a relay, is not."""
        if address.ip is None or "p2p-circuit" in address.names:
            return False
        now = self._clock()
        if now - self._read_at >= MAX_AGE:
            self._interfaces, self._read_at = tuple(self._read()), now
            self._answers.clear()
        answer = self._answers.get(address.ip)
        if answer is None:
            if len(self._answers) >= MAX_ANSWERS:
                self._answers.clear()
            answer = self._answers[address.ip] = any(
                address.ip in own.network for each in self._interfaces for own in each.addresses
            )
        return answer
