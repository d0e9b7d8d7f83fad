"""Who takes part in a question: a pair of the subject's, or the subject as a relay between two.

Through a relay the two ends are the subject's own, too, as in every other question: what peers of
one implementation get from each other. A second set of questions has isthmus on uvloop at both
ends, whoever relays: what differs then is the relay, and what the ends leave it of the cores.
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
    from .questions import Question, Subject

    Wrap = Callable[[list[str], str], list[str]]

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


async def set_up(stack: AsyncExitStack, subject: Subject, question: Question, wrap: Wrap) -> Stage:
    """Start whom a question needs: a pair, one that is alone, or a relay between two.

    `wrap` may change the command lines. Raises PeerProgramError, TimeoutError.
    """
    if question.is_relayed:
        return await _relayed(stack, subject, wrap, question.ends)
    return await _pair(stack, subject, wrap)


async def _pair(stack: AsyncExitStack, subject: Subject, wrap: Wrap) -> Stage:
    command = subject.command_line()
    listener = await _start(stack, subject.name, wrap(command, "listener"))
    dialer = listener
    if not subject.is_alone:
        dialer = await _start(stack, subject.name, wrap(command, "dialer"))
    return Stage(dialer=dialer, listener=listener, address=listener.address)


async def _relayed(stack: AsyncExitStack, subject: Subject, wrap: Wrap, ends: str) -> Stage:
    relay = await _start(stack, subject.name, [*wrap(subject.command_line(), "relay"), *AS_RELAY])
    program = ends or subject.program
    listener = await _start(stack, program, _end(program, wrap, "listener"))
    dialer = await _start(stack, program, _end(program, wrap, "dialer"))
    held = await listener.call("reserve", address=relay.address)
    return Stage(dialer=dialer, listener=listener, address=held["addresses"][0], relay=relay)


def _end(program: str, wrap: Wrap, role: str) -> list[str]:
    command = wrap(argv_of(program), role)
    # The others are always able to reserve.
    return [*command, "--circuits"] if program.startswith("isthmus") else command


async def _start(stack: AsyncExitStack, name: str, command: list[str]) -> Peer:
    return await stack.enter_async_context(running(name, command))
