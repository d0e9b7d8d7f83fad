"""Clients of the control socket that mean harm, or are no clients: the node goes on."""

from __future__ import annotations

import contextlib
import json
import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path

import anyio
import pytest
from isthmus import Node
from isthmus.node.api import SOCKET_FILE
from isthmus.node.api.config import ControlConfig
from isthmus.node.api.endpoints import ENDPOINTS
from isthmus.node.api.routing import Endpoint
from isthmus.node.events import READER_LIMIT, DialFailed
from isthmus.transports.core.errors import ControlError

from ..node.api.controlled import answer_of, controlled, raw_client, request, say

NOBODY = 65_534
EVIL = "https://attacker.example"
SHAPES = {
    "a form": ("POST", ["Content-Type: application/x-www-form-urlencoded", f"Origin: {EVIL}"]),
    "a form of an old browser": ("POST", ["Content-Type: text/plain", f"Referer: {EVIL}/"]),
    "fetch, no-cors": ("POST", ["Content-Type: text/plain", "Sec-Fetch-Mode: no-cors"]),
    "fetch, cors": ("POST", ["Content-Type: application/json", f"Origin: {EVIL}"]),
    "its preflight": ("OPTIONS", ["Access-Control-Request-Method: POST", f"Origin: {EVIL}"]),
    "a beacon": ("POST", ["Content-Type: application/json", "Sec-Fetch-Mode: no-cors"]),
    "a picture": ("GET", ["Sec-Fetch-Dest: image", f"Referer: {EVIL}/"]),
    "an event source": ("GET", ["Accept: text/event-stream", f"Origin: {EVIL}"]),
}
HOSTS = ["isthmus", "attacker.example", "localhost", "127.0.0.1"]


@pytest.fixture
def path(tmp_path):
    return tmp_path / SOCKET_FILE


@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize(("method", "headers"), SHAPES.values(), ids=SHAPES)
async def test_a_page_drives_nothing_and_learns_nothing(path, method, headers, host):
    async with controlled(path) as (node, client), Node() as other:
        await other.connect(node.addresses)
        body = json.dumps({"peer": str(other.peer_id)})
        target = "/v1/disconnect" if method == "POST" else "/v1/status"
        lines = [f"{method} {target} HTTP/1.1", f"Host: {host}", *headers]
        if method == "POST":
            lines.append(f"Content-Length: {len(body)}")
        data = "\r\n".join([*lines, "", body if method == "POST" else ""]).encode()
        status, head, told = await say(path, data)
        assert (status, told) == (403, b"")
        assert "access-control" not in head.lower()
        assert str(node.peer_id) not in head
        assert len(other.connections) == 1
        assert (await client.get("/v1/status"))["connections"] == 1


async def test_a_foreign_name_that_leads_here(path):
    async with controlled(path):
        for host in HOSTS[1:]:
            data = f"GET /v1/status HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()
            assert (await say(path, data))[::2] == (403, b"")


async def test_random_bytes_end_no_server(path, seed, scaled):
    choice = random.Random(seed)
    async with controlled(path) as (_, client):
        for _ in range(scaled(300)):
            data = choice.randbytes(choice.randint(1, 300))
            if choice.random() < 0.5:
                data = request("GET", "/v1/status")[: choice.randint(1, 40)] + data
            with contextlib.suppress(anyio.BrokenResourceError):
                async with raw_client(path) as stream:
                    for start in range(0, len(data), 50):
                        await stream.send(data[start : start + 50])
                        await anyio.lowlevel.checkpoint()
        assert (await client.get("/v1/status"))["connections"] == 0


async def test_who_is_slow_is_told_so_and_costs_one_place(path):
    config = ControlConfig(request_time=0.2, max_connections=4)
    async with controlled(path, config=config) as (_, client):
        async with anyio.create_task_group() as tasks:
            statuses = []

            async def drip():
                async with raw_client(path) as stream:
                    with contextlib.suppress(anyio.BrokenResourceError):
                        for byte in request("GET", "/v1/status")[:-1]:
                            await stream.send(bytes([byte]))
                            await anyio.lowlevel.checkpoint()
                    statuses.append((await answer_of(stream))[::2])

            for _ in range(config.max_connections):
                tasks.start_soon(drip)
        assert statuses == [(408, b"")] * config.max_connections
        assert (await client.get("/v1/status"))["connections"] == 0


async def test_clients_are_bounded(path):
    config = ControlConfig(max_connections=3)
    async with controlled(path, config=config) as (_, client):
        async with contextlib.AsyncExitStack() as stack:
            for _ in range(config.max_connections):
                await stack.enter_async_context(client.lines("/v1/events"))
            with pytest.raises(ControlError, match="3 clients are connected already") as caught:
                await client.get("/v1/status")
            assert caught.value.status == 503
        while True:  # until the node has seen that they have gone
            with contextlib.suppress(ControlError):
                await client.get("/v1/status")
                break


async def test_who_takes_no_answer_is_let_go(path):
    async def much(control, arguments):
        return {"much": "x" * 10_000_000}

    endpoints = (*ENDPOINTS, Endpoint("GET", "/v1/much", much))
    config = ControlConfig(answer_time=0.2, max_connections=1)
    async with (
        controlled(path, config=config, endpoints=endpoints) as (_, client),
        raw_client(path) as stream,
    ):
        await stream.send(request("GET", "/v1/much"))
        while True:
            with contextlib.suppress(ControlError):
                await client.get("/v1/status")
                break
        assert len((await answer_of(stream))[2]) < 10_000_000


async def test_who_reads_no_events_loses_them_and_is_told_how_many(path):
    count = 20_000
    async with controlled(path) as (node, client), raw_client(path) as stream:
        await stream.send(request("GET", "/v1/events"))
        head = await stream.receive()
        while b"listening" not in head:
            head += await stream.receive()
        own = node.events()
        for number in range(count):
            node._events.publish(DialFailed(None, f"number {number}"))
            if not number % 100:
                await anyio.lowlevel.checkpoint()
        assert (await client.get("/v1/status"))["connections"] == 0
        assert len(own._waiting) <= READER_LIMIT
        told = await events_until(stream, head, lambda event: event["event"] == "events_lost")
        lost = told[-1]["count"]
        assert lost > count / 2
        node._events.publish(DialFailed(None, "the last"))
        told += await events_until(stream, b"", lambda event: event.get("reason") == "the last")
        failed = [each for each in told if each["event"] == "dial_failed"]
        lost = sum(each["count"] for each in told if each["event"] == "events_lost")
        assert len(failed) + lost == count + 1


async def events_until(stream, received, is_last):
    """Read the lines of a stream of events until one fits."""
    found = []
    while not (found and is_last(found[-1])):
        received += await stream.receive()
        *whole, received = received.split(b"\n")
        # Each line is a chunk of its own, between its length and an empty line.
        found += [json.loads(line) for line in whole if line.startswith(b"{")]
    return found


@pytest.mark.parametrize(
    "data",
    [
        request("GET", "/v1/status")[:20],
        request("POST", "/v1/connect", body={"to": "x"})[:-3],
        request("GET", "/v1/events"),
        request("GET", "/v1/status") + request("GET", "/v1/status"),
        request("GET", "/v1/events") + b"more",
        b"",
    ],
)
async def test_who_hangs_up_at_any_time_is_forgotten(path, data):
    config = ControlConfig(max_connections=1)
    async with controlled(path, config=config) as (_, client):
        for _ in range(20):
            stream = raw_client(path)
            with contextlib.suppress(anyio.BrokenResourceError):
                await stream.send(data)
            stream.close()
            await anyio.lowlevel.checkpoint()
        while True:
            with contextlib.suppress(ControlError):
                assert (await client.get("/v1/status"))["connections"] == 0
                break


async def test_a_body_that_is_too_long_is_not_read(path):
    async with controlled(path) as (_, client):
        head = request("POST", "/v1/connect", body=b"x" * 65_537)
        status, _, told = await say(path, head[:-65_537])
        assert status == 413
        assert b"at most 65536 bytes" in told
        async with raw_client(path) as stream:
            with contextlib.suppress(anyio.BrokenResourceError):
                await stream.send(head + b"x" * 10_000_000)
            assert (await answer_of(stream))[0] == 413
        assert (await client.get("/v1/status"))["connections"] == 0


# Other users

ASK = """
import os, socket, sys
path, user = sys.argv[1], int(sys.argv[2])
if user != os.geteuid():
    os.setgroups([])
    os.setgid(user)
    os.setuid(user)
client = socket.socket(socket.AF_UNIX)
answer = b""
try:
    client.connect(path)
    client.settimeout(10)
    client.send(b"GET /v1/status HTTP/1.1\\r\\nHost: isthmus\\r\\n\\r\\n")
    while data := client.recv(65536):
        answer += data
except PermissionError:
    answer = b"not let in"
except (BrokenPipeError, ConnectionResetError):
    answer = answer or client.recv(65536)
print(answer.decode().splitlines()[0], "peer_id" in answer.decode())
"""
NAMESPACE = ("unshare", "--user", "--map-auto", "--map-root-user")
"""Where who is not root can be two users, too: in a user namespace with the subordinate ids."""


@pytest.fixture
def public():
    """A directory into which every user may look, unlike pytest's own."""
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        place.chmod(0o755)
        yield place


@pytest.fixture
def namespace():
    """Put before Python, what lets it become another user."""
    prefix = () if os.geteuid() == 0 else NAMESPACE
    try:
        works = [*prefix, sys.executable, "-c", f"import os; os.setuid({NOBODY})"]
        if subprocess.run(works, capture_output=True, check=False).returncode == 0:
            return prefix
    except FileNotFoundError:
        pass
    pytest.skip("needs root, or unshare(1), newuidmap(1) and subordinate ids in /etc/subuid")


async def ask_as(user, path, prefix=()):
    argv = [*prefix, sys.executable, "-I", "-c", ASK, str(path), str(user)]
    done = await anyio.run_process(argv)
    return done.stdout.decode().strip()


async def test_another_user_is_not_let_in_whatever_the_mode(public, namespace):
    path = public / SOCKET_FILE
    async with controlled(path):
        assert await ask_as(NOBODY, path, namespace) == "not let in False"
        path.chmod(0o777)
        assert await ask_as(NOBODY, path, namespace) == "HTTP/1.1 403 Forbidden False"
        # The same question of this user, to show that it is one.
        assert await ask_as(os.geteuid(), path) == "HTTP/1.1 200 OK True"
