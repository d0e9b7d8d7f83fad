"""The contract of `Transport` and its listener."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio

from ..core.errors import AddressError, DialError, PeerIdMismatch
from ..core.interfaces import Side
from ..core.keys import PrivateKey
from ..core.peer_id import PeerId
from .pair import expect, expect_raises, listening, open_pair, receive_exactly

if TYPE_CHECKING:
    from anyio.abc import ByteStream

    from ..core.interfaces import Connection
    from .pair import PairFactory, Place

# Seconds in which a dial must succeed beside intruders that keep their upgrades waiting.
BESIDE_INTRUDERS = 5.0
DIALS_AT_ONCE = 20


async def check_transport_claims_addresses(factory: PairFactory) -> None:
    """A transport can dial what it listens on, with and without /p2p, and nothing foreign."""
    async with listening(factory) as place:
        pair, peer = place.pair, place.pair.listener_host.peer_id
        for address in place.listener.addresses:
            expect(address.last_transport in pair.dialer.protocols, f"{address} is claimed")
            expect(pair.dialer.can_dial(address) is True, f"{address} can be dialled")
            expect(pair.dialer.can_dial(address.with_peer(peer)), "also with /p2p at its end")
        for address in pair.foreign:
            expect(pair.dialer.can_dial(address) is False, f"{address} cannot be dialled")
            with expect_raises(AddressError, f"when listening at {address}"):
                await pair.listener.listen(address)


async def check_transport_listener_addresses(factory: PairFactory) -> None:
    """A listener says where it listens, can be dialled there, and cannot be doubled."""
    async with listening(factory) as place:
        addresses = place.listener.addresses
        expect(addresses, "at least one address")
        for address in addresses:
            expect(address.names[-1] != "p2p", "an address without /p2p at its end")
        await _check_works(place)
        with expect_raises((OSError, AddressError), "when listening where someone does") as caught:
            await place.pair.listener.listen(place.address)
        expect(str(place.address) in str(caught[0]), f"the address in {str(caught[0])!r}")
        await _check_works(place)


async def check_transport_dials_a_peer(factory: PairFactory) -> None:
    """The peer may be named by the argument or in the address."""
    async with listening(factory) as place:
        peer = place.pair.listener_host.peer_id
        for address, expected in (
            (place.address.with_peer(peer), None),
            (place.address, peer),
            (place.address.with_peer(peer), peer),
            (place.address, None),
        ):
            near = await place.pair.dialer.dial(address, peer=expected)
            place.run(near)
            far = await place.accepted.receive()
            place.run(far)
            expect(near.remote_peer == peer, "the peer that was dialled")
            expect(near.remote_addr == place.address, "the address, without /p2p")
            await _check_carries(near, far)


async def check_transport_refuses_another_peer(factory: PairFactory) -> None:
    """Another peer than the expected one is refused, and the listener goes on."""
    async with listening(factory) as place:
        other = PeerId.from_public_key(PrivateKey.generate().public_key)
        actual = place.pair.listener_host.peer_id
        for address, expected in ((place.address, other), (place.address.with_peer(other), None)):
            with expect_raises(PeerIdMismatch, "when another peer answers") as caught:
                await place.pair.dialer.dial(address, peer=expected)
            error = caught[0]
            expect(isinstance(error, PeerIdMismatch) and error.expected == other, "expected")
            expect(isinstance(error, PeerIdMismatch) and error.actual == actual, "actual")
        await _check_works_after_failures(place)


async def check_transport_dial_is_refused(factory: PairFactory) -> None:
    """Dialling where nobody listens raises DialError."""
    async with listening(factory) as place:
        address = place.address
        await place.aclose()
        with expect_raises(DialError, "where nobody listens"):
            await place.pair.dialer.dial(address)


async def check_transport_dials_as_listener(factory: PairFactory) -> None:
    """Whoever dials as LISTENER is it, if the other end then is the DIALER."""
    async with listening(factory) as place:
        if not place.pair.accepts_as_dialer:
            return
        near = await place.pair.dialer.dial(place.address, side=Side.LISTENER)
        place.run(near)
        far = await place.accepted.receive()
        place.run(far)
        expect((near.side, far.side) == (Side.LISTENER, Side.DIALER), "the sides")
        await _check_carries(near, far)
        await _check_carries(far, near)


async def check_transport_many_dials(factory: PairFactory) -> None:
    """Many dials at once lead to as many connections."""
    async with listening(factory) as place:
        found: list[Connection] = []

        async def dial() -> None:
            found.append(await place.pair.dialer.dial(place.address))
            place.run(found[-1])

        async with anyio.create_task_group() as tasks:
            for _ in range(DIALS_AT_ONCE):
                tasks.start_soon(dial)
            far = [await place.accepted.receive() for _ in range(DIALS_AT_ONCE)]
        for connection in far:
            place.run(connection)
        by_binding = {each.channel_binding.data: each for each in far}
        expect(len(by_binding) == DIALS_AT_ONCE, "a connection of its own for each")
        for near in found:
            await _check_carries(near, by_binding[near.channel_binding.data])


async def check_transport_cancelled_dials(factory: PairFactory) -> None:
    """Dials that are given up, at any time, do not disturb those that follow."""
    async with listening(factory) as place:
        for patience in (0, 0.0005, 0.001, 0.002, 0.005):
            with anyio.move_on_after(patience):
                near = await place.pair.dialer.dial(place.address)
                with anyio.CancelScope(shield=True):
                    await near.aclose()
        await _check_works_after_failures(place)


async def check_transport_close_of_listener(factory: PairFactory) -> None:
    """Closing a listener ends serve and changes, refuses dials, and spares connections."""
    async with listening(factory) as place:
        near, far = await place.dial()
        address = place.address
        await place.aclose()
        await place.listener.aclose()
        async for _ in place.listener.changes():
            expect(condition=False, what="no change after the listener was closed")
        with expect_raises(DialError, "after the listener was closed"):
            await place.pair.dialer.dial(address)
        await _check_carries(near, far)
        await near.aclose()
        await place.served.wait()


async def check_transport_listens_again(factory: PairFactory) -> None:
    """Where a listener was closed, another one can listen at once."""
    async with listening(factory) as place:
        near, _ = await place.dial()
        await near.aclose()
        address = place.address
        await place.aclose()
        listener = await place.pair.listener.listen(address)
        expect(listener.addresses == (address,), "the same address again")
        await listener.aclose()


async def check_transport_bears_intruders(factory: PairFactory) -> None:
    """Who connects and sends garbage, nothing, or just leaves, disturbs nobody."""
    async with listening(factory) as place:
        intrude = place.pair.intrude
        if intrude is None:
            return
        intruders: list[ByteStream] = []
        for garbage in (b"", b"GET / HTTP/1.1\r\n\r\n", bytes(1000), b"\xff" * 70_000):
            intruders.append(await intrude(place.address))
            # A listener that has had enough of it may be gone before the last byte.
            with anyio.move_on_after(1):
                await _send_garbage(intruders[-1], garbage)
        leaver = await intrude(place.address)
        await leaver.aclose()
        with anyio.fail_after(BESIDE_INTRUDERS):
            await _check_works(place)
        for stream in intruders:
            await anyio.aclose_forcefully(stream)
        await _check_works(place)


async def _send_garbage(stream: ByteStream, garbage: bytes) -> None:
    try:
        await stream.send(garbage)
    except anyio.BrokenResourceError:
        await stream.aclose()


async def _check_works(place: Place) -> None:
    near, far = await place.dial()
    await _check_carries(near, far)
    await near.aclose()
    await far.wait_closed()


async def _check_works_after_failures(place: Place) -> None:
    """Dial, past connections that the listener saw the beginning of."""
    near = await place.pair.dialer.dial(place.address)
    place.run(near)
    while True:
        far = await place.accepted.receive()
        place.run(far)
        if far.channel_binding == near.channel_binding:
            break
    await _check_carries(near, far)


async def _check_carries(near: Connection, far: Connection) -> None:
    opened, accepted = await open_pair(near, far)
    await opened.send(b"there")
    expect(await receive_exactly(accepted, 5) == b"there", "bytes arrive")
    await accepted.send(b"and back")
    expect(await receive_exactly(opened, 8) == b"and back", "bytes come back")
    await opened.aclose()
    await accepted.aclose()
