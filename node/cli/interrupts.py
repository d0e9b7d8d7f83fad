"""What Ctrl-C does at each moment of the program: it ends it, and never by a traceback.

While modules load, and once the work is done, it ends the process at once, as the system does by
itself: there is nothing to put in order, and a KeyboardInterrupt that Python raises within an
import may get lost in a callback. While a command works it is waited for, and cancels the work.
"""

from __future__ import annotations

import signal
import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, AsyncIterator

    import anyio

STOPPED_BY_SIGNAL = 128
"""What a shell adds to a signal's number for the exit code of what the signal ended."""

INTERRUPTED = STOPPED_BY_SIGNAL + signal.SIGINT

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def end_at_once() -> None:
    """Let SIGINT end the process from now on, unless whoever started it had it ignored."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)


def raise_keyboard_interrupt() -> None:
    """Undo `end_at_once`, for code that puts things in order when it is interrupted."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@asynccontextmanager
async def interruptible() -> AsyncIterator[anyio.CancelScope]:
    """Give a scope to work in, which the first SIGINT or SIGTERM cancels, and that alone.

    What was entered around the scope, such as a node, stops in order; further signals wait for
    it. Raises click's Exit with 128 + the signal at the end, if there was one.
    """
    import anyio
    import click

    from ...transports.core.errors import unwrap_group

    scope = anyio.CancelScope()
    caught: list[signal.Signals] = []
    before = signal.getsignal(signal.SIGINT)
    try:
        with unwrap_group(), anyio.open_signal_receiver(*STOP_SIGNALS) as signals:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(_cancel_on, signals, scope, caught)
                yield scope
                tasks.cancel_scope.cancel()
    finally:
        # asyncio has it raise KeyboardInterrupt afterwards, whatever it was before.
        signal.signal(signal.SIGINT, before)
    if caught:
        if sys.stderr.isatty():
            click.echo(err=True)  # what comes next does not stand behind the terminal's ^C
        raise click.exceptions.Exit(STOPPED_BY_SIGNAL + caught[0])


async def _cancel_on(
    signals: AsyncIterable[signal.Signals],
    scope: anyio.CancelScope,
    caught: list[signal.Signals],
) -> None:
    async for each in signals:
        caught.append(each)
        scope.cancel()
        return
