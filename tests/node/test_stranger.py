"""Dials as nobody: each from another port and with another key, and none of the node's own."""

from __future__ import annotations

import anyio
import pytest
from isthmus import Multiaddr, Node, NodeConfig
from isthmus.node.events import ConnectionOpened
from isthmus.node.stranger import dial_as_stranger
from isthmus.transports.core.errors import DialError, NoTransport, StreamReset

PLACES = ["/ip4/127.0.0.1/tcp/0", "/ip4/127.0.0.1/tcp/0/ws"]


async def test_every_dial_is_another_strangers():
    async with Node(listen=PLACES) as node, anyio.create_task_group() as tasks:
        events = node.events()
        for address in (*node._own.bound, *node._own.bound):
            connection = await dial_as_stranger(address, NodeConfig(), tasks)
            assert connection.remote_peer == node.peer_id
            await connection.probe()
            await connection.aclose()
        with anyio.fail_after(5):
            found = []
            while len(found) < 4:
                if isinstance(event := await anext(events), ConnectionOpened):
                    found.append((event.peer, event.address.port))
        assert len({peer for peer, _ in found} | {node.peer_id}) == 5
        assert len({port for _, port in found}) == 4
        tasks.cancel_scope.cancel()


async def test_it_answers_nothing():
    async with Node(listen=PLACES[0]) as node, anyio.create_task_group() as tasks:
        connection = await dial_as_stranger(node._own.bound[0], NodeConfig(), tasks)
        with anyio.fail_after(5):
            while not (found := node.connections):
                await anyio.lowlevel.checkpoint()
            stream = await found[0].open_stream()
            await stream.send(b"x")
            with pytest.raises(StreamReset):
                await stream.receive()
        await connection.aclose()
        tasks.cancel_scope.cancel()


@pytest.mark.parametrize("text", ["/ip4/127.0.0.1/udp/1", "/memory/1", "/ip4/127.0.0.1/udp/1/ws"])
async def test_what_it_cannot_dial(text):
    async with anyio.create_task_group() as tasks:
        with pytest.raises(NoTransport):
            await dial_as_stranger(Multiaddr.parse(text), NodeConfig(), tasks)
        with pytest.raises(DialError):
            await dial_as_stranger(Multiaddr.parse("/ip4/127.0.0.1/tcp/9"), NodeConfig(), tasks)
