"""`isthmus why`: each way in which a dial can fail names phase, duration, cause and hint."""

from __future__ import annotations

import json
import os
import socket
import sys
from contextlib import contextmanager

import anyio
import pytest
from isthmus import Node, NodeConfig
from isthmus.node.config import LimitsConfig
from isthmus.node.run import run

from ..transports.websocket.authority import Authority

LOOPBACK = "/ip4/127.0.0.1/tcp/0"
STRANGER = "12D3KooWGJAmQyRkvK6Cf7Jr3zhMmtLX2Q8d2hKS9sMLUFWEPTpo"


def ask(isthmus, *arguments, **options):
    """Return the report, and the only step of it."""
    done = isthmus("why", *arguments, "--json", **options)
    assert (done.code, done.err) == (1, "")
    report = json.loads(done.out)
    assert report["connected"] is False
    assert report["error"]
    (step,) = report["steps"]
    assert step["outcome"] == "failed"
    assert 0 <= step["started_ms"] <= report["duration_ms"]
    assert 0 <= step["duration_ms"] <= report["duration_ms"]
    return report, step


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


@contextmanager
def black_hole():
    """A port whose backlog is full, so that the kernel drops whatever else comes."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(0)
        waiting = [socket.socket() for _ in range(4)]
        for each in waiting:
            each.setblocking(False)
            each.connect_ex(server.getsockname())
        try:
            yield f"/ip4/127.0.0.1/tcp/{server.getsockname()[1]}"
        finally:
            for each in waiting:
                each.close()


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_peer_that_is_reached(isthmus, peer, backend):
    report = isthmus("why", peer, "--json", "--backend", backend).json()
    assert report["connected"] is True
    assert report["error"] is report["hint"] is None
    assert report["peer_id"] == peer.rpartition("/")[2]
    (step,) = report["steps"]
    assert step["outcome"] == "connected"
    assert step["rank"] == "direct"
    lines = isthmus("why", peer).out.splitlines()
    assert lines[0] == peer
    assert lines[1].startswith("  connected after ")
    assert lines[2].startswith(f"connected to {report['peer_id']} in ")


def test_a_refused_port(isthmus):
    address = f"/ip4/127.0.0.1/tcp/{free_port()}"
    _, step = ask(isthmus, address)
    assert step["address"] == address
    assert step["phase"] == "connect"
    assert "Connection refused" in step["cause"]
    assert step["hint"] == "nothing listens there"
    done = isthmus("why", address)
    assert (done.code, done.err) == (1, "")
    assert "failed in the phase 'connect' after " in done.out
    assert "  hint: nothing listens there" in done.out
    assert done.out.splitlines()[-1].startswith("no connection after ")


def test_a_black_hole(isthmus):
    with black_hole() as address:
        report, step = ask(isthmus, address, "--timeout", "0.3")
    assert step["phase"] == "connect"
    assert "no connection within 0.3 s" in step["cause"]
    assert "firewall" in step["hint"]
    assert 300 <= step["duration_ms"] <= report["duration_ms"]


def test_another_peer_id(isthmus, peer):
    address, _, actual = peer.rpartition("/p2p/")
    _, step = ask(isthmus, f"{address}/p2p/{STRANGER}")
    assert step["phase"] == "handshake"
    assert step["cause"] == f"expected peer {STRANGER}, but {actual} answered"
    assert "is the address old?" in step["hint"]


def test_a_certificate_that_nobody_vouches_for(isthmus, tmp_path):
    files = Authority(tmp_path).issue()
    tls = ("--tls-cert", str(files.cert_file), "--tls-key", str(files.key_file))
    served = isthmus.start("run", "--json", "--ephemeral", "--listen", f"{LOOPBACK}/tls/ws", *tls)
    _, step = ask(isthmus, served.address())
    assert step["phase"] == "tls"
    assert "certificate is refused" in step["cause"]
    assert step["hint"]


def test_no_libp2p_there(isthmus):
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"/ip4/127.0.0.1/tcp/{server.getsockname()[1]}"
        call = isthmus.start("why", address, "--json")
        accepted, _ = server.accept()
        with accepted:
            accepted.sendall(b"SSH-2.0-OpenSSH_9.2\r\n")
            accepted.recv(1024)
        done = call.finish()
    (step,) = json.loads(done.out)["steps"]
    assert step["phase"] != "connect"
    assert "libp2p" in step["hint"]


def test_no_transport(isthmus):
    _, step = ask(isthmus, "/ip4/127.0.0.1/udp/4001")
    assert step["phase"] == "address"
    assert "no transport of this node" in step["cause"]
    assert "looks like /ip4/" in step["hint"]


def test_a_name_that_is_none(isthmus, offline):
    _, step = ask(isthmus, "/dns4/nobody.invalid/tcp/4001", prefix=offline)
    assert step["phase"] == "resolve"
    assert step["hint"]


def test_a_peer_that_is_full(tmp_path):
    async def call():
        config = NodeConfig(limits=LimitsConfig(connections=1))
        async with Node(listen=LOOPBACK, config=config) as full, Node() as first:
            await first.connect(full.addresses)
            argv = [sys.executable, "-m", "isthmus", "why", str(full.addresses[0]), "--json"]
            environment = os.environ | {"ISTHMUS_DATA_DIR": str(tmp_path)}
            with anyio.fail_after(10):
                return await anyio.run_process(argv, env=environment, check=False)

    done = run(call)
    report = json.loads(done.stdout)
    assert done.returncode == 1
    assert "as soon as it stood" in report["error"]
    assert "limits.connections" in report["hint"]


def test_a_peer_that_is_offline(isthmus, offline):
    report, step = ask(isthmus, STRANGER, "--timeout", "5", prefix=offline)
    assert report["peer_id"] == STRANGER
    assert step["address"] == f"/p2p/{STRANGER}"
    assert "nobody on the LAN says that it is" in step["cause"]
    assert step["hint"]
