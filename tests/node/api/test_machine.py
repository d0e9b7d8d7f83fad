"""One exchange of the control API by itself: what is a request, and who is turned away untold."""

from __future__ import annotations

import json
import random
from functools import partial

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st
from isthmus.node.api.config import ControlConfig
from isthmus.node.api.machine import Exchange
from isthmus.node.api.routing import Arguments, Endpoint, MethodNotAllowed, Request, Table
from isthmus.transports.core.errors import ConfigError, ControlError

CONFIG = ControlConfig()
HOST = ("Host", "isthmus")
JSON = ("Content-Type", "application/json")
BODY = b'{"to": "12D3KooW"}'
BROWSERS = {
    "a foreign name that leads here (DNS rebinding)": [("Host", "attacker.example")],
    "the same with our name before it": [("Host", "isthmus.attacker.example")],
    "localhost": [("Host", "localhost")],
    "an address": [("Host", "127.0.0.1:4001")],
    "our name with a port": [("Host", "isthmus:80")],
    "another page": [HOST, ("Origin", "https://attacker.example")],
    "a sandboxed page or a file": [HOST, ("Origin", "null")],
    "a page that claims to be of here": [HOST, ("Origin", "http://isthmus")],
    "a link": [HOST, ("Referer", "https://attacker.example/")],
    "an address typed into a browser": [HOST, ("Sec-Fetch-Mode", "navigate")],
    "fetch without CORS": [HOST, ("Sec-Fetch-Mode", "no-cors"), ("Sec-Fetch-Site", "cross-site")],
    "a picture": [HOST, ("Sec-Fetch-Dest", "image")],
    "a WebSocket": [
        HOST,
        ("Upgrade", "websocket"),
        ("Sec-WebSocket-Key", "AAAAAAAAAAAAAAAAAAAAAA=="),
    ],
    "what asks for CORS": [HOST, ("Access-Control-Request-Method", "POST")],
    "a browser that remembers us": [HOST, ("Cookie", "a=b")],
    "header names in capitals": [HOST, ("ORIGIN", "https://attacker.example")],
}


def raw(method="GET", target="/v1/status", headers=(HOST,), body=b"", version="1.1"):
    lines = [f"{method} {target} HTTP/{version}", *(f"{name}: {value}" for name, value in headers)]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def post(body=BODY, target="/v1/connect", headers=(HOST, JSON)):
    return raw("POST", target, [*headers, ("Content-Length", len(body))], body)


def receive(data, config=CONFIG):
    """Let an exchange read some bytes; return it and the request."""
    exchange = Exchange(config)
    return exchange, exchange.receive_data(data)


def refused(data, config=CONFIG):
    """Return how a request is refused: the head and the body of the answer."""
    exchange = Exchange(config)
    with pytest.raises(ControlError) as caught:
        exchange.receive_data(data)
    return parsed(exchange.refuse(caught.value))


def parsed(data, method="GET"):
    client = h11.Connection(h11.CLIENT)
    client.send(h11.Request(method=method, target="/", headers=[("Host", "x")]))
    client.send(h11.EndOfMessage())
    client.receive_data(data)
    head, body = client.next_event(), b""
    while isinstance(event := client.next_event(), h11.Data):
        body += event.data
    assert isinstance(event, h11.EndOfMessage)
    assert client.their_state is h11.MUST_CLOSE
    return head, body


REQUESTS = {
    raw(): Request("GET", "/v1/status"),
    raw(target="/v1/peers?limit=3"): Request("GET", "/v1/peers", "limit=3"),
    raw(version="1.0"): Request("GET", "/v1/status"),
    post(): Request("POST", "/v1/connect", "", BODY),
    post(headers=(HOST, ("Content-Type", "Application/JSON; charset=utf-8"))): Request(
        "POST", "/v1/connect", "", BODY
    ),
    post(b"", headers=(HOST, JSON)): Request("POST", "/v1/connect"),
}


@pytest.mark.parametrize(("data", "request_"), REQUESTS.items())
def test_a_request_however_it_is_split(data, request_):
    assert receive(data)[1] == request_
    assert receive(data + b"GET / HTTP/1.1\r\n\r\n")[1] == request_
    exchange = Exchange(CONFIG)
    for byte in data[:-1]:
        assert exchange.receive_data(bytes([byte])) is None
    assert exchange.receive_data(data[-1:]) == request_
    for place in range(len(data)):
        exchange = Exchange(CONFIG)
        assert exchange.receive_data(data[:place]) is None
        assert exchange.receive_data(data[place:]) == request_


@pytest.mark.parametrize("headers", BROWSERS.values(), ids=BROWSERS)
@pytest.mark.parametrize(
    ("method", "target", "body"),
    [
        ("GET", "/v1/status", b""),
        ("GET", "/nonsense", b""),
        ("POST", "/v1/connect", BODY),
        ("OPTIONS", "/v1/connect", b""),
        ("HEAD", "/v1/status", b""),
    ],
)
def test_a_browser_is_told_nothing(headers, method, target, body):
    length = [JSON, ("Content-Length", len(body))] if body else []
    head, told = refused(raw(method, target, [*headers, *length], body))
    assert (head.status_code, told) == (403, b"")
    assert "content-type" not in names(head)
    assert not [name for name in names(head) if name.startswith("access-control-")]


@pytest.mark.parametrize(
    "kind",
    [
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "text/plain",
        "text/plain;application/json",
        "application/jsonp",
        "",
    ],
)
def test_what_a_form_can_send_is_no_request(kind):
    head, _ = refused(post(headers=(HOST, ("Content-Type", kind))))
    assert head.status_code == 415
    assert refused(post(headers=(HOST,)))[0].status_code == 415
    assert refused(raw("POST"))[0].status_code == 415
    both = (HOST, ("Content-Type", "text/plain"), JSON)
    assert refused(post(headers=both))[0].status_code == 415


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (raw(headers=()), 400),
        (raw(headers=(), version="1.0"), 403),
        (raw(headers=(HOST, HOST)), 400),
        (b"nonsense\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" * 3, 400),
        (raw(version="2.0"), 505),
        (raw(headers=(HOST, ("A", "b" * 20_000))), 431),
        (raw(headers=[HOST, *(("A", "b"),) * 5000]), 431),
        (post(headers=(HOST, JSON, ("Content-Length", "3"))), 400),
        (post(headers=(HOST, JSON, ("Content-Length", "-1"))), 400),
        (raw("CONNECT", "isthmus:80", headers=(("Host", "isthmus:80"),)), 403),
    ],
)
def test_what_is_no_http_is_told_no_more(data, status):
    # In pieces, since a head that comes whole at once may be longer by what is read at a time.
    pieces = [data[start : start + 1000] for start in range(0, len(data), 1000)]
    exchange, error = outcome(pieces)
    assert (error.status, str(error)) == (status, "")
    assert parsed(exchange.refuse(error))[1] == b""


@pytest.mark.parametrize(
    ("data", "status", "why"),
    [
        (post(b"x" * 65_537), 413, "at most 65536 bytes"),
        (raw(headers=(HOST, ("Content-Length", "2")), body=b"{}"), 400, "only a POST"),
        (
            raw("POST", headers=(HOST, JSON, ("Transfer-Encoding", "chunked")), body=b"0\r\n\r\n"),
            411,
            "Content-Length",
        ),
        (post(headers=(HOST, JSON, ("Expect", "100-continue"))), 417, "at once"),
    ],
)
def test_what_is_too_much_or_not_understood_is_explained(data, status, why):
    head, told = refused(data)
    assert head.status_code == status
    assert why in json.loads(told)["error"]["message"]


def test_a_body_as_long_as_may_be():
    body = b'"' + b"x" * 65_534 + b'"'
    assert receive(post(body))[1].body == body


def test_an_answer_stays_where_it_is():
    exchange, _ = receive(raw())
    head, body = parsed(exchange.answer({"text": "\x1b[2J\x7f\u202e"}))
    assert json.loads(body) == {"text": "\x1b[2J\x7f\u202e"}
    assert body.endswith(b"}\n")
    assert body.decode("ascii").strip().isprintable()
    assert dict(head.headers) == {
        b"content-type": b"application/json",
        b"cache-control": b"no-store",
        b"x-content-type-options": b"nosniff",
        b"connection": b"close",
        b"content-length": str(len(body)).encode(),
    }


def test_a_question_for_the_head_gets_no_body():
    exchange, request = receive(raw("HEAD"))
    data = exchange.refuse(MethodNotAllowed(request.path, ["GET"]))
    assert data.endswith(b"\r\n\r\n")
    head, body = parsed(data, "HEAD")
    assert (head.status_code, body) == (405, b"")
    assert dict(head.headers)[b"allow"] == b"GET"


def test_an_answer_that_fails_in_the_middle_says_no_more():
    exchange, _ = receive(raw())
    assert exchange.begin() + exchange.line({"a": 1})
    assert exchange.refuse(ControlError("too late", status=500)) == b""


def test_lines_are_chunks_of_their_own():
    exchange, _ = receive(raw())
    data = exchange.begin() + exchange.line({"a": 1}) + exchange.line({"b": 2}) + exchange.end()
    head, body = parsed(data)
    assert (head.status_code, body) == (200, b'{"a": 1}\n{"b": 2}\n')
    assert dict(head.headers)[b"content-type"] == b"application/x-ndjson"


def outcome(pieces):
    """Let an exchange read some pieces; return it, and the request, the refusal or None."""
    exchange = Exchange(CONFIG)
    for piece in pieces:
        try:
            request = exchange.receive_data(piece)
        except ControlError as error:
            return exchange, error
        if request is not None:
            return exchange, request
    return exchange, None


def survives(pieces):
    """Check that bytes are a request, the beginning of one, or refused with an answer."""
    exchange, result = outcome(pieces)
    if isinstance(result, ControlError):
        assert 400 <= result.status < 500 or result.status == 505
        assert exchange.refuse(result).startswith(f"HTTP/1.1 {result.status} ".encode())
    elif result is not None:
        answered(result)


def status_of(call, *args):
    """Return 200, or how a call refuses."""
    try:
        call(*args)
    except ControlError as error:
        return error.status
    return 200


def answered(request):
    """Check that a request finds its endpoint or is refused, and so its arguments."""
    status = status_of(TABLE.find, request)
    assert status in (200, 400, 404, 405)
    if status != 200:
        return
    endpoint, arguments = TABLE.find(request)
    for name in endpoint.takes:
        assert status_of(arguments.text, name) in (200, 400)
        assert status_of(arguments.text_or_texts, name) in (200, 400)
        assert status_of(partial(arguments.number, name, default=1, low=0, high=9)) in (200, 400)


async def nothing(control, arguments):
    raise AssertionError("only found, never called")


TABLE = Table(
    [
        Endpoint("GET", "/v1/status", nothing),
        Endpoint("GET", "/v1/peers", nothing, takes=("limit",)),
        Endpoint("POST", "/v1/connect", nothing, takes=("to", "count")),
    ]
)


@given(st.lists(st.binary(max_size=200), max_size=20))
def test_random_bytes(pieces):
    survives(pieces)


def test_requests_that_are_damaged_anywhere(seed, scaled):
    choice = random.Random(seed)
    for _ in range(scaled(10_000)):
        data = bytearray(choice.choice([*REQUESTS]))
        for _ in range(choice.randint(1, 4)):
            place = choice.randrange(len(data))
            if choice.random() < 0.5:
                data[place : place + choice.randint(0, 3)] = choice.randbytes(choice.randint(0, 3))
            else:
                data[place] ^= 1 << choice.randrange(8)
        size = choice.randint(1, 40)
        survives([bytes(data[start : start + size]) for start in range(0, len(data), size)])


@given(st.text(max_size=50), st.text(max_size=50), st.binary(max_size=100))
def test_random_paths_queries_and_bodies(path, query, body):
    for method in ("GET", "POST"):
        for each in (path, "/v1/status", "/v1/peers", "/v1/connect"):
            answered(Request(method, each, query, body))


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(), st.lists))
def test_values_of_every_kind(value):
    for body in ({"to": value, "count": value}, {"to": [value]}, value):
        answered(Request("POST", "/v1/connect", "", json.dumps(body).encode()))


# The table


@pytest.mark.parametrize(
    ("asked", "status", "why"),
    [
        (Request("GET", "/v1/nothing"), 404, "there are /v1/status, /v1/peers"),
        (Request("GET", "/v1/status/"), 404, "there is no"),
        (Request("GET", "http://isthmus/v1/status"), 404, "there is no"),
        (Request("POST", "/v1/status"), 405, "takes GET"),
        (Request("GET", "/v1/connect"), 405, "takes POST"),
        (Request("GET", "/v1/status", "x=1"), 400, "takes nothing, and no 'x'"),
        (Request("GET", "/v1/peers", "limit"), 400, "does not parse"),
        (Request("GET", "/v1/peers", "&".join("limit=1" for _ in range(17))), 400, "not parse"),
        (Request("GET", "/v1/peers", "limit=%ff"), 400, "does not parse"),
        (Request("GET", "/v1/peers", "limit=1&limit=2"), 400, "twice"),
        (Request("POST", "/v1/connect", "to=x"), 400, "into its body"),
        (Request("POST", "/v1/connect", "", b"{"), 400, "not JSON"),
        (Request("POST", "/v1/connect", "", b"\xff"), 400, "not JSON"),
        (Request("POST", "/v1/connect", "", b"[" * 65_536), 400, "not JSON"),
        (Request("POST", "/v1/connect", "", b'{"to": NaN}'), 400, "not JSON"),
        (Request("POST", "/v1/connect", "", b'{"to": "a", "to": "b"}'), 400, "twice"),
        (Request("POST", "/v1/connect", "", b"[]"), 400, "must be a JSON object"),
        (Request("POST", "/v1/connect", "", b'{"from": 1}'), 400, "takes 'to', 'count', and no"),
        (Request("POST", "/v1/connect", "", b'{"count": ' + b"1" * 5000 + b"}"), 400, "not JSON"),
    ],
)
def test_what_is_asked_wrongly_is_explained(asked, status, why):
    with pytest.raises(ControlError, match=why) as caught:
        TABLE.find(asked)
    assert caught.value.status == status


def test_arguments_are_read_with_their_type_and_bound():
    arguments = Arguments(
        {"to": "x", "several": ["x", "y"], "query": "7", "count": 3, "yes": True, "empty": ""}
        | {"half": "\ud800", "none": [], "mixed": ["x", 1], "many": ["x"] * 17, "float": 1.0}
    )
    bounds = {"default": 5, "low": 0, "high": 9}
    assert arguments.text("to") == arguments.text_or_texts("to") == "x"
    assert arguments.text_or_texts("several") == ["x", "y"]
    assert arguments.number("query", **bounds) == 7
    assert arguments.number("count", **bounds) == 3
    assert arguments.number("missing", **bounds) == 5
    for name in ("missing", "several", "count", "empty", "half"):
        with pytest.raises(ControlError, match=name):
            arguments.text(name)
    for name in ("none", "mixed", "many"):
        with pytest.raises(ControlError, match=name):
            arguments.text_or_texts(name)
    for name in ("to", "yes", "float", "several"):
        with pytest.raises(ControlError, match=name):
            arguments.number(name, **bounds)
    with pytest.raises(ControlError, match="between 8 and 9"):
        arguments.number("query", default=8, low=8, high=9)


def test_bounds_are_above_zero():
    with pytest.raises(ConfigError, match="max_body"):
        ControlConfig(max_body=0)


def names(head):
    return {name.decode() for name, _ in head.headers}
