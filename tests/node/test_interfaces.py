"""A wildcard address stands for the addresses of this machine."""

from __future__ import annotations

import ipaddress
import socket

import pytest
from isthmus.node.interfaces import _by_name, expand_wildcard, interface_addresses
from isthmus.transports.core.multiaddr import Multiaddr


@pytest.mark.parametrize("version", [4, 6])
def test_addresses_are_of_this_machine_with_loopback_last(version):
    found = [ipaddress.ip_address(text) for text in interface_addresses(version)]
    assert all(ip.version == version for ip in found)
    assert [ip.is_loopback for ip in found] == sorted(ip.is_loopback for ip in found)
    family = socket.AF_INET if version == 4 else socket.AF_INET6
    for ip in found:
        with socket.socket(family, socket.SOCK_STREAM) as sock:
            sock.bind((str(ip), 0))
    assert version == 6 or ipaddress.ip_address("127.0.0.1") in found


def test_only_wildcards_are_expanded():
    fixed = Multiaddr.parse("/ip4/192.0.2.1/tcp/1")
    assert expand_wildcard(fixed) == (fixed,)
    expanded = expand_wildcard(Multiaddr.parse("/ip4/0.0.0.0/tcp/4001/ws"))
    assert Multiaddr.parse("/ip4/127.0.0.1/tcp/4001/ws") in expanded
    assert all(address.names == ("ip4", "tcp", "ws") for address in expanded)
    assert len(expand_wildcard(Multiaddr.parse("/ip6/::/tcp/1"))) == len(interface_addresses(6))


def test_without_the_systems_list_the_host_name_must_do():
    assert _by_name(4)[-1] == "127.0.0.1"
    assert _by_name(6)[-1] == "::1"
