"""Streams and answers where a connection that they take ends, or falls silent."""

from __future__ import annotations

import anyio
import pytest
from isthmus import Node
from isthmus.transports.core.errors import StreamReset
from isthmus.transports.memory.network import MemoryNetwork
from isthmus.transports.memory.stream import MemoryTransport
from trio.testing import MockClock

ASK = "/ask/1.0.0"
SLOW = "/slow/1.0.0"
PATIENCE = 3600
"""Virtual seconds; without an end a clock that jumps would go on for ever."""


@pytest.fixture
def anyio_backend():
    return ("trio", {"clock": MockClock(autojump_threshold=0)})


class Pair:
    """Bob, who answers and does something to the first few connections, and Alice."""

    def __init__(self, *deeds):
        self.network = MemoryNetwork()
        self._deeds = list(deeds)
        self.asked = 0
        self.alice, self.bob = self._node(), self._node(listen=["/memory/1", "/memory/2"])
        self.bob.handle(ASK, self._answer)

    def _node(self, **options):
        return Node(transports=[MemoryTransport(self.network)], **options)

    async def _answer(self, stream):
        self.asked += 1
        async for _ in stream:
            pass
        if self._deeds:
            self._deeds.pop(0)(self, stream)
            await anyio.sleep(1)
        await stream.send(b"here")

    async def ask(self, **options):
        return await self.alice.request(self.bob.addresses, ASK, b"where?", **options)

    async def __aenter__(self):
        self._scope = anyio.fail_after(PATIENCE)
        self._scope.__enter__()
        await self.bob.__aenter__()
        await self.alice.__aenter__()
        return self

    async def __aexit__(self, *error):
        await self.alice.__aexit__(*error)
        await self.bob.__aexit__(*error)
        self._scope.__exit__(*error)


def cut(pair, stream):
    """The path breaks."""
    link_of(stream).cut()


def stall(pair, stream):
    """The path falls silent."""
    link_of(stream).stall()


def refuse(pair, stream):
    """Bob does not like what he was asked; his connection is well."""
    stream.reset(7)


def link_of(stream):
    return stream.connection._raw.link


async def test_a_request_that_may_be_repeated_is_sent_again_when_its_connection_ends():
    async with Pair(cut, cut) as pair:
        assert await pair.ask(repeatable=True) == b"here"
        assert pair.asked == 3


async def test_it_is_sent_again_when_its_connection_falls_silent():
    async with Pair(stall) as pair:
        began = anyio.current_time()
        assert await pair.ask(repeatable=True) == b"here"
        assert pair.asked == 2
        assert anyio.current_time() - began < 1


async def test_any_other_request_is_not():
    async with Pair(cut) as pair:
        with pytest.raises(StreamReset):
            await pair.ask()
        assert pair.asked == 1


async def test_what_the_peer_refuses_is_not_asked_again():
    async with Pair(refuse) as pair:
        with pytest.raises(StreamReset) as caught:
            await pair.ask(repeatable=True)
        assert caught.value.code == 7
        assert pair.asked == 1


async def test_it_is_not_asked_for_ever():
    async with Pair(*[cut] * 9) as pair:
        with pytest.raises(StreamReset):
            await pair.ask(repeatable=True)
        assert pair.asked == 4


async def test_a_silent_connection_is_waited_for_where_there_is_no_other():
    async with Pair() as pair:
        connection = await pair.alice.connect(pair.bob.addresses)
        connection._raw.link.stall()
        asked = {}

        async def ask():
            # By name only, and where the one address leads nobody answers any more.
            asked["answer"] = await pair.alice.request(pair.bob.peer_id, ASK, repeatable=True)

        async with anyio.create_task_group() as tasks:
            pair.alice.peers.forget(pair.bob.peer_id)
            tasks.start_soon(ask)
            await anyio.sleep(3)
            assert not asked
            connection._raw.link.resume()
        assert asked["answer"] == b"here"


async def test_a_stream_is_opened_on_another_connection_when_the_first_one_falls_silent():
    async with Pair() as pair:
        connection = await pair.alice.connect(pair.bob.addresses)
        link = connection._raw.link
        # Bob has not said yet what he speaks, so that it takes a round trip to agree.
        link.stall()
        began = anyio.current_time()
        async with await pair.alice.open_stream(pair.bob.addresses, ASK) as stream:
            assert stream.connection is not connection
        assert anyio.current_time() - began < 1.5
