"""WebSocket over real loopback sockets: what each side refuses, how long it waits, how it ends."""

from __future__ import annotations

import errno
import socket
from contextlib import asynccontextmanager

import anyio
import pytest
from isthmus.transports.core.errors import AddressError, ConfigError, DialError, DialTimeout
from isthmus.transports.core.multiaddr import Multiaddr
from isthmus.transports.tcp import TcpTransport
from isthmus.transports.websocket.config import WebSocketConfig
from isthmus.transports.websocket.stream import MAX_ANSWERS
from isthmus.transports.websocket.transport import WebSocketTransport

from .wire import ANSWER, BINARY, CLOSE, CONT, PING, PONG, REQUEST, TEXT, frame

ANY = "/ip4/127.0.0.1/tcp/0"
STREAM_ENDS = (anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError)
PATIENCE = 5.0
"""Seconds for anything that takes milliseconds."""


class Served:
    """A listener that echoes, and the streams it has served."""

    def __init__(self, listener) -> None:
        self.listener = listener
        self.streams = []
        self.remotes = []
        self.errors = []
        self._news = anyio.Event()

    @property
    def address(self):
        return self.listener.addresses[0]

    async def echo(self, stream, remote) -> None:
        self.streams.append(stream)
        self.remotes.append(remote)
        async with stream:
            try:
                while True:
                    await stream.send(await stream.receive())
            except STREAM_ENDS as error:
                self.errors.append(error)
        self._news.set()
        self._news = anyio.Event()

    async def error(self) -> Exception:
        """Wait for the first stream's end."""
        with anyio.fail_after(PATIENCE):
            while not self.errors:
                await self._news.wait()
        return self.errors[0]


@asynccontextmanager
async def serving(address=ANY + "/ws", **settings):
    transport = WebSocketTransport(WebSocketConfig(**settings))
    listener = await transport.listen_raw(Multiaddr.parse(address))
    async with anyio.create_task_group() as tasks:
        served = Served(listener)
        tasks.start_soon(listener.serve, served.echo)
        yield served
        await listener.aclose()
        with anyio.fail_after(PATIENCE):
            while listener.pending:
                await anyio.lowlevel.checkpoint()
        tasks.cancel_scope.cancel()


@asynccontextmanager
async def answering(*answers: bytes, then=None):
    """A TCP server that sends these bytes, whatever it is asked; yields its /ws address."""
    listener = await TcpTransport().listen_raw(Multiaddr.parse(ANY))

    async def answer(stream, _remote) -> None:
        async with stream:
            await stream.receive()
            for each in answers:
                await stream.send(each)
            if then is not None:
                await then(stream)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, answer)
        yield Multiaddr.parse(f"{listener.addresses[0]}/ws")
        tasks.cancel_scope.cancel()
    await listener.aclose()


async def below(served):
    return await TcpTransport().dial_raw(Multiaddr(served.address.components[:2]))


async def upgraded(served):
    """A TCP connection past the upgrade."""
    raw = await below(served)
    await raw.send(REQUEST)
    answer = b""
    while b"\r\n\r\n" not in answer:
        answer += await raw.receive()
    assert answer.startswith(b"HTTP/1.1 101")
    return raw


async def read_to_end(raw) -> bytes:
    data = b""
    with anyio.fail_after(PATIENCE):
        while True:
            try:
                data += await raw.receive()
            except (anyio.EndOfStream, anyio.BrokenResourceError):
                await raw.aclose()
                return data


async def echoed(stream, data: bytes = b"hello") -> None:
    await stream.send(data)
    got = b""
    while len(got) < len(data):
        got += await stream.receive()
    assert got == data


def quiet_dialer(**settings):
    return WebSocketTransport(WebSocketConfig(**settings))


# Addresses and listening


@pytest.mark.parametrize("family", ["ip4/127.0.0.1", "ip6/::1"])
async def test_both_families_and_what_each_side_sees(family):
    async with serving(f"/{family}/tcp/0/ws") as served:
        assert served.address.names == (family[:3], "tcp", "ws")
        async with await quiet_dialer().dial_raw(served.address) as stream:
            await echoed(stream)
        assert served.remotes[0].names == (family[:3], "tcp", "ws")
        assert isinstance(await served.error(), anyio.EndOfStream)


@pytest.mark.parametrize("suffix", ["/tls/ws", "/wss", "/tls/sni/node.example/ws"])
async def test_tls(authority, files, suffix):
    settings = {"cert_file": files.cert_file, "key_file": files.key_file}
    async with serving(ANY + suffix, **settings) as served:
        emitted = "/tls/ws" if suffix == "/wss" else suffix
        assert str(served.address).endswith(emitted)
        dialer = quiet_dialer(ca_file=authority.ca_file)
        port = served.address.port
        for place in (
            served.address,
            Multiaddr.parse(f"/dns4/localhost/tcp/{port}/tls/ws"),
            Multiaddr.parse(f"/dns/localhost/tcp/{port}/wss"),
            Multiaddr.parse(f"/ip4/127.0.0.1/tcp/{port}/tls/sni/node.example/ws"),
        ):
            async with await dialer.dial_raw(place) as stream:
                await echoed(stream, bytes(300_000))
        assert served.remotes[0].names == ("ip4", "tcp", "tls", "ws")
        assert not served.listener.failed


@pytest.mark.parametrize(
    ("suffix", "trusts", "why"),
    [
        ("/tls/ws", False, "issuer.*ca_file"),
        ("/tls/sni/other.example/ws", True, "not valid for 'other.example'"),
        ("/ws", True, "hung up"),
    ],
)
async def test_certificates_and_carriers_that_are_refused(authority, files, suffix, trusts, why):
    settings = {"cert_file": files.cert_file, "key_file": files.key_file}
    async with serving(ANY + "/tls/ws", **settings) as served:
        dialer = quiet_dialer(ca_file=authority.ca_file if trusts else None)
        place = Multiaddr.parse(f"/ip4/127.0.0.1/tcp/{served.address.port}{suffix}")
        with pytest.raises(DialError, match=f"{place}: .*{why}"):
            await dialer.dial_raw(place)
        with anyio.fail_after(PATIENCE):
            while not served.listener.failed:
                await anyio.lowlevel.checkpoint()
        insecure = quiet_dialer(insecure=True)
        async with await insecure.dial_raw(served.address) as stream:
            await echoed(stream)


async def test_tls_where_there_is_none():
    async with serving() as served:
        place = Multiaddr.parse(f"/ip4/127.0.0.1/tcp/{served.address.port}/tls/ws")
        with pytest.raises(DialError, match=r"TLS failed|hung up|HTTP within"):
            await quiet_dialer(handshake_timeout=0.5).dial_raw(place)


@pytest.mark.parametrize("text", ["/dns4/localhost/tcp/0/ws", ANY, "/memory/1"])
async def test_nothing_to_listen_on(text):
    with pytest.raises(AddressError, match="not an address to listen on by WebSocket"):
        await WebSocketTransport().listen_raw(Multiaddr.parse(text))


async def test_no_certificate_to_listen_with():
    with pytest.raises(ConfigError, match=r"websocket.cert_file and websocket.key_file"):
        await WebSocketTransport().listen_raw(Multiaddr.parse(ANY + "/tls/ws"))


async def test_a_port_in_use():
    async with serving() as served:
        with pytest.raises(OSError, match=str(served.address)) as caught:
            await WebSocketTransport().listen_raw(served.address)
        assert caught.value.errno == errno.EADDRINUSE


# Dialling what is no WebSocket


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 99\r\n\r\n", "HTTP 404 Not Found"),
        (b"HTTP/1.1 403 Forbidden\r\n\r\n", "HTTP 403 Forbidden"),
        (b"HTTP/1.1 302 Found\r\nLocation: /\r\n\r\n", "HTTP 302 Found.*not followed"),
        (ANSWER % b"x", "Sec-WebSocket-Accept"),
        (b"SSH-2.0-OpenSSH_9.6\r\n", "no HTTP"),
        (b"", "hung up"),
        (b"HTTP/1.1 101", "hung up"),
    ],
)
async def test_servers_that_answer_something_else(answer, why):
    hold = anyio.Event()

    async def wait(_stream) -> None:
        if why != "hung up":
            await hold.wait()

    async with answering(answer, then=wait) as place:
        with anyio.fail_after(PATIENCE):
            with pytest.raises(DialError, match=f"cannot connect to {place}: .*{why}"):
                await quiet_dialer().dial_raw(place)


async def test_a_server_that_takes_its_time():
    hold = anyio.Event()

    async def drip(stream) -> None:
        while True:
            await stream.send(b"x")
            with anyio.move_on_after(0.02):
                await hold.wait()

    async with answering(b"HTTP/1.1 101 X\r\nX: ", then=drip) as place:
        with pytest.raises(DialTimeout, match=r"0.3 s \(setting: websocket.handshake_timeout\)"):
            await quiet_dialer(handshake_timeout=0.3).dial_raw(place)


async def test_foreign_addresses_and_names():
    for text, why in (
        (ANY, "no WebSocket address"),
        ("/dns4/isthmus.invalid/tcp/1/ws", "resolved"),
        ("/ip4/127.0.0.1/tcp/1/ws", "refused"),
    ):
        with pytest.raises(DialError, match=why):
            await quiet_dialer().dial_raw(Multiaddr.parse(text))
    async with answering() as place:
        odd = Multiaddr.parse(f"/ip4/127.0.0.1/tcp/{place.port}/tls/sni/a..b/ws")
        with pytest.raises(DialError, match="no name for a certificate"):
            await quiet_dialer().dial_raw(odd)


async def test_a_dial_given_up_closes_its_socket():
    async with serving() as served:
        for patience in (0, 0.0005, 0.001, 0.002):
            with anyio.move_on_after(patience):
                stream = await quiet_dialer().dial_raw(served.address)
                await anyio.aclose_forcefully(stream)


# Serving what is no WebSocket


async def test_a_plain_get_is_told_to_upgrade():
    async with serving() as served:
        raw = await below(served)
        await raw.send(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        answer = await read_to_end(raw)
        assert answer.startswith(b"HTTP/1.1 426 Upgrade Required\r\n")
        assert b"Upgrade: websocket\r\n" in answer
        with anyio.fail_after(PATIENCE):
            while served.listener.pending:
                await anyio.lowlevel.checkpoint()
        assert served.listener.failed == 1


async def test_slow_requests_are_cut_off():
    async with serving(handshake_timeout=0.3) as served:
        started = anyio.current_time()
        silent, half, slow = [await below(served) for _ in range(3)]
        await half.send(REQUEST[:-1])

        async def drip() -> None:
            for at in range(len(REQUEST)):
                try:
                    await slow.send(REQUEST[at : at + 1])
                except anyio.BrokenResourceError:
                    return
                with anyio.move_on_after(0.02):
                    await anyio.sleep_forever()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(drip)
            for raw in (silent, half, slow):
                assert await read_to_end(raw) == b""
            tasks.cancel_scope.cancel()
        assert 0.2 < anyio.current_time() - started < 3
        async with await quiet_dialer().dial_raw(served.address) as stream:
            await echoed(stream)
        assert served.listener.failed == 3


async def test_more_handshakes_than_may_wait():
    async with serving(max_pending_handshakes=2) as served:
        first = [await below(served) for _ in range(2)]
        with anyio.fail_after(PATIENCE):
            while served.listener.pending < 2:
                await anyio.lowlevel.checkpoint()
        assert await read_to_end(await below(served)) == b""
        assert served.listener.refused == 1
        for raw in first:
            await raw.aclose()
        with anyio.fail_after(PATIENCE):
            while served.listener.pending:
                await anyio.lowlevel.checkpoint()
        async with await quiet_dialer().dial_raw(served.address) as stream:
            await echoed(stream)


async def test_an_origin_that_may_not_connect():
    async with serving(origins=("https://a.example",)) as served:
        raw = await below(served)
        await raw.send(REQUEST[:-2] + b"Origin: https://evil.example\r\n\r\n")
        assert (await read_to_end(raw)).startswith(b"HTTP/1.1 403 ")


# Frames


@pytest.mark.parametrize(
    ("wire", "code", "why"),
    [
        (frame(TEXT, b"hello"), 1003, "text"),
        (frame(BINARY, bytes(65_538)), 1009, "65538"),
        (frame(BINARY, b"x", mask=None), 1002, "masking"),
    ],
)
async def test_breaches_are_told_and_end_it(wire, code, why):
    async with serving(max_message_size=65_537) as served:
        raw = await upgraded(served)
        await raw.send(wire)
        answer = await read_to_end(raw)
        assert answer[0] == 0x80 | CLOSE
        assert int.from_bytes(answer[2:4]) == code
        assert why in str(await served.error())


async def test_fragments_and_pings():
    async with serving() as served:
        raw = await upgraded(served)
        await raw.send(frame(BINARY, b"one", fin=False) + frame(PING, b"?") + frame(CONT, b"two"))
        expected = [
            frame(PONG, b"?", mask=None),
            *(frame(BINARY, x, mask=None) for x in (b"one", b"two")),
        ]
        got = b""
        with anyio.fail_after(PATIENCE):
            while len(got) < len(b"".join(expected)):
                got += await raw.receive()
        assert got == b"".join(expected)
        await raw.send(frame(CLOSE, b"\x03\xe8"))
        assert await read_to_end(raw) == frame(CLOSE, b"\x03\xe8", mask=None)
        assert isinstance(await served.error(), anyio.EndOfStream)


async def test_pings_whose_answers_nobody_reads_pile_up_nowhere():
    async with serving() as served:
        raw = await upgraded(served)
        raw.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        flood = frame(PING, bytes(125)) * 500
        with anyio.move_on_after(1) as scope:
            while True:
                await raw.send(flood)
        assert scope.cancelled_caught
        assert len(served.streams[0]._unsent) < 2 * len(flood)
        assert len(served.streams[0]._machine._protocol.writes) < 1000
        raw.close()


async def test_empty_frames_without_end_leave_others_their_turns():
    async with serving() as served:
        raw = await upgraded(served)
        with anyio.move_on_after(0.3):
            while True:
                await raw.send(frame(BINARY) * 5000)
        with anyio.fail_after(PATIENCE):
            async with await quiet_dialer().dial_raw(served.address) as stream:
                await echoed(stream)
        raw.close()


async def test_a_slow_reader_stops_its_writer():
    """Both ways: what waits is in the kernel's buffers, and a message or two."""
    async with serving() as served:
        stream = await quiet_dialer().dial_raw(served.address)
        sent = 0
        with anyio.move_on_after(0.5) as scope:
            while True:
                await stream.send(bytes(60_000))
                sent += 60_000
        assert scope.cancelled_caught
        far = served.streams[0]
        assert len(stream._unsent) < 70_000
        assert len(far._unsent) < 70_000
        assert sum(map(len, far._received)) < 200_000
        # What was cut off by the cancelled send goes out whole once there is room.
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(stream.send, b"end")
            got, last = 0, b""
            with anyio.fail_after(PATIENCE):
                while not last.endswith(b"end"):
                    last = await stream.receive()
                    got += len(last)
        assert got in (sent + 3, sent + 60_003)
        await stream.aclose()


async def test_small_reads():
    async with serving() as served, await quiet_dialer().dial_raw(served.address) as stream:
        await stream.send(b"hello")
        assert [await stream.receive(2) for _ in range(3)] == [b"he", b"ll", b"o"]


# The end


async def test_what_closed_streams_raise():
    async with serving() as served:
        stream = await quiet_dialer().dial_raw(served.address)
        await echoed(stream)
        await stream.aclose()
        await stream.aclose()
        with pytest.raises(anyio.ClosedResourceError):
            await stream.receive()
        with pytest.raises(anyio.ClosedResourceError):
            await stream.send(b"x")
        with pytest.raises(anyio.ClosedResourceError):
            await stream.receive_each(lambda _: True)
        with pytest.raises(anyio.ClosedResourceError):
            stream.send_nowait(b"x")


async def test_send_eof_ends_both_directions():
    async with serving() as served:
        stream = await quiet_dialer().dial_raw(served.address)
        await echoed(stream)
        await stream.send_eof()
        with pytest.raises(anyio.BrokenResourceError):
            await stream.send(b"x")
        for _ in range(2):
            with pytest.raises(anyio.EndOfStream):
                await stream.receive()
        await stream.receive_each(lambda _: False)
        await stream.aclose()
        assert isinstance(await served.error(), anyio.EndOfStream)


@pytest.mark.parametrize("is_forced", [False, True])
async def test_closing_while_another_task_reads_waits_for_nobody(is_forced):
    async with serving() as served:
        raw = await upgraded(served)
        await raw.send(frame(BINARY, b"x"))
        assert await raw.receive() == frame(BINARY, b"x", mask=None)
        stream, started = served.streams[0], anyio.current_time()
        await (anyio.aclose_forcefully(stream) if is_forced else stream.aclose())
        assert anyio.current_time() - started < 0.5
        assert isinstance(await served.error(), anyio.ClosedResourceError)
        assert await read_to_end(raw) == frame(CLOSE, b"\x03\xe8", mask=None)


async def test_a_close_waits_a_second_at_most():
    hold = anyio.Event()

    async def ignore(stream) -> None:
        await hold.wait()

    async with answering_websocket(ignore) as place:
        stream = await quiet_dialer().dial_raw(place)
        started = anyio.current_time()
        await stream.aclose()
        assert 0.9 < anyio.current_time() - started < 2
        hold.set()


@asynccontextmanager
async def answering_websocket(then):
    """A TCP server that upgrades by hand, and then does what it is told."""
    from websockets.utils import accept_key

    listener = await TcpTransport().listen_raw(Multiaddr.parse(ANY))

    async def answer(stream, _remote) -> None:
        async with stream:
            request = await stream.receive()
            key = request.partition(b"Key: ")[2].partition(b"\r")[0].decode()
            await stream.send(ANSWER % accept_key(key).encode())
            await then(stream)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, answer)
        yield Multiaddr.parse(f"{listener.addresses[0]}/ws")
        tasks.cancel_scope.cancel()
    await listener.aclose()


async def test_a_server_that_hangs_up_without_a_close():
    async def leave(stream) -> None:
        await stream.send(frame(BINARY, b"x", mask=None))

    async with answering_websocket(leave) as place:
        stream = await quiet_dialer().dial_raw(place)
        assert await stream.receive() == b"x"
        with pytest.raises(anyio.EndOfStream):
            await stream.receive()
        await stream.aclose()


# The fast way


async def test_the_fast_way_reads_pauses_and_sends():
    async with serving() as served:
        stream = await quiet_dialer().dial_raw(served.address)
        got, paused = bytearray(), anyio.Event()

        def take(data: memoryview) -> bool:
            got.extend(data)
            if len(got) == 5:
                stream.pause_reading()
                paused.set()
            return len(got) < 10

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(stream.receive_each, take)
            assert stream.send_nowait(b"hello") == 5
            with anyio.fail_after(PATIENCE):
                await paused.wait()
            assert stream.is_reading_paused
            stream.send_nowait(memoryview(b"world"))
            await stream.wait_writable()
            with anyio.move_on_after(0.05):
                await anyio.sleep_forever()
            assert got == b"hello"
            stream.resume_reading()
        assert got == b"helloworld"
        stream.end_sending()
        await stream.aclose()


async def test_the_fast_way_takes_a_message_whole_or_not():
    async with serving() as served:
        stream = await quiet_dialer().dial_raw(served.address)
        sizes = set()
        while 0 not in sizes:
            sizes.add(stream.send_nowait(bytes(60_000)))
        assert sizes == {0, 60_000}
        assert 0 < len(stream._unsent) < 60_020
        await anyio.aclose_forcefully(stream)


async def test_the_fast_way_holds_a_peer_that_reads_no_answers():
    """Its pongs fill the socket; then it is not read until they have gone."""
    async with quiet_listener() as (listener, streams):
        raw = await upgraded(listener)
        raw.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        with anyio.fail_after(PATIENCE):
            while not streams:
                await anyio.lowlevel.checkpoint()
        far, flood, sent = streams[0], frame(PING, bytes(125)) * 500, 0
        with anyio.fail_after(PATIENCE):
            while not far._is_held:
                with anyio.move_on_after(0.1):
                    await raw.send(flood)
                sent += 1
        assert MAX_ANSWERS < len(far._unsent) < 10 * len(flood)
        assert far._raw.is_reading_paused
        with anyio.fail_after(PATIENCE):
            while far._is_held:
                await raw.receive()
        assert not far._raw.is_reading_paused
        raw.close()


@asynccontextmanager
async def quiet_listener():
    """A listener whose streams are read the fast way, and say nothing."""
    listener = await WebSocketTransport().listen_raw(Multiaddr.parse(ANY + "/ws"))
    streams = []

    async def handle(stream, _remote) -> None:
        streams.append(stream)
        async with stream:
            try:
                await stream.receive_each(lambda _: True)
            except anyio.BrokenResourceError:
                return

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, handle)
        yield Served(listener), streams
        await listener.aclose()
        tasks.cancel_scope.cancel()
