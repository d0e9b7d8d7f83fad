"""What a connection knows when its handshake has ended; by a virtual clock."""

from __future__ import annotations

import anyio
import pytest
from isthmus.transports.core.errors import unwrap_group
from isthmus.transports.core.multiaddr import Multiaddr
from isthmus.transports.memory.network import MemoryNetwork
from isthmus.transports.memory.settings import LinkSettings
from isthmus.transports.memory.stream import MemoryTransport
from isthmus.transports.testing.pair import TestHost
from isthmus.transports.upgrade import Upgraded
from trio.testing import MockClock

HERE = Multiaddr.parse("/memory/1")
DELAY = 0.1
"""Seconds from one end to the other."""


@pytest.fixture
def anyio_backend():
    return ("trio", {"clock": MockClock(autojump_threshold=0)})


async def test_who_has_dialled_knows_the_round_trip_at_once_and_better_later():
    network = MemoryNetwork(settings=LinkSettings(delay=DELAY))
    near, far = [Upgraded(MemoryTransport(network)) for _ in range(2)]
    near.attach(TestHost())
    far.attach(TestHost())

    async def accept(connection):
        await connection.run()

    with anyio.fail_after(60), unwrap_group():
        async with anyio.create_task_group() as tasks:
            listener = await far.listen(HERE)
            tasks.start_soon(listener.serve, accept)
            connection = await near.dial(HERE)
            counts = connection.statistics()
            assert counts.round_trip_time == pytest.approx(2 * DELAY)
            assert counts.jitter is None
            network.shape(LinkSettings(delay=2 * DELAY))
            tasks.start_soon(connection.run)
            await connection.probe()
            # The first answer counts alone, for there was more to do in the handshake.
            assert connection.statistics().round_trip_time == pytest.approx(4 * DELAY)
            tasks.cancel_scope.cancel()
