"""Behind a firewall that lets out nothing but the web, a peer is reached over TLS on port 443."""

from __future__ import annotations

import time
from functools import partial

import pytest
from isthmus.node.api import SOCKET_FILE
from isthmus.node.api.client import ControlClient
from isthmus.node.run import run

from ..transports.websocket.authority import Authority

QUICK = 1.5
"""Seconds for a connection. The plan gives TCP, which is dropped, a quarter of a second's start."""


@pytest.fixture
def walled(lab, tmp_path):
    """A host behind a `web-only` firewall, the options of a node there, and a public server's."""
    server = lab.add_host("server")
    client = lab.add_host("client", lab.add_nat("office", firewall=["web-only"]))
    authority = Authority(tmp_path)
    files = authority.issue(server.ip)
    config = tmp_path / "walled.toml"
    config.write_text(f'[websocket]\nca_file = "{authority.ca_file}"\n')
    serve = ["--tls-cert", str(files.cert_file), "--tls-key", str(files.key_file), "--no-lan"]
    for place in ("tcp/4001", "tcp/443/tls/ws"):
        serve += ["--listen", f"/ip4/{server.ip}/{place}"]
    listen = ["--no-lan", "--listen", f"/ip4/{client.ip}/tcp/0", "--config", str(config)]
    return client, listen, server, serve


def connect(node, to):
    """Have a node connect to one of several addresses, or to an id; return how and how fast."""
    client = ControlClient(node.directory / SOCKET_FILE)
    began = time.monotonic()
    made = run(partial(client.post, "/v1/connect", {"to": to}))
    return made["connection"]["address"], time.monotonic() - began


def outcomes(node, peer):
    """Return what became of each address in the last dial."""
    steps = node.ask("why", peer)["steps"]
    return {step["address"].partition("/p2p/")[0]: step["outcome"] for step in steps}


@pytest.mark.timeout(60)
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_peer_is_reached_on_443_though_its_tcp_port_is_not(walled, start, backend):
    client, listen, server, serve = walled
    peer = start(server, *serve, "--backend", backend)
    addresses = peer.event("listening")["addresses"]
    tcp, websocket = f"/ip4/{server.ip}/tcp/4001", f"/ip4/{server.ip}/tcp/443/tls/ws"
    assert [each.partition("/p2p/")[0] for each in addresses] == [tcp, websocket]
    node = start(client, *listen, "--backend", backend)
    node.event("listening")
    way, first = connect(node, addresses)
    assert way == websocket
    assert outcomes(node, peer.peer_id) == {tcp: "cancelled", websocket: "connected"}
    node.event("peer_identified", peer=peer.peer_id)
    assert node.stop() == 0
    # Again by its id alone: both addresses are remembered, of which one leads nowhere.
    node = start(client, *listen, "--backend", backend, directory=node.directory)
    node.event("listening")
    way, again = connect(node, peer.peer_id)
    assert way == websocket
    assert set(outcomes(node, peer.peer_id)) <= {tcp, websocket}
    print(f"\n{backend}: through a web-only firewall {first:.3f} s, {again:.3f} s")  # noqa: T201
    assert max(first, again) < QUICK
    assert node.events("dial_failed") == []


@pytest.mark.timeout(60)
def test_the_firewall_is_what_keeps_tcp_out(walled, lab, start):
    client, listen, server, serve = walled
    lab.router("office").firewall()
    peer = start(server, *serve)
    node = start(client, *listen)
    node.event("listening")
    way, _ = connect(node, peer.event("listening")["addresses"])
    assert way == f"/ip4/{server.ip}/tcp/4001"
