"""All checks of the contract, and the way to run them without a test framework.

async def my_pair() -> AsyncIterator[TransportPair]:
    async with make_pair(MyTransport(), MyTransport(), Multiaddr.parse("/unix/...")) as pair:
        yield pair

anyio.run(run_contract, asynccontextmanager(my_pair))
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio

from . import connections, streams, transports
from .pair import ContractBroken

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from types import ModuleType

    from .pair import PairFactory

    Check = Callable[[PairFactory], Awaitable[None]]

CHECK_TIMEOUT = 15.0
"""Seconds for one check: most take milliseconds, some wait a second to see that all wait."""


def _checks_of(module: ModuleType) -> tuple[Check, ...]:
    return tuple(check for name, check in vars(module).items() if name.startswith("check_"))


STREAM_CONTRACT: Sequence[Check] = _checks_of(streams)
"""What every `Stream` keeps."""

CONNECTION_CONTRACT: Sequence[Check] = _checks_of(connections)
"""What every `Connection` keeps."""

LISTENER_CONTRACT: Sequence[Check] = _checks_of(transports)
"""What every `Transport` and its listener keep."""

TRANSPORT_CONTRACT: Sequence[Check] = (*STREAM_CONTRACT, *CONNECTION_CONTRACT, *LISTENER_CONTRACT)
"""All of it: what a transport must pass."""


async def run_check(check: Check, factory: PairFactory) -> None:
    """Run one check; raises ContractBroken, or what the transport itself raises."""
    try:
        with anyio.fail_after(CHECK_TIMEOUT):
            await check(factory)
    except TimeoutError:
        name = getattr(check, "__name__", repr(check))
        raise ContractBroken(f"{name} did not end within {CHECK_TIMEOUT:g} s") from None


async def run_contract(
    factory: PairFactory, checks: Sequence[Check] = TRANSPORT_CONTRACT
) -> list[str]:
    """Run all checks, each with a new pair, and return their names; the first failure is raised.

    A note on what is raised names the check.
    """
    passed: list[str] = []
    for check in checks:
        name = getattr(check, "__name__", repr(check))
        try:
            await run_check(check, factory)
        except Exception as error:
            error.add_note(f"in the contract's {name}")
            raise
        passed.append(name)
    return passed
