"""The portal: calls in, callbacks out, and an end that leaves nothing behind, on both backends."""

from __future__ import annotations

import asyncio
import threading
import time
from contextlib import suppress

import anyio
import pytest
from isthmus.transports import portal as module
from isthmus.transports.portal import open_portal


@pytest.fixture(autouse=True)
def _no_thread_is_left():
    before = set(threading.enumerate())
    yield
    left = set(threading.enumerate()) - before
    # Trio keeps threads of its own for a while.
    assert [each for each in left if not each.name.startswith("Trio")] == []


async def double(number):
    await asyncio.sleep(0)
    return 2 * number


async def fail(error):
    await asyncio.sleep(0)
    raise error


class Forever:
    """A call that only a cancellation ends."""

    def __init__(self, *, stubborn=False):
        self.started = anyio.Event()
        self.ended = False
        self.stubborn = stubborn
        self.release = None
        self.task = None

    async def run(self, tell):
        self.release = asyncio.get_running_loop().create_future()
        self.task = asyncio.current_task()
        tell.put("started")
        try:
            await asyncio.shield(self.release) if self.stubborn else await self.release
        except asyncio.CancelledError:
            if self.stubborn:
                await self.release
            raise
        finally:
            self.ended = True


async def test_a_call_returns_and_raises_what_the_function_does():
    async with open_portal() as portal:
        assert await portal.run(double, 21) == 42
        with pytest.raises(ZeroDivisionError):
            await portal.run(fail, ZeroDivisionError())
        with pytest.raises(TypeError):
            await portal.run(lambda: None)
        assert await portal.run(double, 2) == 4


async def test_the_function_runs_on_asyncio(anyio_backend_name):
    async def where():
        return threading.current_thread(), asyncio.get_running_loop().is_running()

    async with open_portal() as portal:
        thread, is_running = await portal.run(where)
    assert is_running
    assert (thread is threading.main_thread()) == (anyio_backend_name == "asyncio")


async def test_many_calls_at_once():
    found = []

    async def call(number):
        found.append(await portal.run(double, number))

    async with open_portal() as portal, anyio.create_task_group() as tasks:
        for number in range(100):
            tasks.start_soon(call, number)
    assert sorted(found) == list(range(0, 200, 2))


async def test_cancelling_the_caller_cancels_the_call_and_waits_for_its_end():
    forever = Forever()
    async with open_portal() as portal:
        inbox = portal.inbox()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(portal.run, forever.run, inbox)
            assert await anext(inbox) == "started"
            tasks.cancel_scope.cancel()
        assert forever.ended
        assert await portal.run(double, 1) == 2


async def test_a_call_that_is_cancelled_from_within_is_an_error_of_anyio():
    async def cancelled():
        raise asyncio.CancelledError

    async with open_portal() as portal:
        with pytest.raises(anyio.ClosedResourceError):
            await portal.run(cancelled)


async def test_stopping_while_a_call_is_pending_ends_it():
    forever, seen = Forever(), []

    async def call():
        with pytest.raises(anyio.ClosedResourceError) as caught:
            await portal.run(forever.run, inbox)
        seen.append(caught.value)

    async with anyio.create_task_group() as tasks:
        async with open_portal() as portal:
            inbox = portal.inbox()
            tasks.start_soon(call)
            assert await anext(inbox) == "started"
        assert forever.ended
    assert len(seen) == 1
    with pytest.raises(anyio.ClosedResourceError):
        await portal.run(double, 1)


async def test_a_call_that_will_not_end_does_not_hold_up_the_stop(caplog):
    forever, seen = Forever(stubborn=True), []

    async def call():
        with pytest.raises(anyio.ClosedResourceError) as caught:
            await portal.run(forever.run, inbox)
        seen.append(caught.value)

    started = time.monotonic()
    async with anyio.create_task_group() as tasks, open_portal() as portal:
        inbox = portal.inbox()
        tasks.start_soon(call)
        assert await anext(inbox) == "started"
    assert seen
    assert time.monotonic() - started < 2 * module.STOP_TIMEOUT + 0.5
    assert "did not end within 1 s" in caplog.text
    if forever.release.get_loop().is_closed():
        forever.task._log_destroy_pending = False
    else:
        forever.release.set_result(None)
        await anyio.wait_all_tasks_blocked()


async def test_an_exception_of_the_body_comes_out_as_it_is():
    async def main():
        async with open_portal() as portal:
            await portal.run(double, 1)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await main()


async def test_cancelling_the_body_stops_in_order(caplog):
    forever, started = Forever(), time.monotonic()
    async with anyio.create_task_group() as tasks:

        async def body():
            async with open_portal() as portal:
                inbox = portal.inbox()
                async with anyio.create_task_group() as inner:
                    inner.start_soon(portal.run, forever.run, inbox)
                    assert await anext(inbox) == "started"
                    tasks.cancel_scope.cancel()
                    await anyio.sleep_forever()

        tasks.start_soon(body)
    assert forever.ended
    assert caplog.records == []
    assert time.monotonic() - started < module.CANCEL_TIMEOUT / 2


async def test_what_a_callback_raises_ends_the_portal():
    async def ring(callback):
        asyncio.get_running_loop().call_soon(callback)
        asyncio.get_running_loop().call_soon(callback)

    def broken():
        raise ZeroDivisionError

    async def main():
        async with open_portal() as portal:
            await portal.run(ring, portal.guard(broken))
            await anyio.sleep_forever()

    with pytest.raises(ZeroDivisionError):
        await main()


async def test_callbacks_come_out_in_order_and_the_inbox_ends_with_the_portal():
    async def produce(inbox):
        for number in range(50):
            inbox.put(number)
            await asyncio.sleep(0)

    async with open_portal() as portal:
        inbox = portal.inbox()
        await portal.run(produce, inbox)
    assert [item async for item in inbox] == list(range(50))
    assert not inbox.put("late")
    assert [item async for item in portal.inbox()] == []


async def test_a_full_inbox_drops_and_counts_or_makes_the_callback_wait():
    async def drop(inbox):
        return [inbox.put(number) for number in range(4)]

    async def wait(inbox):
        for number in range(20):
            await inbox.put_wait(number)

    async with open_portal() as portal, anyio.create_task_group() as tasks:
        small = portal.inbox(limit=3)
        assert await portal.run(drop, small) == [True, True, True, False]
        assert small.lost == 1
        assert [await anext(small) for _ in range(3)] == [0, 1, 2]
        tasks.start_soon(portal.run, wait, small)
        assert [await anext(small) for _ in range(20)] == list(range(20))
        assert small.lost == 1


async def test_who_waits_for_room_is_let_go_at_the_end():
    async def wait(inbox):
        inbox.put("full")
        try:
            await inbox.put_wait("one too many")
        except (anyio.ClosedResourceError, asyncio.CancelledError):
            ended.append(True)

    ended = []
    async with anyio.create_task_group() as tasks:

        async def call():
            # Whichever comes first: the inbox's end or the call's.
            with suppress(anyio.ClosedResourceError):
                await portal.run(wait, inbox)

        async with open_portal() as portal:
            inbox = portal.inbox(limit=1)
            tasks.start_soon(call)
            await portal.run(double, 1)
            await anyio.wait_all_tasks_blocked()
    assert ended == [True]


async def test_a_task_that_the_library_left_is_ended(anyio_backend_name):
    if anyio_backend_name == "asyncio":
        pytest.skip("on the backend's own loop, tasks that nobody here started are not ours")
    ended = threading.Event()

    async def leave(inbox):
        async def left():
            inbox.put("started")
            try:
                await asyncio.get_running_loop().create_future()
            except asyncio.CancelledError:
                ended.set()
                raise ValueError from None

        portal.keep = asyncio.get_running_loop().create_task(left())

    async with open_portal() as portal:
        inbox = portal.inbox()
        await portal.run(leave, inbox)
        assert await anext(inbox) == "started"
    assert ended.is_set()


async def test_a_loop_that_is_stopped_from_within_ends_the_portal(anyio_backend_name):
    if anyio_backend_name == "asyncio":
        pytest.skip("it is the loop of the test")

    async def stop():
        asyncio.get_running_loop().stop()
        await asyncio.get_running_loop().create_future()

    async def main():
        async with open_portal() as portal:
            await portal.run(stop)

    with pytest.raises((anyio.BrokenResourceError, anyio.ClosedResourceError)):
        await main()
