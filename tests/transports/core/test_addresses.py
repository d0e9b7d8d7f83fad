"""Classes of addresses."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from isthmus.transports.core.addresses import AddressClass, classify, classify_ip
from isthmus.transports.core.keys import PrivateKey
from isthmus.transports.core.multiaddr import Multiaddr
from isthmus.transports.core.peer_id import PeerId

PEER = PeerId.from_public_key(PrivateKey.from_seed(b"\x01" * 32).public_key)

IPV4 = {
    AddressClass.UNSPECIFIED: ["0.0.0.0"],
    AddressClass.LOOPBACK: ["127.0.0.1", "127.255.255.255"],
    AddressClass.LINK_LOCAL: ["169.254.1.1"],
    AddressClass.PRIVATE: ["10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.255.255"],
    AddressClass.SHARED: ["100.64.0.0", "100.127.255.255"],
    AddressClass.MULTICAST: ["224.0.0.251", "239.255.255.255"],
    AddressClass.RESERVED: [
        "0.0.0.1",
        "192.0.0.8",
        "192.0.2.1",
        "192.88.99.1",
        "198.18.0.1",
        "198.51.100.1",
        "203.0.113.1",
        "240.0.0.1",
        "255.255.255.255",
    ],
    AddressClass.PUBLIC: [
        "1.1.1.1",
        "9.255.255.255",
        "100.63.255.255",
        "100.128.0.0",
        "172.15.255.255",
        "172.32.0.0",
        "192.0.1.0",
        "223.255.255.255",
    ],
}
IPV6 = {
    AddressClass.UNSPECIFIED: ["::"],
    AddressClass.LOOPBACK: ["::1"],
    AddressClass.LINK_LOCAL: ["fe80::1", "febf::1"],
    AddressClass.PRIVATE: ["fc00::1", "fdff::1", "64:ff9b:1::1"],
    AddressClass.MULTICAST: ["ff02::fb"],
    AddressClass.RESERVED: [
        "::2",
        "::127.0.0.1",
        "100::1",
        "2001::1",
        "2001:db8::1",
        "3fff::1",
        "4000::1",
        "5f00::1",
        "fec0::1",
    ],
    AddressClass.PUBLIC: ["2606:4700::1111", "2001:4860::8888", "3ffe:ffff::1"],
}
OTHERS = {
    "/memory/1": AddressClass.PROCESS_LOCAL,
    "/unix/tmp/socket": AddressClass.PROCESS_LOCAL,
    "/dns4/a.example/tcp/443/tls/ws": AddressClass.DNS,
    "/dnsaddr/a.example": AddressClass.DNS,
    "/dns/notlocalhost/tcp/1": AddressClass.DNS,
    "/dns/LocalHost/tcp/1": AddressClass.LOOPBACK,
    "/dns6/a.localhost./tcp/1": AddressClass.LOOPBACK,
    "/ip6zone/eth0/ip6/fe80::1/tcp/1": AddressClass.LINK_LOCAL,
    f"/ip4/127.0.0.1/tcp/1/p2p/{PEER}/p2p-circuit": AddressClass.RELAYED,
    f"/p2p/{PEER}": AddressClass.UNKNOWN,
    "/webrtc": AddressClass.UNKNOWN,
}
CASES = [(ip, kind) for table in (IPV4, IPV6) for kind, ips in table.items() for ip in ips]


@pytest.mark.parametrize(("ip", "kind"), CASES)
def test_ip_addresses(ip, kind):
    address = ipaddress.ip_address(ip)
    assert classify_ip(address) is kind
    assert classify(Multiaddr.parse(f"/ip{address.version}/{ip}/tcp/1")) is kind


@pytest.mark.parametrize(("text", "kind"), OTHERS.items())
def test_other_addresses(text, kind):
    assert classify(Multiaddr.parse(text)) is kind


@given(st.ip_addresses(v=4) | st.sampled_from([ip for ips in IPV4.values() for ip in ips]))
def test_ipv4_inside_ipv6_counts_as_itself(ip):
    inner = ipaddress.IPv4Address(ip)
    kind = classify_ip(inner)
    for mapping in (f"::ffff:{inner}", f"64:ff9b::{inner}"):
        assert classify_ip(ipaddress.IPv6Address(mapping)) is kind
    six_to_four = 0x2002 << 112 | int(inner) << 80 | 1
    assert classify_ip(ipaddress.IPv6Address(six_to_four)) is kind


@given(st.ip_addresses())
def test_what_we_call_public_python_calls_global(ip):
    if classify_ip(ip) is AddressClass.PUBLIC:
        assert ip.is_global or getattr(ip, "ipv4_mapped", None)
