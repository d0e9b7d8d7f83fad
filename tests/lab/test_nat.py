"""NAT kinds behave as RFC 4787 names them, and holes can be punched where they should."""

from __future__ import annotations

import natlab
import pytest

INDEPENDENT = "endpoint-independent"


@pytest.mark.parametrize(
    ("kind", "mapping", "filtering"),
    [
        ("full-cone", INDEPENDENT, INDEPENDENT),
        ("address-restricted", INDEPENDENT, "address"),
        ("port-restricted", INDEPENDENT, "address+port"),
        ("symmetric", "address-dependent", "address+port"),
    ],
)
def test_each_kind_maps_and_filters_as_named(lab, kind, mapping, filtering):
    servers = lab.add_host("first"), lab.add_host("second")
    client = lab.add_host("client", lab.add_nat("home", kind))
    seen = natlab.classify(client, *servers)
    assert (seen.mapping, seen.filtering) == (mapping, filtering)
    assert seen.external is not None
    assert seen.external[0] == lab.router("home").ip
    assert seen.keeps_port is (kind == "port-restricted")


def test_without_a_nat_nothing_is_translated(lab):
    servers = lab.add_host("first"), lab.add_host("second")
    routed = lab.add_host("routed", lab.add_nat("office", "routed"))
    seen = natlab.classify(routed, *servers)
    assert (seen.mapping, seen.filtering) == (INDEPENDENT, INDEPENDENT)
    assert seen.external is not None
    assert seen.external[0] == routed.ip


def test_two_hosts_of_one_lan_on_one_port_get_mappings_of_their_own(lab):
    server, home = lab.add_host("server"), lab.add_nat("home")
    hosts = lab.add_host("a", home), lab.add_host("b", home)
    with (
        server.socket() as seen_by,
        hosts[0].socket(port=4001) as a,
        hosts[1].socket(port=4001) as b,
    ):
        assert natlab.mapped_address(a, seen_by) != natlab.mapped_address(b, seen_by)


def test_no_kind_hairpins(lab):
    server, home = lab.add_host("server"), lab.add_nat("home", "full-cone")
    hosts = lab.add_host("a", home), lab.add_host("b", home)
    with server.socket() as seen_by, hosts[0].socket() as a, hosts[1].socket() as b:
        outside = natlab.mapped_address(a, seen_by)
        assert outside is not None
        assert not natlab.reaches(b, outside, a)


def test_keep_port_is_apart_from_the_kind(lab):
    servers = lab.add_host("first"), lab.add_host("second")
    client = lab.add_host("client", lab.add_nat("home", "port-restricted", keep_port=False))
    seen = natlab.classify(client, *servers)
    assert (seen.mapping, seen.filtering) == (INDEPENDENT, "address+port")
    assert seen.keeps_port is False


def test_udp_timeout_closes_the_hole(lab):
    server = lab.add_host("server")
    client = lab.add_host("client", lab.add_nat("home", udp_timeout=1))
    with server.socket() as outside, client.socket() as inside:
        mapped = natlab.mapped_address(inside, outside)
        assert mapped is not None
        assert natlab.reaches(outside, mapped, inside)
        lab.wait(2.2)  # the kernel's timers have a second's grain
        assert not natlab.reaches(outside, mapped, inside)


def _punching_pair(lab, kind_a, kind_b, **options):
    server = lab.add_host("server")
    hosts = [
        lab.add_host(f"host-{name}", lab.add_nat(f"nat-{name}", kind, **options))
        for name, kind in (("a", kind_a), ("b", kind_b))
    ]
    return *hosts, server


def test_udp_punches_between_port_restricted_nats(lab):
    assert natlab.udp_punch(*_punching_pair(lab, "port-restricted", "port-restricted")) is not None


def test_udp_does_not_punch_from_port_restricted_to_symmetric(lab):
    pair = _punching_pair(lab, "port-restricted", "symmetric")
    assert natlab.udp_punch(*pair, rounds=10) is None


def test_udp_punches_through_a_nat_behind_a_nat(lab):
    a, b, server = _punching_pair(lab, "port-restricted", "address-restricted")
    a.move(lab.add_nat("inner", upstream="nat-a"))
    assert natlab.udp_punch(a, b, server) is not None


def test_udp_punching_fails_where_the_router_itself_takes_uninvited_packets(lab):
    pair = _punching_pair(lab, "port-restricted", "port-restricted", unsolicited="accept")
    assert natlab.udp_punch(*pair, rounds=10) is None


def test_tcp_opens_simultaneously_between_port_restricted_nats(lab):
    a, b, server = _punching_pair(lab, "port-restricted", "port-restricted")
    for host in (a, b):
        host.link.shape(delay=20)
    punch = natlab.tcp_punch(a, b, server, listen=False)
    assert punch.seconds is not None
    assert punch.attempts >= 2


def test_tcp_punches_though_one_side_is_late(lab):
    pair = _punching_pair(lab, "port-restricted", "port-restricted")
    assert natlab.tcp_punch(*pair, skew=0.3).seconds is not None


def test_an_unknown_kind_is_refused():
    with pytest.raises(ValueError, match="NAT kind"):
        natlab.Nat(kind="conical")


def test_an_unknown_firewall_is_refused(lab):
    with pytest.raises(ValueError, match="no firewall is called"):
        lab.add_host("host").firewall("brick")
