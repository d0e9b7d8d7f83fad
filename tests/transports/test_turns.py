"""Turns on the loop: those who give way share it, and who is cancelled has no part in it."""

from __future__ import annotations

import anyio
import pytest
from isthmus.transports.turns import MIN_TURN, TURN, next_turn


async def test_a_turn_lets_others_work():
    worked = []

    async def other():
        worked.append("other")

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(other)
        assert await next_turn() == TURN
        # A loop may mix the order of those who could go on at the same time.
        await next_turn()
        assert worked == ["other"]


@pytest.mark.parametrize(("many", "share"), [(1, TURN), (2, TURN // 2), (30, MIN_TURN)])
async def test_those_who_give_way_share_a_turn(many, share):
    shares = []

    async def work():
        shares.extend([await next_turn() for _ in range(3)])

    async with anyio.create_task_group() as tasks:
        for _ in range(many):
            tasks.start_soon(work)
    assert len(shares) == 3 * many
    # The last ones come back to fewer.
    assert sorted(shares)[: len(shares) // 2] == [share] * (len(shares) // 2)


async def test_who_is_cancelled_leaves_the_others_their_turns():
    with anyio.CancelScope() as scope:
        scope.cancel()
        await next_turn()
    assert scope.cancelled_caught
    assert await next_turn() == TURN
