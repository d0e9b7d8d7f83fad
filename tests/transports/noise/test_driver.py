"""The handshake over byte streams, on both backends."""

from __future__ import annotations

import anyio
import pytest
from isthmus.transports.core.errors import NoiseError, PeerIdMismatch, unwrap_group
from isthmus.transports.core.interfaces import Side
from isthmus.transports.noise.driver import secure

from .peers import IDS, handshake, waiting_for
from .pipes import pipe_pair


async def secure_both(dialer, listener, **options):
    """Secure both ends at once, and return both results."""
    results = {}

    async def run(side, stream, machine, **more):
        results[side] = await secure(stream, machine, **more)

    with pipe_pair() as streams:
        with unwrap_group():
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(run, Side.DIALER, streams[0], dialer)
                tasks.start_soon(lambda: run(Side.LISTENER, streams[1], listener, **options))
        return results[Side.DIALER], results[Side.LISTENER]


async def test_secure():
    dialer, listener = await secure_both(handshake(Side.DIALER), handshake(Side.LISTENER))
    assert dialer.remote_peer == IDS[Side.LISTENER]
    assert listener.remote_peer == IDS[Side.DIALER]
    assert dialer.channel_binding == listener.channel_binding
    assert listener.session.receive_data(dialer.session.seal(b"x")) == [b"x"]


async def test_the_first_message_came_with_the_negotiation():
    dialer = handshake(Side.DIALER)
    trailing = dialer.data_to_send()
    result, _ = await secure_both(dialer, handshake(Side.LISTENER), trailing=trailing)
    assert result.remote_peer == IDS[Side.LISTENER]


async def test_trailing_alone_may_complete_it():
    """And the dialer's last message is sent before `secure` returns."""
    dialer, reply = waiting_for(2)
    with pipe_pair() as (ours, theirs):
        result = await secure(ours, dialer, trailing=reply + b"rest")
        assert result.trailing == b"rest"
        _, proof = waiting_for(3)
        assert await theirs.receive() == proof


async def test_the_dialer_may_speak_at_once():
    """Its first records come with message 3 and stay in the result."""
    listener, proof = waiting_for(3)
    with pipe_pair() as (ours, theirs):
        await theirs.send(proof + b"\x00\x20record")
        result = await secure(ours, listener)
        assert result.trailing == b"\x00\x20record"


@pytest.mark.parametrize("number", [1, 2, 3])
async def test_the_peer_closes(number):
    machine, message = waiting_for(number)
    with pipe_pair() as (ours, theirs):
        await theirs.send(message[:-1])
        await theirs.send_eof()
        with pytest.raises(NoiseError, match="the peer closed the stream during"):
            await secure(ours, machine)


async def test_another_peer():
    stranger = handshake(Side.DIALER, expected_peer=IDS[Side.DIALER])
    with pytest.raises(PeerIdMismatch):
        await secure_both(stranger, handshake(Side.LISTENER))


async def test_one_byte_at_a_time():
    listener, proof = waiting_for(3)
    with pipe_pair(max_receive=1) as (ours, theirs):
        await theirs.send(proof)
        assert (await secure(ours, listener)).remote_peer == IDS[Side.DIALER]
