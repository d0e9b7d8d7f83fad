"""What became of the link to each peer, in this run and in those before: the last known."""

from __future__ import annotations

from collections import OrderedDict
from itertools import islice
from typing import TYPE_CHECKING

from .records import StoredChange, StoredLink
from .rows import MAX_TEXT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from ...transports.core.peer_id import PeerId

MAX_HISTORY = 256
"""Changes kept of one peer's link: days of a bad path, and 50 KiB at most."""

MAX_LINKS = 1024
"""Peers whose history is kept, the least recently changed forgotten first: twice the connections
that a node has by default."""


class LinkHistories:
    """A bounded table of link changes; `changed` and `dropped` are told of a peer's entry."""

    def __init__(
        self,
        *,
        changed: Callable[[PeerId], object],
        dropped: Callable[[PeerId], object],
        max_links: int = MAX_LINKS,
    ) -> None:
        self._changed = changed
        self._dropped = dropped
        self._max_links = max_links
        self._links: OrderedDict[PeerId, _History] = OrderedDict()

    def __iter__(self) -> Iterator[PeerId]:
        return iter(tuple(self._links))

    def __len__(self) -> int:
        return len(self._links)

    def last(self, peer: PeerId) -> StoredChange | None:
        """Return what is last known of the link to a peer; None of a stranger."""
        history = self._links.get(peer)
        return history.changes[-1] if history is not None else None

    def history(self, peer: PeerId) -> tuple[StoredChange, ...]:
        """Return the last 256 changes, oldest first."""
        history = self._links.get(peer)
        return tuple(history.changes) if history is not None else ()

    def add(self, peer: PeerId, state: str, *, now: float, reason: str = "") -> StoredChange:
        """Note a change at `now`, in seconds since 1970; texts are cut at 256 characters."""
        change = StoredChange(state[:MAX_TEXT], reason[:MAX_TEXT], now)
        history = self._links.get(peer)
        if history is None:
            history = self._links[peer] = _History()
            if len(self._links) > self._max_links:
                self._dropped(self._links.popitem(last=False)[0])
        self._links.move_to_end(peer)
        history.add(change)
        self._changed(peer)
        return change

    def unsaved(self, peer: PeerId) -> StoredLink | None:
        """Return the changes that no file has yet; None if there are none."""
        history = self._links.get(peer)
        if history is None or history.saved == history.next:
            return None
        first = max(history.saved, history.first)
        changes = islice(history.changes, first - history.first, None)
        return StoredLink(peer, first, tuple(changes))

    def saved(self, link: StoredLink) -> None:
        """Note that a file has what `unsaved` returned."""
        history = self._links.get(link.peer)
        # Meanwhile it may have been dropped, and begun anew.
        if history is not None and link.changes[-1] in history.changes:
            history.saved = min(link.first + len(link.changes), history.next)

    def restore(self, stored: Iterable[StoredLink]) -> None:
        """Take in what a file held, the most recently changed link first.

        The changes of peers that are known already are put in order of time and are to be written
        again, as are those that the file does not have.
        """
        for peer, history in self._links.items():
            history.saved = 0
            self._changed(peer)
        for each in stored:
            if each.peer in self._links:
                self._links[each.peer] = _merged(each.changes, self._links[each.peer].changes)
            elif len(self._links) < self._max_links:
                self._links[each.peer] = _restored(each)
                self._links.move_to_end(each.peer, last=False)


class _History:
    """The last changes; they are numbered from the first that there ever was."""

    __slots__ = ("changes", "next", "saved")

    def __init__(self, changes: Iterable[StoredChange] = ()) -> None:
        # A list: a deque takes 760 bytes before it holds anything, and most peers have two changes.
        self.changes = list(changes)[-MAX_HISTORY:]
        self.next = len(self.changes)
        self.saved = 0

    @property
    def first(self) -> int:
        """The number of the oldest one."""
        return self.next - len(self.changes)

    def add(self, change: StoredChange) -> None:
        """Put a change behind the others, dropping the oldest beyond the bound."""
        self.changes.append(change)
        del self.changes[:-MAX_HISTORY]
        self.next += 1


def _restored(link: StoredLink) -> _History:
    history = _History(link.changes)
    history.next = history.saved = link.first + len(link.changes)
    return history


def _merged(*parts: Iterable[StoredChange]) -> _History:
    changes = {change for part in parts for change in part}
    return _History(sorted(changes, key=lambda change: change.time))
