"""How long a task may work before the loop's other tasks get their turn.

What does not wait does not yield, neither on asyncio nor on trio: a stream that always finds credit
would keep the loop for itself. The bytes of one turn are the queue that an urgent message meets on
a path that is faster than the processor.
"""

from __future__ import annotations

import threading

from anyio.lowlevel import checkpoint

# Bytes of work in a turn of the loop: some 0.2 ms where encryption and all else run at 2 GB/s. A
# turn costs what the tasks beside it cost: with a third of this, bulk beside an urgent echo without
# a pause lost a sixth, and bulk alone a twentieth. The echo waits for two turns.
TURN = 458_752
# What each of many gets: below it, turns cost more than the urgent gain.
MIN_TURN = 131_072


class _Loop(threading.local):
    """Tasks that have given way and not come back yet; a thread runs one loop."""

    waiting = 0


_loop = _Loop()


async def next_turn() -> int:
    """Let the loop's other tasks work; return the bytes that this one may work on next.

    Those who give way at the same time share `TURN`, down to `MIN_TURN` each.
    """
    _loop.waiting += 1
    try:
        await checkpoint()
        return max(TURN // _loop.waiting, MIN_TURN)
    finally:
        _loop.waiting -= 1
