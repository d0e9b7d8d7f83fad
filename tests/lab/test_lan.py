"""Two hosts on one bridge find each other without being told anything, and survive lies."""

from __future__ import annotations

import json
import socket
import struct

import pytest
from isthmus.transports.core.keys import PrivateKey
from isthmus.transports.core.multiaddr import Multiaddr
from isthmus.transports.core.peer_id import PeerId
from isthmus.transports.lan.wire import encode_text

FIRST = 1.0
"""Seconds from a node's start to its connection to one that is there."""
AT_ONCE = 2.0
"""Seconds from the start of two programs to their connection."""


def connected(program, peer):
    """Wait for the connection to a peer and return when it stood."""
    return program.event("connection_opened", peer=peer.peer_id)["time"]


@pytest.mark.timeout(110)
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_node_finds_the_one_that_is_there(pair, start, scaled, backend):
    near, far = pair
    there = start(near, "--backend", backend)
    assert there.peer_id
    times = []
    for _ in range(scaled(20)):
        came = start(far, "--backend", backend)
        begin = came.event("listening")["time"]
        times.append(max(connected(came, there), connected(there, came)) - begin)
        assert came.stop() == 0
        assert [line for line in came.errors if "no IPv6" not in line] == []
    print(f"\n{backend}: to the one that is there, at most {max(times):.3f} s")  # noqa: T201
    assert max(times) < FIRST


@pytest.mark.timeout(110)
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_two_that_start_at_once(pair, start, scaled, backend):
    times = []
    for _ in range(scaled(20)):
        both = [start(host, "--backend", backend) for host in pair]
        end = max(connected(both[0], both[1]), connected(both[1], both[0]))
        times.append(end - both[0].started)
        assert [each.stop() for each in both] == [0, 0]
    print(f"\n{backend}: two at once, at most {max(times):.3f} s")  # noqa: T201
    assert max(times) < AT_ONCE


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_an_id_is_enough_to_ping(lab, pair, start, backend):
    near, far = pair
    there = start(near)
    ping = start(far, there.peer_id, "-c", "1", "--backend", backend, command="ping")
    lab.until(lambda: ping.lines, timeout=10, what="an answer")
    assert json.loads(ping.lines[0])["peer_id"] == there.peer_id
    assert there.events("peer_found") == [], "who only asks is not announced"
    nobody = str(PeerId.from_public_key(PrivateKey.generate().public_key))
    ping = start(far, nobody, "--backend", backend, command="ping", json_lines=False)
    lab.until(lambda: ping.errors, timeout=10, what="a complaint")
    assert "nobody on the LAN says that it is" in ping.errors[0]


@pytest.mark.parametrize("policy", ["public", "relay-only"])
def test_who_keeps_its_private_addresses_to_itself_finds_and_is_not_found(
    pair, start, tmp_path, policy
):
    near, far = pair
    file = tmp_path / "shy.toml"
    file.write_text(f'privacy.addresses = "{policy}"')
    other = start(far)
    assert other.peer_id
    shy = start(near, "--config", str(file))
    connected(shy, other)
    identified = other.event("peer_identified", peer=shy.peer_id)
    assert identified["addresses"] == []
    assert other.events("peer_found") == []
    assert any(str(near.ip) in each for each in shy.event("listening")["addresses"])


@pytest.mark.timeout(60)
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_an_interface_that_goes_and_comes(lab, pair, home, start, backend):
    near, far = pair
    first = start(near, "--backend", backend)
    assert first.peer_id
    near.link.cut()
    lab.wait(3)  # longer than it takes to see it
    second = start(far, "--backend", backend)
    assert second.peer_id
    lab.wait(1)
    assert first.events("peer_found") == []
    near.link.restore()
    connected(first, second)
    assert [line for line in first.errors if "no IPv6" not in line] == []


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_an_interface_that_was_not_there(lab, pair, start, backend):
    near, far = pair
    near.link.cut()
    lab.wait(0.5)
    first = start(near, "--backend", backend)
    second = start(far, "--backend", backend)
    assert first.peer_id
    near.link.restore()
    connected(first, second)


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_forged_announcement_costs_one_refused_handshake(lab, pair, home, start, backend):
    _, far = pair
    victim, other = (start(host, "--backend", backend) for host in pair)
    connected(victim, other)
    nobody = str(PeerId.from_public_key(PrivateKey.generate().public_key))
    port = Multiaddr.parse(other.event("listening")["addresses"][0]).port
    forged = Multiaddr.parse(f"/ip4/{far.ip}/tcp/{port}/p2p/{nobody}")
    lab.add_host("liar", home)
    announce(lab.host("liar"), encode_text([forged]))
    reason = victim.event("dial_failed", peer=nobody)["reason"]
    assert reason.count(f"expected peer {nobody}, but {other.peer_id} answered") == 1
    lab.wait(2.5)
    assert len(victim.events("dial_failed")) == 1
    assert victim.events("connection_ended") == []
    assert len(victim.events("connection_opened")) == 1


def test_a_flood_of_announcements_is_bounded(lab, pair, home, start):
    near, _ = pair
    victim = start(near)
    assert victim.peer_id
    liar = lab.add_host("liar", home)

    def forged(count):
        places = [f"/ip4/{liar.ip}/tcp/9/p2p/{forged_id()}" for _ in range(count)]
        return b"".join(encode_text([Multiaddr.parse(each)]) for each in places)

    # It listens for announcements a little later than for peers.
    first = forged(1)
    lab.until(lambda: announce(liar, first) or victim.events("peer_found"), what="the first one")
    for _ in range(10):
        announce(liar, forged(20))
    lab.until(lambda: len(victim.events("peer_found")) == 60, timeout=5, what="the bound")
    lab.wait(2)
    assert len(victim.events("peer_found")) == 60
    assert len(victim.events("dial_failed")) <= 8 * 10


def forged_id():
    return PeerId.from_public_key(PrivateKey.generate().public_key)


@pytest.mark.parametrize("how", ["interface", "filter"])
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_without_multicast_it_says_so_in_one_line(lab, pair, start, backend, how):
    near, _ = pair
    if how == "interface":
        near.run(["ip", "link", "set", "eth0", "multicast", "off"])
    else:
        near.nft(
            "table inet deaf {\nchain in {\ntype filter hook input priority 0;\n"
            "udp dport 5353 drop\n}\n}\n"
        )
    deaf = start(near, "--backend", backend, json_lines=False)
    lab.until(lambda: "no multicast" in "".join(deaf.lines), timeout=8, what="the line")
    lab.wait(1)
    assert sum("LAN: no multicast on eth0" in line for line in deaf.lines) == 1
    assert deaf.stop() == 0
    assert [line for line in deaf.errors if "no IPv6" not in line] == []


def announce(host, text):
    """Send a response of mDNS with one TXT record, as somebody on the host's LAN."""
    name = b"\x04liar\x04_p2p\x04_udp\x05local\0"
    record = name + struct.pack("!HHIH", 16, 0x8001, 120, len(text)) + text
    packet = struct.pack("!6H", 0, 0x8400, 0, 1, 0, 0) + record
    with host.socket() as sock:
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(host.ip))
        sock.sendto(packet, ("224.0.0.251", 5353))
