"""A virtual link: two lanes, and those who wait at their ends."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Generic, TypeVar

import anyio

from .lane import Lane

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random

    from .settings import LinkSettings

T = TypeVar("T")


class Signal:
    """Wakes all who wait, as often as wanted; who comes later waits for the next time."""

    __slots__ = ("_event",)

    def __init__(self) -> None:
        self._event: anyio.Event | None = None

    def notify(self) -> None:
        """Wake all who wait now."""
        if self._event is not None:
            self._event.set()
            self._event = None

    async def wait(self, until: float = inf) -> None:
        """Wait for the next `notify`, or until a time of the loop's clock."""
        self._event = self._event or anyio.Event()
        with anyio.CancelScope(deadline=until):
            await self._event.wait()


class Wire(Generic[T]):
    """One lane of a link with its two ends: a sender, a receiver."""

    def __init__(self, settings: LinkSettings, random: Random) -> None:
        self.lane: Lane[T] = Lane(settings, random)
        self.is_cut = False
        self._arrived = Signal()
        self._has_room = Signal()
        self._last_item_at = inf

    def send(self, item: T, size: int) -> None:
        """Send reliably, whether or not there is room; raises BrokenResourceError if cut."""
        self._check()
        self.lane.send(item, size, anyio.current_time())
        self._arrived.notify()

    def send_message(
        self, item: T, size: int, *, max_age: float | None, max_retransmits: int | None
    ) -> None:
        """Send unreliably; raises BrokenResourceError if cut."""
        self._check()
        self.lane.send_message(
            item, size, anyio.current_time(), max_age=max_age, max_retransmits=max_retransmits
        )
        self._arrived.notify()

    def send_last(self, item: T) -> None:
        """Send the last item of all: the other end knows once it has arrived."""
        if not self.is_cut and self._last_item_at == inf:
            self._last_item_at = self.lane.send(item, 0, anyio.current_time())
            self._arrived.notify()

    @property
    def ends_at(self) -> float:
        """When the last item arrives; infinite as long as none was sent, and while stalled."""
        return inf if self.lane.is_stalled else self._last_item_at

    async def wait_room(self, until: float = inf) -> None:
        """Wait until there may be room; look again afterwards."""
        await self._has_room.wait(until)

    def take(self) -> T | None:
        """Return the next item that has arrived, if any; raises BrokenResourceError if cut."""
        self._check()
        item = self.lane.take(anyio.current_time())
        self._has_room.notify()
        return item

    async def wait_arrival(self, until: float = inf) -> None:
        """Wait until something may have arrived; look again afterwards."""
        await self._arrived.wait(min(until, self.lane.next_arrival()))

    def notify(self) -> None:
        """Let both ends look again."""
        self._arrived.notify()
        self._has_room.notify()

    def _check(self) -> None:
        if self.is_cut:
            raise anyio.BrokenResourceError("the link was cut")


class Link(Generic[T]):
    """A link between two ends of the network; the dialer sends by `forth`, the other by `back`."""

    def __init__(
        self,
        address: int,
        settings: LinkSettings,
        randoms: tuple[Random, Random],
        on_end: Callable[[Link[T]], None],
    ) -> None:
        self.address = address
        self.forth: Wire[T] = Wire(settings, randoms[0])
        self.back: Wire[T] = Wire(settings, randoms[1])
        self._settings = settings
        self._on_end = on_end
        self._open_ends = 2

    @property
    def settings(self) -> LinkSettings:
        """What the link does to what is sent from now on; may be set at any time."""
        return self._settings

    @settings.setter
    def settings(self, value: LinkSettings) -> None:
        self._settings = value
        for wire in (self.forth, self.back):
            wire.lane.settings = value
            wire.notify()

    @property
    def is_cut(self) -> bool:
        """Whether the link was cut."""
        return self.forth.is_cut

    def cut(self) -> None:
        """Break the link: what is under way is lost, and both ends find it broken at once."""
        for wire in (self.forth, self.back):
            wire.is_cut = True
            wire.lane.clear()
            wire.notify()
        self._on_end(self)

    def stall(self) -> None:
        """Deliver nothing until `resume`, and tell nobody."""
        self._set_stalled(stalled=True)

    def resume(self) -> None:
        """Deliver again, at once what should have arrived meanwhile."""
        self._set_stalled(stalled=False)

    def release_end(self) -> None:
        """Note that one end is closed; the network forgets the link once both are."""
        self._open_ends -= 1
        if self._open_ends == 0:
            self._on_end(self)

    def _set_stalled(self, *, stalled: bool) -> None:
        for wire in (self.forth, self.back):
            wire.lane.is_stalled = stalled
            wire.notify()
