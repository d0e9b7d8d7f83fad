"""Waiting for the same thing: order, cancellation, and wake-ups that come before the wait."""

from __future__ import annotations

import anyio
from isthmus.transports.wakeup import Flag, Waiters, new_wakeup


async def test_a_wakeup_set_before_is_not_waited_for():
    wakeup = new_wakeup()
    wakeup.set()
    wakeup.set()
    await wakeup.wait()


async def test_the_one_who_has_waited_longest_is_woken_first():
    waiters, woken = Waiters(), []

    async def wait(name):
        await waiters.wait()
        woken.append(name)

    async with anyio.create_task_group() as tasks:
        for name in "abc":
            tasks.start_soon(wait, name)
            await anyio.wait_all_tasks_blocked()
        waiters.wake_one()
        await anyio.wait_all_tasks_blocked()
        assert woken == ["a"]
        waiters.wake_all()
    assert sorted(woken) == ["a", "b", "c"]
    assert not waiters
    waiters.wake_one()
    waiters.wake_all()


async def test_what_is_set_between_adding_and_waiting_is_seen():
    waiters = Waiters()
    wakeup = waiters.add()
    assert waiters
    waiters.wake_all()
    await waiters.wait(wakeup)


async def test_a_cancelled_waiter_takes_nobodys_place():
    waiters, woken = Waiters(), []

    async def wait():
        await waiters.wait()
        woken.append(True)

    with anyio.move_on_after(0.001):
        await waiters.wait()
    assert not waiters
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(wait)
        await anyio.wait_all_tasks_blocked()
        waiters.wake_one()
    assert woken


async def test_a_flag_lets_everybody_go_on_now_and_later():
    flag, passed = Flag(), []

    async def wait(number):
        await flag.wait()
        passed.append(number)

    async with anyio.create_task_group() as tasks:
        for number in range(3):
            tasks.start_soon(wait, number)
        await anyio.wait_all_tasks_blocked()
        assert passed == []
        assert not flag.is_set
        flag.set()
        flag.set()
    assert sorted(passed) == [0, 1, 2]
    assert flag.is_set
    with anyio.fail_after(5):
        await flag.wait()


async def test_who_is_woken_and_cancelled_at_once_passes_it_on():
    waiters, woken = Waiters(), []

    async def wait(name, scope):
        with scope:
            await waiters.wait()
            woken.append(name)

    first, second = anyio.CancelScope(), anyio.CancelScope()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(wait, "first", first)
        await anyio.wait_all_tasks_blocked()
        tasks.start_soon(wait, "second", second)
        await anyio.wait_all_tasks_blocked()
        waiters.wake_one()
        first.cancel()
        await anyio.wait_all_tasks_blocked()
        # On trio the wake-up counts, on asyncio the cancellation: one of them in any case.
        assert woken in (["first"], ["second"])
        second.cancel()
