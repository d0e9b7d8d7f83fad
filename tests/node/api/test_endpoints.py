"""Every endpoint of the control API, asked of a running node through its socket."""

from __future__ import annotations

import importlib.metadata
import json
import os
import socket
import time

import anyio
import pytest
from isthmus import Multiaddr, Node, PeerId
from isthmus.node.api import SOCKET_FILE
from isthmus.node.api.client import ControlClient
from isthmus.node.api.endpoints import ENDPOINTS
from isthmus.node.api.routing import Endpoint, Lines
from isthmus.node.events import ConnectionEnded, EventsLost, PeerIdentified, PeerOnline
from isthmus.transports.core.errors import (
    ControlError,
    NotRunning,
    RemoteProtocolError,
    StoreError,
)

from .controlled import LOOPBACK, controlled, raw_client, request, say

STRANGER = "12D3KooWGJAmQyRkvK6Cf7Jr3zhMmtLX2Q8d2hKS9sMLUFWEPTpo"


@pytest.fixture
def path(tmp_path):
    return tmp_path / SOCKET_FILE


def nowhere():
    """Return an address on which nothing listens."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        return f"/ip4/127.0.0.1/tcp/{free.getsockname()[1]}"


async def until(events, kind):
    async for event in events:
        if isinstance(event, kind):
            return event
    raise AssertionError(f"no {kind.__name__}")


async def test_status(path):
    async with controlled(path) as (node, client), Node() as other:
        before = await client.get("/v1/status")
        assert before["peer_id"] == str(node.peer_id)
        assert before["addresses"] == [str(each) for each in node.addresses]
        assert before["protocols"] == [*node.protocols]
        assert before["pid"] == os.getpid()
        assert 0 <= before["uptime_seconds"] < 60
        assert before["versions"]["isthmus"] == importlib.metadata.version("isthmus")
        assert before["versions"]["api"] == 1
        assert (before["connections"], before["peers"], before["streams"]) == (0, 0, 0)
        node.handle("/hold/1", lambda stream: anyio.sleep_forever())
        stream = await other.open_stream(node.addresses, "/hold/1")
        await stream.send(b"x")
        await other.connect(node.addresses, fresh=True)
        while (now := await client.get("/v1/status"))["connections"] < 2:
            pass
        assert now["peers"] == 1
        assert now["streams"] >= 1
        assert now["known_peers"] == 1
        assert now["reachability"] == {"verdict": "unknown", "nat": "unknown", "addresses": []}
        node.reach.client.table.set_addresses([Multiaddr.parse("/ip4/1.2.3.4/tcp/1")])
        told = (await client.get("/v1/status"))["reachability"]["addresses"]
        assert told == [{"address": "/ip4/1.2.3.4/tcp/1", "verdict": "unknown"}]
        assert now["limits"] == [
            {"limit": "connections", "used": 2, "max": 512, "setting": "limits.connections"},
            {
                "limit": "inbound connections of strangers",
                "used": 2,
                "max": 384,
                "setting": "limits.outbound_share",
            },
            {
                "limit": "connections of one peer",
                "used": 2,
                "max": 4,
                "setting": "limits.connections_per_peer",
            },
            {"limit": "dials under way", "used": 0, "max": 510, "setting": "limits.connections"},
            {"limit": "dials that wait", "used": 0, "max": 256, "setting": "limits.waiting_dials"},
        ]
        # Who has dialled has as many, and none of them inbound.
        assert [each.used for each in other.usage()] == [2, 0, 2, 0, 0]


async def test_keep_links_and_forget(path):
    async with controlled(path) as (node, client), Node(listen=LOOPBACK) as other:
        assert await client.get("/v1/links") == {"links": []}
        address = str(other.addresses[0])
        kept = (await client.post("/v1/keep", {"to": address}))["link"]
        assert (kept["peer"], kept["kept"]) == (str(other.peer_id), True)
        events = node.events()
        if kept["state"] != "connected":
            await until(events, PeerOnline)
        found = await client.get(f"/v1/links?peer={other.peer_id}")
        (link,) = found["links"]
        assert link["state"] == "connected"
        assert [each["state"] for each in found["history"]] == ["connecting", "connected"]
        (step,) = found["last_dial"]["steps"]
        assert step["outcome"] == "connected"
        assert (await client.get("/v1/links"))["links"] == [link]
        forgotten = await client.post("/v1/forget", {"peer": str(other.peer_id)})
        assert forgotten == {"peer": str(other.peer_id), "was_kept": True}
        assert (await client.post("/v1/forget", {"peer": address}))["was_kept"] is False
        with pytest.raises(ControlError, match="nothing is known of a link"):
            await client.get(f"/v1/links?peer={other.peer_id}")


async def test_peers(path):
    async with controlled(path) as (node, client), Node(listen=LOOPBACK) as other:
        assert await client.get("/v1/peers") == {"peers": [], "known_total": 0}
        connection = await node.connect(other.addresses)
        await node.identify(connection)
        await connection.probe()
        found = await client.get("/v1/peers")
        assert found["known_total"] == 0
        (peer,) = found["peers"]
        assert peer["peer"] == str(other.peer_id)
        assert peer["connected"] is True
        assert peer["agent"].startswith("isthmus/")
        assert peer["addresses"] == [str(each.without_peer()) for each in other.addresses]
        assert abs(peer["last_seen"] - time.time()) < 60
        (told,) = peer["connections"]
        assert told["peer"] == str(other.peer_id)
        assert told["address"] == str(connection.remote_addr)
        assert (told["side"], told["rank"], told["limited"]) == ("dialer", "direct", False)
        assert 0 <= told["age_seconds"] < 60
        assert 0 < told["rtt_ms"] < 10_000
        assert told["bytes_sent"] > 100
        assert told["bytes_received"] > 100
        await connection.aclose()
        node.peers.met(node.peer_id)
        while (found := await client.get("/v1/peers"))["peers"][0]["connected"]:
            pass
        assert found["known_total"] == 2
        assert [each["connected"] for each in found["peers"]] == [False, False]
        assert found["peers"][1]["addresses"] or found["peers"][0]["addresses"]
        assert all(each["connections"] == [] for each in found["peers"])
        for last_seen, place in ((1.0, 1), (time.time() + 100, 0)):
            node.peers.info(node.peer_id).last_seen = last_seen
            listed = (await client.get("/v1/peers"))["peers"]
            assert listed[place]["peer"] == str(node.peer_id), "not the last seen first"
        some = await client.get("/v1/peers?limit=1")
        assert (len(some["peers"]), some["known_total"]) == (1, 2)
        for limit in ("-1", "1001", "many", ""):
            with pytest.raises(ControlError, match="'limit' must be a whole number") as caught:
                await client.get(f"/v1/peers?limit={limit}")
            assert caught.value.status == 400


async def test_doctor(path):
    async with controlled(path) as (node, client):
        found = await client.get("/v1/doctor")
        assert (found["peer_id"], found["settled"]) == (str(node.peer_id), True)
        again = (await node.diagnose()).to_json()
        # The one that asks had a file of the node open.
        assert [each for each in found["checks"] if each["check"] != "open files"] == [
            each for each in again["checks"] if each["check"] != "open files"
        ]
        assert {each["path"] for each in found["paths"]} == {"lan", "out", "in", "punched", "relay"}
        with pytest.raises(ControlError, match="takes nothing, and no 'x'"):
            await client.get("/v1/doctor?x=1")


async def test_connect(path):
    async with controlled(path) as (node, client), Node(listen=LOOPBACK) as other:
        address = str(other.addresses[0])
        first = await client.post("/v1/connect", {"to": address})
        assert first["is_new"] is True
        assert first["connection"]["peer"] == str(other.peer_id)
        assert first["connection"]["side"] == "dialer"
        assert [each.remote_peer for each in node.connections] == [other.peer_id]
        again = await client.post("/v1/connect", {"to": str(other.peer_id)})
        assert again["is_new"] is False
        assert len(node.connections) == 1
        several = await client.post("/v1/connect", {"to": [nowhere(), address]})
        assert several["is_new"] is False


async def test_connect_says_what_happened_at_each_address(path):
    addresses = [nowhere(), f"{nowhere()}/p2p/{STRANGER}"]
    async with controlled(path) as (_, client):
        with pytest.raises(ControlError) as caught:
            await client.post("/v1/connect", {"to": addresses})
        error = caught.value
        assert (error.status, error.kind) == (502, "DialError")
        assert str(error).startswith("cannot connect by any of 2 addresses: ")
        assert [each["address"] for each in error.attempts] == addresses
        for each in error.attempts:
            assert each["phase"] == "connect"
            assert 0 <= each["seconds"] < 10
            assert each["cause"] == "Connection refused: nothing listens there"


@pytest.mark.parametrize(
    ("to", "status", "kind", "why"),
    [
        ("nonsense", 400, "AddressError", "neither a peer id nor an address"),
        ("/ip4/127.0.0.1/udp/1", 400, "NoTransport", "no transport of this node"),
        ([], 400, "ControlError", "between one and 16"),
        (None, 400, "ControlError", "'to' must be a text"),
        (STRANGER, 502, "DialError", f"no address of {STRANGER} is known"),
        ([f"/ip4/127.0.0.1/tcp/1/p2p/{STRANGER}", LOOPBACK], 502, "DialError", "cannot connect"),
    ],
)
async def test_connect_to_what_cannot_be(path, to, status, kind, why):
    async with controlled(path) as (node, client):
        with pytest.raises(ControlError, match=why) as caught:
            await client.post("/v1/connect", {"to": to})
        assert (caught.value.status, caught.value.kind) == (status, kind)
        with pytest.raises(ControlError, match="this very node") as caught:
            await client.post("/v1/connect", {"to": str(node.peer_id)})
        assert caught.value.kind == "SelfDial"


async def test_dial_says_what_happened_and_leaves_what_stands_alone(path):
    async with controlled(path) as (node, client), Node(listen=LOOPBACK) as other:
        to = str(other.addresses[0])
        dial = (await client.post("/v1/dial", {"to": to}))["dial"]
        assert (dial["connected"], dial["peer_id"]) == (True, str(other.peer_id))
        assert [step["outcome"] for step in dial["steps"]] == ["connected"]
        (first,) = node.connections
        for _ in range(6):
            dial = (await client.post("/v1/dial", {"to": str(other.peer_id), "timeout": 5}))["dial"]
            assert dial["connected"] is True
            assert node.connections == (first,)
        assert first.statistics().data_channels_opened >= 1
        dial = (await client.post("/v1/dial", {"to": [nowhere(), nowhere()]}))["dial"]
        assert (dial["connected"], dial["peer_id"]) == (False, None)
        assert [step["phase"] for step in dial["steps"]] == ["connect", "connect"]
        for timeout in (0, -1, 3601, "1", True, []):
            with pytest.raises(ControlError, match="'timeout' must be seconds") as caught:
                await client.post("/v1/dial", {"to": to, "timeout": timeout})
            assert caught.value.status == 400
        with pytest.raises(ControlError, match="this very node") as caught:
            await client.post("/v1/dial", {"to": str(node.peer_id)})
        assert (caught.value.status, caught.value.kind) == (502, "SelfDial")


async def test_dial_has_the_time_that_it_is_given(path):
    async with controlled(path) as (_, client):
        with socket.create_server(("127.0.0.1", 0)) as mute:
            to = f"/ip4/127.0.0.1/tcp/{mute.getsockname()[1]}"
            dial = (await client.post("/v1/dial", {"to": to, "timeout": 0.2}))["dial"]
        assert "no connection within 0.2 s" in dial["steps"][0]["cause"]


async def test_links_of_an_earlier_run_are_last_known(path):
    async with controlled(path) as (node, client):
        with pytest.raises(ControlError, match="nothing is known of a link"):
            await client.get(f"/v1/links?peer={STRANGER}")
        peer = PeerId.parse(STRANGER)
        node.stores.links.add(peer, "connected", now=5.0, reason="/ip4/192.0.2.7/tcp/1")
        node.stores.links.add(peer, "disconnected", now=6.0, reason="it left")
        found = await client.get(f"/v1/links?peer={STRANGER}")
        assert found["links"] == [
            {
                "peer": STRANGER,
                "state": "disconnected",
                "reason": "it left",
                "since": 6.0,
                "kept": False,
            }
        ]
        assert [each["state"] for each in found["history"]] == ["connected", "disconnected"]
        assert found["last_dial"] is None


async def test_disconnect(path):
    async with controlled(path) as (node, client), Node(listen=LOOPBACK) as other:
        events = other.events()
        await node.connect(other.addresses)
        await node.connect(other.addresses, fresh=True)
        done = await client.post("/v1/disconnect", {"peer": str(other.peer_id)})
        assert done == {"peer": str(other.peer_id), "closed": 2}
        for _ in range(2):
            assert (await until(events, ConnectionEnded)).peer == node.peer_id
        with pytest.raises(ControlError, match="is not connected") as caught:
            await client.post("/v1/disconnect", {"peer": str(other.peer_id)})
        assert caught.value.status == 404
        for peer, why in ((LOOPBACK, "only if it ends in /p2p/ID"), ("x", "neither a peer id")):
            with pytest.raises(ControlError, match=why) as caught:
                await client.post("/v1/disconnect", {"peer": peer})
            assert caught.value.status == 400


async def test_events_are_those_of_the_node_to_the_last(path):
    told = []
    async with anyio.create_task_group() as tasks:
        begun = anyio.Event()

        async def read(client):
            async with client.lines("/v1/events") as lines:
                begun.set()
                told.extend([line async for line in lines])

        async with controlled(path) as (node, client), Node() as other:
            tasks.start_soon(read, client)
            await begun.wait()
            own, seen = node.events(), node.events()
            await other.connect(node.addresses)
            await until(seen, PeerIdentified)
    first, *rest = told
    assert first["event"] == "listening"
    assert first["peer_id"] == str(node.peer_id)
    assert first["addresses"] == [str(each) for each in node.addresses]
    assert rest == [json.loads(json.dumps(event.to_json())) async for event in own]
    assert rest[0]["event"] == "connection_opened"
    assert [each["event"] for each in rest[-2:]] == ["connection_ended", "link_changed"]


async def test_ping_goes_over_the_nodes_own_connection(path):
    async with controlled(path) as (node, client), Node(listen=LOOPBACK) as other:
        connection = await node.connect(other.addresses)
        found = await client.post("/v1/ping", {"to": str(other.peer_id), "count": 3})
        assert found["peer"] == str(other.peer_id)
        assert found["address"] == str(connection.remote_addr)
        assert len(found["rtt_ms"]) == 3
        assert all(0 < each < 10_000 for each in found["rtt_ms"])
        assert len(node.connections) == 1
        assert len((await client.post("/v1/ping", {"to": str(other.peer_id)}))["rtt_ms"]) == 1
        for count in (0, 1001, "1.5", True):
            with pytest.raises(ControlError, match="'count' must be a whole number"):
                await client.post("/v1/ping", {"to": str(other.peer_id), "count": count})
        with pytest.raises(ControlError, match="cannot connect to"):
            await client.post("/v1/ping", {"to": nowhere()})


async def test_a_node_does_not_keep_itself(path):
    async with controlled(path) as (node, client):
        for to in (str(node.peer_id), [str(each) for each in node.addresses]):
            with pytest.raises(ControlError, match="is this very node, which needs no") as caught:
                await client.post("/v1/keep", {"to": to})
            assert (caught.value.status, caught.value.kind) == (400, "ConfigError")
        assert len(node.links) == len(node.stores.kept) == 0


async def test_find_without_a_dht(path):
    async with controlled(path) as (_, client):
        with pytest.raises(ControlError, match="no DHT is configured") as caught:
            await client.post("/v1/find", {"service": "chat"})
        assert (caught.value.status, caught.value.kind) == (400, "ConfigError")
        for values, why in (
            ({}, "'service' must be a text"),
            ({"service": "chat", "limit": 101}, "'limit' must be a whole number"),
            ({"service": "chat", "limit": 0}, "'limit' must be a whole number"),
            ({"service": "a\x00b"}, "the name of a service"),
        ):
            with pytest.raises(ControlError, match=why) as caught:
                await client.post("/v1/find", values)
            assert caught.value.status == 400


async def test_a_get_changes_nothing(path):
    gets = [each for each in ENDPOINTS if each.method == "GET" and each.path != "/v1/events"]
    async with controlled(path) as (node, client), Node() as other:
        seen = node.events()
        await other.connect(node.addresses)
        await until(seen, PeerIdentified)
        before = (node.connections, node.addresses, node.protocols, [*node.peers])
        for endpoint in gets:
            await client.get(endpoint.path)
        assert (node.connections, node.addresses, node.protocols, [*node.peers]) == before
        changing = {each.path for each in ENDPOINTS if each.method == "POST"}
        for target in changing:
            status, head, _ = await say(path, request("GET", target))
            assert status == 405
            assert "Allow: POST" in head


class WrongEvents:
    """A source of events that fails."""

    def __aiter__(self):
        return self

    async def __anext__(self):
        raise ZeroDivisionError("another")


async def test_what_an_endpoint_raises_is_its_answer_and_no_more(path, caplog):
    async def fail(control, arguments):
        raise ZeroDivisionError("a bug\x1b[2J")

    async def wrong(control, arguments):
        return {"no JSON": {1, 2}}

    async def wrong_lines(control, arguments):
        return Lines(EventsLost(1), WrongEvents())

    async def greet(control, arguments):
        return {"hello": arguments.text("name")}

    endpoints = (
        *ENDPOINTS,
        Endpoint("GET", "/v1/fail", fail),
        Endpoint("GET", "/v1/wrong", wrong),
        Endpoint("GET", "/v1/wrong-lines", wrong_lines),
        Endpoint("GET", "/v1/greet", greet, takes=("name",)),
    )
    async with controlled(path, endpoints=endpoints) as (_, client):
        with pytest.raises(ControlError) as caught:
            await client.get("/v1/fail")
        assert (caught.value.status, caught.value.kind) == (500, "ZeroDivisionError")
        assert str(caught.value) == "internal error: ZeroDivisionError: a bug[2J"
        assert [each.levelname for each in caplog.records if "a bug" in each.message] == ["ERROR"]
        with pytest.raises(ControlError, match="internal error: TypeError"):
            await client.get("/v1/wrong")
        async with client.lines("/v1/wrong-lines") as told:
            assert (await anext(told))["event"] == "events_lost"
            with pytest.raises(anyio.BrokenResourceError, match="the node has ended"):
                await anext(told)
        assert await client.get("/v1/greet?name=world") == {"hello": "world"}


async def test_a_node_that_does_not_run_says_so(path):
    async with controlled(path) as (node, client):
        node._swarm._tasks, tasks = None, node._swarm._tasks
        with pytest.raises(ControlError, match="not running") as caught:
            await client.post("/v1/connect", {"to": nowhere()})
        node._swarm._tasks = tasks
        assert (caught.value.status, caught.value.kind) == (503, "LocalProtocolError")


async def test_a_client_that_has_gone_waits_for_no_dial(path):
    with socket.create_server(("127.0.0.1", 0)) as mute:
        to = f"/ip4/127.0.0.1/tcp/{mute.getsockname()[1]}"
        async with controlled(path) as (node, client):
            async with raw_client(path) as stream:
                await stream.send(request("POST", "/v1/connect", body={"to": to}))
                while not dials(node):
                    await anyio.lowlevel.checkpoint()
            while dials(node):
                await anyio.lowlevel.checkpoint()
            assert (await client.get("/v1/status"))["connections"] == 0


def dials(node):
    return next(each.used for each in node.usage() if each.name == "dials under way")


async def test_no_node(path):
    client = ControlClient(path)
    with pytest.raises(NotRunning) as caught:
        await client.get("/v1/status")
    assert str(caught.value) == (f"no isthmus runs in {path.parent}: start one with `isthmus run`")
    with pytest.raises(StoreError, match="x" * 20):
        await ControlClient(path.with_name("x" * 300)).get("/v1/status")


@pytest.mark.parametrize(
    "answer",
    [
        b"220 mail.example ESMTP\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n[1,2]",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n{",
        b"HTTP/1.1 100 Continue\r\n\r\n",
        b"HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\n{}",
        b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n",
        b"",
    ],
)
async def test_what_is_no_control_socket(path, answer):
    wrong = (RemoteProtocolError, ControlError, anyio.BrokenResourceError)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()
        for use in (ControlClient(path).get("/v1/status"), lines(path)):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(anyio.to_thread.run_sync, answer_once, server, answer)
                with pytest.raises(wrong):
                    await use


async def lines(path):
    async with ControlClient(path).lines("/v1/events") as told:
        async for _ in told:
            pass


def answer_once(server, answer):
    client, _ = server.accept()
    with client:
        client.recv(65_536)
        client.sendall(answer)


async def test_the_last_word_of_a_killed_node_is_no_end(path):
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()
        head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n{}\n\r\n"
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(anyio.to_thread.run_sync, answer_once, server, head)
            async with ControlClient(path).lines("/v1/events") as told:
                assert await anext(told) == {}
                with pytest.raises(anyio.BrokenResourceError, match="the node has ended"):
                    await anext(told)
