"""The addresses of one process and the links between them."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import anyio
from anyio.lowlevel import checkpoint

from ..core.errors import AddressError, DialError
from ..core.multiaddr import Multiaddr
from .link import Link, Signal
from .settings import LinkSettings

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

# Links that wait at a listener for it to serve them; more are refused, as by a full listen backlog.
BACKLOG = 128
# Below this are the addresses to listen on, from here on those that dialers get.
FIRST_DIALER = 2**32
_LAST_ADDRESS = 2**64 - 1


class Backlog(Generic[T]):
    """What has been dialled at one address and is not served yet."""

    def __init__(self, address: int, accept: Callable[[Any], T]) -> None:
        self.address = address
        self.is_closed = False
        self._accept = accept
        self._waiting: list[T] = []
        self._changed = Signal()

    @property
    def is_full(self) -> bool:
        """Whether one more is refused."""
        return len(self._waiting) >= BACKLOG

    def offer(self, dialled: object) -> T:
        """Let come in what a dialer brings; the result is the listener's end of it."""
        accepted = self._accept(dialled)
        self._waiting.append(accepted)
        self._changed.notify()
        return accepted

    async def next(self) -> T | None:
        """Wait for what comes in next; None once closed."""
        await checkpoint()
        while not self._waiting:
            if self.is_closed:
                return None
            await self._changed.wait()
        return self._waiting.pop(0)

    def close(self) -> list[T]:
        """Let nothing more come in; return what was waiting."""
        self.is_closed = True
        self._changed.notify()
        waiting, self._waiting = self._waiting, []
        return waiting


class MemoryNetwork:
    """The addresses /memory/N of one process; what is drawn by chance follows from `seed`."""

    def __init__(self, *, seed: int = 0, settings: LinkSettings | None = None) -> None:
        self.seed = seed
        self._default = settings or LinkSettings()
        self._shapes: dict[int, LinkSettings] = {}
        self._listening: dict[tuple[str, int], Backlog[Any]] = {}
        self._links: dict[Link[Any], None] = {}
        self._links_made = 0
        self._secrets = self.random("secrets")
        self._next_free = 1
        self._next_dialer = FIRST_DIALER

    @property
    def links(self) -> tuple[Link[Any], ...]:
        """The links that stand, oldest first."""
        return tuple(self._links)

    def settings_of(self, address: int) -> LinkSettings:
        """Return what holds for links to an address."""
        return self._shapes.get(address, self._default)

    def shape(self, settings: LinkSettings, *, address: int | None = None) -> None:
        """Let settings hold for links to an address, or to all others, from now on."""
        if address is None:
            self._default = settings
        else:
            self._shapes[address] = settings
        for link in self._links:
            link.settings = self.settings_of(link.address)

    def break_links(self) -> None:
        """Cut every link; listeners stay."""
        for link in self.links:
            link.cut()

    def random(self, purpose: object) -> Random:
        """Return a source of chance of its own, the same for equal seeds and purposes."""
        return Random(f"{self.seed}/{purpose}")

    # What the transports ask for

    def secret(self) -> bytes:
        """Return 32 bytes that no other connection has."""
        return self._secrets.randbytes(32)

    def listen(self, kind: str, addr: Multiaddr, accept: Callable[[Any], T]) -> Backlog[T]:
        """Bind /memory/N, or a free one for 0; raises AddressError, OSError."""
        if not is_memory(addr):
            raise AddressError(f"{addr} is not an address to listen on in memory")
        address = addr.components[0].number
        if address == 0:
            while (kind, self._next_free) in self._listening:
                self._next_free += 1
            address = self._next_free
        if address >= FIRST_DIALER:
            raise AddressError(f"cannot listen on {addr}: numbers from 2**32 on are dialers'")
        if (kind, address) in self._listening:
            raise OSError(f"cannot listen on {addr}: it is in use")
        backlog = self._listening[kind, address] = Backlog(address, accept)
        return backlog

    def unlisten(self, kind: str, backlog: Backlog[Any]) -> None:
        """Free an address."""
        if self._listening.get((kind, backlog.address)) is backlog:
            del self._listening[kind, backlog.address]

    async def reach(self, kind: str, addr: Multiaddr) -> Backlog[Any]:
        """Travel to a listener; raises DialError after a round trip if there is none."""
        await checkpoint()
        number = addr.components[0].number
        settings = self.settings_of(number)
        await _pass(settings.delay)
        backlog = self._listening.get((kind, number))
        if backlog is None or backlog.is_full:
            await _pass(settings.delay)
            reason = "nobody listens there" if backlog is None else "too many wait there"
            raise DialError(f"cannot connect to {addr}: {reason}")
        return backlog

    async def answer(self, link: Link[Any]) -> None:
        """Travel back from a listener; a dialer that gives up meanwhile cuts the link."""
        try:
            await _pass(link.settings.delay)
        except BaseException:
            link.cut()
            raise

    def link(self, address: int) -> Link[Any]:
        """Make a link to an address."""
        self._links_made += 1
        randoms = tuple(self.random(f"{self._links_made}/{way}") for way in ("forth", "back"))
        link: Link[Any] = Link(
            address, self.settings_of(address), (randoms[0], randoms[1]), self._forget
        )
        self._links[link] = None
        return link

    def dialer_address(self) -> Multiaddr:
        """Return an address that no one else has, for a dialer to come from."""
        self._next_dialer = min(self._next_dialer + 1, _LAST_ADDRESS)
        return memory_address(self._next_dialer)

    def _forget(self, link: Link[Any]) -> None:
        self._links.pop(link, None)


_shared = MemoryNetwork()


def shared_network() -> MemoryNetwork:
    """Return the network that transports meet in which were given none."""
    return _shared


def is_memory(addr: Multiaddr) -> bool:
    """Say whether this is /memory/N, with or without /p2p at its end."""
    return addr.names in (("memory",), ("memory", "p2p"))


def memory_address(number: int) -> Multiaddr:
    """Return /memory/<number>."""
    return Multiaddr.parse(f"/memory/{number}")


async def _pass(seconds: float) -> None:
    if seconds:
        await anyio.sleep(seconds)
