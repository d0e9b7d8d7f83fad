"""The service with limits of examples/ keeps them."""

from __future__ import annotations

import hashlib
import importlib.util
from pathlib import Path

import anyio
import pytest
from isthmus import Node
from isthmus.node.events import HandlerFailed
from isthmus.transports.core.errors import StreamReset

FILE = Path(__file__).resolve().parents[2] / "examples" / "hash_service.py"


@pytest.fixture
def service():
    """A copy of the module of one's own, whose limits a test may set."""
    spec = importlib.util.spec_from_file_location("hash_service", FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def listening() -> Node:
    return Node(listen="/memory/0", transports=["memory"])


async def test_files_of_any_size_are_hashed(service):
    async with listening() as server, Node(transports=["memory"]) as client:
        server.handle(service.HASH, service.serve_hash)
        for size in (0, 1, 65_536, 1_000_000):
            data = bytes(size)
            got = await service.ask_hash(client, server.addresses, [data], size)
            assert got == hashlib.sha256(data).digest()


async def test_what_is_too_long_is_refused_before_it_is_sent(service):
    async with listening() as server, Node(transports=["memory"]) as client:
        server.handle(service.HASH, service.serve_hash)
        with pytest.raises(StreamReset) as caught:
            await service.ask_hash(client, server.addresses, [], service.MAX_BYTES + 1)
        assert (caught.value.remote, caught.value.code) == (True, service.TOO_LONG)


async def test_who_is_too_slow_is_cut_off(service):
    service.MAX_SECONDS = 0.1
    async with listening() as server, Node(transports=["memory"]) as client:
        server.handle(service.HASH, service.serve_hash)
        stream = await client.open_stream(server.addresses, service.HASH)
        async with stream:
            await stream.send(bytes(7))
            with pytest.raises(StreamReset) as caught:
                await stream.receive()
        assert caught.value.code == service.TOO_SLOW


async def test_who_sends_less_than_announced_gets_no_digest(service):
    async with listening() as server, Node(transports=["memory"]) as client:
        events = server.events()
        server.handle(service.HASH, service.serve_hash)
        with pytest.raises(StreamReset) as caught:
            await service.ask_hash(client, server.addresses, [b"short"], 6)
        assert caught.value.code == 0
        failed = [event async for event in _first(events, HandlerFailed)]
        assert isinstance(failed[0].error, anyio.EndOfStream)


async def _first(events, kind):
    async for event in events:
        if isinstance(event, kind):
            yield event
            return
