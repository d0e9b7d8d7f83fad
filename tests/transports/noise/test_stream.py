"""A byte stream inside Noise, on both backends."""

from __future__ import annotations

import anyio
import pytest
from isthmus.transports.core.errors import NoiseError
from isthmus.transports.noise.stream import SecureStream

from .peers import sessions
from .pipes import pipe_pair


async def test_there_and_back():
    session, other = sessions()
    with pipe_pair(max_receive=1) as (ours, theirs):
        here, there = SecureStream(ours, session), SecureStream(theirs, other)
        await here.send(b"question")
        assert await there.receive() == b"question"
        await there.send(b"answer")
        assert await here.receive(4) == b"answ"
        assert await here.receive() == b"er"
        await here.send_eof()
        with pytest.raises(anyio.EndOfStream):
            await there.receive()
        await there.aclose()
        with pytest.raises(anyio.ClosedResourceError):
            await there.send(b"too late")


async def test_what_was_read_ahead():
    session, other = sessions()
    with pipe_pair() as (ours, theirs):
        here = SecureStream(ours, session, b"early")
        await theirs.send(other.seal(b"one") + other.seal(b"two"))
        assert await here.receive(2) == b"ea"
        assert await here.receive() == b"rly"
        assert await here.receive(4) == b"onet"
        assert here.take_received() == b"wo"
        assert here.take_received() == b""


async def test_forgery():
    session, _ = sessions()
    with pipe_pair() as (ours, theirs):
        await theirs.send(bytes(18))
        with pytest.raises(NoiseError):
            await SecureStream(ours, session).receive()
