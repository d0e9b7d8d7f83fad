"""The machine alone: the upgrade, frames, and what ends it."""

from __future__ import annotations

import random
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from isthmus.transports.core.errors import (
    HandshakeError,
    LocalProtocolError,
    P2PError,
    RemoteProtocolError,
)
from isthmus.transports.core.multiaddr import Multiaddr
from isthmus.transports.websocket.addresses import Endpoint
from isthmus.transports.websocket.config import WebSocketConfig
from isthmus.transports.websocket.machine import WebSocketMachine
from websockets.utils import accept_key

from .wire import ACCEPT, ANSWER, BINARY, CLOSE, CONT, PING, PONG, REQUEST, TEXT, frame, header

CONFIG = WebSocketConfig()
SMALL = WebSocketConfig(max_message_size=65_537, max_head_size=1024)


def client(address="/ip4/192.0.2.1/tcp/80/ws", config=CONFIG):
    return WebSocketMachine.client(Endpoint.of(Multiaddr.parse(address)), None, config)


def server(config=CONFIG):
    return WebSocketMachine.server(None, config)


def upgraded(config=CONFIG):
    """A server past the upgrade."""
    machine = server(config)
    assert machine.receive_data(REQUEST) == []
    assert machine.data_to_send().startswith(b"HTTP/1.1 101 ")
    return machine


def answered(*, rest=b""):
    """A client past the upgrade, and the payloads that came with it."""
    machine = client()
    key = accept_key(machine._protocol.key).encode()
    machine.data_to_send()
    return machine, machine.receive_data(ANSWER % key + rest)


def feeds(wire):
    """Whole, and byte by byte."""
    return [[wire], [wire[at : at + 1] for at in range(len(wire))]]


def feed(machine, pieces):
    return b"".join(payload for piece in pieces for payload in machine.receive_data(piece))


# The upgrade


def test_a_pair_agrees_and_carries_both_ways():
    near, far = client(), server()
    assert not near.is_open
    assert far.receive_data(near.data_to_send()) == []
    assert far.is_open
    assert near.receive_data(far.data_to_send()) == []
    assert near.is_open
    for sender, receiver in ((near, far), (far, near)):
        for data in (b"x", bytes(200), bytes(70_000)):
            sender.send(data)
            assert receiver.receive_data(sender.data_to_send()) == [data]
    for machine in (near, far):
        assert machine.data_to_send() == b""
        assert not machine.has_ended


@pytest.mark.parametrize("pieces", feeds(REQUEST + frame(BINARY, b"early")))
def test_requests_in_pieces_and_data_behind_them(pieces):
    machine = server()
    assert feed(machine, pieces) == b"early"
    assert ACCEPT in machine.data_to_send()


@pytest.mark.parametrize("way", [0, 1])
def test_answers_in_pieces_and_data_behind_them(way):
    machine = client()
    key = accept_key(machine._protocol.key).encode()
    wire = ANSWER % key + frame(BINARY, b"early", mask=None)
    assert feed(machine, feeds(wire)[way]) == b"early"
    assert machine.is_open


@pytest.mark.parametrize(
    ("address", "line", "host"),
    [
        ("/ip4/192.0.2.1/tcp/80/ws", b"GET / HTTP/1.1", b"192.0.2.1"),
        ("/ip6/2001:db8::1/tcp/81/ws", b"GET / HTTP/1.1", b"[2001:db8::1]:81"),
        ("/dns/a.example/tcp/443/tls/ws", b"GET / HTTP/1.1", b"a.example"),
        ("/dns/a.example/tcp/80/tls/sni/b.example/ws", b"GET / HTTP/1.1", b"b.example:80"),
        ("/dns/a.example/tcp/80/ws/http-path/x%2Fy%20z", b"GET /x/y%20z HTTP/1.1", b"a.example"),
        ("/dns/bücher.example/tcp/80/ws", b"GET / HTTP/1.1", b"xn--bcher-kva.example"),
    ],
)
def test_what_is_asked_for(address, line, host):
    lines = client(address).data_to_send().split(b"\r\n")
    assert lines[0] == line
    assert b"Host: " + host in lines
    assert not any(b"xtensions" in each for each in lines)


@pytest.mark.parametrize("name", ["ü" * 70, "a..ü"])
def test_hosts_that_no_request_can_name(name):
    with pytest.raises(HandshakeError, match="no name for an HTTP request"):
        client(f"/dns/{name}/tcp/80/ws")


def test_compression_is_never_agreed():
    machine = server()
    machine.receive_data(header("Sec-WebSocket-Extensions", "permessage-deflate"))
    assert b"xtensions" not in machine.data_to_send()


@pytest.mark.parametrize("path", [b"/", b"/any/path?q", b"*"])
def test_any_path_is_served(path):
    machine = server()
    machine.receive_data(REQUEST.replace(b" / ", b" " + path + b" "))
    assert machine.is_open


REFUSED = {
    "plain": (REQUEST.replace(b"Upgrade: websocket\r\n", b""), b"426"),
    "a browser's": (b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", b"426"),
    "a post": (REQUEST.replace(b"GET", b"POST"), b"405"),
    "an old one": (REQUEST.replace(b"HTTP/1.1", b"HTTP/1.0"), b"505"),
    "a version": (REQUEST.replace(b": 13", b": 8"), b"400"),
    "no key": (REQUEST.replace(b"-Key: ", b"-Kex: "), b"400"),
    "a short key": (REQUEST.replace(b"dGhl", b""), b"400"),
    "no HTTP": (b"SSH-2.0-OpenSSH_9.6\r\n\r\n", b"400"),
    "another HTTP": (b"PRI * HTTP/2.0\r\n\r\n", b"400"),
    "a body": (header("Content-Length", "9"), b"400"),
    "chunks": (header("Transfer-Encoding", "chunked"), b"400"),
    "no header": (REQUEST[:-2] + b"nothing\r\n\r\n", b"400"),
    "an evil header": (REQUEST[:-2] + b"a b: c\r\n\r\n", b"400"),
    "an evil value": (header("X", "\x1b[2J"), b"400"),
    "many headers": (REQUEST[:-2] + b"a: b\r\n" * 200 + b"\r\n", b"431"),
    "a long header": (header("X", "x" * 9000), b"431"),
    "a long path": (REQUEST.replace(b" / ", b" /" + b"x" * 9000 + b" "), b"414"),
}


@pytest.mark.parametrize("behind", [b"", b"garbage" * 9], ids=["alone", "behind"])
@pytest.mark.parametrize("name", REFUSED)
def test_requests_that_are_refused(name, behind):
    wire, status = REFUSED[name]
    machine = server()
    with pytest.raises(HandshakeError, match="no WebSocket handshake: "):
        machine.receive_data(wire + behind)
    answer = machine.data_to_send()
    assert answer.startswith(b"HTTP/1.1 " + status)
    assert len(answer) < 700
    assert machine.is_last
    assert not machine.is_open
    assert machine.receive_data(b"more") == []
    machine.close()
    assert machine.data_to_send() == b""


def test_a_request_that_never_ends():
    machine = server(SMALL)
    start = REQUEST[:-2] + b"X: "
    assert feed(machine, [start, b"x" * (1024 - len(start))]) == b""
    with pytest.raises(HandshakeError, match=r"1024 bytes \(setting: websocket.max_head_size\)"):
        machine.receive_data(b"x")
    assert machine.data_to_send().startswith(b"HTTP/1.1 431 ")


def test_a_request_that_is_too_large_at_once():
    with pytest.raises(HandshakeError, match="max_head_size"):
        server(SMALL).receive_data(header("X", "x" * 1024))


@pytest.mark.parametrize("origin", ["https://a.example", None])
def test_origins_that_may_connect(origin):
    machine = server(WebSocketConfig(origins=("https://a.example",)))
    machine.receive_data(header("Origin", origin) if origin else REQUEST)
    assert machine.is_open


def test_an_origin_that_may_not():
    machine = server(WebSocketConfig(origins=("https://a.example",)))
    with pytest.raises(HandshakeError, match="Origin"):
        machine.receive_data(header("Origin", "https://evil.example"))
    assert machine.data_to_send().startswith(b"HTTP/1.1 403 ")


def test_any_origin_may_by_default():
    machine = server()
    machine.receive_data(header("Origin", "https://any.example"))
    assert machine.is_open


ANSWERS = {
    "400": (b"HTTP/1.1 400 Nope\r\n\r\n", "HTTP 400 Bad Request to the WebSocket handshake$"),
    "403": (b"HTTP/1.1 403 \r\nContent-Length: 9\r\n\r\n", "HTTP 403 Forbidden"),
    "404": (b"HTTP/1.1 404 Not Found\r\n\r\n", "HTTP 404 Not Found"),
    "old": (b"HTTP/1.0 404 Not Found\r\n\r\n", "HTTP 404 Not Found"),
    "without a phrase": (b"HTTP/1.1 404\r\n\r\n", "HTTP 404 Not Found"),
    "moved": (
        b"HTTP/1.1 301 Moved\r\nLocation: ws://evil.example\r\n\r\n",
        "HTTP 301 Moved Permanently .*; redirects are not followed",
    ),
    "unknown": (b"HTTP/1.1 599 \x1b[2J\r\n\r\n", "HTTP 599 to"),
    "200": (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", "HTTP 200 OK"),
    "no status": (b"HTTP/1.1 abc OK\r\n\r\n", "no WebSocket handshake"),
    "another key": (ANSWER % ACCEPT, "Sec-WebSocket-Accept"),
    "no upgrade": (b"HTTP/1.1 101 X\r\nA: b\r\n\r\n", "Connection"),
    "evil": (b"HTTP/1.1 101 X\r\nConnection: \x9b2J\r\n\r\n", "no WebSocket handshake"),
    "ssh": (b"SSH-2.0-OpenSSH_9.6\r\n", "no HTTP"),
    "libp2p": (b"\x13/multistream/1.0.0\n", "no HTTP"),
    "endless": (b"HTTP/1.1 101 X\r\nX: " + b"x" * 20_000, "max_head_size"),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_answers_that_are_no_websocket(name):
    wire, why = ANSWERS[name]
    machine = client()
    machine.data_to_send()
    with pytest.raises(HandshakeError, match=why) as caught:
        machine.receive_data(wire)
    assert str(caught.value).isprintable()
    assert str(caught.value).isascii()
    assert len(str(caught.value)) < 300
    assert machine.receive_data(wire) == []


def test_compression_that_was_not_offered():
    machine = client()
    key = accept_key(machine._protocol.key).encode()
    wire = (ANSWER % key)[:-2] + b"Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n"
    with pytest.raises(HandshakeError, match="extensions"):
        machine.receive_data(wire)


def test_nothing_is_sent_before_it_is_open():
    with pytest.raises(LocalProtocolError):
        server().send(b"x")


# Frames


FRAGMENTED = (
    frame(BINARY, b"one", fin=False)
    + frame(PING, b"?")
    + frame(CONT, b"", fin=False)
    + frame(CONT, b"two")
    + frame(BINARY, b"")
    + frame(BINARY, b"three")
)


@pytest.mark.parametrize("pieces", feeds(FRAGMENTED))
def test_bounds_of_messages_mean_nothing(pieces):
    machine = upgraded()
    assert feed(machine, pieces) == b"onetwothree"
    assert machine.data_to_send() == frame(PONG, b"?", mask=None)


def test_a_pong_that_nobody_asked_for():
    machine = upgraded()
    assert machine.receive_data(frame(PONG, b"!")) == []
    assert machine.data_to_send() == b""


BREACHES = {
    "text": (frame(TEXT, b"hello"), 1003, "text"),
    "a part of text": (frame(TEXT, b"hello", fin=False), 1003, "text"),
    "text that is none": (frame(TEXT, b"\xff"), 1003, "text"),
    "unmasked": (frame(BINARY, b"x", mask=None), 1002, "masking"),
    "a reserved bit": (frame(BINARY, b"x", bits=0x40), 1002, "reserved"),
    "an opcode": (frame(3, b"x"), 1002, "opcode"),
    "a long ping": (frame(PING, bytes(126)), 1002, "too long"),
    "a ping in parts": (frame(PING, fin=False), 1002, "fragmented"),
    "nothing to go on with": (frame(CONT, b"x"), 1002, "continuation"),
    "a message within one": (frame(BINARY, fin=False) + frame(BINARY), 1002, "continuation"),
    "a large message": (frame(BINARY, bytes(65_538)), 1009, "65538 bytes"),
    "a huge one announced": (b"\x82\xff" + b"\x7f" * 8, 1009, "limit of 65537"),
    "a large one in parts": (
        frame(BINARY, bytes(65_000), fin=False) + frame(CONT, bytes(600)),
        1009,
        "600 bytes",
    ),
    "a close of one byte": (frame(CLOSE, b"x"), 1002, "too short"),
    "a close of no known code": (frame(CLOSE, b"\x00\x01"), 1002, "status code"),
    "a close not in UTF-8": (frame(CLOSE, b"\x03\xe8\xff"), 1007, "start byte|decode"),
    "a close within a message": (frame(BINARY, fin=False) + frame(CLOSE), 1002, "incomplete"),
}


@pytest.mark.parametrize("name", BREACHES)
def test_breaches(name):
    wire, code, why = BREACHES[name]
    machine = upgraded(SMALL)
    with pytest.raises(RemoteProtocolError, match=why) as caught:
        machine.receive_data(wire)
    assert caught.value.code == code
    assert machine.data_to_send()[:4] == bytes([0x88, machine_length(machine), *divmod(code, 256)])
    assert machine.is_last
    assert not machine.is_open
    assert machine.receive_data(frame(BINARY, b"x")) == []
    with pytest.raises(LocalProtocolError):
        machine.send(b"x")


def machine_length(machine):
    """The length of the close frame that a machine has sent."""
    return len(machine._protocol.close_sent.serialize())


def test_a_client_tells_a_breach_masked():
    machine, _ = answered()
    with pytest.raises(RemoteProtocolError, match="text"):
        machine.receive_data(frame(TEXT, b"x", mask=None))
    told = machine.data_to_send()
    assert told[0] == 0x88
    assert told[1] & 0x80
    assert machine.is_last


def test_a_message_of_the_largest_size():
    machine = upgraded(SMALL)
    assert feed(machine, [frame(BINARY, bytes(65_537))]) == bytes(65_537)


# The end


def test_both_close():
    near, _ = answered()
    far = upgraded()
    near.close()
    near.close()
    farewell = near.data_to_send()
    assert not near.is_open
    assert far.receive_data(frame(BINARY, b"last") + farewell + b"more") == [b"last"]
    assert far.has_ended
    assert far.is_last
    assert near.receive_data(frame(BINARY, b"late", mask=None)) == [b"late"]
    near.receive_data(far.data_to_send())
    assert near.has_ended
    assert near.data_to_send() == b""
    far.close()
    assert far.data_to_send() == b""


# Whatever comes


@given(st.binary(max_size=300), st.booleans())
def test_random_bytes_behind_the_upgrade_raise_nothing_unforeseen(data, is_server):
    machine = upgraded() if is_server else answered()[0]
    try:
        for at in range(0, len(data), 7):
            machine.receive_data(data[at : at + 7])
            machine.data_to_send()
    except P2PError:
        machine.data_to_send()


def test_mutated_handshakes_raise_nothing_unforeseen(seed, scaled):
    chance = random.Random(seed)
    for _ in range(scaled(20_000)):
        machine, wire = (server(), REQUEST) if chance.random() < 0.5 else (client(), ANSWER)
        data = bytearray(wire + frame(BINARY, b"x"))
        for _ in range(chance.randint(1, 4)):
            at = chance.randrange(len(data))
            data[at : at + chance.choice([0, 1, 1, 9])] = chance.randbytes(chance.choice([0, 1, 3]))
        with suppress(P2PError):
            machine.receive_data(bytes(data))
        machine.data_to_send()


@given(
    st.lists(
        st.tuples(
            st.sampled_from([CONT, TEXT, BINARY, CLOSE, PING, PONG, 3]),
            st.binary(max_size=130),
            st.booleans(),
        ),
        max_size=8,
    )
)
def test_random_frames_raise_nothing_unforeseen(frames):
    machine = upgraded()
    wire = b"".join(frame(opcode, data, fin=fin) for opcode, data, fin in frames)
    try:
        payload = b"".join(machine.receive_data(wire))
    except P2PError:
        assert not machine.is_open
    else:
        assert len(payload) <= len(wire)
