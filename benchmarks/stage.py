"""Who takes part in a question: a pair of the subject's, or the subject as a relay between two.

Through a relay the two ends are always isthmus on uvloop, whoever relays: so both relays have the
same work before them, from ends that are faster than any of them, and what differs is the relay.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from . import idle
from .peers.control import running
from .peers.errors import PeerFailed
from .peers.install import argv_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AsyncExitStack

    from .peers.control import Peer
    from .questions import Subject

    Wrap = Callable[[list[str], str], list[str]]

END = "isthmus-uvloop"
"""The program at both ends of a circuit."""

AS_RELAY = ("--relay", '{"seconds": 0, "bytes": 0}')
"""Without limits of time or bytes: the relay alone says how fast it goes."""

MEMORY = "rss_mb"


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """Who is asked, about whom, by whose help."""

    dialer: Peer
    listener: Peer
    address: str
    """Where the dialer finds the listener."""
    relay: Peer | None = None

    @property
    def asked(self) -> Peer:
        """The process whose version is the subject's."""
        return self.relay or self.dialer

    def memory(self) -> dict[str, float]:
        """Return what the relay holds in RAM now, in MB; nothing where that is not known."""
        if self.relay is None or idle.missing():
            return {}
        return {MEMORY: idle.resident(self.relay.pid) / 1e6}

    async def check(self) -> None:
        """Raise PeerFailed where the two have left the relay for a direct connection."""
        if self.relay is None:
            return
        told = await self.dialer.call("connections", address=self.address)
        if not all(each["relayed"] for each in told["connections"]):
            raise PeerFailed("connections", "NotRelayed", "the peers have found a direct path")


async def pair(stack: AsyncExitStack, subject: Subject, wrap: Wrap) -> Stage:
    """Start two processes of the subject, or one that is alone; raises PeerProgramError."""
    command = subject.command_line()
    listener = await _start(stack, subject.name, wrap(command, "listener"))
    dialer = listener
    if not subject.is_alone:
        dialer = await _start(stack, subject.name, wrap(command, "dialer"))
    return Stage(dialer=dialer, listener=listener, address=listener.address)


async def relayed(stack: AsyncExitStack, subject: Subject, wrap: Wrap) -> Stage:
    """Start the subject as a relay, and two ends that meet there; raises PeerProgramError."""
    command, end = subject.command_line(), argv_of(END)
    relay = await _start(stack, subject.name, [*wrap(command, "relay"), *AS_RELAY])
    listener = await _start(stack, END, [*wrap(end, "listener"), "--circuits"])
    dialer = await _start(stack, END, [*wrap(end, "dialer"), "--circuits"])
    held = await listener.call("reserve", address=relay.address)
    return Stage(dialer=dialer, listener=listener, address=held["addresses"][0], relay=relay)


async def _start(stack: AsyncExitStack, name: str, command: list[str]) -> Peer:
    return await stack.enter_async_context(running(name, command))
