"""DCUtR over hours, on a virtual clock (trio's MockClock): when it is tried again, and for whom."""

from __future__ import annotations

import anyio
import pytest
import trio.testing
from isthmus.relay.autonat.observed import NatKind
from isthmus.relay.dcutr.schedule import MIN_DELAY, NEWS_PAUSE, Outcome
from isthmus.relay.dcutr.service import NO_ADDRESS, Dcutr, Ways
from isthmus.transports.core.interfaces import Side
from isthmus.transports.core.keys import PrivateKey
from isthmus.transports.core.multiaddr import Multiaddr
from isthmus.transports.core.peer_id import PeerId

from ...sim.fakes import FakeConnection

PEER = PeerId.from_public_key(PrivateKey.from_seed(b"1" * 32).public_key)
CIRCUIT = Multiaddr.parse(f"/ip4/1.2.3.4/tcp/1/p2p/{PEER}/p2p-circuit")
DIRECT = Multiaddr.parse("/ip4/1.2.3.4/tcp/1")


@pytest.fixture
def anyio_backend():
    return "trio", {"clock": trio.testing.MockClock(autojump_threshold=0)}


class Owner:
    """A node with one peer, whose circuit ends every stream, and that knows nothing of itself."""

    def __init__(self) -> None:
        self.circuit = FakeConnection(PEER, CIRCUIT, side=Side.LISTENER)
        self.direct = None
        self.addresses = ()
        self.failed = []
        self.dials = 0
        self.dcutr = Dcutr(
            Ways(
                addresses=lambda: self.addresses,
                nat=lambda: NatKind.UNKNOWN,
                may_dial=lambda _: True,
                punch=self.punch,
                adopt=lambda _: None,
                circuit=lambda _: self.circuit,
                direct=lambda _: self.direct,
                wait_direct=self.wait_direct,
                dial_direct=self.dial_direct,
                succeeded=lambda *_: None,
                failed=lambda peer, why, due: self.failed.append((anyio.current_time(), why, due)),
            )
        )

    async def punch(self, *_):
        await anyio.sleep_forever()

    async def wait_direct(self, _):
        await anyio.sleep_forever()

    async def dial_direct(self, _):
        self.dials += 1
        await anyio.lowlevel.checkpoint()
        return self.direct


@pytest.fixture
async def owner():
    owner = Owner()
    with anyio.fail_after(1e6):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(owner.dcutr.run)
            yield owner
            tasks.cancel_scope.cancel()


async def test_it_is_tried_again_for_as_long_as_the_circuit_stands(owner):
    began = anyio.current_time()
    owner.dcutr.look(PEER)
    await anyio.sleep(500)
    times = [round(time - began) for time, *_ in owner.failed]
    assert times == [0, 60, 180, 420]
    assert {why for _, why, _ in owner.failed} == {NO_ADDRESS}
    assert [round(due - time) for time, _, due in owner.failed] == [60, 120, 240, 480]
    owner.circuit = None
    owner.dcutr.look(PEER)
    assert owner.dcutr.attempt(PEER).next_at is None
    await anyio.sleep(5000)
    assert len(owner.failed) == 4


async def test_news_has_it_tried_again_soon(owner):
    owner.dcutr.look(PEER)
    await anyio.sleep(30)
    owner.addresses = (DIRECT,)
    owner.dcutr.news()
    await anyio.sleep(NEWS_PAUSE)
    assert len(owner.failed) == 2
    # The stream has failed, no longer the address.
    assert owner.failed[-1][1] != NO_ADDRESS


async def test_who_is_reached_directly_meanwhile_is_not_punched_for(owner):
    owner.dcutr.look(PEER)
    await anyio.sleep(30)
    owner.direct = FakeConnection(PEER, DIRECT)
    await anyio.sleep(2 * MIN_DELAY)
    assert owner.dials == 1
    # Its direct connection has gone: the failure is more than a minute old.
    owner.direct = None
    owner.dcutr.look(PEER)
    await anyio.sleep(1)
    assert owner.dials == 2


async def test_who_leaves_while_it_is_tried_is_not_tried_again(owner):
    owner.dcutr.look(PEER)
    await anyio.sleep(1)
    owner.addresses, circuit = (DIRECT,), owner.circuit

    async def open_stream(**_):
        owner.circuit = None
        return await FakeConnection.open_stream(circuit)

    circuit.open_stream = open_stream
    await anyio.sleep(MIN_DELAY)
    assert owner.failed[-1][2] is None
    attempt = owner.dcutr.attempt(PEER)
    assert (attempt.outcome, attempt.next_at) == (Outcome.FAILED, None)
