"""The way into an event loop for programs that have none of their own."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, TypeVar, TypeVarTuple, Unpack

import anyio

from ..transports.core.errors import unwrap_group

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

Arguments = TypeVarTuple("Arguments")
Result = TypeVar("Result")


def run(
    main: Callable[[Unpack[Arguments]], Awaitable[Result]],
    *args: *Arguments,
    backend: str = "asyncio",
) -> Result:
    """Run `main(*args)` in a new event loop of asyncio or trio; on uvloop where it exists.

    Raises what `main` raises; never a group of a single exception.
    """
    options: dict[str, Any] = {}
    if backend == "asyncio" and find_spec("uvloop") is not None:
        options["use_uvloop"] = True
    with unwrap_group():
        return anyio.run(main, *args, backend=backend, backend_options=options)
