"""Peers that do anything in any order at a relay, over real connections, beside a model of it."""

from __future__ import annotations

import random
from contextlib import AsyncExitStack

import anyio
import pytest
from isthmus import Node
from isthmus.node.relaying import HOLDER
from isthmus.relay.circuit.wire import Status
from isthmus.transports.core.errors import StreamReset

from ..relay.circuit.hops import PATIENCE, Client, relay

PEERS = 5
RESERVATIONS = 3
CIRCUITS_PER_PEER = 2

pytestmark = pytest.mark.timeout(60)


class Walk:
    """The relay, its peers, and what should hold there: who has a slot, and which circuits."""

    def __init__(self, node, peers, choice):
        self.node = node
        self.peers = peers
        self.choice = choice
        self.reserved = set()
        self.circuits = []

    def of(self, peer):
        """How many circuits a peer has, from it and to it."""
        return sum(peer in ends for *ends, _ in self.circuits)

    async def step(self):
        """Have one peer do something; return when the relay is as the model is."""
        await self.choice.choice((self.reserve, self.connect, self.connect, self.end, self.leave))()
        await self.settle()

    async def reserve(self):
        peer = self.choice.choice(self.peers)
        may = peer in self.reserved or len(self.reserved) < RESERVATIONS
        answer = await peer.reserve()
        assert answer.status == (Status.OK if may else Status.RESERVATION_REFUSED)
        if may:
            self.reserved.add(peer)

    async def connect(self):
        source, target = self.choice.sample(self.peers, 2)
        answer, near = await source.connect(target.peer_id)
        if target not in self.reserved:
            assert answer.status == Status.NO_RESERVATION
        elif max(self.of(source), self.of(target)) >= CIRCUITS_PER_PEER:
            assert answer.status == Status.RESOURCE_LIMIT_EXCEEDED
        else:
            assert answer.status == Status.OK
            with anyio.fail_after(PATIENCE):
                far = await target.taken.receive()
                await near.send(b"there")
                assert await far.receive() == b"there"
            self.circuits.append((source, target, (near, far)))

    async def end(self):
        if self.circuits:
            *_, ends = self.circuits.pop(self.choice.randrange(len(self.circuits)))
            near, far = self.choice.sample(ends, 2)
            near.reset()
            with anyio.fail_after(PATIENCE), pytest.raises(StreamReset):
                await far.receive()

    async def leave(self):
        peer = self.choice.choice(self.peers)
        for connection in peer.node.connections:
            await connection.aclose()
        self.reserved.discard(peer)
        self.circuits = [each for each in self.circuits if peer not in each[:2]]

    async def settle(self):
        with anyio.fail_after(PATIENCE):
            while self.found() != self.expected():
                await anyio.lowlevel.checkpoint()

    def found(self):
        status = self.node.relaying.status()
        ids = {str(each.peer_id): each for each in self.peers}
        held = {each["peer"] for each in status["reservations"]["peers"]}
        open_now = [
            (ids[each["source"]], ids[each["target"]]) for each in status["circuits"]["open"]
        ]
        # Whose connection stays however idle: nobody's but of those who have a slot.
        swarm = self.node._swarm
        keeps = {
            str(entry.connection.remote_peer)
            for entry in swarm.entries
            if HOLDER in swarm._table._places[entry].holders
        }
        return {ids[each] for each in held}, sorted(map(id_pair, open_now)), keeps

    def expected(self):
        pairs = sorted(id_pair(each[:2]) for each in self.circuits)
        return self.reserved, pairs, {str(each.peer_id) for each in self.reserved}


def id_pair(pair):
    return tuple(str(each.peer_id) for each in pair)


async def test_a_walk(seed, scaled):
    """Whatever they do, each has its own slot while it is there, and no limit is passed."""
    choice = random.Random(seed)
    settings = {"reservations": RESERVATIONS, "circuits_per_peer": CIRCUITS_PER_PEER}
    async with relay(**settings) as node, AsyncExitStack() as stack:
        nodes = [await stack.enter_async_context(Node()) for _ in range(PEERS)]
        walk = Walk(node, [Client(each, node) for each in nodes], choice)
        for _ in range(scaled(3000)):
            await walk.step()
        for peer in walk.peers:
            peer.leave()
