"""WebSocket over real loopback sockets: addresses, and what each side refuses of the other."""

from __future__ import annotations

import errno

import anyio
import pytest
from isthmus.transports.core.errors import AddressError, ConfigError, DialError, DialTimeout
from isthmus.transports.core.multiaddr import Multiaddr
from isthmus.transports.websocket.transport import WebSocketTransport

from .places import (
    ANY,
    PATIENCE,
    Served,
    answering,
    below,
    echoed,
    quiet_dialer,
    read_to_end,
    serving,
)
from .wire import ANSWER, REQUEST, TEXT, frame

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
        ("/dns4/a..b/tcp/1/ws", "resolved"),
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


@pytest.mark.parametrize("behind", [frame(TEXT, b"x"), b"garbage"])
async def test_a_breach_right_behind_the_request_ends_that_connection_alone(behind):
    async with serving() as served:
        raw = await below(served)
        await raw.send(REQUEST + behind)
        assert (await read_to_end(raw)).startswith(b"HTTP/1.1 101 ")
        async with await quiet_dialer().dial_raw(served.address) as stream:
            await echoed(stream)
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


async def test_a_listener_that_is_given_up_lets_handshakes_go():
    listener = await quiet_dialer().listen_raw(Multiaddr.parse(ANY + "/ws"))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, Served(listener).echo)
        raw = await below(Served(listener))
        with anyio.fail_after(PATIENCE):
            while not listener.pending:
                await anyio.lowlevel.checkpoint()
        tasks.cancel_scope.cancel()
    assert not listener.pending
    assert await read_to_end(raw) == b""
    await listener.aclose()


async def test_an_origin_that_may_not_connect():
    async with serving(origins=("https://a.example",)) as served:
        raw = await below(served)
        await raw.send(REQUEST[:-2] + b"Origin: https://evil.example\r\n\r\n")
        assert (await read_to_end(raw)).startswith(b"HTTP/1.1 403 ")
