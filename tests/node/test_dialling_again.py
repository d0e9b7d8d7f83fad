"""Addresses that are dialled a second time within one dial."""

from __future__ import annotations

import anyio
import pytest
from isthmus.transports.core.errors import DialError
from isthmus.transports.core.multiaddr import Multiaddr
from sim.fakes import FakeConnection
from sim.swarms import LOW, PEERS, address, running


async def test_who_joins_a_dial_has_what_failed_before_tried_again():
    async with running() as it:
        it.online = {address(1): DialError("refused"), address(2): None}
        found = []

        async def connect() -> None:
            found.append(await it.connect([address(1, LOW), address(2, LOW)]))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(connect)
            with anyio.fail_after(5):
                while len(it.transport.dialled) < 2:
                    await anyio.lowlevel.checkpoint()
            # The peer is there now, while the dial waits for an address that is silent.
            it.online[address(1)] = FakeConnection(LOW, address(1))
            with anyio.fail_after(5):
                await connect()
        assert found == [it.online[address(1)]] * 2
        assert it.transport.dialled == [address(1, LOW), address(2, LOW), address(1, LOW)]


async def test_a_relay_is_asked_again_when_the_other_one_has_failed():
    behind = [Multiaddr.parse(f"{address(port, PEERS[1])}/p2p-circuit") for port in (1, 2)]
    first, second = (each.with_peer(LOW) for each in behind)
    async with running() as it:
        refusal, connection = anyio.Event(), FakeConnection(LOW, behind[0])
        it.online = {behind[0]: DialError("no reservation"), behind[1]: refusal}
        it.answers = {behind[1]: DialError("the relay has gone")}

        async def return_the_first_and_lose_the_second() -> None:
            while len(it.transport.dialled) < 2:
                await anyio.lowlevel.checkpoint()
            it.online[behind[0]] = connection
            refusal.set()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(return_the_first_and_lose_the_second)
            with anyio.fail_after(5):
                assert await it.connect([first, second]) is connection
        assert it.transport.dialled == [first, second, first]


async def test_one_that_led_to_the_peer_is_not_asked_again():
    behind = [Multiaddr.parse(f"{address(port, PEERS[1])}/p2p-circuit") for port in (1, 2)]
    to = [each.with_peer(LOW) for each in behind]
    async with running() as it:
        limited = FakeConnection(LOW, behind[0])
        limited.limit = object()
        it.online = {behind[0]: limited, behind[1]: DialError("no reservation")}
        with pytest.raises(DialError, match="a relay that sets limits"):
            await it.connect(to, allow_limited=False)
        assert it.transport.dialled == to
