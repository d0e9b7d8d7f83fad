"""Cut cables, moves between networks, forgotten mappings and firewalls."""

from __future__ import annotations

import errno
import socket

import natlab
import pytest


@pytest.fixture
def ends(lab):
    """A host behind a NAT and a public server, with a UDP socket each."""
    server = lab.add_host("server")
    host = lab.add_host("host", lab.add_nat("home"))
    with host.socket() as inside, server.socket() as outside:
        yield host, server, inside, outside


def _carrier(host):
    return host.run(["cat", "/sys/class/net/eth0/operstate"]).stdout.strip()


@pytest.mark.parametrize("is_shaped", [False, True])
@pytest.mark.parametrize(("silent", "state"), [(False, "down"), (True, "up")])
def test_a_cut_stops_traffic_until_it_is_restored(lab, ends, silent, state, is_shaped):
    host, _, inside, outside = ends
    if is_shaped:
        host.link.shape(delay=1)
    assert natlab.echoes(inside, outside)
    host.link.cut(silent=silent)
    # Carrier events take up to a second, in both directions.
    lab.until(lambda: _carrier(host) == state, timeout=3)
    assert not natlab.echoes(inside, outside, timeout=0.2)
    host.link.restore()
    lab.until(lambda: natlab.echoes(inside, outside, timeout=0.05), timeout=5)


def test_a_flush_closes_the_hole(lab, ends):
    _, _, inside, outside = ends
    mapped = natlab.mapped_address(inside, outside)
    assert natlab.reaches(outside, mapped, inside)
    lab.router("home").flush()
    assert not natlab.reaches(outside, mapped, inside)
    assert natlab.mapped_address(inside, outside) == mapped


def test_a_flush_changes_the_mapping_of_a_symmetric_nat(lab, ends):
    _, _, inside, outside = ends
    home = lab.router("home")
    home.set_nat("symmetric")
    home.flush()
    before = natlab.mapped_address(inside, outside)
    home.flush()
    assert not any(f"dport={outside.getsockname()[1]}" in flow for flow in home.flows())
    assert natlab.mapped_address(inside, outside) != before


def test_a_move_brings_another_address_and_kills_the_old_sockets(lab, ends):
    host, server, inside, outside = ends
    old = host.ip
    host.move("home", "10.0.1.77")
    assert host.ip == "10.0.1.77" != old
    assert not natlab.echoes(inside, outside, timeout=0.2)
    host.move("public")
    assert host.network.name == "public"
    with host.socket() as moved:
        assert natlab.echoes(moved, outside)
    names = server.run(["getent", "hosts", "host"]).stdout.split()
    assert names[0] == host.ip


def test_a_router_can_get_another_public_address(lab, ends):
    _, _, inside, outside = ends
    home = lab.router("home")
    old = home.ip
    home.move("public")
    mapped = natlab.mapped_address(inside, outside)
    assert mapped is not None
    assert mapped[0] == home.ip != old


def test_another_provider_is_reached_and_the_rest_of_the_world_refuses(lab):
    host = lab.add_host("host")
    lab.add_network("isp2", "11.0.2.0/24")
    far = lab.add_host("far", "isp2")
    with host.socket() as a, far.socket() as b:
        assert natlab.echoes(a, b)
    with host.socket(socket.SOCK_STREAM) as client:
        client.settimeout(2)
        assert client.connect_ex(("8.8.8.8", 53)) == errno.EHOSTUNREACH


def _tcp_connects(client, server, port):
    with server.socket(socket.SOCK_STREAM, port, reuse=True) as listener:
        listener.listen()
        with client.socket(socket.SOCK_STREAM) as dialer:
            dialer.settimeout(0.3)
            return dialer.connect_ex((server.ip, port)) == 0


def test_web_only_passes_new_connections_to_web_ports_alone(lab, ends):
    host, server, inside, outside = ends
    lab.router("home").firewall("web-only")
    lab.router("home").flush()
    assert not natlab.echoes(inside, outside, timeout=0.2)
    assert _tcp_connects(host, server, 80)
    assert _tcp_connects(host, server, 443)
    assert not _tcp_connects(host, server, 4001)
    lab.router("home").firewall()
    assert natlab.echoes(inside, outside)
    assert _tcp_connects(host, server, 4001)


@pytest.mark.parametrize("wall", ["block-udp", "reject-udp"])
def test_blocked_udp_stops_live_flows_and_leaves_tcp(lab, ends, wall):
    host, server, inside, outside = ends
    assert natlab.echoes(inside, outside)
    lab.router("home").firewall(wall)
    assert not natlab.echoes(inside, outside, timeout=0.2)
    assert _tcp_connects(host, server, 4001)


def test_a_host_behind_its_own_firewall_sends_without_an_error(lab):
    host, other = lab.add_host("host", firewall=["block-udp"]), lab.add_host("other")
    with host.socket() as ours, other.socket() as theirs:
        assert ours.sendto(b"lost", theirs.getsockname()) == 4
        assert not natlab.echoes(ours, theirs, timeout=0.2)
    assert _tcp_connects(host, other, 4001)


def test_block_all_inbound_answers_what_the_host_asked_for(lab):
    host, other = lab.add_host("host", firewall=["block-all-inbound"]), lab.add_host("other")
    with host.socket() as ours, other.socket() as theirs:
        assert natlab.echoes(ours, theirs)
        with other.socket() as stranger:
            assert not natlab.reaches(stranger, ours.getsockname(), ours)
    assert not _tcp_connects(other, host, 4001)


def test_multicast_passes_a_lan_and_no_router(lab):
    home, other = lab.add_nat("home"), lab.add_nat("other")
    a, b, stranger = lab.add_host("a", home), lab.add_host("b", home), lab.add_host("c", other)
    assert natlab.multicast_reaches(a, b)
    assert natlab.multicast_reaches(a, b, ("239.1.2.3", 5000))
    assert not natlab.multicast_reaches(a, stranger)
    a.link.shape(delay=5)
    assert natlab.multicast_reaches(a, b)
